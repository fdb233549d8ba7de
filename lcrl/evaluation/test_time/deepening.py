"""Iterative deepening of an answer."""

from __future__ import annotations

from collections.abc import Sequence

from lcrl.evaluation.test_time.parts import (
  Answer,
  Query,
  Recipe,
  Sample,
  Solved,
  check_counts,
  check_rule,
  chosen,
)
from lcrl.tasks.task import Messages


def deepen(
  *,
  first: int = 256,
  growth: float = 2.0,
  trigger: str = "\nWait, I may have made a mistake. Let me check this again.\n",
  reopen: bool = False,
  n: int = 1,
  by: str = "majority",
  extract: str = "whole",
) -> Recipe:
  """Iterative deepening: an answer is interrupted at growing lengths by a call to check itself.

    lengths first, first * growth, first * growth^2, ..., cap

  Source: arXiv:2502.05449, whose schedule and trigger are this module's reading of the abstract.

  Args:
    first: tokens before the first trigger.
    growth: factor from one length to the next, above 1.
    trigger: text that is appended, after which the model continues.
    reopen: also appends it to an answer that ended before the length, in place of its end.
    n: such answers in parallel; by, extract: how one is chosen (`chosen`).
  """
  check_counts(first=first, n=n)
  check_rule(by, extract)
  if growth <= 1:
    raise ValueError(f"growth must be above 1, got {growth}.")

  def recipe(sample: Sample, problems: Sequence[Messages], cap: int) -> list[Solved]:
    chains = [(i, Answer("", 0, True)) for i in range(len(problems)) for _ in range(n)]
    length, done = 0.0, [False] * len(chains)
    while length < cap and not all(done):
      length = min(first if not length else length * growth, cap)
      at = [j for j, end in enumerate(done) if not end and chains[j][1].tokens < int(length)]
      queries = [_continued(problems, *chains[j], trigger) for j in at]
      caps = [int(length) - chains[j][1].tokens for j in at]
      for j, (answer,) in zip(at, sample(queries, caps, 1) if at else [], strict=True):
        i, before = chains[j]
        chains[j] = i, answer._replace(tokens=before.tokens + answer.tokens)
        done[j] = not (answer.truncated or reopen)
    groups = [[answer for _, answer in chains[i * n : (i + 1) * n]] for i in range(len(problems))]
    return [
      Solved(chosen(g, by, extract) if n > 1 else g[0], max(lengths), sum(lengths))
      for g in groups
      for lengths in [[answer.tokens for answer in g]]
    ]

  return recipe


def _continued(problems: Sequence[Messages], problem: int, before: Answer, trigger: str) -> Query:
  return Query(problem, problems[problem], before.text + trigger if before.tokens else "")
