"""The text of an answer in LaTeX, rewritten so that the parser cannot misread it.

Unprepared, the parser adds two numbers in a row, takes words for products of letters, drops the
base of a numeral, and knows neither systems nor repeating decimals.
"""

from __future__ import annotations

import re
from typing import Any

from lcrl.tasks.extract import lowered

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
COMMAND = r"\\(?:text(?:bf|it|rm|normal)?|math(?:rm|bf|it)|[mh]box)\s*\{([^{}]*)\}"  # with letters
_POWER = r"(?:\s*\^\s*\{?\s*([23])\s*\}?)?"
_ANGLE = (  # in degrees, of a function
  r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\s*\^\s*(?:\d|\{\d+\}))?)"
  r"\s*(\()?\s*(\d+(?:\.\d+)?)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})(?(2)\s*\))"
)
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
_ARRAY = re.compile(  # as a matrix
  r"(?:\\left)?\s*[(\[]\s*\\begin\{array\}\{[lcr| ]*\}(.*?)\\end\{array\}\s*(?:\\right)?\s*[)\]]",
  re.DOTALL,
)
_NO_UNIT = re.compile(r"\b(?:and|or|if|for|to|is|not|more|less|than|base|mod|[ap]\.?\s?m)\b|^i$")
_UNITS = {  # by all their names; other units are not compared
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
_DIMENSIONS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def is_prose(text: str) -> bool:
  """Whether the text has words around its mathematics."""
  outside = re.sub(r"\$[^$]*\$|\\\(.*?\\\)|\\\[.*?\\\]", " ", text, flags=re.DOTALL)
  outside = re.sub(rf"{COMMAND}|\\[a-zA-Z]+|\{{[^{{}}]*\}}", " ", outside)
  words = re.findall(r"[A-Za-z]{2,}", outside)
  return any(_is_word(word) for word in words if word not in _NAMES and word not in _UNITS)


def _is_word(letters: str) -> bool:
  """Whether bare letters are a word and no product: variables are rarely e, i, o or u."""
  return (
    len(letters) > 1
    and bool(re.search("[aeiouy]", letters.lower()))
    and not (len(letters) <= 3 and letters.isupper())
  )


def is_wordy(text: str) -> bool:
  """Whether the whole answer consists of words."""
  inside = re.sub(COMMAND, r"\1", text)
  outside = re.sub(COMMAND, "", text)
  if outside != text and not re.search(r"[\w\\]", outside):
    return bool(re.match(r"\W*[a-zA-Z]|\d+ base \d+$", inside.strip()))
  words = re.sub(r"\b(?:and|or)\b", " ", text).split()
  return bool(re.fullmatch(r"[A-Za-z .'-]+", text)) and all(
    _is_word(word) and re.search("[eiouEIOU]", word) for word in words
  )


def prepared(text: str) -> str:
  """The answer without typesetting, in commands that the parser knows."""
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


def without_units(text: str) -> tuple[str, list[tuple[str, int]]]:
  """The text without units behind numbers, and the known ones of these units."""
  units: list[tuple[str, int]] = []

  def drop(match: re.Match) -> str:
    unit = match[1].lower().replace(".", "").strip()
    *before, name = unit.split() or [""]
    known = _UNITS.get(name) or _UNITS.get(name.removesuffix("s"))
    follows = re.search(r"[\d})%]\s*$|\\(?:pi|circ)\s*$", text[: match.start()])
    if _NO_UNIT.search(unit) or not (known or (follows and len(unit) > 2)):
      return match[0]
    if known:
      power = next((_DIMENSIONS[word] for word in before if word in _DIMENSIONS), 1)
      units.append((known, max(power, int(match[2] or 1))))
    return " "

  def name(match: re.Match) -> str:
    known = (
      w in _DIMENSIONS or w in _UNITS or w.removesuffix("s") in _UNITS for w in match[2].split()
    )
    spelled = match[1] and all(len(w) > 2 and _is_word(w) for w in match[2].split())
    return rf"\text{{{match[2]}}}" if all(known) or spelled else match[0]

  bare = rf"(?<=[\d}})])(\s*)((?:[A-Za-z]+\s+)*[A-Za-z]{{2,}})(?={_POWER}$)"
  text = re.sub(bare, name, text)
  return re.sub(rf"(?<=[\w}})%])\s*{COMMAND}{_POWER}", drop, text).strip(), units
