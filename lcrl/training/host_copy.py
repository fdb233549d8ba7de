"""Copies of the training state in pinned host memory, which a checkpoint is written from.

The copies are enqueued, not awaited. JAX orders them before every later program that the arrays are
donated to: their memory is not written again until it has been read.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
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

  So the host holds every byte once, and the devices copy at the same time. An array of which there
  is one copy stays as it is.
  """

  def one(x: Any) -> Any:
    finer = _spread(x.sharding, x.shape) if isinstance(x, jax.Array) else None
    return x if finer is None else jax.device_put(x, finer)

  return jax.tree.map(one, state)


def pin(state: PyTree) -> PyTree | None:
  """A copy of `state` in pinned host memory; None if there is none or not enough of it."""
  leaves, tree = jax.tree.flatten(state)
  if not all(map(_can_pin, leaves)) or not _fits([(x, x.sharding) for x in leaves]):
    return None
  pinned = [x.sharding.with_memory_kind("pinned_host") for x in leaves]
  try:
    return jax.tree.unflatten(tree, jax.device_put(leaves, pinned))
  except jax.errors.JaxRuntimeError as error:
    logging.warning("a checkpoint holds up the run, there is no pinned memory for it: %s", error)
    return None


def reserve(state: PyTree) -> None:
  """Allocates the pinned memory of `state` on GPUs, whose driver keeps it for `pin`.

  It takes the system seconds for each 10 GB. Leaves are arrays, or their shapes with shardings.
  """
  places = [(x, _spread(x.sharding, x.shape) or x.sharding) for x in jax.tree.leaves(state)]
  if not _fits(places):
    return
  pinned = lambda device: SingleDeviceSharding(device, memory_kind="pinned_host")
  with contextlib.suppress(jax.errors.JaxRuntimeError):  # `pin` says so
    jax.block_until_ready(
      [
        jax.device_put(np.zeros(sharding.shard_shape(x.shape), x.dtype), pinned(device))
        for x, sharding in places
        for device in sharding.addressable_devices
        if device.platform == "gpu"
      ]
    )


def _fits(places: Sequence[tuple[Any, Any]]) -> bool:
  """Whether the host has pinned memory for its shards of arrays; pairs of array and sharding."""
  needed = sum(
    math.prod(sharding.shard_shape(x.shape)) * x.dtype.itemsize * len(sharding.addressable_devices)
    for x, sharding in places
  )
  # Orbax makes another copy of what it writes.
  return needed <= min(int(os.environ.get(POOL, DEFAULT_POOL)) * GIB, host_memory() / 2)


def _spread(sharding: Any, shape: tuple[int, ...]) -> NamedSharding | None:
  """`sharding`, with mesh axes that replicate splitting dimensions that they divide; None if no
  axis does both."""
  if not isinstance(sharding, NamedSharding):
    return None
  split = [() if x is None else x if isinstance(x, tuple) else (x,) for x in sharding.spec]
  split += [()] * (len(shape) - len(split))
  before, parts = list(split), list(sharding.shard_shape(shape))
  used = {axis for axes in split for axis in axes}
  for axis, count in sharding.mesh.shape.items():
    divisible = [i for i, size in enumerate(parts) if size and size % count == 0]
    if axis not in used and count > 1 and divisible:
      i = divisible[0]
      split[i], parts[i] = (*split[i], axis), parts[i] // count
  return None if split == before else NamedSharding(sharding.mesh, P(*split))


def _can_pin(x: Any) -> bool:
  # Orbax would slice other arrays that are replicated, on the devices.
  if not isinstance(x, jax.Array) or not isinstance(
    x.sharding, NamedSharding | SingleDeviceSharding
  ):
    return False
  device: Any = next(iter(x.sharding.addressable_devices))
  # TPUs have such memory, too; how much of it a process may take was not tried.
  kinds = {memory.kind for memory in device.addressable_memories()}
  return device.platform in ("gpu", "cpu") and "pinned_host" in kinds
