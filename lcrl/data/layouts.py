r"""From a row of a public data set to a prompt and its answers, whatever the columns are called.

A side (chosen, rejected) is a text, a list of messages, or a transcript of the HH-RLHF form
"\n\nHuman: ...\n\nAssistant: ...". The prompt stands in columns of its own, or is what both sides
begin with. Which of these a row is shows in its columns and their types:

  UltraFeedback-binarized  chosen, rejected: messages from the prompt on; score_chosen, ...
  HH-RLHF                  chosen, rejected: transcripts
  Alpaca style             instruction, input (may be empty), rejected, chosen or output
  plain                    prompt (or question), chosen, rejected, and perhaps system

To imitate, `messages` that end with an answer serve too, and a prompt with completion, response,
output or chosen, and perhaps score, a number that says what the answer is worth.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lcrl.tasks.task import Messages

__all__ = ["Pair", "UnpairedTurns", "read_answer", "read_pair"]

Row = Mapping[str, Any]
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class Pair(NamedTuple):
  """A prompt with the answers to it: chosen and rejected, or only one to imitate."""

  messages: Messages
  sides: tuple[str, ...]
  scores: tuple[float, ...] = ()  # of the sides; (): the data give none
  reference: Messages | None = None  # what the reference model is asked instead (LongPO)


class UnpairedTurns(Exception):
  """The sides are no answers to one prompt: earlier turns differ, or the last is no answer."""


def read_pair(row: Row) -> Pair:
  """A row with a chosen and a rejected answer -> Pair.

  >>> pair = read_pair({"instruction": "Add.", "input": "1, 2", "output": "3", "rejected": "4"})
  >>> pair.messages[0]["content"].split(), pair.sides
  (['Add.', '1,', '2'], ('3', '4'))
  """
  names = _columns(row, ("chosen", "output"), ("rejected",))
  sides = [_messages(row[name], name, "assistant") for name in names]
  messages, answers = _split(row, sides)
  return Pair(messages, answers, _scores(row), _reference(row))


def read_answer(row: Row) -> Pair:
  """A row with an answer to imitate -> Pair of one side.

  >>> read_answer({"prompt": "1 + 2?", "completion": "3"}).sides
  ('3',)
  """
  (name,) = _columns(row, ("completion", "response", "output", "messages", "chosen"))
  messages, answers = _split(row, [_messages(row[name], name, "assistant")])
  scores = (float(row["score"]),) if row.get("score") is not None else ()
  return Pair(messages, answers, scores)


def _split(row: Row, sides: Sequence[Messages]) -> tuple[Messages, tuple[str, ...]]:
  """The prompt, and the text that each side answers."""
  shortest = min(len(side) for side in sides)
  shared = 0
  while shared < shortest - 1 and all(side[shared] == sides[0][shared] for side in sides):
    shared += 1
  if any(len(side) != shared + 1 or side[-1]["role"] != "assistant" for side in sides):
    raise UnpairedTurns
  prompt = sides[0][:shared] or _prompt(row)
  return prompt, tuple(side[-1]["content"] for side in sides)


def _prompt(row: Row) -> Messages:
  (name,) = _columns(row, ("prompt", "instruction", "question"))
  prompt = _messages(row[name], name, "user")
  if name == "instruction" and row.get("input"):
    prompt = ({"role": "user", "content": f"{prompt[0]['content']}\n\n{row['input']}"},)
  if prompt[-1] == {"role": "assistant", "content": ""}:  # "... \n\nAssistant:" asks for one
    prompt = prompt[:-1]
  before = ({"role": "system", "content": row["system"]},) if row.get("system") else ()
  return before + prompt


def _reference(row: Row) -> Messages | None:
  """LongPO (arXiv:2502.13922): the short context, where the reference model reads that one."""
  value = row.get("reference_prompt")
  return None if value is None else _messages(value, "reference_prompt", "user")


def _scores(row: Row) -> tuple[float, ...]:
  if "score_chosen" not in row or "score_rejected" not in row:
    return ()
  values = (row["score_chosen"], row["score_rejected"])
  return tuple(math.nan if value is None else float(value) for value in values)


def _messages(value: Any, name: str, role: str) -> Messages:
  """A column as messages: a text is one of `role`, a transcript several, nothing an empty one."""
  if value is None or isinstance(value, str):
    text = value or ""
    turns = _TURN.split(text if text.startswith("\n\n") else f"\n\n{text}")
    if turns[0].strip() or turns[1:2] != ["Human"]:
      return ({"role": role, "content": text},)
    return tuple(
      {"role": _ROLES[who], "content": said.strip()}
      for who, said in zip(turns[1::2], turns[2::2], strict=True)
    )
  if not isinstance(value, list) or not value:
    raise ValueError(f"{name} must be a text or a list of messages, got {value!r:.60}.")
  for message in value:
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, str) or not isinstance(message.get("role"), str):
      raise ValueError(f"{name} needs messages with role and content, got {message!r:.60}.")
  return tuple({"role": m["role"], "content": m["content"]} for m in value)


def _columns(row: Row, *wanted: Sequence[str]) -> list[str]:
  """The first of each group of names that the row has."""
  found = [next((name for name in names if name in row), None) for names in wanted]
  if None in found:
    missing = [" or ".join(n) for n, has in zip(wanted, found, strict=True) if has is None]
    raise ValueError(f"no column {', nor '.join(missing)}; there are {', '.join(row) or 'none'}.")
  return [name for name in found if name is not None]
