"""What a config leaves to its devices: attention, rematerialisation, unrolling, packing, the head.

A field with the value "auto" is replaced before anything is compiled; other values stay. On a
processor the choices compute what the defaults have always computed: rows as they are, scanned
layers, everything kept for the backward pass as far as memory goes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lcrl import policies
from lcrl.mesh import batch_shards
from lcrl.policies import Config, Policy
from lcrl.policies.attention import chosen, sequence
from lcrl.policies.attention.choice import Device
from lcrl.training.memory import device_memory
from lcrl.training.packing import UNIT
from lcrl.training.sections import AUTO

S = TypeVar("S")

LANES = 128  # widths of packed rows are multiples of it
WIDTH = 4096  # tokens that a packed row has at least, so that few of them end unused
STATE = 20  # bytes a parameter: float32 with two moments and a gradient, and a copy to compute with
USABLE = 0.75  # of a device's memory: what JAX takes on a GPU
RESERVED = 2 << 30  # bytes for tiles of logits, batches and programs


class Work(NamedTuple):
  """What a device trains on at once, at most."""

  rows: int
  length: int  # of a row that holds one response
  memory: float  # bytes that parameters and optimizer leave of the device; 0: unknown
  parts: int = 1  # devices that share each row


def resolve(
  policy: Policy, settings: S, mesh: Mesh, *, rows: int, length: int, needs: Collection[str] = ()
) -> tuple[Policy, S, dict[str, Any]]:
  """Policy and settings without "auto", and the values of these fields, chosen or given.

  Args:
    policy: the policy that trains.
    settings: settings of a run; of its section `train` the fields pack and head_remat, if any.
    mesh: the devices that train.
    rows: responses that a device takes at once, at most.
    length: tokens of the longest, its prompt included.
    needs: the score fields that the loss needs.
  """
  device, train = Device.of(mesh), settings.train  # type: ignore[attr-defined]
  work = Work(rows, length, free_memory(policy, mesh), mesh.shape[sequence.AXIS])
  pack = train.pack
  if pack == AUTO:  # the wider a row, the less of it ends unused
    pack = getattr(train, "micro_tokens", None) or pack_for(device, work)
  check_sequence(mesh, pack)
  changes = {"pack": pack}
  c = config_for(device, policy.config, work, packed=pack is not None)
  if hasattr(train, "head_remat"):
    keeps = train.head_remat == AUTO and keeps_head(device, c, work, needs)
    changes["head_remat"] = not keeps if train.head_remat == AUTO else train.head_remat
  settings = dataclasses.replace(settings, train=dataclasses.replace(train, **changes))  # type: ignore[type-var]
  fields = {f"policy.{name}": getattr(c, name) for name in ("attention", "remat", "unroll")}
  fields |= {f"train.{name}": value for name, value in changes.items()}
  return policy if c == policy.config else policies.make(c), settings, fields


def check_sequence(mesh: Mesh, pack: int | None) -> None:
  """Raises ValueError, by field, unless rows of the width train.pack can be cut over the mesh."""
  parts = mesh.shape[sequence.AXIS]
  if parts == 1:
    return
  if UNIT % parts:
    raise ValueError(f"mesh.sequence must divide {UNIT}, got {parts}.")
  if pack is None:
    raise ValueError(
      f"mesh.sequence={parts} cuts packed rows: train.pack must be their width or 'auto', got None."
    )
  if pack % (unit := 2 * parts):
    raise ValueError(
      f"train.pack must be a multiple of 2 * mesh.sequence = {unit}, got {pack}; "
      f"{-(-pack // unit) * unit} would do."
    )


def config_for(device: Device, c: Config, work: Work, *, packed: bool) -> Config:
  """The config with back end, rematerialisation and unrolling chosen."""
  if c.unroll == AUTO:  # measured on NVIDIA; elsewhere programs must stay small
    c = dataclasses.replace(c, unroll=device.platform == "nvidia")
  attention = chosen(device, c, packed=packed, length=work.length, parts=work.parts)
  c = dataclasses.replace(c, attention=attention)
  return dataclasses.replace(c, remat=remat_for(c, work)) if c.remat == AUTO else c


def remat_for(c: Config, work: Work) -> str:
  """The least recomputation whose residuals take at most half of the free memory.

  Without a known memory, residuals count as too large where there are many: more than 1 GiB.
  """
  room = work.memory / 2 if work.memory else 2.0**30
  fits = (name for name in residuals(c) if residual_bytes(c, name, work) <= room)
  return next(fits, "full")


def residuals(c: Config) -> dict[str, int]:
  """What the backward pass is left by each rematerialisation: numbers a token and layer.

  For each of its experts a token is copied, and has a result of its own."""
  width, heads, mlp = c.hidden_size, c.heads * c.head_dim, c.active_mlps * c.mlp_size
  copied = c.experts_per_token * width
  products = 2 * (c.heads + c.kv_heads) * c.head_dim + 2 * mlp + 2 * width + copied
  return {
    "none": width + products + mlp + 2 * heads + 2 * copied,
    "dots": width + products,
    "attention": width + heads,
  }


def residual_bytes(c: Config, remat: str, work: Work) -> float:
  numbers = residuals(c).get(remat, c.hidden_size) * c.layers
  return float(work.rows * work.length * numbers * jnp.dtype(c.dtype).itemsize) / work.parts


def keeps_head(device: Device, c: Config, work: Work, needs: Collection[str]) -> bool:
  """Should the head's exponentials stay for the backward pass (`score_tokens`, keep=True)? Where it
  gains and can, and where they take at most half of what residuals leave."""
  if not device.triton or c.logit_softcap or {"entropy", "log_sum_sq"} & {*needs}:
    return False
  exponentials = work.rows * work.length * c.vocab_size * jnp.dtype(c.dtype).itemsize
  return exponentials / work.parts <= (work.memory - residual_bytes(c, c.remat, work)) / 2


def pack_for(device: Device, work: Work) -> int | None:
  """The width of packed rows: the longest response's in multiples of 128, at least 4,096. A
  processor packs only what must be cut."""
  if device.platform == "cpu" and work.parts == 1:
    return None
  unit = math.lcm(LANES, 2 * work.parts)
  return -(-max(work.length, WIDTH * (device.platform != "cpu")) // unit) * unit


def free_memory(policy: Policy, mesh: Mesh) -> float:
  """Bytes of a device that its share of the training state leaves; 0 if its memory is unknown.

  Every process must find the same, or they would compile different programs: so data sheets come
  first, and what a device says of itself counts in one process only.
  """
  from lcrl.training.analysis.roofline import CHIPS  # which imports the learners

  if chip := CHIPS.get(mesh.devices.flat[0].device_kind):
    memory = USABLE * chip.memory
  elif jax.process_count() > 1 or not (memory := device_memory(mesh) / mesh.size):
    return 0.0
  shapes = jax.tree.leaves(jax.eval_shape(policy.init, jax.random.key(0)))
  state = STATE * sum(math.prod(x.shape) for x in shapes) / (mesh.size / mesh.shape["data"])
  return max(memory - state - RESERVED, 1.0)


def rows_at_once(mesh: Mesh, rows: int, pieces: int) -> int:
  """The rows of a batch that a device takes at once."""
  return -(-rows // (batch_shards(mesh) * pieces))


def said(fields: dict[str, Any]) -> str:
  """The fields in a line: "attention xla, remat none, ..."."""
  return ", ".join(f"{name.partition('.')[2]} {value}" for name, value in fields.items())
