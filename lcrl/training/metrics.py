"""Metric values carry their merge rule in their type, and are written as JSON lines and events."""

from __future__ import annotations

import json
import logging
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcrl.training.metric_names import renamed


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
  """metrics.jsonl and TensorBoard events in `workdir`; what is past `step` is dropped first, also
  step 0 if it is -1."""

  def __init__(self, workdir: str | os.PathLike, *, step: int = 0):
    from tensorboard.compat.proto.event_pb2 import SessionLog  # slow to import
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    self._path = pathlib.Path(workdir) / "metrics.jsonl"
    drop_after(self._path, step)
    events = pathlib.Path(workdir) / "events"
    resumes = drop_events_after(events, step)
    self._lines = self._path.open("a")
    self._events = EventFileWriter(str(events))
    if resumes:  # a TensorBoard that is running has read what was dropped, and is to forget it
      self._add(step + 1, session_log=SessionLog(status=SessionLog.START))

  def write(self, step: int, numbers: Mapping[str, float]) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary

    self._lines.write(json_line({"step": step, **numbers}))
    self._lines.flush()
    rows = [Summary.Value(tag=tag, simple_value=x) for tag, x in numbers.items()]
    self._add(step, summary=Summary(value=rows))

  def flush(self) -> None:
    """Everything so far is on the disk: a checkpoint counts on it."""
    os.fsync(self._lines.fileno())
    self._events.flush()

  def _add(self, step, **content):
    import time

    from tensorboard.compat.proto.event_pb2 import Event

    self._events.add_event(Event(wall_time=time.time(), step=step, **content))

  def close(self) -> None:
    self._lines.close()
    self._events.close()


def json_line(row: Any) -> str:
  """`row` as a line of JSON, which has no nan and no infinity: null stands for them."""

  def plain(x: Any) -> Any:
    if isinstance(x, float):
      return x if math.isfinite(x) else None
    if isinstance(x, Mapping):
      return {key: plain(value) for key, value in x.items()}
    return [plain(value) for value in x] if isinstance(x, list | tuple) else x

  return json.dumps(plain(row), allow_nan=False) + "\n"


def read_lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """The rows of a file of JSON lines that have a step, under today's names; others are skipped."""
  if path.exists():
    rows = map(_row, path.read_bytes().split(b"\n"))
    yield from (renamed(row) for row in rows if row)


def drop_after(path: pathlib.Path, step: int) -> None:
  """Keeps the JSON lines of `path` whose "step" is at most `step`, whatever their order.

  A torn last line goes. Lines in between that are none move to a file beside it, `path`.garbled.
  """
  if not path.exists():
    return
  content = path.read_bytes()
  kept, garbled = [], []
  *lines, torn = content.split(b"\n")
  for line in [*lines, torn] if _row(torn) else lines:
    row = _row(line)
    if row is None:
      garbled.append(line + b"\n")
    elif row["step"] <= step:
      kept.append(line + b"\n")
  if garbled:
    beside = path.with_name(path.name + ".garbled")
    logging.warning("%s: %d lines are no JSON; they are in %s now.", path, len(garbled), beside)
    with beside.open("ab") as file:
      file.writelines(garbled)
  if (left := b"".join(kept)) != content:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(left)
    partial.replace(path)


def _row(line: bytes) -> dict[str, Any] | None:
  try:
    row = json.loads(line)
    return row if isinstance(row["step"], int) else None
  except (ValueError, TypeError, KeyError, IndexError, RecursionError):
    return None


def drop_events_after(folder: pathlib.Path, step: int) -> bool:
  """Removes the events past `step` from the TensorBoard files in a folder. Is there any file?

  Without this TensorBoard shows the points of a killed run beside those of the one that goes on, or
  warns of steps out of order.
  """
  from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
  from tensorboard.summary.writer.record_writer import RecordWriter

  files = sorted(folder.glob("*tfevents*"))
  for path in files:
    events = list(LegacyEventFileLoader(str(path)).Load())
    kept = [event for event in events if event.step <= step or event.HasField("file_version")]
    if len(kept) < len(events):
      partial = folder / "partial"
      with partial.open("wb") as file:
        for event in kept:
          RecordWriter(file).write(event.SerializeToString())
      partial.replace(path)
  return bool(files)
