"""Converts rows, drops those that no run can use, and counts everything by reason."""

from __future__ import annotations

import hashlib
import heapq
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from lcrl.data.public.instructions import without_instruction
from lcrl.data.readers import Row, stream
from lcrl.tasks.references import References

_BATCH = 4096  # rows whose answers are checked together
_PROMPTS = ("problem", "question", "prompt", "instruction", "messages")
_SPACING = re.compile(r"\\[,;:!()\[\] ]|\\(?:left|right|displaystyle)(?![a-zA-Z])|[\s$~{}]")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")


class Skipped(Exception):
  """Raised by a converter for a row that no run can use. The text is the reason, one word."""


class Converted(NamedTuple):
  """A row in the layout of this library."""

  row: dict[str, Any]
  prompts: tuple[str, ...]  # texts of the user; the first tells problems apart
  answer: str | None = None  # of a problem, as the verifier gets it; None: a chat
  changes: tuple[str, ...] = ()  # reasons, one word each


Convert = Callable[[Mapping[str, Any]], Converted]


class Conversion:
  """Counts of the rows that went through `run`.

  Args:
    convert: from a published row to `Converted`; raises Skipped, or ValueError for a row that is
      not of the layout.
    references: checks answers; None: they are not checked.
    excluded: keys of prompts that stand in other files.
  """

  def __init__(
    self,
    convert: Convert,
    references: References | None = None,
    excluded: frozenset[bytes] | set[bytes] = frozenset(),
  ):
    self.read = self.kept = 0
    self.skipped, self.changed = Counter[str](), Counter[str]()
    self.first: dict[str, str] = {}  # reason -> location of the first row, and more if known
    self._convert, self._references, self._excluded = convert, references, excluded
    self._seen: dict[bytes, bytes] = {}  # key of the prompt -> digest of the answer

  def run(self, rows: Iterable[Row], *, sample: int | None = None) -> Iterator[dict[str, Any]]:
    """The kept rows in their order; of these only `sample`, chosen by a hash of the prompt."""
    usable = self._usable(rows)
    for where, one in usable if sample is None else self._sampled(usable, sample):
      self.kept += 1
      for change in one.changes:
        self._note(self.changed, change, where)
      yield one.row

  def _usable(self, rows: Iterable[Row]) -> Iterator[tuple[str, Converted]]:
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH)):
      new = [(where, one) for where, row in batch if (one := self._new(where, row)) is not None]
      reasons = self._why_not([one.answer for _, one in new if one.answer is not None])
      for where, one in new:
        if (why := reasons.get(one.answer or "")) is not None:
          self._skip("uncomparable_answer", f"{where}: {why}")
        elif (reason := self._known(one)) is not None:
          self._skip(reason, where)
        else:
          yield where, one

  def _sampled(
    self, usable: Iterator[tuple[str, Converted]], size: int
  ) -> Iterator[tuple[str, Converted]]:
    """Holds no more than `size` rows at a time."""
    total = 0

    def numbered() -> Iterator[tuple[bytes, int, str, Converted]]:
      nonlocal total
      for where, one in usable:
        total += 1
        yield digest("sample", one.prompts[0]), total, where, one

    chosen = heapq.nsmallest(size, numbered())
    self.skipped["not_in_sample"] = total - len(chosen)
    yield from ((where, one) for _, _, where, one in sorted(chosen, key=lambda item: item[1]))

  def _new(self, where: str, row: Mapping[str, Any]) -> Converted | None:
    """The converted row, unless it is skipped or excluded."""
    self.read += 1
    try:
      one = self._convert(row)
    except Skipped as why:
      self._skip(str(why), where)
      return None
    except ValueError as why:
      raise ValueError(f"{where}: {why}") from why
    if self._excluded and not self._excluded.isdisjoint(map(prompt_key, one.prompts)):
      self._skip("in_without", where)
      return None
    return one

  def _known(self, one: Converted) -> str | None:
    """A reason to skip the row, if one like it was kept. Chats are alike as a whole only."""
    chat = one.answer is None
    key = digest(json.dumps(one.row, sort_keys=True)) if chat else prompt_key(one.prompts[0])
    answer = prompt_key(one.answer or "")
    if (known := self._seen.get(key)) is None:
      self._seen[key] = answer
      return None
    return "duplicate" if known == answer else "duplicate_with_other_answer"

  def _why_not(self, answers: list[str]) -> dict[str, str]:
    return self._references.why_not(answers) if self._references else {}

  def _skip(self, reason: str, where: str) -> None:
    self._note(self.skipped, reason, where)

  def _note(self, counter: Counter[str], reason: str, where: str) -> None:
    counter[reason] += 1
    self.first.setdefault(reason, where)


def excluded_keys(paths: Iterable[str]) -> set[bytes]:
  """Keys of all prompts in files of this library's layouts.

  Raises:
    ValueError: a row without a prompt, by file and line.
  """
  keys: set[bytes] = set()
  for path in paths:
    for where, row in stream(path):
      texts = [text for name in _PROMPTS for text in user_texts(row.get(name))]
      if not texts:
        raise ValueError(f"{where}: no prompt in any of {', '.join(_PROMPTS)}.")
      keys.update(map(prompt_key, texts))
  return keys


def user_texts(value: Any) -> tuple[str, ...]:
  """The texts of the user in a prompt: a text, or messages."""
  if isinstance(value, str):
    return (value,)
  messages = value if isinstance(value, list | tuple) else ()
  asked = (m for m in messages if isinstance(m, Mapping) and m.get("role") == "user")
  return tuple(m["content"] for m in asked if isinstance(m.get("content"), str))


def prompt_key(text: str) -> bytes:
  r"""The same for texts that differ in spaces, case, spacing commands of LaTeX or instructions.

  >>> prompt_key(r"Is \left( \dfrac12 \right) right?") == prompt_key(r"is $(\frac{1}{2})$ right?")
  True
  """
  text = _SPACING.sub("", unicodedata.normalize("NFKC", without_instruction(text)))
  return digest(_FRACTION.sub(r"\\frac", text).casefold())


def digest(*texts: str) -> bytes:
  """16 bytes that depend on the texts alone."""
  hashed = hashlib.blake2b(digest_size=16)
  for text in texts:
    hashed.update(len(text).to_bytes(8, "big") + text.encode())
  return hashed.digest()
