"""What several verified answers to a prompt come to: pass@k, maj@k, PassUntil, best-of-n."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from lcrl.evaluation import laws, measures, voting
from lcrl.evaluation.answers.rows import (
  Measured,
  Row,
  Rows,
  by_prompt,
  increasing,
  verdicts,
  with_ends,
)
from lcrl.evaluation.intervals import accuracy_estimate, mean_estimate
from lcrl.registry import resolve
from lcrl.tasks import extract as extractors


def pass_at_k(rows: Rows, *, k: tuple[int, ...] = (1,)) -> Measured:
  """pass@k, the chance that k answers hold a right one, with intervals over prompts.

  Source: Chen et al. 2021, arXiv:2107.03374.

  Args:
    rows: answers.
    k: numbers of answers.

  >>> rows = [dict(prompt_id=0, sample=i, correct=i == 0) for i in range(2)]
  >>> pass_at_k(rows, k=(1, 2)).numbers["pass@1"]
  0.5
  """
  groups = [verdicts(group) for group in by_prompt(rows)]
  n, c = [len(group) for group in groups], [group.sum() for group in groups]
  numbers: dict[str, Any] = {}
  for one in k:
    rates = measures.pass_at_k(n, c, k=one)
    numbers |= with_ends(f"pass@{one}", accuracy_estimate(rates[:, None]))
  return Measured(numbers)


def maj_at_k(rows: Rows, *, k: tuple[int, ...] = (), extract: str = "whole") -> Measured:
  """maj@k, the accuracy of the majority of k answers; ties are broken at random and counted.

  Answers are alike if they are the same number or the same text. Source: arXiv:2203.11171.

  Args:
    rows: answers.
    k: numbers of answers; (): all.
    extract: the part of the text that votes, a name in `lcrl.tasks.extract`.

  >>> rows = [dict(prompt_id=0, sample=i, text=x, correct=x == "7") for i, x in enumerate("797")]
  >>> maj_at_k(rows).numbers
  {'maj@3': 1.0, 'maj@3_ci': [None, None], 'ties@3': 0.0}
  """
  find = resolve(extractors, {"fn": extract}, field="extract")
  groups = by_prompt(rows)
  numbers: dict[str, Any] = {}
  for one in k or (min(map(len, groups)),):
    votes = [
      voting.maj_at_k([_ballot(row, find) for row in group], verdicts(group), k=one)
      for group in groups
    ]
    right = np.array([vote.right for vote in votes])
    numbers |= with_ends(f"maj@{one}", accuracy_estimate(right[:, None]))
    numbers[f"ties@{one}"] = float(np.mean([vote.tied for vote in votes]))
  return Measured(numbers)


def _ballot(row: Row, find: Callable[[str], str | None]) -> Hashable:
  answer = find(row["text"])
  known = None if answer is None else extractors.to_number(answer)
  return answer if known is None else known


def pass_until(rows: Rows, *, passes: int = 2) -> Measured:
  """Pass probability from drawing answers until so many are right (`lcrl.evaluation.laws`).

  A prompt whose answers end before that counts with the share of its right answers, which keeps the
  unbiased estimate unbiased. Source: PassUntil, arXiv:2310.03262.

  Args:
    rows: answers.
    passes: right answers after which drawing stops.

  >>> rows = [dict(prompt_id=0, sample=i, correct=i == 1) for i in range(4)]
  >>> pass_until(rows).numbers["PassUntil"]
  0.25
  """
  likeliest, unbiased, draws, stopped = [], [], [], []
  for group in by_prompt(rows):
    right = np.flatnonzero(verdicts(group))
    stopped.append(len(right) >= passes)
    draws.append(int(right[passes - 1]) + 1 if stopped[-1] else len(group))
    share = len(right) / len(group)
    both = laws.pass_until(draws[-1], passes=passes) if stopped[-1] else (share, share)
    likeliest.append(both[0])
    unbiased.append(both[1])
  numbers: dict[str, Any] = {"PassUntil": float(np.mean(likeliest))}
  if passes > 1:
    numbers |= with_ends("unbiased", mean_estimate(np.array(unbiased, np.float64)[:, None]))
  numbers |= {"draws": sum(draws), "prompts that ended early": stopped.count(False)}
  return Measured(numbers)


def best_of(rows: Rows, *, budgets: tuple[int, ...] = ()) -> Measured:
  """Accuracy when answers are drawn until a verifier accepts one or a budget of tokens is spent.

  `lcrl.evaluation.voting.best_of_tokens` has the estimate; where "pool exhausted" is above 0, more
  answers to each prompt would raise it.

  Args:
    rows: answers.
    budgets: tokens for all answers to a prompt together, increasing.

  >>> rows = [dict(prompt_id=0, sample=i, tokens=10, correct=i == 0, budget=10) for i in range(2)]
  >>> found = best_of(rows, budgets=(10,)).numbers["by budget"]
  >>> found["10 tokens"]["accuracy"]
  0.5
  """
  increasing(budgets, "budgets")
  groups = by_prompt(rows)
  points = {}
  for budget in budgets:
    found = [
      voting.best_of_tokens(verdicts(group), [row["tokens"] for row in group], budget=budget)
      for group in groups
    ]
    right = np.array([one.right for one in found])
    points[f"{budget} tokens"] = {
      **with_ends("accuracy", accuracy_estimate(right[:, None])),
      "tokens spent": float(np.mean([one.spent for one in found])),
      "pool exhausted": float(np.mean([one.exhausted for one in found])),
    }
  return Measured({"prompts": len(groups), "by budget": points})
