"""The reference policies of a round: the functions that `reference.fn` of a config can name."""

from __future__ import annotations

from collections.abc import Callable

from lcrl.training.pairs.learner import PairLearner
from lcrl.types import PyTree

__all__ = ["latest", "start"]

# params of the policy at the start of a round -> params of the reference
ReferencePolicy = Callable[[PyTree], PyTree]


def latest() -> Callable[[PairLearner], ReferencePolicy]:
  """The policy that sampled the round's answers, as in SPPO (arXiv:2405.00675)."""
  return lambda model: lambda params: params


def start() -> Callable[[PairLearner], ReferencePolicy]:
  """The policy before the first round, as in INPO (arXiv:2407.00617)."""

  def make(model: PairLearner) -> ReferencePolicy:
    params = model.start()
    return lambda _: params

  return make
