"""What a run needs at least, against what the machine has: refused before anything fills it."""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh

GIB = 1 << 30
POSITION = 9  # bytes of a token, its mask and its log-prob; whatever else a run holds comes on top


def check_rows(mesh: Mesh, rows: int, tokens: int, what: str) -> None:
  """Raises ValueError if rows of so many tokens fit neither the devices nor the host.

  Args:
    mesh: the devices, over which rows are split.
    rows: how many.
    tokens: of each, prompt and response.
    what: the fields that say so.
  """
  needed = rows * tokens * POSITION
  for place, there in (
    ("devices of the mesh", device_memory(mesh)),
    ("host", host_memory() * jax.process_count()),
  ):
    if there and needed > there:
      raise ValueError(
        f"{what}: {rows:,} rows of {tokens:,} tokens take at least {needed / GIB:,.1f} GiB; the "
        f"{place} have {there / GIB:,.1f} GiB.".replace("host have", "host has")
      )


def check_state(mesh: Mesh, abstract: Any) -> None:
  """Raises ValueError if a device cannot hold its part of the training state."""
  needed = sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(abstract)
  )
  there = device_memory(mesh) / mesh.size
  if there and needed > there:
    raise ValueError(
      f"policy: parameters and optimizer take {needed / GIB:,.1f} GiB on each device, which has "
      f"{there / GIB:,.1f} GiB: mesh.fsdp and mesh.tensor split them over more devices."
    )


def device_memory(mesh: Mesh) -> float:
  """Bytes of all devices; 0 if they do not say."""
  device = mesh.devices.flat[0]
  if device.platform == "cpu":
    return host_memory()
  try:
    stats = device.memory_stats() or {}
  except (jax.errors.JaxRuntimeError, NotImplementedError):  # it is of another host, or described
    return 0
  return stats.get("bytes_limit", 0) * mesh.size


def host_memory() -> float:
  """Bytes that this process may use; 0 where the system does not say."""
  try:
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  except (ValueError, OSError, AttributeError):
    return 0
  limit = pathlib.Path("/sys/fs/cgroup/memory.max")
  text = limit.read_text().strip() if limit.is_file() else "max"
  return min(whole, int(text)) if text.isdigit() else whole
