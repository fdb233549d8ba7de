"""The tables of docs/from_trl_and_verl.md."""

import ast
import re
from typing import NamedTuple

from tests.helpers.pages import DOCS


class Row(NamedTuple):
  other: str  # a name of the other library, with a value or without
  other_default: str
  ours: tuple[str, ...]  # paths in a config, with a value or without
  our_default: str


def rows(heading: str) -> list[Row]:
  """Rows of the table below a heading that begins with `heading`; cells without backticks."""
  text = (DOCS / "from_trl_and_verl.md").read_text()
  (section,) = re.findall(rf"^## {heading}.*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
  found = []
  for line in re.findall(r"^\| (`.*)\|$", section, re.MULTILINE):
    other, default, ours, our_default = (cell.strip() for cell in line.split("|"))
    spans = tuple(re.findall(r"`([^`]*)`", ours))
    found.append(Row(other.strip("`"), default.strip("`"), spans, our_default.strip("`")))
  return found


def value(text: str):
  """The value of a cell; text is text."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def assignment(span: str) -> tuple[list[str], str | None]:
  """`a.b="c"` -> (["a", "b"], "c"); None without a value."""
  path, _, given = span.partition("=")
  return path.split("."), value(given) if given else None
