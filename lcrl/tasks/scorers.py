"""Verdicts that compare an answer with a reference: (response, reference) -> 1 or 0."""

from __future__ import annotations

import decimal

import math_verify

from lcrl.tasks.task import BadFormat

__all__ = ["math", "number", "text"]


def math(answer: str, reference: str) -> float:
  """Equal as mathematics, by math-verify; it finds the expression in the answer by itself.

  Its own timeouts are off: they would hide a hang as a wrong answer, and the process can be killed.
  """
  expected = math_verify.parse(f"${reference}$", parsing_timeout=None)
  if not expected:
    raise ValueError(f"the reference {reference!r} is no mathematics")
  found = math_verify.parse(answer, parsing_timeout=None)
  if not found:
    raise BadFormat("no expression found")
  return float(math_verify.verify(expected, found, timeout_seconds=None, raise_on_error=True))


def number(answer: str, reference: str) -> float:
  """Equal as decimal numbers, commas aside. Cheaper than `math` and enough for GSM8K."""
  expected = decimal.Decimal(reference.replace(",", ""))
  try:
    return float(decimal.Decimal(answer.replace(",", "")) == expected)
  except decimal.InvalidOperation:
    raise BadFormat(f"{answer!r:.50} is no number") from None


def text(answer: str, reference: str) -> float:
  """Equal as text."""
  return float(answer == reference)
