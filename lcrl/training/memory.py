"""Refuses a run that needs more memory than the machine has, before it allocates anything."""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh

GIB = 1 << 30
POSITION = 9  # bytes of a token, its mask and its log-prob; a run holds more than that


def check_rows(mesh: Mesh, rows: int, tokens: int, what: str) -> None:
  """Raises ValueError if rows of so many tokens fit neither the devices nor the host.

  Args:
    mesh: the devices that share the rows.
    rows: number of rows.
    tokens: tokens of a row, prompt and response.
    what: the fields of the config that set `rows`.
  """
  needed = rows * tokens * POSITION
  for owner, available in (
    ("devices of the mesh", device_memory(mesh)),
    ("host", host_memory() * jax.process_count()),
  ):
    if available and needed > available:
      raise ValueError(
        f"{what}: {rows:,} rows of {tokens:,} tokens take at least {needed / GIB:,.1f} GiB; the "
        f"{owner} have {available / GIB:,.1f} GiB.".replace("host have", "host has")
      )


def check_state(mesh: Mesh, abstract: Any) -> None:
  """Raises ValueError if a device cannot hold its part of the training state."""
  needed = sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(abstract)
  )
  available = device_memory(mesh) / mesh.size
  if available and needed > available:
    raise ValueError(
      f"policy: parameters and optimizer take {needed / GIB:,.1f} GiB on each device, which has "
      f"{available / GIB:,.1f} GiB: mesh.fsdp and mesh.tensor split them over more devices."
    )


def device_memory(mesh: Mesh) -> float:
  """Bytes of all devices; 0 if they are unknown."""
  device = mesh.devices.flat[0]
  if device.platform == "cpu":
    return host_memory()
  try:
    stats = device.memory_stats() or {}
  except (
    jax.errors.JaxRuntimeError,
    NotImplementedError,
  ):  # the device is on another host, or only described
    return 0
  return stats.get("bytes_limit", 0) * mesh.size


def host_memory() -> float:
  """Bytes that this process may use; 0 if they are unknown."""
  try:
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  except (ValueError, OSError, AttributeError):
    return 0
  limit = pathlib.Path("/sys/fs/cgroup/memory.max")
  text = limit.read_text().strip() if limit.is_file() else "max"
  return min(installed, int(text)) if text.isdigit() else installed
