"""Whose log-probs a round's pairs are compared with: what `reference.fn` of a config may name."""

from __future__ import annotations

from collections.abc import Callable

from lcrl.training.pairs.learner import PairLearner
from lcrl.types import PyTree

__all__ = ["latest", "start"]

ReferencePolicy = Callable[
  [PyTree], PyTree
]  # params of the policy as a round begins -> the reference's


def latest() -> Callable[[PairLearner], ReferencePolicy]:
  """The policy that gave the round's answers, as in SPPO (arXiv:2405.00675)."""
  return lambda model: lambda params: params


def start() -> Callable[[PairLearner], ReferencePolicy]:
  """The policy as it was before the first round, as in INPO (arXiv:2407.00617)."""

  def make(model: PairLearner) -> ReferencePolicy:
    params = model.start()
    return lambda _: params

  return make
