"""Will a run fit its devices, and how fast could it be at best?

Compiles the programs of a step for any devices, those of a described topology included, and takes
memory from the compiler.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Compiled

from lcrl import recipes
from lcrl.data.rows import Rows
from lcrl.losses.distillation import TEACHER
from lcrl.mesh import batch_sharding, replicated
from lcrl.policies.experts import CHOSEN, id_dtype
from lcrl.sampling import programs
from lcrl.training.analysis.collectives import sent_bytes
from lcrl.training.analysis.roofline import (
  SIDES,
  Program,
  decode_loops,
  device_bytes,
  flops,
  make_sampler,
  piece_trips,
  shares_prompt,
  traffic,
)
from lcrl.training.distill.table import count
from lcrl.training.pairs.learner import PairLearner
from lcrl.training.rl.learner import REF, SCORE_FIELDS, Learner, make_measure
from lcrl.types import Budget, Pairs, Rollouts

PyTree = Any


def measure(
  model: Learner, *, tokens: float | None = None, compiled: dict[str, Compiled] | None = None
) -> dict[str, Program]:
  """The programs of a step in their order: copy, sample, (measure,) shape, (reference,) update.

  Args:
    model: on any devices; nothing is allocated there.
    tokens: of the longest response in a batch, as long as which all decode; None: the most.
    compiled: what `compile_step` gives; None: it is done here.
  """
  train = model.settings.train
  tokens = train.max_tokens if tokens is None else tokens
  decoding = decode_loops(model, make_sampler(model), tokens)
  ahead = train.steps_ahead and not model.settings.sampling.devices
  found = measured(
    compiled or compile_step(model),
    params=device_bytes(acting(model)),
    state=device_bytes((model.abstract, model.frozen)),
    reference=reference_bytes(model),
    ahead=device_bytes(abstract_batch(model)[1]) if ahead else 0,
    trips={"sample": decoding.trips()} | piece_trips(model),
  )
  computed, read = flops(model, tokens), traffic(model, tokens)
  return {
    name: p._replace(flops=computed.get(name, 0.0), traffic=p.traffic + read.get(name, 0.0))
    for name, p in found.items()
  }


def measure_on_pairs(model: PairLearner) -> dict[str, Program]:
  """The programs of a step on pairs: (reference,) derive, update."""
  s = model.settings
  params = device_bytes(acting(model))
  frozen = "ref" in model.stage.needs and s.built["reference"]["fn"] == "frozen"
  return measured(
    compile_on_pairs(model),
    params=params,
    state=device_bytes((model.abstract, model.frozen)),
    reference=params if frozen else 0,
    trips={},
  )


def measured(
  compiled: dict[str, Compiled],
  *,
  params: int,
  state: int,
  reference: int,
  trips: Mapping[str, Sequence[float]],
  ahead: int = 0,
) -> dict[str, Program]:
  """What the compiler says of each program, without operations, and with the traffic of arguments
  and results alone.

  Args:
    compiled: the programs.
    params: bytes of the policy's parameters on a device, as are the others.
    state: of the training state and the base below adapters.
    reference: of a frozen second copy of the policy, and of teachers.
    ahead: of rollouts that lie there during the update, beside the sampler's copy.
    trips: those of the loops of a program, by its name.
  """
  used = {
    "copy": params,
    "measure": params,
    "reference": params,
    "teacher": params,
    "update": state,
  }
  found = {}
  for name, program in compiled.items():
    memory: Any = program.memory_analysis()
    moved = memory.argument_size_in_bytes + memory.output_size_in_bytes
    sent = sent_bytes(program.as_text() or "", trips=trips.get(name, ()))
    found[name] = Program(
      arguments=memory.argument_size_in_bytes,
      outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
      temporaries=memory.temp_size_in_bytes,
      beside=state + (0 if name == "reference" else reference) - used.get(name, 0),
      flops=0.0,
      traffic=float(moved),
      sent=sum(sent.values()),
    )
  if ahead:
    found["update"] = _beside(found["update"], ahead + found["copy"].outputs)
  return found


def _beside(program: Program, more: int) -> Program:
  return program._replace(beside=program.beside + more)


def acting(model: Any) -> PyTree:
  """Abstract parameters of the policy, with adapters beside the kernels of their base."""
  if model.settings.lora is None:
    return model.abstract.params
  layers = dict(model.frozen["layers"])
  for name in layers.keys() & model.abstract.params.keys():
    layers[name] = layers[name] | model.abstract.params[name]
  return model.frozen | {"layers": layers}


def reference_bytes(model: Learner) -> int:
  """Of the reference policy if it is a copy, and of the teachers, as if each were of the policy's
  size."""
  params = acting(model)
  held = lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding)
  teachers = count(model.settings.teachers) * device_bytes(jax.tree.map(held, params))
  return teachers + (device_bytes(params) if copies_reference(model) else 0)


def copies_reference(model: Learner) -> bool:
  """Is the reference policy a second copy of the parameters? Below adapters it is their base."""
  return model.needs_reference and model.settings.lora is None


class Compiling:
  """Compiles programs, of which the slow ones in threads: a compiler keeps one core busy."""

  def __init__(self, pool: ThreadPoolExecutor):
    self._pool = pool
    self._started: dict[str, Future[Compiled]] = {}

  def start(self, name: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Lowers here, and compiles in a thread. Returns the lowered program."""
    lowered = function.lower(*args, **kwargs)
    self._started[name] = self._pool.submit(lowered.compile)
    return lowered

  def __call__(self, name: str, function: Any, *args: Any, **kwargs: Any) -> PyTree:
    """What the function returns, without values; waits for the compiler."""
    lowered = self.start(name, function, *args, **kwargs)
    return jax.tree.map(_like, lowered.out_info, self._started[name].result().output_shardings)

  def done(self) -> dict[str, Compiled]:
    return {name: future.result() for name, future in self._started.items()}


def compile_step(model: Learner) -> dict[str, Compiled]:
  """The programs that the loop runs in a step, for the longest prompts and responses."""
  s, params, engine = model.settings, acting(model), make_sampler(model)
  rows, rollouts = abstract_batch(model)
  key = _like(jax.eval_shape(jax.random.key, 0), replicated(model.mesh))
  bucket = programs.Bucket(s.train.max_prompt_tokens, s.train.max_tokens, shares_prompt(model))
  with ThreadPoolExecutor(2) as pool:
    compile_ = Compiling(pool)
    copy = compile_("copy", programs.prepare, engine, params)
    generate = programs.compiled(programs.generate, engine.compiler)
    compile_.start("sample", generate, engine, copy, rows, rollouts.budget, key, bucket)
    if model.measured:
      compile_.start("measure", model.measure, params, rollouts)
    at = {"step": model.abstract.step, "key": key}
    batch, _ = compile_("shape", model.shape, model.abstract.recipe, rollouts, **at)
    if model.needs_reference:
      base = params if model.settings.lora is None else model.frozen
      compile_.start("reference", model.measure, base, rollouts)
      batch = dataclasses.replace(batch, ref_log_probs=rollouts.sampler_log_probs)  # laid out alike
    if model.settings.teachers is not None:
      compile_.start("teacher", make_measure(s, model.policy, model.mesh), params, rollouts)
      scored = batch.rollouts.signals | {TEACHER: rollouts.sampler_log_probs}
      taught = dataclasses.replace(batch.rollouts, signals=scored)
      batch = dataclasses.replace(batch, rollouts=taught)
    state = dataclasses.replace(model.abstract, pending=None)
    compile_.start("update", model.update, state, batch)
    return compile_.done()


def compile_on_pairs(model: PairLearner) -> dict[str, Compiled]:
  """The programs that a step on pairs runs, for a batch of the longest answers.

  Raises:
    ValueError: the loss reads signals of the data, whose shapes only the data tell.
  """
  s, mesh = model.settings, model.mesh
  if unknown := set(model.stage.needs) - {*SCORE_FIELDS, "ref", "weights", "rejected", "scores"}:
    raise ValueError(f"the loss reads {sorted(unknown)} of the data: take --arithmetic.")
  size, window = s.built["batches"]["size"], s.built["data"]["window"]
  at, sides = batch_sharding(mesh), SIDES[s.run]
  array: Any = lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype, sharding=at)
  tokens, numbers = array(jnp.int32, size, sides, window), array(jnp.int32, size, sides)
  pairs = Pairs(
    tokens=tokens,
    mask=array(jnp.bool, size, sides, window),
    lengths=numbers,
    valid=array(jnp.bool, size),
    pair_ids=array(jnp.int32, size),
    scores=array(jnp.float32, size, sides),
    signals={},
  )
  with ThreadPoolExecutor(2) as pool:
    compile_, reference = Compiling(pool), None
    if "ref" in model.stage.needs:
      params = model.frozen if s.lora else model.abstract.params
      compile_.start("reference", model.score, params, pairs)
      reference = array(jnp.float32, size, sides, window)
    batch = compile_("derive", model.derive, pairs, reference, model.abstract.step)
    compile_.start("update", model.make_update(()), model.abstract, batch)
    return compile_.done()


def abstract_batch(model: Learner) -> tuple[Rows, Rollouts]:
  """Shapes and shardings of what the sampler takes and of what it gives."""
  train, at = model.settings.train, batch_sharding(model.mesh)
  prompts, group = train.prompts, train.group_size

  def array(dtype, *more: int, by=(prompts, group)):
    return jax.ShapeDtypeStruct((*by, *more), dtype, sharding=at)

  number, numbers = array(jnp.int32), array(jnp.int32, by=(prompts,))
  tokens = train.max_prompt_tokens + train.max_tokens
  c, chosen = model.policy.config, {}
  if model.settings.sampling.replay:
    chosen = {CHOSEN: array(id_dtype(c.experts), tokens, c.layers, c.experts_per_token)}
  rollouts = Rollouts(
    tokens=array(jnp.int32, tokens),
    mask=array(jnp.bool, tokens),
    sampler_log_probs=array(jnp.float32, tokens),
    lengths=number,
    truncated=array(jnp.bool),
    scores=array(jnp.float32),
    correct=array(jnp.bool),
    outcome=array(jnp.int8),
    valid=array(jnp.bool),
    prompt_ids=numbers,
    difficulty=numbers,
    budget=Budget(number, number, number),
    signals={
      name: array(jnp.float32, tokens) if name in (*SCORE_FIELDS, REF) else number
      for name in recipes.signals(model.recipe)
    }
    | chosen,
  )
  asked = array(jnp.int32, train.max_prompt_tokens)
  return Rows(asked, number, number, numbers, numbers, numbers), rollouts


def _like(x, sharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
