"""Will a run fit its devices, and how fast could it be at best?

Compiles the programs of a step for any devices, those of a described topology included, and takes
memory from the compiler.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Compiled

from lcrl import recipes
from lcrl.data.rows import Rows
from lcrl.mesh import batch_sharding, replicated
from lcrl.sampling import programs
from lcrl.training.analysis.collectives import sent_bytes
from lcrl.training.analysis.roofline import (
  Program,
  decode_loops,
  device_bytes,
  flops,
  make_sampler,
  shares_prompt,
  traffic,
)
from lcrl.training.rl.learner import REF, SCORE_FIELDS, Learner
from lcrl.types import Budget, Rollouts

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
  tokens = model.settings.train.max_tokens if tokens is None else tokens
  params, state = device_bytes(model.abstract.params), device_bytes(model.abstract)
  used = {"copy": params, "measure": params, "reference": params, "update": state}
  frozen = params if model.needs_reference else 0
  decoding = decode_loops(model, make_sampler(model), tokens)
  computed, read = flops(model, tokens), traffic(model, tokens)
  found = {}
  for name, program in (compiled or compile_step(model)).items():
    memory: Any = program.memory_analysis()
    moved = memory.argument_size_in_bytes + memory.output_size_in_bytes
    trips = decoding.trips() if name == "sample" else ()
    found[name] = Program(
      arguments=memory.argument_size_in_bytes,
      outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
      temporaries=memory.temp_size_in_bytes,
      beside=state + (0 if name == "reference" else frozen) - used.get(name, 0),
      flops=computed.get(name, 0.0),
      traffic=moved + read.get(name, 0.0),
      sent=sum(sent_bytes(program.as_text() or "", trips=trips).values()),
    )
  return found


def compile_step(model: Learner) -> dict[str, Compiled]:
  """The programs that the loop runs in a step, for the longest prompts and responses."""
  s, done = model.settings, {}

  def compile_(name: str, function, *args, **kwargs) -> PyTree:
    """What the function returns, without values."""
    lowered = function.lower(*args, **kwargs)
    done[name] = lowered.compile()
    return jax.tree.map(_like, lowered.out_info, done[name].output_shardings)

  engine = make_sampler(model)
  rows, rollouts = abstract_batch(model)
  key = _like(jax.eval_shape(jax.random.key, 0), replicated(model.mesh))
  copy = compile_("copy", programs.prepare, engine, model.abstract.params)
  generate = programs.compiled(programs.generate, engine.compiler)
  bucket = programs.Bucket(s.train.max_prompt_tokens, s.train.max_tokens, shares_prompt(model))
  compile_("sample", generate, engine, copy, rows, rollouts.budget, key, bucket)
  at = {"step": model.abstract.step, "key": key}
  if model.measured:
    compile_("measure", model.measure, model.abstract.params, rollouts)
  batch, _ = compile_("shape", model.shape, model.abstract.recipe, rollouts, **at)
  if model.needs_reference:
    reference = compile_("reference", model.measure, model.abstract.params, rollouts)
    batch = dataclasses.replace(batch, ref_log_probs=reference.log_probs)
  compile_("update", model.update, dataclasses.replace(model.abstract, pending=None), batch)
  return done


def abstract_batch(model: Learner) -> tuple[Rows, Rollouts]:
  """Shapes and shardings of what the sampler takes and of what it gives."""
  train, at = model.settings.train, batch_sharding(model.mesh)
  prompts, group = train.prompts, train.group_size

  def array(dtype, *more: int, by=(prompts, group)):
    return jax.ShapeDtypeStruct((*by, *more), dtype, sharding=at)

  number, numbers = array(jnp.int32), array(jnp.int32, by=(prompts,))
  tokens = train.max_prompt_tokens + train.max_tokens
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
    },
  )
  asked = array(jnp.int32, train.max_prompt_tokens)
  return Rows(asked, number, number, numbers, numbers, numbers), rollouts


def _like(x, sharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
