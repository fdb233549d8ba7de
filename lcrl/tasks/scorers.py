"""Verdicts that compare an answer with a reference: (response, reference) -> 1 or 0."""

from __future__ import annotations

import functools
import re

from lcrl.tasks import latex
from lcrl.tasks.extract import Extracted, to_number
from lcrl.tasks.task import BadFormat

__all__ = ["math", "number", "text"]


def math(answer: str, reference: str) -> float:
  """Equal as mathematics, by math-verify.

  An answer that `lcrl.tasks.extract` cut out is all LaTeX; in a whole response the
  expression is searched first. Words are compared as words; units count only where both have one.

  Its own timeouts are off: they would hide a hang as a wrong answer, and the process can be killed.
  """
  expected = _read(str(reference))
  if answer.strip() == reference.strip():
    return 1.0
  if (wanted := latex.choice(reference, alone=True)) and (named := latex.choice(answer)):
    return float(named == wanted)
  cut_out = isinstance(answer, Extracted) or expected.value is None
  expression = latex.find(answer, cut_out=cut_out)
  if expression is None:
    raise BadFormat("no expression found")
  return float(latex.equal(expected, expression))


@functools.lru_cache(maxsize=256)
def _read(reference: str) -> latex.Answer:
  """The parsed reference. The cache serves the answers to one prompt, which come in a row."""
  if (expected := latex.find(reference, cut_out=True)) is None:
    raise ValueError(f"the reference {reference!r} is no mathematics")
  return expected


def number(answer: str, reference: str) -> float:
  """Equal as numbers in digits, such as 1,234.5, -$3, 1/2 or 2e6. Enough for GSM8K, and fast.

  >>> number("1,234.0", "1234"), number("7", "8")
  (1.0, 0.0)
  """
  expected = to_number(reference)
  if expected is None:
    raise ValueError(f"the reference {reference!r:.50} is no number")
  number = to_number(answer)
  if number is None and not re.fullmatch(r"\d[\d\s,._]*", answer.strip()):  # several are just wrong
    raise BadFormat(f"{answer!r:.50} is no number")
  return float(number == expected)


def text(answer: str, reference: str) -> float:
  """Equal as text.

  >>> text("Paris", "Paris"), text("paris", "Rome")
  (1.0, 0.0)
  """
  return float(answer == reference)
