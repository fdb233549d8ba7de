"""Converters of problems whose answers a verifier compares."""

from __future__ import annotations

import contextlib
import decimal
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from lcrl.data.public.conversion import Converted, Skipped, digest
from lcrl.data.public.instructions import without_instruction
from lcrl.tasks.extract import after_hashes, boxed
from lcrl.tasks.jsonl import CONTEXT

Row = Mapping[str, Any]
_PROBLEM = ("problem", "Problem", "question", "Question", "prompt")
_ANSWER = ("answer", "Answer", "final_answer", "expected_answer")
_SOLUTION = ("solution", "Solution")


def problems(row: Row, *, levels: bool = False) -> Converted:
  """Problem and answer, or a solution with a boxed answer; or verl's prompt and reward_model.

  MATH's "Level 3" becomes 3, an unknown level 0. Other fields stay if they are texts or numbers.

  Args:
    row: as published.
    levels: the set has levels, and a row without one is an error.
  """
  if "reward_model" in row:
    return _verl(row)
  name = _first(row, _PROBLEM)
  if name is None:
    raise ValueError(f"no field {' or '.join(_PROBLEM)}; it has {', '.join(row)}.")
  text, changes = _text(row, name), []
  for context in CONTEXT:
    more = row.get(context)
    if isinstance(more, str) and more.strip() not in text:
      text = f"{more.strip()}\n\n{text}"
      changes.append("context_joined")
  answer, from_solution = _answer(row)
  changes += ["answer_from_solution"] * from_solution
  new: dict[str, Any] = {"problem": text, "answer": answer}
  if levels or "level" in row:
    new["level"] = _level(row)
    changes += ["level_unknown"] * (new["level"] == 0)
  used = {name, *_ANSWER, *CONTEXT, "level"}
  return Converted(new | _others(row, used), (text,), answer, tuple(changes))


def gsm8k(row: Row) -> Converted:
  """Question and answer as they are; the final answer stands after ####."""
  question, answer = (_text(row, name) for name in ("question", "answer"))
  if (final := after_hashes(answer)) is None:
    raise Skipped("no_answer")
  return Converted({"question": question, "answer": answer}, (question,), str(final))


def gpqa(row: Row) -> Converted:
  """A question with four lettered choices, in an order that depends on their texts alone."""
  names = ["Question", "Correct Answer", *(f"Incorrect Answer {i}" for i in (1, 2, 3))]
  question, right, *wrong = (_text(row, name).strip() for name in names)
  choices = sorted([right, *wrong], key=lambda choice: digest(question, choice))
  if len(set(choices)) < len(choices):
    raise Skipped("repeated_choice")
  letter = "ABCD"[choices.index(right)]
  lines = [f"{name}) {choice}" for name, choice in zip("ABCD", choices, strict=True)]
  problem = "\n".join([question, "", *lines])
  new = {"problem": problem, "answer": letter, "question": question}
  kept = {"id": "Record ID", "category": "High-level domain", "canary": "Canary String"}
  new |= {name: row[theirs] for name, theirs in kept.items() if row.get(theirs)}
  return Converted(new, (problem, question), letter)


def _verl(row: Row) -> Converted:
  """The layout of verl, in which DAPO's set is published: a prompt of messages, and the answer in
  reward_model.ground_truth."""
  prompt, reward = row.get("prompt"), row["reward_model"]
  messages: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
  fits = isinstance(messages, list) and all(isinstance(m, Mapping) for m in messages)
  if not fits or not isinstance(reward, Mapping):
    raise ValueError(f"prompt and reward_model must be messages and an object, got {prompt!r:.50}.")
  asked = [m for m in messages if m.get("role") != "system"]
  if [m.get("role") for m in asked] != ["user"]:
    raise Skipped("several_turns")
  whole = _text(asked[0], "content")
  text = _text({"prompt": without_instruction(whole)}, "prompt")
  changes = ["instruction_cut"] * (text != whole)
  changes += ["system_message_cut"] * (len(asked) < len(messages))
  answer = _one(reward.get("ground_truth"))
  new = {"problem": text, "answer": answer}
  others = _others(row, {"prompt", "reward_model", "solution", *new})
  return Converted(new | others, (text,), answer, tuple(changes))


def _answer(row: Row) -> tuple[str, bool]:
  """(answer, whether it is the solution's although there is a field for it)."""
  name = _first(row, _ANSWER)
  if name is not None and row[name] not in (None, "", []):
    return _one(row[name]), False
  solution = _first(row, _SOLUTION)
  found = boxed(row[solution]) if solution and isinstance(row[solution], str) else None
  if found is None:
    raise Skipped("no_answer")
  return str(found), name is not None


def _one(value: Any) -> str:
  """The answer in a field: a text, a number, or a list of one, which may be written as JSON."""
  if isinstance(value, str) and value.startswith('["'):
    with contextlib.suppress(ValueError):  # then it is the answer
      value = json.loads(value)
  if isinstance(value, list):
    if len(value) > 1:
      raise Skipped("several_answers")
    value = value[0] if value else None
  if isinstance(value, int | float | decimal.Decimal) and not isinstance(value, bool):
    value = str(value) if math.isfinite(value) else None
  if not isinstance(value, str | None):
    raise Skipped("answer_no_text")
  if not value or not value.strip():
    raise Skipped("no_answer")
  return value.strip()


def _level(row: Row) -> int:
  match = re.fullmatch(r"(?:Level )?(\d+)", str(_field(row, "level")))
  return int(match[1]) if match else 0


def _text(row: Row, name: str) -> str:
  value = _field(row, name)
  if not isinstance(value, str | None):
    raise ValueError(f"{name} must be a text, got {value!r:.50}.")
  if not value or not value.strip():
    raise Skipped(f"empty_{name.lower().replace(' ', '_')}")
  return value


def _field(row: Row, name: str) -> Any:
  if name not in row:
    raise ValueError(f"no field {name}; it has {', '.join(row)}.")
  return row[name]


def _first(row: Row, names: tuple[str, ...]) -> str | None:
  return next((name for name in names if name in row), None)


def _others(row: Row, used: set[str]) -> dict[str, Any]:
  return {k: v for k, v in row.items() if k not in used and isinstance(v, str | int | float)}
