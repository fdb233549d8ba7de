r"""Reads a prompt and its answers from a row of a public data set, in any common layout.

A side (chosen, rejected) is a text, a list of messages, or a transcript of the HH-RLHF form
"\n\nHuman: ...\n\nAssistant: ...". The prompt has columns of its own, or is the common start
of both sides. The columns and their types tell the layout:

  UltraFeedback-binarized  chosen, rejected: messages from the prompt on; score_chosen, ...
  HH-RLHF                  chosen, rejected: transcripts
  Alpaca style             instruction, input (may be empty), rejected, chosen or output
  plain                    prompt (or question), chosen, rejected

A prompt may have the columns system, history (earlier turns: messages, or pairs of question and
answer) and, for an instruction or a question, input or context. Context in another form is refused
by name: columns such as documents, fields of a message that no text can hold.

For imitation a row has `messages` that end with an answer, or a prompt with completion, response,
output or chosen. The column score is optional: a number, the value of the answer.
For an evaluation `messages` or a prompt will do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lcrl.policies.chat import REASONING, content_text
from lcrl.tasks.task import Messages

__all__ = [
  "Pair",
  "UnpairedTurns",
  "context_columns",
  "read_answer",
  "read_pair",
  "read_prompt",
]

Row = Mapping[str, Any]
_TURN = re.compile(r"\n\n(Human|Assistant):")
_PROMPTS = ("prompt", "instruction", "question")
_SYSTEM = ("system", "system_prompt", "system_message")
_UNSUPPORTED = (  # columns that may carry context
  *("conversation", "conversations", "dialog", "dialogue", "previous_turns", "turns", "chat"),
  *("document", "documents", "passage", "passages", "background", "few_shot", "examples"),
  *("chat_history", "conversation_history", "dialog_history", "dialogue_history", "knowledge"),
  *("persona", "initial_reason_steps", "custom_instruction", "chat_template_kwargs"),
  *("tools", "functions", "image", "images", "audio", "video", "prefix", "suffix"),
)
_EMPTY: tuple = (None, "", "[]", "{}", [], {}, False)
_READ = {*("role", "content", "name", "tool_calls", "tool_call_id"), *REASONING}
_ROLES = {"Human": "user", "Assistant": "assistant"}


class Pair(NamedTuple):
  """A prompt with the answers to it: chosen and rejected, or only one to imitate."""

  messages: Messages
  sides: tuple[str, ...]
  scores: tuple[float, ...] = ()  # of the sides; (): the data give none
  reference: Messages | None = None  # the prompt of the reference model, if another (LongPO)


class UnpairedTurns(Exception):
  """The sides are not answers to one prompt: earlier turns differ, or the last is no answer."""


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
  scores = (_number(row, "score"),) if row.get("score") is not None else ()
  return Pair(messages, answers, scores)


def read_prompt(row: Row) -> Messages:
  """A row that asks for an answer -> its prompt. An answer at the end of `messages` is left out.

  >>> read_prompt({"messages": [{"role": "user", "content": "1 + 2?"}]})
  ({'role': 'user', 'content': '1 + 2?'},)
  """
  prompt = _messages(row["messages"], "messages", "user") if "messages" in row else _prompt(row)
  if prompt[-1]["role"] == "assistant":
    prompt = prompt[:-1]
  if not prompt or not str(prompt[-1].get("content") or "").strip():
    raise ValueError("the prompt is empty.")
  return _with_context(row, prompt)


def _split(row: Row, sides: Sequence[Messages]) -> tuple[Messages, tuple[str, ...]]:
  """(prompt, text of the answer of each side)."""
  shortest = min(len(side) for side in sides)
  shared = 0
  while shared < shortest - 1 and all(side[shared] == sides[0][shared] for side in sides):
    shared += 1
  if any(len(side) != shared + 1 or side[-1]["role"] != "assistant" for side in sides):
    raise UnpairedTurns
  for message in (side[-1] for side in sides):
    if more := sorted(message.keys() - {"role", "content"}):
      raise ValueError(
        f"an answer has {more[0]}={message[more[0]]!r:.60}: only its content is learnt, so write "
        "there what the policy should write."
      )
  prompt = _with_context(row, sides[0][:shared] or _prompt(row))
  _check_nothing_lost(row, prompt, sides)
  return prompt, tuple(side[-1]["content"] for side in sides)


def _prompt(row: Row) -> Messages:
  (name,) = _columns(row, _PROMPTS)
  if row[name] is None:
    raise ValueError(f"{name} is null.")
  prompt = _messages(row[name], name, "user")
  said = row.get("output") if name == "prompt" and row.get("instruction") else None
  if isinstance(said, str) and said.strip() and str(row[name]).rstrip().endswith(said.strip()):
    raise ValueError("prompt ends with the answer in output: remove that column, or the answer.")
  for more in ("input", "context"):
    if name != "prompt" and isinstance(row[name], str) and row.get(more):
      prompt = ({"role": "user", "content": f"{prompt[0]['content']}\n\n{_text(row, more)}"},)
  if prompt[-1] == {"role": "assistant", "content": ""}:  # "... \n\nAssistant:" asks for one
    prompt = prompt[:-1]
  return prompt


def _with_context(row: Row, prompt: Messages) -> Messages:
  """The prompt, preceded by the columns history and system."""
  prompt = (*_history(row.get("history")), *prompt)
  for name in _SYSTEM:
    if row.get(name):
      if not prompt or prompt[0]["role"] != "system":
        prompt = ({"role": "system", "content": _text(row, name)}, *prompt)
      elif prompt[0]["content"].strip() != _text(row, name).strip():
        raise ValueError(f"{name} is another system message than the one in the messages.")
  return prompt


def _history(value: Any) -> Messages:
  """Earlier turns."""
  if not value:
    return ()
  pairs = isinstance(value, list) and all(
    isinstance(turn, list) and len(turn) == 2 and all(isinstance(said, str) for said in turn)
    for turn in value
  )
  if not pairs:
    if isinstance(value, str):
      raise ValueError(f"history must be a list of turns, got {value!r:.60}.")
    return _messages(value, "history", "user")
  roles = ("user", "assistant")
  return tuple(
    {"role": role, "content": said}
    for turn in value
    for role, said in zip(roles, turn, strict=True)
  )


def _check_nothing_lost(row: Row, prompt: Messages, sides: Sequence[Messages]) -> None:
  """Raises ValueError for a column whose text is in neither the prompt nor an answer."""
  held = [str(message["content"]).strip() for message in (*prompt, *(side[-1] for side in sides))]
  for name in (*_PROMPTS, "input", "context", "messages"):
    value = row.get(name) or ""
    said = [str(m["content"]).strip() for m in _messages(value, name, "user")]
    for text in said:
      if not (text in held if isinstance(value, list) else any(text in other for other in held)):
        raise ValueError(f"{name} holds {text!r:.60}, which the prompt does not.")
  if strange := context_columns(row):
    raise ValueError(f"the column {strange[0]} may carry context and is not understood.")


def context_columns(row: Row) -> list[str]:
  """Columns that hold something, which may be context, and which nothing here reads.

  >>> context_columns({"prompt": "a", "chosen": "b", "rejected": "c", "documents": "d", "note": ""})
  ['documents']
  """
  return [name for name in _UNSUPPORTED if row.get(name) not in _EMPTY]


def _text(row: Row, name: str) -> str:
  if not isinstance(row[name], str):
    raise ValueError(f"{name} must be a text, got {row[name]!r:.60}.")
  return row[name]


def _reference(row: Row) -> Messages | None:
  """The short context, which the reference model reads in LongPO (arXiv:2502.13922)."""
  value = row.get("reference_prompt")
  return None if value is None else _messages(value, "reference_prompt", "user")


def _scores(row: Row) -> tuple[float, ...]:
  if "score_chosen" not in row or "score_rejected" not in row:
    return ()
  return tuple(_number(row, name) for name in ("score_chosen", "score_rejected"))


def _number(row: Row, name: str) -> float:
  value = row[name]
  try:
    return math.nan if value is None else float(value)
  except (TypeError, ValueError):
    raise ValueError(f"{name} must be a number, got {value!r:.60}.") from None


def _messages(value: Any, name: str, role: str) -> Messages:
  """A column as messages: a text gives one of `role`, a transcript several, null an empty one."""
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
  return tuple(_message(message, name) for message in value)


def _message(message: Any, name: str) -> dict[str, Any]:
  """A message with its content as a text, and only with fields that chat templates read."""
  if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
    raise ValueError(f"{name} needs messages with role and content, got {message!r:.60}.")
  weight = message.get("weight")  # 0: the answer is not trained on
  message = {key: x for key, x in message.items() if x or key == "content"}
  if weight is not None:
    message["weight"] = weight
  content = message.get("content")
  if isinstance(content, list | tuple):
    message["content"] = content = content_text(content)
  if not isinstance(content, str) and not (content is None and "tool_calls" in message):
    raise ValueError(f"{name} needs messages with role and content, got {message!r:.60}.")
  if strange := sorted(message.keys() - _READ):
    raise ValueError(f"{name} has a message with {strange[0]}={message[strange[0]]!r:.60}.")
  return message


def _columns(row: Row, *wanted: Sequence[str]) -> list[str]:
  """The first of each group of names that the row has."""
  columns = [next((name for name in names if name in row), None) for names in wanted]
  if None in columns:
    missing = [" or ".join(n) for n, has in zip(wanted, columns, strict=True) if has is None]
    raise ValueError(f"no column {', nor '.join(missing)}; there are {', '.join(row) or 'none'}.")
  return [name for name in columns if name is not None]
