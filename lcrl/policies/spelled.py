"""Control tokens that data spell out: text, and not turns of the conversation.

A chat template writes control tokens (the ends of turns, their headers, the beginning of a text)
between what was said. The same characters in what was said are characters. So they are marked
before the template runs, and where marks are left in its text, a second tokenizer encodes it: one
that knows the control tokens by other names, under which the template's own are given to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import tokenizers

_MARK, _ALIAS = "\ufdd1", "\ufdd0"  # noncharacters: never part of text that is exchanged
_TAG = re.compile(r"([<\[])([^/<>\[\]|]+)([>\]])")
_HEADER = re.compile(r"\[[A-Z_]+\]")


class Marked(str):
  """Text of a template, or of an answer, in which data spell control tokens."""

  __slots__ = ("marked",)
  marked: str  # the same with a mark behind the first character of each


def tags(tokens: Iterable[str]) -> set[str]:
  """Those that come in pairs, as <think> and </think>: they mark parts of what is said.

  Not so [AVAILABLE_TOOLS], [TOOL_RESULTS] and the like, with which templates of Mistral write what
  the model is given; of these the model writes [THINK] alone.

  >>> sorted(tags(["<think>", "</think>", "<s>", "<|im_end|>"]))
  ['</think>', '<think>']
  """
  known, found = set(tokens), set[str]()
  for token in known:
    if (tag := _TAG.fullmatch(token)) is None or (_HEADER.fullmatch(token) and tag[2] != "THINK"):
      continue
    if (end := f"{tag[1]}/{tag[2]}{tag[3]}") in known:
      found |= {token, end}
  return found


class Control:
  """Tokens of a conversation that only a template writes."""

  def __init__(self, core: tokenizers.Tokenizer, tokens: Iterable[str]):
    names = sorted((t for t in tokens if len(t) > 1), key=len, reverse=True)
    self._core = core
    self._renamed: tokenizers.Tokenizer | None = None
    self._aliases = {name: f"{_ALIAS}{i}{_ALIAS}" for i, name in enumerate(names)}
    self._spelled = re.compile("|".join(map(re.escape, names)) or r"(?!)")

  def mark(self, value: Any) -> Any:
    """Every text in a value of plain data, with marks where it spells a control token."""
    if isinstance(value, str):
      return self._spelled.sub(lambda found: _broken(found[0], value), value)
    if isinstance(value, Mapping):
      return {key: self.mark(x) for key, x in value.items()}
    return [self.mark(x) for x in value] if isinstance(value, list | tuple) else value

  def text(self, marked: str) -> str:
    """The text without marks, which remembers them if there are any."""
    if _MARK not in marked:
      return marked
    text = Marked(marked.replace(_MARK, ""))
    text.marked = marked
    return text

  def encode(self, text: Marked) -> list[int]:
    """Its tokens: spelled control tokens as text, the others as control tokens."""
    if self._renamed is None:
      self._renamed = _renamed(self._core, self._aliases)
    own = self._spelled.sub(lambda found: self._aliases[found[0]], text.marked)
    return self._renamed.encode(own.replace(_MARK, ""), add_special_tokens=False).ids


def _broken(token: str, text: str) -> str:
  if _MARK in text or _ALIAS in text:
    raise ValueError(f"a text spells the control token {token} and holds U+FDD0 or U+FDD1.")
  return token[0] + _MARK + token[1:]


def _renamed(core: tokenizers.Tokenizer, names: Mapping[str, str]) -> tokenizers.Tokenizer:
  """The same tokenizer with other names of some added tokens; the ids stay."""
  raw = json.loads(core.to_str())
  raw["post_processor"] = None  # it names tokens, and adds what a template has written
  for added in raw["added_tokens"]:
    added["content"] = names.get(added["content"], added["content"])
  model = raw["model"]
  if isinstance(model["vocab"], dict):
    model["vocab"] = {names.get(token, token): i for token, i in model["vocab"].items()}
  else:  # of a unigram model: pieces with their scores
    model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
  if model.get("unk_token") in names:
    model["unk_token"] = names[model["unk_token"]]
  return tokenizers.Tokenizer.from_str(json.dumps(raw))
