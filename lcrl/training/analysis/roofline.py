"""The roofline of a step: floating-point operations, memory traffic, and what devices can do.

Operations and traffic are analytic, because a compiler counts the body of a loop once. `model` is a
`Learner`, or what `arithmetic.describe` gives for devices that are not here.
"""

from __future__ import annotations

import itertools
import math
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lcrl.mesh import batch_shards
from lcrl.policies import Config
from lcrl.policies import cache as caches
from lcrl.policies.decoding import KERNELS
from lcrl.sampling import jobs
from lcrl.training.build import build_engine

PyTree = Any
GIB = 2.0**30
SQUARE = 2048
SIDES = {"preference": 2, "reward_model": 2, "sft": 1, "iterative": 2}  # answers of a pair


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
  flops: float  # in bfloat16 (T4: float16), a second
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
  "Tesla T4": Chip(15 * GIB, 65e12, 300e9, 16e9),  # 16 GB, of which 15 GiB are left
  "NVIDIA L4": Chip(22.5 * GIB, 121e12, 300e9, 32e9),
  "NVIDIA A100-SXM4-40GB": Chip(40 * GIB, 312e12, 1555e9, 300e9),
  "NVIDIA A100-SXM4-80GB": Chip(80 * GIB, 312e12, 2039e9, 300e9),
  "NVIDIA H100 80GB HBM3": Chip(80 * GIB, 989e12, 3350e9, 450e9),
  "NVIDIA H200": Chip(141 * GIB, 989e12, 4800e9, 450e9),
}


def make_sampler(model: Any) -> Any:
  """The engine of the run, but for the tokens of its tokenizer; or what describes it."""
  if not isinstance(model.mesh, Mesh):
    return model.sampler
  tokenizer = types.SimpleNamespace(end_ids=(0,), pad_id=0, encode=lambda text: [0])
  return build_engine(model, model.mesh, tokenizer)


def shares_prompt(model: Any) -> bool:
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
    turns = max(math.ceil(sum(tokens) / jobs.PAGE), 1)  # in each, rows get pages
    return (self.waves * turns, self.fills / turns, *around, *(n / turns for n in tokens))

  def keys(self) -> float:
    """Keys of its response that a row reads."""
    return sum(tokens * keys for tokens, keys in self.reads)


def decode_loops(model: Any, engine: Any, tokens: float) -> Decoding:
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
      else caches.read_lengths(train.max_prompt_tokens + train.max_tokens)
    )
    asked = 0 if slots is None else train.max_prompt_tokens  # comes before the response in its row
    reads = [
      (max(min(asked + tokens, end) - max(least, asked), 0), end - asked)
      for least, end in itertools.pairwise((0, *ends))
    ]
  fills = 0 if slots is None else max(min(8, size // group), 1)  # an eighth at a time, whole groups
  return Decoding(-(-rows // size), fills, tuple(reads))


def flops(model: Any, tokens: float) -> dict[str, float]:
  """Floating-point operations of all devices. Per token of rows of T, with N weights in the
  matrices of L layers, H heads of size h, D hidden size, F the MLP's, V vocabulary (of experts, N
  and F have those that a token passes):

    a forward pass   f = 2 N + 4 T H h L      the head   e = 2 D V
    the update       3 f + 4 e + again        3 f + 3 e is the usual 6 N and attention; the head is
                                              computed again going back, and so is what remat drops:
                                              all but the last product, f - 2 D F L
    decoding         f + e                    T is what is read of the cache
    prefill          f                        of the last layer only queries, keys and values; once
                                              a group whose rows share their prompt

  Attention counts the whole square in rows of up to SQUARE tokens, where plain attention computes
  what it masks, and half of it in longer ones, which every back end takes in blocks.
  """
  s, c = model.settings, model.policy.config
  asked, length = s.train.max_prompt_tokens, s.train.max_prompt_tokens + s.train.max_tokens
  rows = s.train.prompts * s.train.group_size
  read = s.train.prompts if shares_prompt(model) else rows
  layer = 2 * active_weights(c)
  attention = lambda span: 4 * span * c.heads * c.head_dim
  seen = lambda row: row if row <= SQUARE else row / 2
  rows_attend = attention(seen(length))
  forward = (layer + rows_attend) * c.layers
  head = 2 * c.hidden_size * c.vocab_size
  last = 2 * c.hidden_size * c.active_mlps * c.mlp_size
  dropped = {
    "none": 0,
    "attention": layer - last,
    "dots": rows_attend,
    "full": layer + rows_attend - last,
  }
  qkv = 2 * c.hidden_size * (c.heads + 2 * c.kv_heads) * c.head_dim
  prefill = (layer + attention(seen(asked))) * (c.layers - 1) + qkv
  score = rows * length * (forward + head)
  keys = tokens * asked + decode_loops(model, make_sampler(model), tokens).keys()
  decoding = tokens * (layer * c.layers + head) + attention(keys) * c.layers
  again = dropped[c.remat] * c.layers
  return {
    "sample": read * asked * prefill + rows * decoding,
    "measure": score,
    "reference": score,
    "teacher": score,
    "update": rows * length * (3 * forward + 4 * head + again) + forward_passes(model) * score,
  }


def traffic(model: Any, tokens: float) -> dict[str, float]:
  """Bytes that a device must read besides arguments and results: weights once a pass over a
  micro-batch, and once a token while decoding, as are the keys and values of a response and of a
  prompt: without slots, a prompt that is shared once for its group."""
  s, c, shape = model.settings, model.policy.config, model.mesh.shape
  weights = all_weights(c)
  width = lambda dtype: jnp.dtype(dtype).itemsize / shape["tensor"]
  passes = s.train.updates * most_pieces(model, s.train.updates)
  passes *= 2 if c.remat == "none" else 3
  score = most_pieces(model) * weights * width(c.dtype)

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
    "teacher": score,
    "update": passes * weights * width(c.dtype),
  }


def most_pieces(model: Any, parts: int = 1) -> int:
  """The pieces in which a device takes a part of a batch whose rollouts are as long as can be."""
  train = model.settings.train
  if train.micro_tokens is None:
    return train.micro_batches
  pack = train.pack if isinstance(train.pack, int) else train.micro_tokens
  in_row = pack // (train.max_prompt_tokens + train.max_tokens)
  rows = -(-train.prompts * train.group_size // (parts * in_row * batch_shards(model.mesh)))
  return -(-rows * pack // train.micro_tokens)


def piece_trips(model: Any) -> dict[str, tuple[float, ...]]:
  """How often each loop over pieces of train.micro_tokens runs, in the order of a program."""
  train = model.settings.train
  if train.micro_tokens is None:
    return {}
  once = (most_pieces(model),)
  update = (most_pieces(model, train.updates),) * (1 + forward_passes(model))
  return {"measure": once, "reference": once, "teacher": once, "update": update}


def forward_passes(model: Any) -> int:
  """Passes over the batch before that which the update differentiates."""
  train, loss = model.settings.train, model.recipe.loss
  if train.micro_tokens is None:
    alone = loss.coupled and train.micro_batches > 1
  else:
    alone = loss.coupled or not loss.rowwise
  return int(alone) + int(train.updates > 1)


def layer_weights(c: Config) -> int:
  """Numbers in the matrices of one layer."""
  return active_weights(c) + 3 * c.hidden_size * (c.mlps - c.active_mlps) * c.mlp_size


def active_weights(c: Config) -> int:
  """Numbers in the matrices of one layer that a token is multiplied with: all but those of experts
  that its router does not choose."""
  attention, mlp = 2 * (c.heads + c.kv_heads) * c.head_dim, 3 * c.active_mlps * c.mlp_size
  return c.hidden_size * (attention + mlp + c.experts)


def all_weights(c: Config, *, active: bool = False) -> int:
  """Numbers in the matrices of all layers and of the head; `active`: that a token meets."""
  layer = active_weights(c) if active else layer_weights(c)
  return layer * c.layers + c.hidden_size * c.vocab_size


def device_bytes(tree: PyTree) -> int:
  """Bytes of abstract arrays on one device of their shardings."""
  size = lambda x: math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
  return sum(map(size, jax.tree.leaves(tree)))
