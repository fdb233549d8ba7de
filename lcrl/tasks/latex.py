"""Answers in LaTeX: what they mean, and whether two of them mean the same.

`latex2sympy2_extended` parses and `math_verify` compares. This module prepares answers for them, so
that the parser cannot misread them in silence: it adds two numbers in a row, takes words for
products of letters, drops the base of a numeral, and knows neither systems nor repeating decimals.
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

from lcrl.tasks.extract import boxed, lowered

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
_UNICODE = str.maketrans(
  {
    **{
      "\u2212": "-",
      "\u2013": "-",
      "°": r"^\circ",
      "√": r"\sqrt",
      "∞": r"\infty",
      "½": r"\frac12",
    },
    **{"\u222a": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset", "·": r"\cdot "},
    **{"÷": r"\div ", "≠": r"\ne ", "\u00a0": " ", "\u2009": " ", "\u202f": " "},
  }
)
_COMMAND = r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it)|[mh]box)\s*\{([^{}]*)\}"  # with letters
_POWER = r"(?:\s*\^\s*\{?\s*([23])\s*\}?)?"
_ANGLE = (  # in degrees, of a function
  r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\s*\^\s*(?:\d|\{\d+\}))?)"
  r"\s*(\()?\s*(\d+(?:\.\d+)?)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})(?(2)\s*\))"
)
_DELIMITER = re.compile(r"(?<!\\)\$|\\\(|\\\[")
_GAP = r"(?:\{,\}|,?\\!|\\[,;: ]|~|\s)\s*"  # between three digits and the next three
_REWRITTEN: list[tuple[str, Any]] = [
  (r"\\(?:underline|boldsymbol|bold|bm|textcolor\s*\{\w+\})\s*\{([^{}]*)\}", r"\1"),
  (r"\\color\s*\{\w+\}|\\(?:tiny|small|large|Large|LARGE|huge|Huge|bf|rm)(?![a-zA-Z])", " "),
  (r"\\mathbb\s+R(?![a-zA-Z])|\\text\{\s*all real numbers\s*\}", r"\\mathbb{R}"),
  (_ANGLE, r"\1(\\frac{\3\\pi}{180})"),
  (r"\{:\}", ":"),
  (r"\\log_(\w)\s*", r"\\log_{\1}"),  # else two numbers in a row
  (r"\\([dt]?frac)\s*(\d)\s+(\d)(?!\d)", r"\\\1{\2}{\3}"),
  (r"\\\$|\$|(?<!\\)\\[()\[\]]|\\(?:displaystyle|q?quad)(?![a-zA-Z])", " "),
  (r"^\s*(?:\\text\{[^{}]*:\s*\}|=)\s*(?=\S)", ""),
  (
    r"^\s*\\text(?:bf|rm)?\{\s*(-?\d[\d.,/:]*(?:\s*\\?%)?)(?:\s+([A-Za-z][A-Za-z .]*))?\}\s*$",
    lambda f: f[1] + (rf"\text{{ {f[2]}}}" if f[2] else ""),
  ),
  (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?", ""),
  (r"\\(?:varnothing|O)(?![a-zA-Z])", r"\\emptyset"),
  (r"\\langle(?![a-z])", "("),
  (r"\\rangle(?![a-z])", ")"),
  (r"\*\*", "^"),
  (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi"),
  (r"(?<![\\A-Za-z])inf(?:ty|inity)?(?![A-Za-z])", r"\\infty"),
  (r"(?<![\w.\\])(\d+\.?\d*)[eE]([+-]?\d+)(?!\w)", r"\1\\times 10^{\2}"),
  (rf"(?<![\d.,])\d{{1,3}}(?:{_GAP}\d{{3}})+(?!\d)", lambda f: re.sub(r"\D", "", f[0])),
  (r"(?<!\\)\\[,;: !]|~", " "),
  (r"(\d)\s+(\d+)\s*/\s*(\d+)", r"\1\\frac{\2}{\3}"),
  (
    r"(?<!\d)(\d*)\.(\d{0,9}?)(\d{1,9}?)\3{2,}\s*(?:\\[lc]?dots|\.\.\.|…)",
    lambda f: _repeating(*f.groups()),
  ),
  (r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{?(\d+)\}?", lambda f: _repeating(*f.groups())),
  (r"(?<![\w}])(\d+)_\{?(\d+)\}?", r"\\text{\1 base \2}"),
  (r"\)\s*\(", r")\\cdot("),
  (r"\\text\{\s*(?:percent|pct|\\?%)\s*\}", r"\\%"),
]
_LABEL = re.compile(  # of a choice, with what may stand beside it
  r"\s*(?:[Oo]ption|[Cc]hoice)?\s*(?:\(([A-J])\)|([A-J])(?:[).:](?!\d)|$))(?!(?s:.*)\b[A-J]\b)"
)
_EMPHASIS = re.compile(r"(?<![\w)}\]])\*\*(?=\S)(.+?)\*\*(?![\w({\[])")  # of Markdown, no power
_STATED = re.compile(  # one number, which a sentence gives as the answer
  r"[A-Za-z ,']*(?:\b(?:is|are|equals)\b|[:=])\s*[$€£]?-?\d[\d,.]*(?:\s+[A-Za-z ]+)?[.!]?"
)
_TIME = re.compile(r"\d\s*:\s*\d\d\W*[ap]\.?\s?m\b", re.IGNORECASE)
_ARRAY = re.compile(  # as a matrix
  r"(?:\\left)?\s*[(\[]\s*\\begin\{array\}\{[lcr| ]*\}(.*?)\\end\{array\}\s*(?:\\right)?\s*[)\]]",
  re.DOTALL,
)
_NO_UNIT = re.compile(r"\b(?:and|or|if|for|to|is|not|more|less|than|base|mod|[ap]\.?\s?m)\b|^i$")
_UNITS = {  # by all their names; others are units, too, but not told apart
  name: names.split()[0]
  for names in (
    *("mm millimeter millimetre", "cm centimeter centimetre", "m meter metre"),
    *("km kilometer kilometre", "in inch inche", "ft foot feet", "yd yard", "mi mile"),
    *("mg milligram", "g gram", "kg kilogram", "lb pound", "oz ounce", "ml milliliter"),
    *("l liter litre", "s sec second", "min minute", "h hr hour", "day", "week", "month"),
    *("year yr", "degree deg", "rad radian", "cent", "dollar", "mph", "kph"),
  )
  for name in names.split()
}
_NAMES = {"and", "or", "pi", "inf", "infinity", "sin", "cos", "tan", "cot", "sec", "log", "sqrt"}
_ORDERED = sympy.Tuple | sympy.Interval
_DIMENSIONS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


class Answer(NamedTuple):
  value: Any  # of sympy; None for words
  words: str | None  # how it reads as words, without case; None if it has operators
  units: tuple[tuple[str, int], ...] = ()  # name and power of those that are known


def read(text: str) -> Answer | None:
  """What an answer means, all of it being LaTeX or words; None if that cannot be told."""
  plain, units = _without_units(_prepared(text))
  words = re.sub(r"[\W_]+", " ", re.sub(_COMMAND, r" \1 ", plain)).strip().casefold()
  words = re.sub(r"\b([ap]) m\b", r"\1m", words)
  if _is_wordy(plain) or _TIME.search(re.sub(_COMMAND, r"\1", plain)):
    return Answer(None, words)
  value = _parsed(plain)
  units += [("dollar", 1)] if r"\$" in text else []
  units += [("degree", 1)] if re.search(r"\^\s*\{?\s*\\circ\s*\}?$", plain) else []
  bare = re.fullmatch(r"[\s(){}.a-zA-Z0-9]*", re.sub(_COMMAND, r"\1", plain))
  return None if value is None else Answer(value, words if bare else None, tuple(units))


def find(text: str, *, cut_out: bool) -> Answer | None:
  """What the answer in a text means.

  Args:
    text: a response, or an answer.
    cut_out: it is an answer that was cut out of a response: LaTeX or words, all of it, unless it
      holds a box or marks its mathematics by dollars or brackets.
  """
  text = _EMPHASIS.sub(r"\1", text)
  inside = boxed(text) or text
  stated = _STATED.fullmatch(inside.strip()) and not re.search(r"\b(?:not|or|than)\b", inside)
  if not _is_prose(text) or (cut_out and not stated and not _DELIMITER.search(inside)):
    return read(inside)
  if inside is text and not _DELIMITER.search(text) and re.search(r"\\(?![dt]?frac)[a-zA-Z]", text):
    return None  # it would be read without what only LaTeX can write
  found = math_verify.parse(
    text.replace("\u2212", "-").replace(r"\$", ""), _IN_PROSE, parsing_timeout=None
  )
  if not found:
    return None
  in_latex = read(found[-1]) if isinstance(found[-1], str) and "**" not in found[-1] else None
  return in_latex or (None if isinstance(found[0], str) else Answer(found[0], None))


def choice(text: str, *, alone: bool = False) -> str | None:
  r"""The letter of the choice that an answer names; None if it names none, or several.

  >>> choice(r"\textbf{(C)}\ 42"), choice("C. 42"), choice("A and B")
  ('C', 'C', None)
  """
  bare = re.sub(_COMMAND, r"\1", re.sub(r"\$|\\[ ,]", " ", text)).strip().removesuffix(".")
  found = re.fullmatch(r"\(?([A-J])\)?", bare) if alone else _LABEL.match(bare)
  return found and found[found.lastindex or 1]


def equal(reference: Answer, answer: Answer) -> bool:
  """Whether an answer means what the reference means. Not symmetric: x = 5 answers 5."""
  if reference.value is None or answer.value is None:
    return reference.words is not None and reference.words == answer.words
  if reference.units and answer.units and reference.units != answer.units:
    return False
  expected, found = reference.value, answer.value
  if _unequal(expected) != _unequal(found):
    return False
  expected, found = _as_equations(expected), _as_equations(found)
  if isinstance(expected, _ORDERED) and _point(found):
    found = _point(found)
  elif _point(expected) and (isinstance(found, _ORDERED) or _point(found)):
    expected, found = _point(expected), _point(found) or found
  kinds = {isinstance(value, sympy.FiniteSet) for value in (expected, found)}
  if len(kinds) == 2 and isinstance(expected, _ORDERED) | isinstance(found, _ORDERED):
    return False  # the numbers a, b are neither the point nor the interval (a, b)
  if not _named(expected):
    found = _roots(found)
  if _named(expected) != _named(found):
    return False
  if isinstance(found, sympy.Eq) and not is_equation(expected) and not _is_name(found.lhs):
    return False  # an equation to solve, no value with its name
  if _is_far(expected, found):
    return False
  digits = _digits(expected)
  return math_verify.verify(
    expected,
    found,
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


def _unequal(value: Any) -> int:
  """How many of its parts say that something is not equal."""
  parts = value.args if isinstance(value, sympy.FiniteSet) else (value,)
  return sum(isinstance(part, sympy.Ne) for part in parts)


def _as_equations(value: Any) -> Any:
  """Equations for inequations, which nobody else compares."""
  turned = lambda x: sympy.Eq(*x.args, evaluate=False) if isinstance(x, sympy.Ne) else x
  return _each(turned, value)


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
  """Whether it stands before an equality sign for the answer behind it, as A, f(x) or 2 + 3."""
  return is_expr_of_only_symbols(side) or side.is_number or side.has(AppliedUndef)


def _named(value: Any) -> set:
  """Which values are told apart by a name, if more than one are: of x = 1, y = 2 both."""
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


def _is_far(expected: Any, found: Any) -> bool:
  """Whether two numbers differ beyond all rounding: that takes less time than to simplify."""
  both = (expected, found)
  if not all(isinstance(x, sympy.Expr) and x.is_number for x in both):
    return False
  if any(x.has(sympy.UnevaluatedExpr) for x in both):
    return False  # a percentage, which is compared in two ways
  try:
    difference, size = (abs(complex(x.evalf())) for x in (expected - found, expected))
  except (TypeError, ValueError, ArithmeticError):
    return False
  return difference > 1e-5 + 1e-9 * size


def _digits(value: Any) -> int:
  """After how many decimals numbers are compared: six, or more where the reference is small."""
  if not isinstance(value, sympy.Number) or not 0 < abs(value) < 1e-3:
    return 6
  return 3 - math.floor(math.log10(abs(value)))


def _is_prose(text: str) -> bool:
  """Whether mathematics stands in it between words."""
  outside = re.sub(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]", " ", text, flags=re.DOTALL)
  outside = re.sub(rf"{_COMMAND}|\\[a-zA-Z]+|\{{[^{{}}]*\}}", " ", outside)
  words = re.findall(r"[A-Za-z]{2,}", outside)
  return any(_is_word(word) for word in words if word not in _NAMES and word not in _UNITS)


def _is_word(letters: str) -> bool:
  """Whether bare letters are a word and no product: variables are rarely e, i, o or u."""
  return (
    len(letters) > 1
    and bool(re.search("[aeiouy]", letters.lower()))
    and not (len(letters) <= 3 and letters.isupper())
  )


def _is_wordy(text: str) -> bool:
  """Whether the whole answer consists of words."""
  inside = re.sub(_COMMAND, r"\1", text)
  outside = re.sub(_COMMAND, "", text)
  if outside != text and not re.search(r"[\w\\]", outside):
    return bool(re.match(r"\W*[a-zA-Z]|\d+ base \d+$", inside.strip()))
  words = re.sub(r"\b(?:and|or)\b", " ", text).split()
  return bool(re.fullmatch(r"[A-Za-z .'-]+", text)) and all(
    _is_word(word) and re.search("[eiouEIOU]", word) for word in words
  )


def _prepared(text: str) -> str:
  """The answer without what only concerns its looks, in words that the parser knows."""
  text = _ARRAY.sub(r"\\begin{pmatrix}\1\\end{pmatrix}", lowered(text).translate(_UNICODE))
  text = re.sub(r"\\(?:begin|end)\{(?:cases|array|aligned|gathered)\}(?:\{[lcr| ]*\})?", "§", text)
  if "§" in text:  # a system: its equations, with commas
    text = re.sub(r"(?:\\left\s*)?\\\{\s*§|§", "", text).replace(r"\\", ",").replace("&", " ")
  elif text.count(r"\{") == text.count(r"\}") + 1:  # a brace that ends in `\right.`
    text = re.sub(r"\\right\s*\.|$", r"\\}", text, count=1)
  for pattern, new in _REWRITTEN:
    text = re.sub(pattern, new, text)
  return text.strip().rstrip(".,;:\\ ")


def _repeating(whole: str, once: str, again: str) -> str:
  """A repeating decimal as a fraction.

  >>> _repeating("0", "1", "6")
  '\\\\frac{15}{90}'
  """
  difference = int(whole + once + again) - int("0" + whole + once)
  return rf"\frac{{{difference}}}{{{10 ** len(once) * (10 ** len(again) - 1)}}}"


def _without_units(text: str) -> tuple[str, list[tuple[str, int]]]:
  """The text without units behind numbers, and those of them that are known."""
  units: list[tuple[str, int]] = []

  def drop(found: re.Match) -> str:
    said = found[1].lower().replace(".", "").strip()
    *before, name = said.split() or [""]
    known = _UNITS.get(name) or _UNITS.get(name.removesuffix("s"))
    follows = re.search(r"[\d})%]\s*$|\\(?:pi|circ)\s*$", text[: found.start()])
    if _NO_UNIT.search(said) or not (known or (follows and len(said) > 2)):
      return found[0]
    if known:
      power = next((_DIMENSIONS[word] for word in before if word in _DIMENSIONS), 1)
      units.append((known, max(power, int(found[2] or 1))))
    return " "

  def name(found: re.Match) -> str:
    known = (
      w in _DIMENSIONS or w in _UNITS or w.removesuffix("s") in _UNITS for w in found[2].split()
    )
    spelled = found[1] and all(len(w) > 2 and _is_word(w) for w in found[2].split())
    return rf"\text{{{found[2]}}}" if all(known) or spelled else found[0]

  bare = rf"(?<=[\d}})])(\s*)((?:[A-Za-z]+\s+)*[A-Za-z]{{2,}})(?={_POWER}$)"
  text = re.sub(bare, name, text)
  return re.sub(rf"(?<=[\w}})%])\s*{_COMMAND}{_POWER}", drop, text).strip(), units


def _parsed(text: str) -> Any:
  """The text as an expression; None if the parser does not take it, or would misread it."""
  if found := re.fullmatch(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)", text):
    return sympy.Integer(found[0].replace(",", ""))  # the parser takes milliseconds
  if re.search(r"[\d.]\s+[\d.]", text):
    return None  # it would add them
  if re.search(r"\}\s*\\%$", text):  # of a fraction, which the parser does not take
    value = _parsed(re.sub(r"\s*\\%$", "", text))
    hundredth = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
    return None if value is None else sympy.Mul(value.doit(), hundredth, evaluate=False)
  if text.count(r"\pm") == 1:  # the parser takes it in sums only
    inside = found[1] if (found := re.fullmatch(r"\\\{(.*)\\\}", text, re.DOTALL)) else text
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
  """With i as the imaginary unit; z = 2 + i stays an equation, z then being no real number."""
  unit = sympy.Symbol("i", real=True)
  if unit not in getattr(value, "free_symbols", ()):
    return value
  if isinstance(value, sympy.Eq):
    free = {x: sympy.Symbol(x.name) for x in value.lhs.free_symbols}
    return sympy.Eq(value.lhs.xreplace(free), _with_i(value.rhs), evaluate=False)
  return value.xreplace({unit: sympy.I})
