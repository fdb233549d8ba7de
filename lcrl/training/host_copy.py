"""Copies of the training state in pinned host memory, which a checkpoint is written from.

The copies are enqueued, not awaited. JAX orders them before every later program that the arrays are
donated to: their memory is not written again until it has been read.
"""

from __future__ import annotations

import os
from typing import Any

import jax
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from lcrl.training.memory import GIB, host_memory

PyTree = Any
POOL = "XLA_PJRT_GPU_HOST_MEMORY_LIMIT_GB"  # of pinned memory on NVIDIA; it grows as it is used
DEFAULT_POOL = 64  # GiB


def allow_pinned() -> None:
  """Lets pinned memory take half of the host's. To be called before the first use of a device."""
  os.environ.setdefault(POOL, str(max(DEFAULT_POOL, int(host_memory() / 2 / GIB))))


def spread(state: PyTree) -> PyTree:
  """`state` with each array split over the devices that hold copies of it, where sizes divide.

  So the host holds every byte once, and the devices copy at the same time.
  """
  put = lambda x: jax.device_put(x, _spread(x.sharding, x.shape)) if _is_spreadable(x) else x
  return jax.tree.map(put, state)


def pin(state: PyTree) -> PyTree | None:
  """A copy of `state` in pinned host memory; None if there is none or not enough of it."""
  leaves, tree = jax.tree.flatten(state)
  if not all(map(_can_pin, leaves)):
    return None
  needed = sum(shard.data.nbytes for x in leaves for shard in x.addressable_shards)
  # Orbax makes another copy of what it writes.
  if needed > min(int(os.environ.get(POOL, DEFAULT_POOL)) * GIB, host_memory() / 2):
    return None
  pinned = [x.sharding.with_memory_kind("pinned_host") for x in leaves]
  return jax.tree.unflatten(tree, jax.device_put(leaves, pinned))


def _is_spreadable(x: Any) -> bool:
  return isinstance(x, jax.Array) and isinstance(x.sharding, NamedSharding)


def _spread(sharding: NamedSharding, shape: tuple[int, ...]) -> NamedSharding:
  """`sharding`, with each mesh axis that replicates splitting a dimension that it divides."""
  split = [() if x is None else x if isinstance(x, tuple) else (x,) for x in sharding.spec]
  split += [()] * (len(shape) - len(split))
  parts, used = list(sharding.shard_shape(shape)), {axis for axes in split for axis in axes}
  for axis, count in sharding.mesh.shape.items():
    divisible = [i for i, size in enumerate(parts) if size and size % count == 0]
    if axis not in used and divisible:
      i = divisible[0]
      split[i], parts[i] = (*split[i], axis), parts[i] // count
  return NamedSharding(sharding.mesh, P(*split))


def _can_pin(x: Any) -> bool:
  # Orbax would slice other arrays that are replicated, on the devices.
  if not isinstance(x, jax.Array) or not isinstance(
    x.sharding, NamedSharding | SingleDeviceSharding
  ):
    return False
  device: Any = next(iter(x.sharding.addressable_devices))
  return any(memory.kind == "pinned_host" for memory in device.addressable_memories())
