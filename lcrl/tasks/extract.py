"""Extractors: text of a response -> its answer, or None if there is none.

A task names its extractor, so that nobody has to guess which text was scored.
"""

from __future__ import annotations

import decimal
import fractions
import re
from collections.abc import Callable, Iterable
from typing import Any

from lcrl.tasks.task import BadFormat

__all__ = ["after_hashes", "answer_tag", "boxed", "last_number", "whole"]

_MINUS = "-\u2212\u2013"
_GAP = r"(?:,|\{,\}|,?\\!|\\[,;: ]|~|[\u00a0\u2007\u2009\u202f'])"  # between thousands
_DIGITS = rf"(?:\d{{1,3}}(?:{_GAP}\d{{3}})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_EXPONENT = rf"\s*(?:\^|\*\*)\s*\{{?\s*([{_MINUS}+]?\d+)\}}?"
_NUMBER = re.compile(
  rf"(?<![\w.^])(?<![\^_]\{{)([{_MINUS}]?)(?:\s?\\?[$€£¥])?"
  rf"({_DECIMAL})(?!_?\d)"
  rf"(?:e([{_MINUS}+]?\d+)(?!\w)|\s*(?:\\times|\\cdot|[\u00d7·*x])\s*10{_EXPONENT}|{_EXPONENT}"
  rf"|/({_DECIMAL})(?![/\d]))?",
  re.IGNORECASE,
)


_BOX = r"\\f?box(?:ed)?(?![a-zA-Z])\s*"
_BRACES = re.compile(  # a box with its brace, one without, an escaped character, a brace
  rf"{_BOX}\{{|{_BOX}([^\s{{}}$][^{{}}$\n]{{0,200}}?(?=\s*(?:\$|\\\)|\\\]))|-?\d[\d.,]*\d|\d)|\\.|[{{}}]",
  re.DOTALL,
)


_FRACTION = re.compile(r"\\[dtc]?frac\s*(\{)?(\d+?)(?(1)\}|)\s*(\{)?((?(3)\d+|\d))(?(3)\}|)")
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
_LOWERED = str.maketrans(_RAISED, "0123456789-")


class Extracted(str):
  """An answer without the rest of its response."""

  __slots__ = ()


def whole(text: str) -> str | None:
  """The whole text.

  >>> whole(" 12 ")
  '12'
  """
  return text.strip() or None


def after_hashes(text: str) -> str | None:
  """The rest of the line after the last #### that something follows, as GSM8K writes its answers.

  >>> after_hashes("6 * 7 = 42\\n#### 42\\n")
  '42'
  """
  return _last(line.split("\n")[0] for line in text.split("####")[1:])


def answer_tag(text: str) -> str | None:
  """The content of the last <answer> ... </answer> that is not empty.

  >>> answer_tag("<think>6 * 7</think><answer> 42 </answer>")
  '42'
  """
  before_closing = text.split("</answer>")[:-1]
  return _last(part.rpartition("<answer>")[2] for part in before_closing if "<answer>" in part)


def last_number(text: str) -> str | None:
  r"""The last number in digits, in ASCII. A minus belongs to it unless text precedes, as in 7-3.
  Exponents and subscripts do not count.

  >>> last_number("12 - 7 + 1,000 = 1,005.")
  '1,005'
  >>> last_number("It is -4.")
  '-4'
  >>> last_number(r"So $2.5 \times 10^{-3}$ m.")
  '2.5e-3'
  """
  matches = list(_NUMBER.finditer(_FRACTION.sub(r" \2/\4", lowered(text))))
  return Extracted(_in_ascii(matches[-1])) if matches else None


def to_number(text: str) -> decimal.Decimal | fractions.Fraction | None:
  """The value of a text that is one number, with or without a currency; None for other texts.

  >>> to_number("-$1,234.50"), to_number("1/2"), to_number("3,4"), to_number("1_2")
  (Decimal('-1234.50'), Fraction(1, 2), None, None)
  """
  text = re.sub(r"\\?[$€£¥]", "", lowered(text)).strip().removesuffix(".").removeprefix("+")
  if not (match := _NUMBER.fullmatch(_FRACTION.sub(r"\2/\4", text))):
    return None
  number, slash, under = _in_ascii(match).replace(",", "").partition("/")
  base, power, exponent = number.partition("^")
  try:
    if power:
      return decimal.Decimal(base) ** int(exponent)
    return fractions.Fraction(base) / fractions.Fraction(under) if slash else decimal.Decimal(base)
  except (ArithmeticError, ValueError):  # too large or too long, or a division by zero
    return None


def lowered(text: str) -> str:
  """The text with raised digits written as ^{...}.

  >>> lowered("10⁻⁶")
  '10^{-6}'
  """
  return re.sub(f"[{_RAISED}]+", lambda match: f"^{{{match[0].translate(_LOWERED)}}}", text)


def _in_ascii(match: re.Match) -> str:
  """The matched number as 1,234.5, 2.5e-3, 2^3 or 1/2."""
  sign, digits, *exponents, under = match.groups()
  marks = ("e", "e", "^")
  after = [f"{mark}{exponent}" for mark, exponent in zip(marks, exponents, strict=True) if exponent]
  plain = re.sub(_GAP, ",", digits)
  number = sign + plain + "".join(after) + (f"/{under}" if under else "")
  return re.sub(f"[{_MINUS}]", "-", number)


def boxed(text: str) -> str | None:
  r"""The content of the last \boxed{...} or \fbox{...} that is closed and not empty.

  Without braces: the rest of the formula behind the command, or a number.

  >>> boxed(r"so \boxed{\frac{1}{2}}.")
  '\\frac{1}{2}'
  >>> boxed(r"$\boxed 42$ goes into \boxed{}")
  '42'
  """
  opened: list[int | None] = []  # where the content of each open brace begins; None: of no box
  boxes: list[tuple[int, str]] = []
  for match in _BRACES.finditer(text):
    if match[1]:
      boxes.append((match.start(1), match[1]))
    elif match[0] == "}" and opened:
      begin = opened.pop()
      boxes += [] if begin is None else [(begin, text[begin : match.start()])]
    elif match[0][-1] == "{" and match[0] != r"\{":
      opened.append(match.end() if match[0] != "{" else None)
  return _last(content for _, content in sorted(boxes))


def _last(parts: Iterable[str]) -> Extracted | None:
  """The last part that is not blank."""
  filled = [part for part in map(str.strip, parts) if part]
  return Extracted(filled[-1]) if filled else None


def score_extracted(
  response: str,
  reference: Any,
  *,
  extract: Callable[[str], str | None],
  score: Callable[[str, Any], float],
) -> float:
  """The score of the extracted answer. Raises BadFormat if there is none."""
  answer = extract(response)
  if answer is None:
    raise BadFormat("no answer found")
  return score(answer, reference)
