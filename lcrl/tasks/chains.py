"""Sums in prefix form, and their working at any step size. Host side, text in and out.

Source: When More is Less, arXiv:2502.07266, and its generator. A question is a tree of one branch,
such as "+ 1 + + 3 5 2": of the two sides of a "+" one at most is not a number. A step takes
`per_step` operators, so that the number of steps of the same question is free.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Step", "question", "value", "working"]


class Step(NamedTuple):
  """One step of a working: a part of the expression and its value."""

  expression: str  # to compute in this step
  value: int
  before: str
  after: str  # with the value instead of the expression


def question(rng: np.random.Generator, *, operators: int, modulus: int = 10) -> str:
  """A random sum of `operators` + 1 numbers below `modulus`.

  >>> question(np.random.default_rng(0), operators=2).count("+")
  2
  """
  if operators < 1:
    raise ValueError(f"operators must be at least 1, got {operators}.")
  numbers = [str(n) for n in rng.integers(modulus, size=operators + 1)]
  text = numbers[0]
  for number in numbers[1:]:
    sides = (number, text) if rng.integers(2) else (text, number)
    text = " ".join(("+", *sides))
  return text


def value(expression: str, *, modulus: int = 10) -> int:
  """The sum of all numbers, modulo `modulus`.

  >>> value("+ 1 + + 3 5 2")
  1
  """
  return sum(int(token) for token in expression.split() if token != "+") % modulus


def working(expression: str, *, per_step: int, modulus: int = 10) -> list[Step]:
  """The steps, innermost first: each computes `per_step` operators, the last one the rest.

  Raises:
    ValueError: the text is no prefix sum, or a "+" has two sides that are no numbers.

  >>> [(step.expression, step.value) for step in working("+ 1 + + 3 5 2", per_step=2)]
  [('+ + 3 5 2', 0), ('+ 1 0', 1)]
  """
  if per_step < 1:
    raise ValueError(f"per_step must be at least 1, got {per_step}.")
  tokens = expression.split()
  _check(tokens, expression)
  steps = []
  while left := tokens.count("+"):
    # All operators that follow one in the text are inside it: the last n are n within each other.
    start = [i for i, token in enumerate(tokens) if token == "+"][-min(per_step, left)]
    end = _end(tokens, start)
    part = " ".join(tokens[start:end])
    result = value(part, modulus=modulus)
    after = [*tokens[:start], str(result), *tokens[end:]]
    steps.append(Step(part, result, " ".join(tokens), " ".join(after)))
    tokens = after
  return steps


def _end(tokens: list[str], start: int) -> int:
  """One past the end of the expression that begins at `start`; past all tokens if it has none."""
  missing = 1
  for i, token in enumerate(tokens[start:], start):
    missing += 1 if token == "+" else -1
    if not missing:
      return i + 1
  return len(tokens) + 1


def _check(tokens: list[str], text: str) -> None:
  if wrong := [t for t in tokens if t != "+" and not (t.isascii() and t.isdigit())]:
    raise ValueError(f"a sum holds + and numbers, got {wrong[0]!r} in {text!r:.80}.")
  if not tokens or _end(tokens, 0) != len(tokens):
    raise ValueError(f"{text!r:.80} is no sum in prefix form.")
  for i, token in enumerate(tokens):
    if token == "+" and tokens[i + 1] == "+" and tokens[_end(tokens, i + 1)] == "+":
      raise ValueError(f"{text!r:.80} has a + between two sums, where one must be a number.")
