"""Where time goes: a trace of some calls, summed by kernel."""

from __future__ import annotations

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any

import jax


def profile(f: Callable[[], Any], *, top: int = 20) -> dict[str, Any]:
  """One traced call of `f`: its kernels by their time, those of one kind together.

  Returns: the device's busy milliseconds, the span from its first to its last kernel, and per kind
    [name, calls, milliseconds], the longest first.
  """
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      jax.block_until_ready(f())
    events = [e for path in pathlib.Path(folder).rglob("*.xplane.pb") for e in _kernels(path)]
  calls: collections.Counter[str] = collections.Counter()
  spent: dict[str, float] = collections.defaultdict(float)
  for name, _, nanoseconds in events:
    kind = re.sub(r"[._]?\d+", "", name)[:80]
    calls[kind] += 1
    spent[kind] += nanoseconds
  first = min((start for _, start, _ in events), default=0)
  last = max((start + length for _, start, length in events), default=0)
  longest = sorted(spent.items(), key=lambda kind: -kind[1])[:top]
  kinds = [[kind, calls[kind], round(t / 1e6, 3)] for kind, t in longest]
  busy = sum(spent.values())
  return {"busy_ms": busy / 1e6, "span_ms": (last - first) / 1e6, "kinds": kinds}


def _kernels(path: pathlib.Path) -> list[tuple[str, float, float]]:
  """(name, start, nanoseconds) of what ran on the device's streams, or on the CPU's threads."""
  planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
  device = [p for p in planes if p.name.startswith("/device:")]
  found = []
  for plane in device or planes:
    for line in plane.lines:
      if not device or line.name.startswith(("Stream", "XLA Ops")):
        found += [(e.name, e.start_ns, e.duration_ns) for e in line.events]
  return found
