"""Several answers, one after the other, until something is reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lcrl.evaluation.test_time.parts import (
  Answer,
  Query,
  Recipe,
  Sample,
  Solved,
  check_counts,
  check_rule,
  chosen,
  passed,
)
from lcrl.tasks.task import Messages


def best_of(
  *,
  n: int = 4,
  budget: int | None = None,
  at_once: int = 1,
  by: str = "verifier",
  extract: str = "whole",
) -> Recipe:
  """Draws answers until `n` are there, a budget is spent or, by the verifier, one is right.

  Source: Snell et al. 2024, arXiv:2408.03314, best-of-N at a budget of generation.

  Args:
    n: most answers to a problem.
    budget: tokens for all answers to a problem, which caps the last ones; None: n times the cap.
    at_once: answers drawn in parallel, between two looks at verdict and budget.
    by, extract: how the answer is chosen (`chosen`).
  """
  check_counts(n=n, at_once=at_once, budget=1 if budget is None else budget)
  check_rule(by, extract)
  _check_rounds(n, at_once)

  def accept(draws: Sequence[Answer]) -> bool:
    return len(draws) >= n or (by == "verifier" and passed(draws) > 0)

  def recipe(sample: Sample, problems: Sequence[Messages], cap: int) -> list[Solved]:
    most = n * cap if budget is None else budget
    drawn = _draw(sample, problems, cap, accept, at_once=at_once, budget=most)
    return [one._replace(answer=chosen(one.draws, by, extract), draws=()) for one in drawn]

  return recipe


def draw_until(*, passes: int = 2, most: int = 64, at_once: int = 8) -> Recipe:
  """Draws answers until `passes` are right, and keeps all of them for the measure `pass_until`.

  Source: PassUntil, arXiv:2310.03262.

  Args:
    passes: right answers after which drawing stops.
    most: answers to a problem.
    at_once: answers drawn in parallel.
  """
  check_counts(passes=passes, most=most, at_once=at_once)
  _check_rounds(most, at_once)

  def accept(draws: Sequence[Answer]) -> bool:
    return len(draws) >= most or passed(draws) >= passes

  def recipe(sample: Sample, problems: Sequence[Messages], cap: int) -> list[Solved]:
    drawn = _draw(sample, problems, cap, accept, at_once=at_once, budget=most * cap)
    return [one._replace(answer=chosen(one.draws, "verifier", "whole")) for one in drawn]

  return recipe


def _check_rounds(answers: int, at_once: int) -> None:
  if answers % at_once:
    raise ValueError(f"at_once must divide the number of answers, got {at_once} of {answers}.")


def _draw(
  sample: Sample,
  problems: Sequence[Messages],
  cap: int,
  accept: Callable[[Sequence[Answer]], bool],
  *,
  at_once: int,
  budget: int,
) -> list[Solved]:
  """Draws `at_once` answers at a time, for each problem until its draws are accepted or `budget`
  tokens do not give each of them one."""
  draws: list[list[Answer]] = [[] for _ in problems]
  sequential, left = [0] * len(problems), [budget] * len(problems)
  open_ones = list(range(len(problems)))
  if budget < at_once:
    raise ValueError(f"a budget of {budget} tokens does not give {at_once} answers one each.")
  while open_ones:
    queries = [Query(i, problems[i]) for i in open_ones]
    caps = [min(cap, left[i] // at_once) for i in open_ones]
    for i, answers in zip(open_ones, sample(queries, caps, at_once), strict=True):
      draws[i] += answers
      left[i] -= sum(answer.tokens for answer in answers)
      sequential[i] += max(answer.tokens for answer in answers)
    open_ones = [i for i in open_ones if left[i] >= at_once and not accept(draws[i])]
  return [
    Solved(d[0], s, budget - rest, d) for d, s, rest in zip(draws, sequential, left, strict=True)
  ]
