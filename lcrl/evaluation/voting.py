"""Many answers to one prompt: the majority's, and the best within a budget of tokens."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["BestOf", "Vote", "best_of_tokens", "maj_at_k", "majority"]

MOST = 2000  # subsets or orderings of a pool that are looked at


class Vote(NamedTuple):
  """The outcome of a vote among several answers."""

  right: float  # chance that the chosen answer is right; ties are broken at random
  tied: float  # whether answers tied for the most votes, or the share of votes in which they did


def majority(answers: Sequence[Hashable], correct: ArrayLike) -> Vote:
  """The vote among answers to one prompt; None is no answer and has no vote. [n], [n]

  Source: self-consistency, arXiv:2203.11171.

  >>> majority(["7", "9", "7", None], [True, False, True, False])
  Vote(right=1.0, tied=0.0)
  >>> majority(["7", "9"], [True, False])
  Vote(right=0.5, tied=1.0)
  """
  votes = collections.Counter(answer for answer in answers if answer is not None)
  if not votes:
    return Vote(0.0, 0.0)
  most = max(votes.values())
  first = [answer for answer, count in votes.items() if count == most]
  # Verdicts on one answer may differ (a format, a time-out): its share of right ones counts.
  verdicts = np.asarray(correct, np.float64)
  shares = [np.mean([v for a, v in zip(answers, verdicts, strict=True) if a == x]) for x in first]
  return Vote(float(np.mean(shares)), float(len(first) > 1))


def maj_at_k(answers: Sequence[Hashable], correct: ArrayLike, *, k: int) -> Vote:
  """`majority` of k of the answers, the mean over all choices of k: unbiased.

  Of more than 2,000 choices 2,000 are drawn, always the same.

  >>> maj_at_k(["7", "7", "9"], [True, True, False], k=2)  # 7 7, and twice a tie
  Vote(right=0.6666666666666666, tied=0.6666666666666666)
  """
  n, correct = len(answers), np.asarray(correct)
  if not 1 <= k <= n:
    raise ValueError(f"k must lie between 1 and the number of answers, got {k} of {n}.")
  if math.comb(n, k) <= MOST:
    chosen = [list(c) for c in itertools.combinations(range(n), k)]
  else:
    rng = np.random.default_rng(0)
    chosen = [list(rng.choice(n, k, replace=False)) for _ in range(MOST)]
  votes = [majority([answers[i] for i in c], correct[c]) for c in chosen]
  return Vote(*(float(np.mean(part)) for part in zip(*votes, strict=True)))


class BestOf(NamedTuple):
  """The outcome of drawing answers until one is accepted."""

  right: float  # chance that an accepted answer was found within the budget
  spent: float  # tokens, in the mean
  exhausted: float  # share of orders in which the pool ended before the budget


def best_of_tokens(correct: ArrayLike, lengths: ArrayLike, *, budget: int) -> BestOf:
  """Answers are drawn until a verifier accepts one or the budget cuts one off. [n], [n]

    right = share of orders of the pool in which a right answer ends within `budget` tokens in all

  The mean over orders is unbiased if none of them exhausts the pool, and a lower bound otherwise.
  Of pools of more than 6 answers, 2,000 orders are drawn, always the same.

  >>> best_of_tokens([True, False], [4, 3], budget=6)  # 3 + 4 do not fit
  BestOf(right=0.5, spent=5.0, exhausted=0.0)
  """
  correct, lengths = np.asarray(correct, bool), np.asarray(lengths, np.int64)
  if correct.shape != lengths.shape or correct.ndim != 1 or not correct.size:
    raise ValueError(f"correct and lengths must be [n], got {correct.shape} and {lengths.shape}.")
  if budget < 1:
    raise ValueError(f"budget must be at least 1, got {budget}.")
  if correct.size <= 6:
    orders = np.array([*itertools.permutations(range(correct.size))])
  else:
    pool = np.tile(np.arange(correct.size), (MOST, 1))
    orders = np.random.default_rng(0).permuted(pool, axis=1)
  used = np.cumsum(lengths[orders], 1)
  accepted = correct[orders] & (used <= budget)
  ends = accepted | (used > budget)
  end = np.where(ends.any(1), ends.argmax(1), correct.size - 1)
  last = np.arange(len(orders)), end
  spent = np.minimum(used[last], budget)
  return BestOf(float(accepted[last].mean()), float(spent.mean()), float((~ends.any(1)).mean()))
