"""The functions that `data.fn` of a config may name: preference pairs and answers as tokens.

Nothing is dropped or cut silently. A row is kept, skipped and counted, or an error that names file
and line; every cut is counted by side.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json as _json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grain
import jinja2
import numpy as np

from lcrl.data.choosing import unit_hash
from lcrl.data.layouts import Pair, UnpairedTurns, read_answer, read_pair
from lcrl.data.public.hints import converting_command
from lcrl.data.readers import Rows, json, jsonl, parquet
from lcrl.data.rows import answer_ids, without_open_tag
from lcrl.protocols import Tokenizer
from lcrl.tasks.task import Messages

__all__ = ["json", "jsonl", "pairs", "parquet", "responses"]

SKIPS = ("unpaired_turns", "empty_side", "identical_sides", "full_prompt")
SIDES = {1: ("answer",), 2: ("chosen", "rejected")}


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
  """A prompt and its answers as tokens."""

  id: int  # row of the data set
  prompt: np.ndarray  # [P] int32
  sides: tuple[np.ndarray, ...]  # int32 each, end token included unless the answer was cut
  scores: tuple[float, ...] = ()  # of the sides; (): none
  reference: np.ndarray | None = None  # [Q] int32, the prompt of the reference model, if another
  signals: dict[str, Any] = dataclasses.field(default_factory=dict)  # arrays [...] or numbers
  prompt_hash: float | None = None  # a hash of the prompt's messages, before the chat template

  @property
  def lengths(self) -> list[int]:
    """Tokens of each row, prompt and answer."""
    return [len(self.prompt) + len(side) for side in self.sides]

  @property
  def longest(self) -> int:
    """Tokens of the longest row, those of the reference model included."""
    prompts = [self.prompt] if self.reference is None else [self.prompt, self.reference]
    return max(map(len, prompts)) + max(map(len, self.sides))


class Split(NamedTuple):
  train: list[Encoded]
  held_out: list[Encoded]
  report: dict[str, int]  # counts of kept, skipped and cut rows


def pairs(
  tokenizer: Tokenizer,
  *,
  rows: Rows,
  window: int,
  max_prompt_tokens: int | None = None,
  held_out: float = 0.0,
) -> Split:
  """Chosen and rejected answers, in any layout of `lcrl.data.layouts`.

  Args:
    tokenizer: the policy's; its chat template renders the prompt.
    rows: the rows of a file; in a config `dict(fn="jsonl", path=...)`, or json, or parquet.
    window: most tokens of prompt and answer; an answer is cut there and then has no end token.
    max_prompt_tokens: a longer prompt loses its earliest text. Headers, the system message and a
      part of the last message stay; otherwise the row is skipped as full_prompt. None: prompts are
      never cut.
    held_out: share of the prompts to hold out, by a hash of the prompt: all pairs of one prompt
      fall on one side, whatever the order and the rest of the file.
  """
  return _encode_all(read_pair, tokenizer, rows, window, max_prompt_tokens, held_out)


def responses(
  tokenizer: Tokenizer,
  *,
  rows: Rows,
  window: int,
  max_prompt_tokens: int | None = None,
  held_out: float = 0.0,
) -> Split:
  """Answers to imitate; the arguments are those of `pairs`."""
  return _encode_all(read_answer, tokenizer, rows, window, max_prompt_tokens, held_out)


def fingerprint(encoded: Sequence[Encoded]) -> str:
  """A key for results computed from the data: it changes with every id and token."""
  digest = hashlib.sha256()
  for one in encoded:
    other = () if one.reference is None else (one.reference,)
    for part in (np.array([one.id, len(one.prompt), *one.lengths]), one.prompt, *one.sides, *other):
      digest.update(np.asarray(part, np.int64).tobytes())
  return digest.hexdigest()


def _encode_all(
  read: Callable, tokenizer, rows: Rows, window, max_prompt_tokens, held_out
) -> Split:
  if not 0 <= held_out < 1:
    raise ValueError(f"held_out must be in [0, 1), got {held_out}.")
  if not 0 < (1 if max_prompt_tokens is None else max_prompt_tokens) < window:
    raise ValueError(
      f"max_prompt_tokens must be between 1 and window - 1, got {max_prompt_tokens} and {window}."
    )

  def encode(item):
    number, (where, row) = item
    try:
      pair = read(row)
      one, notes = encode_pair(tokenizer, pair, number, window, max_prompt_tokens)
    except UnpairedTurns:
      return None, {"unpaired_turns"}, False
    except (ValueError, jinja2.TemplateError) as why:
      raise ValueError(f"{where}: {why}{converting_command(row)}") from why
    return one, notes, _hash(pair.messages) < held_out

  done = list(grain.MapDataset.source(list(enumerate(rows))).map(encode))
  kept = [(one, is_held_out) for one, _, is_held_out in done if one is not None]
  counts = Counter(note for _, notes, _ in done for note in notes)
  others = sum(one.reference is not None for one, _ in kept)
  if 0 < others < len(kept):
    raise ValueError(f"reference_prompt stands in {others} of {len(kept)} rows: in all or in none.")
  sides = SIDES[len(kept[0][0].sides)] if kept else ()
  train = [one for one, is_held_out in kept if not is_held_out]
  report = {"read": len(rows), "kept": len(kept), "train": len(train)}
  report["held_out"] = len(kept) - len(train)
  report |= {f"skipped_{name}": counts[name] for name in SKIPS}
  report |= {f"cut_{name}": counts[f"cut_{name}"] for name in ("prompt", *sides)}
  if not train:
    raise ValueError(f"nothing is left to train on: {report}.")
  return Split(train, [one for one, is_held_out in kept if is_held_out], report)


def encode_pair(
  tokenizer: Tokenizer, pair: Pair, id: int, window: int, max_prompt_tokens: int | None = None
) -> tuple[Encoded | None, set[str]]:
  """(tokens, or None for a skipped pair; the reason for the skip, or the parts that were cut)."""
  if not all(side.strip() for side in pair.sides):
    return None, {"empty_side"}
  for text in (*pair.sides, _json.dumps(pair.messages, ensure_ascii=False)):
    text.encode()  # raises for half a surrogate pair, which JSON can spell and no tokenizer reads
  encode_prompt = lambda messages: tokenizer.encode(tokenizer.render(messages))
  rendered = tokenizer.render(pair.messages)
  whole = tokenizer.encode(rendered)
  if not whole:
    raise ValueError("the prompt has no tokens; the first of an answer needs one before it.")
  prompt: list[int] | None = whole
  if max_prompt_tokens and len(whole) > max_prompt_tokens:
    prompt = _cut(encode_prompt, pair.messages, max_prompt_tokens)
  room = 0 if prompt is None else window - len(prompt)
  if prompt is None or room < 1:
    return None, {"full_prompt"}
  whole_sides = [answer_ids(tokenizer, without_open_tag(side, rendered)) for side in pair.sides]
  sides = [side[:room] for side in whole_sides]
  if len(sides) == 2 and sides[0] == sides[1]:  # as given, or after the cut
    return None, {"identical_sides"}
  cut = set() if prompt is whole else {"cut_prompt"}
  names = SIDES[len(sides)]
  cut |= {f"cut_{n}" for n, s, w in zip(names, sides, whole_sides, strict=True) if s != w}
  reference = None
  if pair.reference is not None:
    reference = np.array(encode_prompt(pair.reference), np.int32)
    if len(reference) + max(map(len, sides)) > window:
      return None, {"full_prompt"}
  arrays = [np.array(ids, np.int32) for ids in (prompt, *sides)]
  key = _hash(pair.messages)
  return Encoded(id, arrays[0], tuple(arrays[1:]), pair.scores, reference, prompt_hash=key), cut


def _cut(encode: Callable, messages: Messages, most: int) -> list[int] | None:
  """The prompt in at most `most` tokens, without as few of its earliest characters as possible.
  None if nothing of the last message would be left."""
  said = [m["role"] != "system" and isinstance(m["content"], str) for m in messages]
  sizes = [len(m["content"]) if counts else 0 for m, counts in zip(messages, said, strict=True)]

  def without(characters: int) -> list[int]:
    kept = []
    for message, size in zip(messages, sizes, strict=True):
      gone = min(size, characters)
      characters -= gone
      kept.append({**message, "content": message["content"][gone:]} if gone else message)
    return encode(tuple(kept))

  fits = lambda characters: len(without(characters)) <= most
  least = bisect.bisect_left(range(sum(sizes)), True, key=fits)
  return without(least) if least < sum(sizes) and sizes[-1] and fits(least) else None


def _hash(messages: Messages) -> float:
  """A number in [0, 1) that depends on the prompt alone."""
  text = _json.dumps(messages, sort_keys=True, ensure_ascii=False)
  return unit_hash(text)
