"""The record that factories in `lcrl.training.rl.revise` return."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lcrl.rollouts.grader import LocalRollouts, RolloutGrader


class Revision(NamedTuple):
  apply: Callable[[LocalRollouts, RolloutGrader], LocalRollouts]
  supplies: tuple[str, ...] = ()  # signals
