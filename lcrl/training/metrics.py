"""Metrics whose type is their merge rule, and their writer: JSON lines and TensorBoard events."""

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
  """A mean of one number; of none if the number is not finite."""
  finite = jnp.isfinite(x)
  return Mean(jnp.where(finite, x, 0.0), 1.0 * finite)


def values(metrics: Mapping[str, Metric]) -> dict[str, float]:
  """Plain numbers, including nan and infinity. A mean of no numbers is left out."""
  empty = lambda metric: isinstance(metric, Mean) and not float(metric.weight)
  return {name: metric.value() for name, metric in metrics.items() if not empty(metric)}


class Writer:
  """Writes metrics.jsonl and, with `events`, TensorBoard events in `workdir`. First drops all that
  is past `step` there; -1 drops step 0, too."""

  def __init__(self, workdir: str | os.PathLike, *, step: int = 0, events: bool = True):
    self._path = pathlib.Path(workdir) / "metrics.jsonl"
    drop_after(self._path, step)
    self._lines = self._path.open("a")
    self._events = None
    if not events:
      return
    from tensorboard.compat.proto.event_pb2 import SessionLog  # slow to import
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder = pathlib.Path(workdir) / "events"
    resumes = drop_events_after(folder, step)
    self._events = EventFileWriter(str(folder))
    if resumes:  # makes a running TensorBoard forget the dropped events that it has read
      self._add(step + 1, session_log=SessionLog(status=SessionLog.START))

  def write(self, step: int, numbers: Mapping[str, float]) -> None:
    self._lines.write(json_line({"step": step, **numbers}))
    self._lines.flush()
    if self._events is None:
      return
    from tensorboard.compat.proto.summary_pb2 import Summary

    rows = [Summary.Value(tag=tag, simple_value=x) for tag, x in numbers.items()]
    self._add(step, summary=Summary(value=rows))

  def flush(self) -> None:
    """Forces all lines so far to the disk; a checkpoint relies on them."""
    os.fsync(self._lines.fileno())
    if self._events is not None:
      self._events.flush()

  def _add(self, step, **content):
    import time

    from tensorboard.compat.proto.event_pb2 import Event

    assert self._events is not None
    self._events.add_event(Event(wall_time=time.time(), step=step, **content))

  def close(self) -> None:
    self._lines.close()
    if self._events is not None:
      self._events.close()


def json_line(row: Any) -> str:
  """`row` as a line of JSON. JSON has no nan and no infinity, so they become null."""

  def plain(x: Any) -> Any:
    if isinstance(x, float):
      return x if math.isfinite(x) else None
    if isinstance(x, Mapping):
      return {key: plain(value) for key, value in x.items()}
    return [plain(value) for value in x] if isinstance(x, list | tuple) else x

  return json.dumps(plain(row), allow_nan=False) + "\n"


def read_lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """The rows with a step of a file of JSON lines, under the current metric names."""
  if path.exists():
    rows = map(_row, path.read_bytes().split(b"\n"))
    yield from (renamed(row) for row in rows if row)


def drop_after(path: pathlib.Path, step: int) -> None:
  """Keeps the JSON lines of `path` whose "step" is at most `step`, whatever their order.

  Drops a torn last line. Other lines that are no JSON move to the file `path`.garbled beside it.
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
    garbled_path = path.with_name(path.name + ".garbled")
    logging.warning(
      "%s: %d lines are no JSON; they are in %s now.", path, len(garbled), garbled_path
    )
    with garbled_path.open("ab") as file:
      file.writelines(garbled)
  if (kept_content := b"".join(kept)) != content:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(kept_content)
    partial.replace(path)


def _row(line: bytes) -> dict[str, Any] | None:
  try:
    row = json.loads(line)
    return row if isinstance(row["step"], int) else None
  except (ValueError, TypeError, KeyError, IndexError, RecursionError):
    return None


def drop_events_after(folder: pathlib.Path, step: int) -> bool:
  """Removes the events past `step` from the TensorBoard files in a folder; True if it has files.

  Otherwise TensorBoard would show the points of a killed run beside those of the resumed one, or
  warn of steps out of order.
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
