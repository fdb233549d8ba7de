"""Answers in LaTeX: their values, and whether two of them are equal.

`latex2sympy2_extended` parses and `math_verify` compares. `latex_text` prepares the text for them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import math_verify
import sympy
from latex2sympy2_extended import is_expr_of_only_symbols
from latex2sympy2_extended.latex2sympy2 import (
  ConversionConfig,
  NormalizationConfig,
  latex2sympy,
  normalize_latex,
)
from math_verify.grader import is_equation
from sympy.core.function import AppliedUndef

from lcrl.tasks.extract import boxed
from lcrl.tasks.latex_text import COMMAND, is_prose, is_wordy, prepared, without_units

_CLEANED = NormalizationConfig(
  basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
)
_IN_PROSE = [
  math_verify.LatexExtractionConfig(
    normalization_config=dataclasses.replace(_CLEANED, boxed="all")
  ),
  math_verify.ExprExtractionConfig(),
]
_CASE_COUNTS = ConversionConfig(lowercase_symbols=False)
_DELIMITER = re.compile(r"(?<!\\)\$|\\\(|\\\[")
_LABEL = re.compile(  # of a choice, with optional word and punctuation
  r"\s*(?:[Oo]ption|[Cc]hoice)?\s*(?:\(([A-J])\)|([A-J])(?:[).:](?!\d)|$))(?!(?s:.*)\b[A-J]\b)"
)
_EMPHASIS = re.compile(r"(?<![\w)}\]])\*\*(?=\S)(.+?)\*\*(?![\w({\[])")  # of Markdown, no power
_STATED = re.compile(  # a sentence that gives one number as the answer
  r"[A-Za-z ,']*(?:\b(?:is|are|equals)\b|[:=])\s*[$€£]?-?\d[\d,.]*(?:\s+[A-Za-z ]+)?[.!]?"
)
_TIME = re.compile(r"\d\s*:\s*\d\d\W*[ap]\.?\s?m\b", re.IGNORECASE)
_ORDERED = sympy.Tuple | sympy.Interval


class Answer(NamedTuple):
  value: Any  # of sympy; None for words
  words: str | None  # its words in lower case; None if it has operators
  units: tuple[tuple[str, int], ...] = ()  # name and power of the known units


def read(text: str) -> Answer | None:
  """The value of an answer that is all LaTeX or words; None if it cannot be parsed."""
  plain, units = without_units(prepared(text))
  words = re.sub(r"[\W_]+", " ", re.sub(COMMAND, r" \1 ", plain)).strip().casefold()
  words = re.sub(r"\b([ap]) m\b", r"\1m", words)
  if is_wordy(plain) or _TIME.search(re.sub(COMMAND, r"\1", plain)):
    return Answer(None, words)
  value = _parsed(plain)
  units += [("dollar", 1)] if r"\$" in text else []
  units += [("degree", 1)] if re.search(r"\^\s*\{?\s*\\circ\s*\}?$", plain) else []
  bare = re.fullmatch(r"[\s(){}.a-zA-Z0-9]*", re.sub(COMMAND, r"\1", plain))
  return None if value is None else Answer(value, words if bare else None, tuple(units))


def find(text: str, *, cut_out: bool) -> Answer | None:
  """The value of the answer in a text.

  Args:
    text: a response, or an answer.
    cut_out: the text is an answer without the rest of its response: all LaTeX or words, unless it
      holds a box or marks its mathematics by dollars or brackets.
  """
  text = _EMPHASIS.sub(r"\1", text)
  inside = boxed(text) or text
  stated = _STATED.fullmatch(inside.strip()) and not re.search(r"\b(?:not|or|than)\b", inside)
  if not is_prose(text) or (cut_out and not stated and not _DELIMITER.search(inside)):
    return read(inside)
  if inside is text and not _DELIMITER.search(text) and re.search(r"\\(?![dt]?frac)[a-zA-Z]", text):
    return None  # the parser for prose would lose its LaTeX commands
  parsed = math_verify.parse(
    text.replace("\u2212", "-").replace(r"\$", ""), _IN_PROSE, parsing_timeout=None
  )
  if not parsed:
    return None
  value, text = parsed[0], parsed[-1]
  in_latex = read(text) if isinstance(text, str) and "**" not in text else None
  return in_latex or (None if isinstance(value, str) else Answer(value, None))


def choice(text: str, *, alone: bool = False) -> str | None:
  r"""The letter of the choice that an answer names; None if it names none, or several.

  >>> choice(r"\textbf{(C)}\ 42"), choice("C. 42"), choice("A and B")
  ('C', 'C', None)
  """
  bare = re.sub(COMMAND, r"\1", re.sub(r"\$|\\[ ,]", " ", text)).strip().removesuffix(".")
  match = re.fullmatch(r"\(?([A-J])\)?", bare) if alone else _LABEL.match(bare)
  return match and match[match.lastindex or 1]


def equal(reference: Answer, answer: Answer) -> bool:
  """Whether an answer equals the reference. Not symmetric: x = 5 answers 5."""
  if reference.value is None or answer.value is None:
    return reference.words is not None and reference.words == answer.words
  if reference.units and answer.units and reference.units != answer.units:
    return False
  expected, value = reference.value, answer.value
  if _inequations(expected) != _inequations(value):
    return False
  expected, value = _as_equations(expected), _as_equations(value)
  if isinstance(expected, _ORDERED) and _point(value):
    value = _point(value)
  elif _point(expected) and (isinstance(value, _ORDERED) or _point(value)):
    expected, value = _point(expected), _point(value) or value
  kinds = {isinstance(x, sympy.FiniteSet) for x in (expected, value)}
  if len(kinds) == 2 and isinstance(expected, _ORDERED) | isinstance(value, _ORDERED):
    return False  # the numbers a, b are neither the point nor the interval (a, b)
  if not _named(expected):
    value = _roots(value)
  if _named(expected) != _named(value):
    return False
  if isinstance(value, sympy.Eq) and not is_equation(expected) and not _is_name(value.lhs):
    return False  # an equation to solve, no value with its name
  if _is_far(expected, value):
    return False
  digits = _digits(expected)
  return math_verify.verify(
    expected,
    value,
    float_rounding=digits,
    timeout_seconds=None,
    raise_on_error=True,
    allow_set_relation_comp=True,
  )


def _each(change: Callable, value: Any) -> Any:
  """The value with its parts changed, if it is a set, else itself."""
  if not isinstance(value, sympy.FiniteSet):
    return change(value)
  return type(value)(*map(change, getattr(value, "_unsorted_args", value.args)))


def _inequations(value: Any) -> int:
  """The number of inequations in the value."""
  parts = value.args if isinstance(value, sympy.FiniteSet) else (value,)
  return sum(isinstance(part, sympy.Ne) for part in parts)


def _as_equations(value: Any) -> Any:
  """The value with equations for inequations, which `math_verify` does not compare."""
  equation = lambda x: sympy.Eq(*x.args, evaluate=False) if isinstance(x, sympy.Ne) else x
  return _each(equation, value)


def _point(value: Any) -> sympy.Tuple | None:
  """The point (1, 2) that x = 1, y = 2 gives, or (x, y) = (1, 2); None if it gives none."""
  pairs: list[tuple] = []
  if isinstance(value, sympy.FiniteSet) and len(_named(value)) == len(value.args):
    pairs = [(part.lhs, part.rhs) for part in value.args if isinstance(part, sympy.Eq)]
  if isinstance(value, sympy.Eq) and all(isinstance(side, _ORDERED) for side in value.args):
    first, second = (x.args[:2] if isinstance(x, sympy.Interval) else x.args for x in value.args)
    pairs = list(zip(first, second, strict=False))
  if len(pairs) < 2 or not all(isinstance(name, sympy.Symbol) for name, _ in pairs):
    return None
  return sympy.Tuple(*(x for _, x in sorted(pairs, key=lambda pair: str(pair[0]))))


def _is_name(side: Any) -> bool:
  """Whether the left side of an equation only names its right side, as A, f(x) or 2 + 3."""
  return is_expr_of_only_symbols(side) or side.is_number or side.has(AppliedUndef)


def _named(value: Any) -> set:
  """The names of values, if more than one has a name: x and y of x = 1, y = 2."""
  parts = value.args if isinstance(value, sympy.FiniteSet) else ()
  names = {part.lhs for part in parts if isinstance(part, sympy.Eq)}
  return names if len(names) > 1 else set()


def _roots(value: Any) -> Any:
  """The values of x_1 = 1, x_2 = 2, the roots of one equation."""
  names = _named(value)
  parts = value.args if names else ()
  one = len({str(name).partition("_")[0] for name in names}) == 1
  if not one or not all("_" in str(name) for name in names) or len(names) != len(parts):
    return value
  return type(value)(*(part.rhs for part in parts))


def _is_far(expected: Any, value: Any) -> bool:
  """Whether two numbers differ by more than rounding: cheaper than simplification."""
  both = (expected, value)
  if not all(isinstance(x, sympy.Expr) and x.is_number for x in both):
    return False
  if any(x.has(sympy.UnevaluatedExpr) for x in both):
    return False  # a percentage, which is compared in two ways
  try:
    difference, size = (abs(complex(x.evalf())) for x in (expected - value, expected))
  except (TypeError, ValueError, ArithmeticError):
    return False
  return difference > 1e-5 + 1e-9 * size


def _digits(value: Any) -> int:
  """The decimals to which numbers are compared: six, or more for a small reference."""
  if not isinstance(value, sympy.Number) or not 0 < abs(value) < 1e-3:
    return 6
  return 3 - math.floor(math.log10(abs(value)))


def _parsed(text: str) -> Any:
  """The text as an expression; None if the parser refuses it, or would misread it."""
  if match := re.fullmatch(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)", text):
    return sympy.Integer(match[0].replace(",", ""))  # the parser needs milliseconds
  if re.search(r"[\d.]\s+[\d.]", text):
    return None  # it would add them
  if re.search(r"\}\s*\\%$", text):  # of a fraction, which the parser refuses
    value = _parsed(re.sub(r"\s*\\%$", "", text))
    hundredth = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
    return None if value is None else sympy.Mul(value.doit(), hundredth, evaluate=False)
  if text.count(r"\pm") == 1:  # the parser knows it in sums only
    inside = match[1] if (match := re.fullmatch(r"\\\{(.*)\\\}", text, re.DOTALL)) else text
    signs = (("+", "-"), ("-", "+"))
    return _parsed(", ".join(inside.replace(r"\pm", p).replace(r"\mp", m) for p, m in signs))
  try:
    latex = normalize_latex(text, _CLEANED)
    value = latex2sympy(
      latex,
      is_real=True,
      convert_degrees=False,
      normalization_config=None,
      conversion_config=_CASE_COUNTS,
    )
  except MemoryError:
    raise
  except Exception:  # it raises this very class
    return None
  return _each(_with_i, value)


def _with_i(value: Any) -> Any:
  """The value with i as the imaginary unit; in the equation z = 2 + i, z is not real."""
  unit = sympy.Symbol("i", real=True)
  if unit not in getattr(value, "free_symbols", ()):
    return value
  if isinstance(value, sympy.Eq):
    free = {x: sympy.Symbol(x.name) for x in value.lhs.free_symbols}
    return sympy.Eq(value.lhs.xreplace(free), _with_i(value.rhs), evaluate=False)
  return value.xreplace({unit: sympy.I})
