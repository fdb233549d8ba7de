"""Will a run fit its devices, and how fast could it be at best?

Compiles the programs of a step for any devices, those of a described topology included, and takes
memory from the compiler. Floating-point operations and memory traffic are analytic, because a
compiler counts the body of a loop once.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.stages import Compiled

from lcrl import recipes
from lcrl.data.rows import Rows
from lcrl.mesh import batch_sharding, batch_shards, replicated
from lcrl.policies import Config
from lcrl.policies import cache as caches
from lcrl.policies.decoding import KERNELS
from lcrl.sampling import jobs, programs
from lcrl.sampling.engine import Engine
from lcrl.training.analysis.collectives import sent_bytes
from lcrl.training.build import build_engine
from lcrl.training.rl.learner import REF, SCORE_FIELDS, Learner
from lcrl.types import Budget, Rollouts

PyTree = Any
GIB = 2.0**30


class Program(NamedTuple):
  """One compiled program of a step. Bytes are those of one device."""

  arguments: int
  outputs: int  # those that do not take the place of an argument
  temporaries: int
  beside: int  # parameters and optimizer state that lie there while it runs
  flops: float  # of all devices
  traffic: float  # from and to memory, at least
  sent: float  # to other devices

  @property
  def peak(self) -> int:
    return self.arguments + self.outputs + self.temporaries + self.beside


class Chip(NamedTuple):
  """What one device can do, by its data sheet."""

  memory: float  # bytes
  flops: float  # in bfloat16, a second
  bandwidth: float  # bytes of memory a second
  links: float  # bytes to other devices a second

  def seconds(self, program: Program, devices: int) -> float:
    """The roofline: computing, memory and links, each at its peak and all at the same time."""
    computing = program.flops / devices / self.flops
    return max(computing, program.traffic / self.bandwidth, program.sent / self.links)


CHIPS = {  # by device_kind
  "TPU v5 lite": Chip(16 * GIB, 197e12, 819e9, 200e9),
  "TPU v5": Chip(95 * GIB, 459e12, 2765e9, 600e9),
  "TPU v6 lite": Chip(32 * GIB, 918e12, 1640e9, 448e9),
  "TPU7x": Chip(96 * GIB, 1153e12, 3690e9, 600e9),  # a chip of 192 GiB is two devices
  "NVIDIA H100 80GB HBM3": Chip(80 * GIB, 989e12, 3350e9, 450e9),
  "NVIDIA H200": Chip(141 * GIB, 989e12, 4800e9, 450e9),
}


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


def make_sampler(model: Learner) -> Engine:
  """The engine of the run, but for the tokens of its tokenizer."""
  return build_engine(model, model.mesh, end_ids=(0,), pad_id=0)


def shares_prompt(model: Learner) -> bool:
  """Is a prompt read once for its group?"""
  slots = model.settings.sampling.slots
  return slots is None or slots >= model.settings.train.group_size


class Decoding(NamedTuple):
  """The loops of the sampler, on a data shard whose responses are all as long as the longest."""

  waves: int  # how often all slots start anew; without slots, once
  fills: int  # how many parts of the slots do so one after the other; 0: there are no slots
  reads: tuple[tuple[float, float], ...]  # of a wave: tokens, and keys of the response each reads

  def trips(self) -> tuple[float, ...]:
    """How often each loop runs for one run of the loop around it, in the order of the program."""
    tokens = tuple(tokens for tokens, _ in self.reads)
    if not self.fills:
      return tokens
    around = (1.0,) if len(tokens) > 1 else ()
    return (self.waves, self.fills, *around, *tokens)

  def keys(self) -> float:
    """Keys of its response that a row reads."""
    return sum(tokens * keys for tokens, keys in self.reads)


def decode_loops(model: Learner, engine: Engine, tokens: float) -> Decoding:
  """`core.complete`, for responses of so many tokens."""
  train, slots = model.settings.train, engine.slots
  rows = train.prompts * train.group_size // batch_shards(model.mesh)
  size = rows if slots is None else min(slots, rows)
  group = train.group_size if shares_prompt(model) else 1
  if not KERNELS[engine.policy.config.decoding].reads_all_rows_alike:  # a row reads its own keys
    reads = [(tokens, tokens / 2)]
  else:
    ends = (
      jobs.cache_lengths(train.max_tokens)
      if slots is None
      else caches.read_lengths(train.max_tokens)
    )
    reads = [
      (min(max(tokens - least, 0), end - least), end)
      for least, end in itertools.pairwise((0, *ends))
    ]
  fills = 0 if slots is None else max(min(8, size // group), 1)  # an eighth at a time, whole groups
  return Decoding(-(-rows // size), fills, tuple(reads))


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


def flops(model: Learner, tokens: float) -> dict[str, float]:
  """Floating-point operations of all devices. Per token of rows of T, with N weights in the
  matrices of L layers, H heads of size h, D hidden size, F the MLP's, V vocabulary:

    a forward pass   f = 2 N + 4 T H h L      the head   e = 2 D V
    the update       3 f + 4 e + again        3 f + 3 e is the usual 6 N and attention; the head is
                                              computed again going back, and so is what remat drops:
                                              all but the last product, f - 2 D F L
    decoding         f + e                    T is what is read of the cache
    prefill          f                        of the last layer only queries, keys and values; once
                                              a group whose rows share their prompt

  Attention counts the whole square: the XLA back end computes what it masks.
  """
  s, c = model.settings, model.policy.config
  asked, length = s.train.max_prompt_tokens, s.train.max_prompt_tokens + s.train.max_tokens
  rows = s.train.prompts * s.train.group_size
  read = s.train.prompts if shares_prompt(model) else rows
  layer = 2 * layer_weights(c)
  attention = lambda span: 4 * span * c.heads * c.head_dim
  forward = (layer + attention(length)) * c.layers
  head = 2 * c.hidden_size * c.vocab_size
  last = 2 * c.hidden_size * c.mlp_size
  dropped = {"none": 0, "dots": attention(length), "full": layer + attention(length) - last}
  dropped["attention"] = layer - last
  qkv = 2 * c.hidden_size * (c.heads + 2 * c.kv_heads) * c.head_dim
  prefill = (layer + attention(asked)) * (c.layers - 1) + qkv
  coupled = model.recipe.loss.coupled and s.train.micro_batches > 1
  passes = int(coupled) + int(s.train.updates > 1)  # forward only, before the update
  score = rows * length * (forward + head)
  keys = tokens * asked + decode_loops(model, make_sampler(model), tokens).keys()
  decoding = tokens * (layer * c.layers + head) + attention(keys) * c.layers
  again = dropped[c.remat] * c.layers
  return {
    "sample": read * asked * prefill + rows * decoding,
    "measure": score,
    "reference": score,
    "update": rows * length * (3 * forward + 4 * head + again) + passes * score,
  }


def traffic(model: Learner, tokens: float) -> dict[str, float]:
  """Bytes that a device must read besides arguments and results: weights once a pass over a
  micro-batch, and once a token while decoding, as are the keys and values of a response and of a
  prompt: without slots, a prompt that is shared once for its group."""
  s, c, shape = model.settings, model.policy.config, model.mesh.shape
  weights = layer_weights(c) * c.layers + c.hidden_size * c.vocab_size
  width = lambda dtype: jnp.dtype(dtype).itemsize / shape["tensor"]
  passes = s.train.updates * s.train.micro_batches * (2 if c.remat == "none" else 3)
  score = s.train.micro_batches * weights * width(c.dtype)

  engine = make_sampler(model)
  decoding, dtype = decode_loops(model, engine, tokens), engine.policy.config.dtype
  prompts = s.train.prompts / batch_shards(model.mesh)
  rows = prompts * s.train.group_size
  asked = tokens * s.train.max_prompt_tokens * (rows if engine.slots else prompts)
  key = 2 * c.kv_heads * c.head_dim * c.layers * width(engine.cache_dtype or dtype)
  return {
    "sample": decoding.waves * tokens * weights * width(dtype)
    + (asked + rows * decoding.keys()) * key,
    "measure": score,
    "reference": score,
    "update": passes * weights * width(c.dtype),
  }


def layer_weights(c: Config) -> int:
  """Numbers in the matrices of one layer."""
  return c.hidden_size * (2 * (c.heads + c.kv_heads) * c.head_dim + 3 * c.mlp_size)


def device_bytes(tree: PyTree) -> int:
  """Bytes of abstract arrays on one device of their shardings."""
  size = lambda x: math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
  return sum(map(size, jax.tree.leaves(tree)))


def _like(x, sharding) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
