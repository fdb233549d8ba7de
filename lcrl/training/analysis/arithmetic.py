"""Memory and roofline of a step by arithmetic, for devices that are only described.

Nothing is compiled, so that the answer takes milliseconds and needs no device. Parameters,
optimizer and caches are exact. Of what a pass holds for a while, the constants FORWARD and BACKWARD
say how often the arrays of one layer lie there at the same time. They are fitted to XLA's compiler
for TPUs (`experiments/studies/fit`), and MARGIN of a device is left free for what they miss.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from lcrl import recipes
from lcrl.mesh import AXES, RULES, batch_shards
from lcrl.policies import Config, make, tpu_pages
from lcrl.policies.config import OPTIONS
from lcrl.policies.decoding import KERNELS
from lcrl.policies.experts import id_dtype
from lcrl.policies.lora import adapters
from lcrl.sampling.jobs import PAGE, pages_of
from lcrl.training import optimizers
from lcrl.training.analysis.roofline import (
  GIB,
  SIDES,
  SQUARE,
  Program,
  active_weights,
  all_weights,
  flops,
  layer_weights,
  shares_prompt,
  traffic,
)
from lcrl.training.distill.table import count
from lcrl.training.pairs.losses import named_loss
from lcrl.training.rl.learner import REF, SCORE_FIELDS
from lcrl.training.sections import AUTO, Lora

FORWARD, BACKWARD = 1.5, 3.0
MARGIN = 0.1


class Sampler(NamedTuple):
  """What the roofline reads of an engine."""

  policy: Model
  slots: int | None
  cache_dtype: str | None


class Model(NamedTuple):
  config: Config


class Loss(NamedTuple):
  coupled: bool
  rowwise: bool


class Slots(NamedTuple):
  loss: Loss


@dataclasses.dataclass(frozen=True)
class Described:
  """A run on devices that are only described."""

  settings: Any
  config: Config
  mesh: AbstractMesh
  nvidia: bool
  coupled: bool
  measured: bool  # a stage before the loss reads entropy or its like
  reference: str | None  # None, "shared", "cached" or "frozen"
  micro_tokens: int | None = None  # that a device takes at once; None: as train.micro_batches cuts

  @property
  def policy(self) -> Model:
    return Model(self.config)

  @property
  def recipe(self) -> Slots:
    return Slots(Loss(self.coupled, rowwise=False))

  @property
  def sampler(self) -> Sampler:
    sampling = self.settings.sampling
    config = dataclasses.replace(self.config, dtype=sampling.dtype or self.config.dtype)
    tensor = self.mesh.shape["tensor"]
    if self.nvidia:
      name, able = "triton", config.kv_heads % tensor == 0
    else:
      name, able = "pallas", not tpu_pages.misfit(sampling.slots, sampling.cache_dtype, tensor)
    fused = able and KERNELS[name].refusal(config) is None
    decoding = sampling.decoding or (name if fused else "xla")
    config = dataclasses.replace(config, decoding=decoding)
    return Sampler(Model(config), sampling.slots, sampling.cache_dtype)


def describe(
  settings: Any,
  config: Config,
  mesh: AbstractMesh,
  *,
  nvidia: bool,
  micro_tokens: int | None = None,
) -> Described:
  """The run of these settings with a policy of this shape.

  Args:
    settings: of any kind of run.
    config: the policy.
    mesh: sizes of the axes of `lcrl.mesh.AXES`.
    nvidia: whether the devices run the kernels for NVIDIA.
    micro_tokens: tokens that a device takes at once; None: as the settings say.
  """
  s, micro = settings, micro_tokens or getattr(settings.train, "micro_tokens", None)
  if config.remat == AUTO:  # it chooses itself: what needs least
    config = dataclasses.replace(config, remat="full")
  if s.run == "rl":
    recipe, _ = recipes.from_config(s.slots, updates=s.train.updates)
    signals, kept = recipes.signals(recipe), "frozen" if s.lora is None else "shared"
    needs = "ref" in recipes.needs(recipe) or REF in signals
    measured = any(name in signals for name in SCORE_FIELDS)
    return Described(
      s, config, mesh, nvidia, recipe.loss.coupled, measured, kept if needs else None, micro
    )
  stage, _ = named_loss("preference" if s.run == "iterative" else s.run, s.built)
  reference = s.built["reference"]["fn"] if "ref" in stage.needs else None
  return Described(s, config, mesh, nvidia, stage.coupled, False, reference)


def estimate(model: Described, *, tokens: float | None = None) -> dict[str, Program]:
  """The programs of a step, or of a round and a step, with bytes of one device.

  Args:
    model: the run.
    tokens: of the longest response in a batch, as long as which all decode; None: the most.
  """
  s, m = model.settings, Memory(model)
  beside = m.state + m.reference
  program = lambda arguments, outputs, held, beside, sent=0.0: Program(
    arguments, outputs, held, beside, 0.0, float(arguments + outputs), sent
  )
  found, ahead = {}, 0
  if hasattr(s, "sampling"):
    found["copy"] = program(m.params, m.copy, 0, beside - m.params)
    held = m.cache + m.prompts + m.logits + m.rows
    found["sample"] = program(m.copy, 0, held, beside)
    shared = getattr(s.train, "steps_ahead", 0) and not s.sampling.devices
    ahead = m.copy + m.rows if shared else 0
  scoring = program(m.params, 0, m.score, beside - m.params)
  found |= {"measure": scoring} if model.measured else {}
  found |= {"reference": scoring} if model.reference else {}
  found |= {"teacher": scoring} if getattr(s, "teachers", None) else {}
  found["update"] = program(m.state, 0, m.update, m.reference + ahead, m.sent)
  if s.run != "rl":
    computed, read = {"update": m.flops}, {"update": m.traffic}
  else:
    tokens = s.train.max_tokens if tokens is None else tokens
    computed, read = flops(model, tokens), traffic(model, tokens)
  return {
    name: p._replace(flops=computed.get(name, 0.0), traffic=p.traffic + read.get(name, 0.0))
    for name, p in found.items()
  }


class Memory:
  """Bytes of one device. D hidden size, F the MLP's, N heads, K key heads of size h, L layers."""

  def __init__(self, model: Described):
    self.model, self.s, self.c = model, model.settings, model.config
    self.tensor = model.mesh.shape["tensor"]
    self.item = jnp.dtype(self.c.dtype).itemsize
    self.stored = jnp.dtype(self.s.built["policy"].get("param_dtype") or "float32").itemsize
    self.numbers = _numbers(self.c, model.mesh)
    self.params = self.numbers * self.stored
    self.adapters = _adapters(self.c, self.s.lora) if self.s.lora else 0
    self.trained = self.adapters or self.numbers

  @property
  def state(self) -> int:
    """Parameters, moments, and with adapters these, in float32."""
    moments = _moments(optimizers.from_config(self.s.built["optimizer"]))
    return self.params + 4 * self.adapters + moments * self.trained

  @property
  def reference(self) -> int:
    """The frozen reference, and the teachers in bfloat16, as if each were of the policy's size."""
    teachers = 2 * self.numbers * count(getattr(self.s, "teachers", None))
    return teachers + (self.params if self.model.reference == "frozen" else 0)

  @property
  def copy(self) -> int:
    """The sampler's parameters, split over tensor alone."""
    names = self.model.mesh.axis_names
    alone = AbstractMesh(tuple(self.tensor if name == "tensor" else 1 for name in names), names)
    return _numbers(self.c, alone) * jnp.dtype(self.model.sampler.policy.config.dtype).itemsize

  @property
  def key(self) -> float:
    """Bytes of one position of a row in the cache."""
    sampler = self.model.sampler
    dtype = sampler.cache_dtype or sampler.policy.config.dtype
    scale = 4 / self.c.head_dim if sampler.cache_dtype else 0
    heads = max(self.c.kv_heads // self.tensor, 1)
    return 2 * heads * self.c.head_dim * self.c.layers * (jnp.dtype(dtype).itemsize + scale)

  @property
  def row(self) -> float:
    """Bytes of the pages of a row of full length, its prompt included."""
    train = self.s.train
    return pages_of(train.max_prompt_tokens + train.max_tokens, PAGE) * PAGE * self.key

  @property
  def decoding(self) -> int:
    """Rows of a device that decode at once."""
    slots = self.s.sampling.slots
    return self.sampled if slots is None else min(slots, self.sampled)

  @property
  def sampled(self) -> int:
    """Rows that a device samples at a time."""
    return math.ceil(self.s.train.prompts / batch_shards(self.model.mesh)) * self.group

  @property
  def group(self) -> int:
    """Rows of a prompt."""
    whole_round = getattr(self.s, "round", None)
    return getattr(self.s.train, "group_size", 0) or getattr(whole_round, "group_size", 1)

  @property
  def cache(self) -> int:
    train, sampling = self.s.train, self.s.sampling
    if sampling.slots is None:
      return int(self.decoding * train.max_tokens * self.key)
    return int(min((sampling.cache_gib or math.inf) * GIB, self.decoding * self.row))

  @property
  def prompts(self) -> int:
    """Keys of the prompts that are read at once, and what reading them holds."""
    prompts = math.ceil(self.s.train.prompts / batch_shards(self.model.mesh))
    shared = self.s.run != "rl" or shares_prompt(self.model)
    rows = prompts if shared else self.decoding
    if self.s.sampling.slots is not None:  # an eighth of the slots starts at a time
      rows = math.ceil(self.decoding / 8 / (self.group if shared else 1))
    tokens = rows * self.s.train.max_prompt_tokens
    return int(tokens * (self.key + FORWARD * self._layer()))

  @property
  def logits(self) -> int:
    return 2 * 4 * self.decoding * self.c.vocab_size // self.tensor

  @property
  def rows(self) -> int:
    """Tokens, masks and log-probs of the rollouts, and replayed experts, of which every device has
    all if it takes pieces by tokens."""
    tokens = self.sampled * (self.s.train.max_prompt_tokens + self.s.train.max_tokens)
    if not getattr(self.s.sampling, "replay", False):
      return 9 * tokens
    told = self.c.layers * self.c.experts_per_token * id_dtype(self.c.experts).itemsize
    return 9 * tokens + told * (tokens if self.model.micro_tokens is None else self.batch[0])

  def _layer(self) -> float:
    """Bytes that a token has in one layer: x and its norms, heads, and the MLP's three. Of experts
    each device of a tensor axis has room for all tokens, which are copied, computed and sorted."""
    c = self.c
    heads, mlp = 2 * (c.heads + 2 * c.kv_heads) * c.head_dim / self.tensor, 3 * c.mlp_size
    mlp = c.active_mlps * (mlp + 3 * c.hidden_size) if c.experts else mlp / self.tensor
    return (4 * c.hidden_size + heads + mlp) * self.item

  @property
  def batch(self) -> tuple[int, int]:
    """Tokens of the whole batch that a step trains on, and optimizer updates."""
    s = self.s
    if s.run == "rl":
      length = s.train.max_prompt_tokens + s.train.max_tokens
      return s.train.prompts * s.train.group_size * length, s.train.updates
    window = getattr(s, "window", 0) or s.built["data"]["window"]
    return s.built["batches"]["size"] * SIDES[s.run] * window, 1

  def pieces(self, updates: int) -> int:
    """Pieces of the part of a batch that an update takes."""
    if self.model.micro_tokens is None:
      return self.s.train.micro_batches
    shared = self.batch[0] / batch_shards(self.model.mesh) / updates
    return math.ceil(shared / self.model.micro_tokens)

  def piece(self, updates: int) -> float:
    """Tokens that a device takes at once: at least a packed row."""
    cut = self.batch[0] / (batch_shards(self.model.mesh) * self.pieces(updates) * updates)
    return max(cut, packed_width(self.s)) / self.model.mesh.shape["sequence"]

  @property
  def score(self) -> int:
    return int(FORWARD * self.piece(1) * self._layer() + self._gathered())

  @property
  def update(self) -> int:
    """Kept layers, one layer on its way back, gradients twice (their sum and the change), the cast
    layers, and gathered weights."""
    tokens = self.piece(self.batch[1])
    inputs, layer = tokens * self.c.hidden_size * self.item, tokens * self._layer()
    kept = {
      "full": inputs,
      "attention": inputs + tokens * self.c.heads * self.c.head_dim * self.item / self.tensor,
      "dots": 0.7 * layer,
      "none": 1.5 * layer,
    }[self.c.remat]
    cast = 0 if self.stored == self.item else self.numbers * self.item
    held = kept * self.c.layers + BACKWARD * layer + 2 * 4 * self.trained + cast
    return int(held + self._gathered())

  def _gathered(self) -> float:
    """One layer and the next, the head with its gradient, and an embedding that is not the head."""
    layers = 2 * layer_weights(self.c) * self.item
    table = self.c.hidden_size * self.c.vocab_size
    tables = table * (self.item + (4 if self.c.tied else 8))
    return (layers + tables) / self.tensor if self.model.mesh.shape["fsdp"] > 1 else tables

  @property
  def sent(self) -> float:
    """Weights travel once a pass, gradients once a piece: all-gathers and reduce-scatters."""
    if batch_shards(self.model.mesh) == 1:
      return 0.0
    pieces, passes = self.pieces(self.batch[1]) * self.batch[1], 2
    split = self.model.mesh.shape["fsdp"] > 1
    gradients = 4 * (self.adapters or all_weights(self.c))
    return pieces * (split * passes * all_weights(self.c) * self.item + gradients) / self.tensor

  @property
  def flops(self) -> float:
    """Of an update on pairs: as in `roofline.flops`."""
    tokens, _ = self.batch
    length = getattr(self.s, "window", 0) or self.s.built["data"]["window"]
    seen = length if length <= SQUARE else length / 2
    layer = 2 * active_weights(self.c) + 4 * seen * self.c.heads * self.c.head_dim
    head = 2 * self.c.hidden_size * self.c.vocab_size
    return tokens * ((4 if self.c.remat == "full" else 3) * layer * self.c.layers + 4 * head)

  @property
  def traffic(self) -> float:
    return 3.0 * self.s.train.micro_batches * all_weights(self.c) * self.item / self.tensor


@functools.cache
def _leaves(config: Config) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
  policy = make(config)
  shapes = jax.eval_shape(policy.init, jax.random.key(0))
  names = jax.tree.leaves(policy.axes, is_leaf=lambda x: isinstance(x, tuple))
  return [(x.shape, n) for x, n in zip(jax.tree.leaves(shapes), names, strict=True)]


def _numbers(config: Config, mesh: AbstractMesh) -> int:
  """Parameters that one device holds, as `mesh.param_shardings` splits them."""
  sizes = {name: mesh.shape[axis] for name, axis in RULES.items()}
  plain: dict[str, Any] = {
    f.name: f.default for f in dataclasses.fields(Config) if f.name in OPTIONS
  }
  total = 0
  for dims, names in _leaves(dataclasses.replace(config, **plain)):
    parts = [sizes.get(name, 1) for name in names]
    total += math.prod(n // p if n % p == 0 else n for n, p in zip(dims, parts, strict=True))
  return total


def _adapters(c: Config, lora: Lora) -> int:
  """Numbers of all adapters. Not split, which they hardly are."""
  init, _ = adapters(make(c), rank=lora.rank, targets=lora.targets)
  return sum(x.size for x in jax.tree.leaves(jax.eval_shape(init, jax.random.key(0))))


def _moments(optimizer: Any) -> int:
  """Bytes of the optimizer's state for each trained number."""
  one = jax.eval_shape(optimizer.init, {"x": jax.ShapeDtypeStruct((1000,), jnp.float32)})
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(one) if x.ndim) // 1000


def packed_width(settings: Any) -> int:
  """Tokens of a packed row that the settings name; 0 where rows are not packed, or as it suits."""
  pack = settings.train.pack
  return pack if isinstance(pack, int) else 0


def parameters(config: Config) -> int:
  """Numbers in all parameters."""
  return _numbers(config, AbstractMesh((1, 1, 1, 1), AXES))
