"""Where in a response the answer stands: text -> the answer, or None if there is none.

Each is public and a task names the one it means, so that nobody has to guess what was scored.
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
_BRACES = re.compile(  # a box with its brace, one without, what is escaped, a brace
  rf"{_BOX}\{{|{_BOX}([^\s{{}}$][^{{}}$\n]{{0,200}}?(?=\s*(?:\$|\\\)|\\\]))|-?\d[\d.,]*\d|\d)|\\.|[{{}}]",
  re.DOTALL,
)


_FRACTION = re.compile(r"\\[dtc]?frac\s*(\{)?(\d+?)(?(1)\}|)\s*(\{)?((?(3)\d+|\d))(?(3)\}|)")
_RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
_LOWERED = str.maketrans(_RAISED, "0123456789-")


class Extracted(str):
  """An answer that was cut out of a response: all of it is the answer."""

  __slots__ = ()


def whole(text: str) -> str | None:
  """All of it.

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
  """Inside the last <answer> ... </answer> that is not empty.

  >>> answer_tag("<think>6 * 7</think><answer> 42 </answer>")
  '42'
  """
  before_closing = text.split("</answer>")[:-1]
  return _last(part.rpartition("<answer>")[2] for part in before_closing if "<answer>" in part)


def last_number(text: str) -> str | None:
  r"""The last number in digits, in ASCII; a minus counts unless something stands before it, as in
  7-3. What stands as an exponent or subscript of something else is none.

  >>> last_number("12 - 7 + 1,000 = 1,005.")
  '1,005'
  >>> last_number("It is -4.")
  '-4'
  >>> last_number(r"So $2.5 \times 10^{-3}$ m.")
  '2.5e-3'
  """
  found = list(_NUMBER.finditer(_FRACTION.sub(r" \2/\4", lowered(text))))
  return Extracted(_in_ascii(found[-1])) if found else None


def to_number(text: str) -> decimal.Decimal | fractions.Fraction | None:
  """The value of a text that is one number, with or without a currency; None if it is none.

  >>> to_number("-$1,234.50"), to_number("1/2"), to_number("3,4"), to_number("1_2")
  (Decimal('-1234.50'), Fraction(1, 2), None, None)
  """
  text = re.sub(r"\\?[$€£¥]", "", lowered(text)).strip().removesuffix(".").removeprefix("+")
  if not (found := _NUMBER.fullmatch(_FRACTION.sub(r"\2/\4", text))):
    return None
  number, slash, under = _in_ascii(found).replace(",", "").partition("/")
  base, power, exponent = number.partition("^")
  try:
    if power:
      return decimal.Decimal(base) ** int(exponent)
    return fractions.Fraction(base) / fractions.Fraction(under) if slash else decimal.Decimal(base)
  except (ArithmeticError, ValueError):  # too large or too long, or a division by zero
    return None


def lowered(text: str) -> str:
  """With exponents that are raised digits behind a ^.

  >>> lowered("10⁻⁶")
  '10^{-6}'
  """
  return re.sub(f"[{_RAISED}]+", lambda found: f"^{{{found[0].translate(_LOWERED)}}}", text)


def _in_ascii(found: re.Match) -> str:
  """1,234.5, 2.5e-3, 2^3 or 1/2."""
  sign, digits, *exponents, under = found.groups()
  marks = ("e", "e", "^")
  after = [f"{mark}{exponent}" for mark, exponent in zip(marks, exponents, strict=True) if exponent]
  plain = re.sub(_GAP, ",", digits)
  number = sign + plain + "".join(after) + (f"/{under}" if under else "")
  return re.sub(f"[{_MINUS}]", "-", number)


def boxed(text: str) -> str | None:
  r"""Inside the last \boxed{...} or \fbox{...} that is closed and not empty, braces matched.

  Without braces, what follows the command up to the end of the formula, or a number.

  >>> boxed(r"so \boxed{\frac{1}{2}}.")
  '\\frac{1}{2}'
  >>> boxed(r"$\boxed 42$ goes into \boxed{}")
  '42'
  """
  opened: list[int | None] = []  # where the content of each open brace begins; None: of no box
  boxes: list[tuple[int, str]] = []
  for found in _BRACES.finditer(text):
    if found[1]:
      boxes.append((found.start(1), found[1]))
    elif found[0] == "}" and opened:
      begin = opened.pop()
      boxes += [] if begin is None else [(begin, text[begin : found.start()])]
    elif found[0][-1] == "{" and found[0] != r"\{":
      opened.append(found.end() if found[0] != "{" else None)
  return _last(content for _, content in sorted(boxes))


def _last(parts: Iterable[str]) -> Extracted | None:
  """The last part that is not blank."""
  found = [part for part in map(str.strip, parts) if part]
  return Extracted(found[-1]) if found else None


def score_extracted(
  response: str,
  reference: Any,
  *,
  extract: Callable[[str], str | None],
  score: Callable[[str, Any], float],
) -> float:
  """The score of what `extract` finds in the response; a bad format if that is nothing."""
  answer = extract(response)
  if answer is None:
    raise BadFormat("no answer found")
  return score(answer, reference)
