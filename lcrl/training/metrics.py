"""Metric values carry their merge rule in their type, and are written as JSON lines and events."""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Mean(NamedTuple):
  total: jax.Array | float
  weight: jax.Array | float

  def merge(self, other: Mean) -> Mean:
    return Mean(self.total + other.total, self.weight + other.weight)

  def value(self) -> float:
    return float(self.total) / float(self.weight) if float(self.weight) else math.nan


class Sum(NamedTuple):
  total: jax.Array | float

  def merge(self, other: Sum) -> Sum:
    return Sum(self.total + other.total)

  def value(self) -> float:
    return float(self.total)


class Max(NamedTuple):
  largest: jax.Array | float

  def merge(self, other: Max) -> Max:
    return Max(max(self.largest, other.largest))

  def value(self) -> float:
    return float(self.largest)


Metric = Mean | Sum | Max
Metrics = dict[str, Metric]


def merge(a: Mapping[str, Metric], b: Mapping[str, Metric]) -> Metrics:
  """Metrics of both; a name in both is merged by the rule of its type."""
  both = {**a, **b}
  for name in a.keys() & b.keys():
    if type(a[name]) is not type(b[name]):
      raise ValueError(f"metric {name!r} is {type(a[name]).__name__} and {type(b[name]).__name__}.")
    both[name] = a[name].merge(b[name])  # type: ignore[arg-type]
  return both


def known(x: jax.Array | float) -> Mean:
  """A number that may have no value: one that is not finite becomes a mean of nothing."""
  there = jnp.isfinite(x)
  return Mean(jnp.where(there, x, 0.0), 1.0 * there)


def values(metrics: Mapping[str, Metric]) -> dict[str, float]:
  """Plain numbers, nan and infinity among them; only a mean of nothing is left out."""
  empty = lambda metric: isinstance(metric, Mean) and not float(metric.weight)
  return {name: metric.value() for name, metric in metrics.items() if not empty(metric)}


class Writer:
  """metrics.jsonl and TensorBoard events in `workdir`; lines past `step` are dropped on resume."""

  def __init__(self, workdir: str | os.PathLike, *, step: int = 0):
    from tensorboard.compat.proto.event_pb2 import SessionLog  # slow to import
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    self._path = pathlib.Path(workdir) / "metrics.jsonl"
    drop_after(self._path, step)
    self._lines = self._path.open("a")
    self._events = EventFileWriter(str(pathlib.Path(workdir) / "events"))
    if step:  # tells TensorBoard to forget what the stopped run wrote past this step
      start = SessionLog(status=SessionLog.START)
      self._add(step + 1, session_log=start)

  def write(self, step: int, numbers: Mapping[str, float]) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary

    self._lines.write(json.dumps({"step": step, **numbers}) + "\n")
    self._lines.flush()
    rows = [Summary.Value(tag=tag, simple_value=x) for tag, x in numbers.items()]
    self._add(step, summary=Summary(value=rows))

  def _add(self, step, **content):
    import time

    from tensorboard.compat.proto.event_pb2 import Event

    self._events.add_event(Event(wall_time=time.time(), step=step, **content))

  def close(self) -> None:
    self._lines.close()
    self._events.close()


def drop_after(path: pathlib.Path, step: int) -> None:
  """Keeps the JSON lines of `path` whose "step" is at most `step`; a torn last line goes too."""
  if not path.exists():
    return
  kept = []
  for line in path.read_text().splitlines():
    try:
      if json.loads(line)["step"] > step:
        break
    except json.JSONDecodeError:
      break
    kept.append(line + "\n")
  partial = path.with_suffix(".partial")
  partial.write_text("".join(kept))
  partial.replace(path)
