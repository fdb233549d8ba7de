"""The interface between a kind of run and the loop that all kinds share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lcrl.training.sections import Checkpoint
from lcrl.types import TrainState

PyTree = Any


class Step(NamedTuple):
  """The result of one step: the new state, its metrics, and a line for the terminal."""

  state: TrainState
  numbers: dict[str, float]
  line: str


class Evaluation(NamedTuple):
  """One evaluation: the whole record, numbers for metrics.jsonl, a line, and some answers."""

  record: dict[str, Any]
  numbers: dict[str, float]
  line: str
  answers: Sequence[dict[str, Any]] = ()


class Run(NamedTuple):
  """A run, ready to start or to resume. It is immutable."""

  steps: int
  checkpoint: Checkpoint
  evaluate_every: int  # steps; 0: before the first and after the last only
  abstract: TrainState  # shapes, dtypes and shardings of the training state
  initial: Callable[[], TrainState]
  evaluate: Callable[[PyTree], Evaluation]  # of params
  steps_from: Callable[[int], Callable[[TrainState], Step]]  # of the steps done so far
  finish: Callable[[], dict[str, Any]]  # writes summary and report, returns the summary
  data: str = ""  # fingerprint of the training data (`resume.fingerprint`)
