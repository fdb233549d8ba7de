"""The scorers of reasoning_gym with stricter rules: answers that would earn a free reward or run as
code are refused. The package is imported when a scorer is made."""

from __future__ import annotations

import ast
import cmath
import fractions
import re
from collections.abc import Callable
from typing import Any

from lcrl.tasks.task import BadFormat

__all__ = ["Scorer"]

_FORMULA = re.compile(r"[\w\s+\-*/^().,=]*")
_NAMES = {
  *("pi", "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh"),
  *("exp", "log", "ln", "sqrt", "Abs"),
}
_LITERALS = {"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"}
_FORMULAS = {
  *("countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24"),
  "simple_integration",
}


class Scorer:
  """(answer, entry) -> score, by the package's own scorer of the data set.

  A pickle holds only the arguments, since some data sets hold functions without a name.
  """

  def __init__(self, dataset: str, options: dict[str, Any]):
    import reasoning_gym as package

    self._arguments = dataset, options
    self.data: Any = package.create_dataset(dataset, **options)

  def __reduce__(self):
    return Scorer, self._arguments

  def __call__(self, answer: str, entry: dict[str, Any]) -> float:
    """Raises BadFormat for an answer that the package's scorer cannot or must not read."""
    name = self._arguments[0]
    if name in _LITERALS and not (_is_literal(answer) or "(" not in answer):
      raise BadFormat("neither text nor a literal")
    if name in _FORMULAS and not _is_formula(answer):
      raise BadFormat("no formula")
    try:
      if name in _STRICTER:
        return _STRICTER[name](self.data, answer, entry)
      return float(self.data.score_answer(answer, entry))
    except (MemoryError, RecursionError, BadFormat):
      raise
    except Exception as why:  # such as int() of a word
      raise BadFormat(f"{type(why).__name__}: {why!s:.100}") from why


def _is_literal(answer: str) -> bool:
  try:
    ast.literal_eval(answer.strip())
  except (ValueError, SyntaxError):
    return False
  return True


def _is_formula(answer: str) -> bool:
  """Numbers, operators, single letters and the names of functions: no attribute, no text."""
  words = re.findall(r"[^\W\d]\w*", answer)
  dots = re.search(r"\.(?!\d)|(?<!\d)\.", answer)
  known = all(word in _NAMES or (len(word) == 1 and word != "_") for word in words)
  return bool(_FORMULA.fullmatch(answer)) and known and not dots


def _halting(data: Any, answer: str, entry: dict[str, Any]) -> float:
  """The package compares bool(answer): any text is true."""
  del data
  return float(answer.strip().casefold() == str(entry["answer"]).casefold())


def _complex(data: Any, answer: str, entry: dict[str, Any]) -> float:
  """The package pays min(1, nan), which is 1."""
  value = data.parse_string_to_complex(answer)
  if value is None or not cmath.isfinite(value):
    raise BadFormat("no finite number")
  return float(data.score_answer(answer, entry))


def _coin_flip(data: Any, answer: str, entry: dict[str, Any]) -> float:
  """The package accepts any prefix of the digits, and 0 for an answer below 0.0001."""
  expected, value = (fractions.Fraction(x.replace(",", "")) for x in (entry["answer"], answer))
  if abs(value - expected) <= min(fractions.Fraction(1, 10**4), expected / 100):
    return 1.0
  return min(float(data.score_answer(answer, entry)), len(answer) / len(entry["answer"]), 0.99)


def _polynomial(data: Any, answer: str, entry: dict[str, Any]) -> float:
  """The package accepts any text without a number where there is no solution."""
  if not entry["answer"]:
    return float(answer.strip() in ("", '""', "''"))
  return float(data.score_answer(answer, entry))


def _puzzle24(data: Any, answer: str, entry: dict[str, Any]) -> float:
  """The package accepts any four numbers."""
  used = sorted(int(digits) for digits in re.findall(r"\b\d+\b", answer))
  score = float(data.score_answer(answer, entry))
  return score if used == sorted(entry["metadata"]["numbers"]) else min(score, 0.01)


def _codeio(data: Any, answer: str, entry: dict[str, Any]) -> float:
  """The package accepts any empty container for another."""
  score, expected = float(data.score_answer(answer, entry)), entry["answer"].strip()
  return score if expected[:1] == "{" or answer.strip() == expected else min(score, 0.1)


_STRICTER: dict[str, Callable[[Any, str, dict[str, Any]], float]] = {
  "game_of_life_halting": _halting,
  "complex_arithmetic": _complex,
  "codeio": _codeio,
  "coin_flip": _coin_flip,
  "polynomial_equations": _polynomial,
  "puzzle24": _puzzle24,
}
