"""What recipes are made of: queries, answers, and the choice of one answer."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from lcrl.tasks import extract as extractors
from lcrl.tasks.task import Messages


class Query(NamedTuple):
  """A prompt to sample from, on behalf of a problem."""

  problem: int
  messages: Messages
  prefix: str = ""  # of the answer, written before


class Answer(NamedTuple):
  text: str  # with its prefix
  tokens: int  # sampled
  truncated: bool
  correct: bool | None = None  # the verifier's verdict; None: there is none
  reward: float | None = None  # a learned one


class Sample(Protocol):
  """Samples `n` answers to each query, of at most so many tokens each."""

  def __call__(
    self, queries: Sequence[Query], caps: Sequence[int], n: int
  ) -> list[list[Answer]]: ...


class Solved(NamedTuple):
  """What a recipe made of a problem."""

  answer: Answer
  sequential: int  # tokens
  total: int
  draws: Sequence[Answer] = ()  # all answers, where they are the recipe's result


Recipe = Callable[[Sample, Sequence[Messages], int], list[Solved]]


def chosen(answers: Sequence[Answer], by: str, extract: str) -> Answer:
  """The answer that a rule prefers, the first of several.

  Args:
    answers: to one problem.
    by: "verifier" (a right one: an oracle), "reward" (a learned one's highest), "majority".
    extract: the part of the text that votes, a name in `lcrl.tasks.extract`.
  """
  if by == "verifier":
    passed(answers)
    return max(answers, key=lambda answer: bool(answer.correct))
  if by == "reward":
    if any(answer.reward is None or math.isnan(answer.reward) for answer in answers):
      raise ValueError("by='reward' needs a learned reward, which is a number for every answer.")
    return max(answers, key=lambda answer: answer.reward or 0.0)
  votes = [getattr(extractors, extract)(answer.text) for answer in answers]
  counts = collections.Counter(vote for vote in votes if vote is not None)
  return answers[votes.index(counts.most_common(1)[0][0])] if counts else answers[0]


def passed(answers: Sequence[Answer]) -> int:
  """How many are right. Raises ValueError without a verifier."""
  if any(answer.correct is None for answer in answers):
    raise ValueError("the recipe needs a task with a verifier.")
  return sum(bool(answer.correct) for answer in answers)


def check_counts(**counts: float) -> None:
  for name, value in counts.items():
    if value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}.")


def check_rule(by: str, extract: str) -> None:
  if by not in ("verifier", "reward", "majority") or extract not in extractors.__all__:
    raise ValueError(
      f"by must be verifier, reward or majority, and extract one of "
      f"{', '.join(extractors.__all__)}, got {by!r} and {extract!r}."
    )
