"""What a kind of run brings to the loop that all kinds share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lcrl.training.sections import Checkpoint
from lcrl.types import TrainState

PyTree = Any


class Step(NamedTuple):
  """One step taken: the new state, its numbers, and a line for who watches."""

  state: TrainState
  numbers: dict[str, float]
  line: str


class Evaluation(NamedTuple):
  """One evaluation: all of it, the numbers that metrics.jsonl gets, a line, and some answers."""

  record: dict[str, Any]
  numbers: dict[str, float]
  line: str
  answers: Sequence[dict[str, Any]] = ()


class Run(NamedTuple):
  """A run, ready to start or to resume; nothing in it changes."""

  steps: int
  checkpoint: Checkpoint
  evaluate_every: int  # steps; 0: before the first and after the last only
  abstract: TrainState  # shapes, dtypes and shardings of the training state
  initial: Callable[[], TrainState]
  evaluate: Callable[[PyTree], Evaluation]  # of params
  steps_from: Callable[[int], Callable[[TrainState], Step]]  # of the steps done so far
  finish: Callable[[], dict[str, Any]]  # writes summary and report, returns the summary
  data: str = ""  # fingerprint of what it learns from (`resume.fingerprint`)
