"""Docstrings as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

LABEL = re.compile(r"^(Args|Raises|Returns|Source|Sources|Yields):( |$)")
SPECIAL = re.compile(r"([\\*_\[\]<>|$#{}~^])")


def markdown(text: str, link: Callable[[str], str] = lambda name: f"`{name}`") -> str:
  """The Markdown of a docstring. `link` says what becomes of a name in backticks."""
  return "\n\n".join(_block(kind, lines, link) for kind, lines in _blocks(text.splitlines()))


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
  """Paragraphs, what is indented, what a label heads, and examples, each with its lines."""
  kind, block = "", list[str]()
  for line in [*lines, ""]:
    new = _kind(line, kind)
    goes_on = line.strip() and (new == kind != "label" or (kind == "label" and new != "label"))
    if block and not goes_on:
      yield kind, block
      block = []
    if line.strip():
      kind = kind if block else new
      block.append(line)


def _kind(line: str, before: str) -> str:
  if line.startswith(">>>") or (before == "example" and line.strip()):
    return "example"
  if LABEL.match(line):
    return "label"
  return "indented" if line.startswith(" ") else "text"


def _block(kind: str, lines: list[str], link: Callable[[str], str]) -> str:
  if kind in ("example", "indented"):
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    cut = "\n".join(line[margin:] for line in lines)
    return f"```{'pycon' if kind == 'example' else 'text'}\n{cut}\n```"
  if kind == "text":
    return inline(" ".join(line.strip() for line in lines), link)
  label, _, first = lines[0].partition(":")
  body = [" ".join(map(str.strip, [first, *lines[1:]]))] if first else list(_items(lines[1:]))
  if len(body) == 1:
    return f"**{label}**: {_named(body[0], label, link)}"
  return f"**{label}**\n\n" + "\n".join(f"- {_named(item, label, link)}" for item in body)


def _items(lines: list[str]) -> Iterator[str]:
  """The items below a label; lines that are indented further continue one."""
  margin = min((len(line) - len(line.lstrip()) for line in lines), default=0)
  text = "\n".join(line[margin:] for line in lines)
  yield from (re.sub(r"\s+", " ", item) for item in re.split(r"\n(?! )", text))


def _named(item: str, label: str, link: Callable[[str], str]) -> str:
  name, colon, rest = item.strip().partition(": ")
  if label in ("Args", "Raises") and colon and re.fullmatch(r"[\w*, .]+", name):
    return f"`{name}`: {inline(rest, link)}"
  return inline(item.strip(), link)


def inline(text: str, link: Callable[[str], str] = lambda name: f"`{name}`") -> str:
  """One paragraph: special characters outside of backticks are escaped."""
  parts = re.split(r"(``.+?``|`[^`]+`)", text)
  return "".join(
    (link(part.strip("`")) if i % 2 else SPECIAL.sub(r"\\\1", part)) for i, part in enumerate(parts)
  )
