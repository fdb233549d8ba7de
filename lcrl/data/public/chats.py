"""Converters of preference pairs and of conversations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lcrl.data.layouts import UnpairedTurns, context_columns, read_pair
from lcrl.data.public.conversion import Converted, Skipped, digest, user_texts

Row = Mapping[str, Any]
Turns = list[dict[str, str]]
_TURNS = ("conversations", "conversation", "messages", "items")
_ROLES = {
  **dict.fromkeys(("human", "user", "prompter"), "user"),
  **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model"), "assistant"),
  "system": "system",
}


def pairs(row: Row) -> Converted:
  """Prompt, chosen and rejected, with scores if there are some, from any of these layouts:

  UltraFeedback  completions with ratings of four aspects: the best mean against a lower one,
                 picked by a hash of its text
  argilla's      chosen_response and rejected_response, or messages with chosen-rating
  ShareGPT       conversations, and a message each for chosen and rejected
  others         as `lcrl.data.layouts.read_pair` reads them: UltraFeedback-binarized, HH-RLHF
  """
  if isinstance(row.get("completions"), list):
    row = _rated(row)
  elif "chosen_response" in row or "chosen-rating" in row:
    row = _argilla(row)
  elif isinstance(row.get("chosen"), Mapping):
    turns = _turns(row)
    sides = {name: [_turn(row.get(name))] for name in ("chosen", "rejected")}
    row = {"prompt": turns, "system": row.get("system"), **sides}
  try:
    pair = read_pair(row)
  except UnpairedTurns:
    raise Skipped("unpaired_turns") from None
  if not all(side.strip() for side in pair.sides):
    raise Skipped("empty_side")
  if pair.sides[0] == pair.sides[1]:
    raise Skipped("identical_sides")
  if not user_texts(pair.messages):
    raise Skipped("no_question")
  new: dict[str, Any] = {"prompt": list(pair.messages)}
  new |= {n: _said(side) for n, side in zip(("chosen", "rejected"), pair.sides, strict=True)}
  for name, score in zip(("score_chosen", "score_rejected"), pair.scores, strict=False):
    new[name] = None if math.isnan(score) else score
  if pair.reference is not None:
    new["reference_prompt"] = list(pair.reference)
  return Converted(new, user_texts(pair.messages))


def conversations(row: Row) -> Converted:
  """Messages from the first question to the last answer, of ShareGPT and its like."""
  turns, changes = _turns(row), []
  system, turns = _split_system(turns)
  if turns and turns[0]["role"] == "assistant":  # the rest of a conversation that was cut in two
    turns.pop(0)
    changes.append("leading_answer_cut")
  if turns and turns[-1]["role"] == "user":
    turns.pop()
    changes.append("unanswered_question_cut")
  if not turns:
    raise Skipped("no_answer")
  if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
    raise Skipped("turns_do_not_alternate")
  if not all(turn["content"].strip() for turn in turns):
    raise Skipped("empty_turn")
  return Converted({"messages": system + turns}, user_texts(turns), None, tuple(changes))


def _split_system(turns: Turns) -> tuple[Turns, Turns]:
  count = int(bool(turns) and turns[0]["role"] == "system")
  return turns[:count], turns[count:]


def _turns(row: Row) -> Turns:
  """The conversation, preceded by the column system."""
  name = next((name for name in _TURNS if row.get(name) is not None), None)
  if name is None or not isinstance(row[name], list):
    raise ValueError(f"no list of turns in {' or '.join(_TURNS)}; it has {', '.join(row)}.")
  if lost := [column for column in context_columns(row) if column not in _TURNS]:
    raise Skipped(f"has_{lost[0]}")
  turns = [_turn(turn) for turn in row[name]]
  system = row.get("system")
  if isinstance(system, str) and system.strip() and [system] != [t["content"] for t in turns[:1]]:
    turns = [{"role": "system", "content": system}, *turns]
  return turns


def _turn(turn: Any) -> dict[str, str]:
  """A message, from {"from": "gpt", "value": ...} or {"role": ..., "content": ...}."""
  role, content = None, None
  if isinstance(turn, Mapping):
    role = turn.get("from", turn.get("role", turn.get("user")))
    content = turn.get("value", turn.get("content", turn.get("text")))
  if not isinstance(role, str) or not isinstance(content, str):
    raise ValueError(f"a turn needs from and value, or role and content, got {turn!r:.60}.")
  if role not in _ROLES:
    raise Skipped("other_roles")
  return {"role": _ROLES[role], "content": content}


def _rated(row: Row) -> Row:
  """The completion with the best mean rating, against one with a lower mean.

  Its overall_score is not used: for some bad completions it is 10. TruthfulQA's questions are
  skipped, as in UltraFeedback-binarized, since models are evaluated on them.
  """
  if row.get("source") == "truthful_qa":
    raise Skipped("truthful_qa")
  instruction, completions = row.get("instruction"), row["completions"]
  if not isinstance(instruction, str):
    raise ValueError(f"instruction must be a text, got {instruction!r:.60}.")
  rated = [(mean, text) for mean, text in map(_rating, completions) if mean is not None]
  if not rated:
    raise Skipped("no_rating")
  best, chosen = max(rated, key=lambda one: one[0])
  if not (lower := [one for one in rated if one[0] < best]):
    raise Skipped("no_lower_rating")
  score, rejected = min(lower, key=lambda one: digest(instruction, one[1]))
  sides = {"chosen": _said(chosen), "rejected": _said(rejected)}
  return {"prompt": _asked(instruction), **sides, "score_chosen": best, "score_rejected": score}


def _rating(completion: Any) -> tuple[float | None, str]:
  """(mean of the ratings that are numbers, None if there is none; response)."""
  try:
    response = completion["response"]
    ratings = [str(one["Rating"]).strip() for one in completion["annotations"].values()]
  except (KeyError, TypeError, AttributeError):
    raise ValueError(
      f"a completion needs a response, and annotations with Rating, got {completion!r:.60}."
    ) from None
  numbers = [int(rating) for rating in ratings if rating.isdecimal()]  # others are "N/A"
  return (sum(numbers) / len(numbers) if numbers else None), response


def _argilla(row: Row) -> Row:
  """Pairs with equal ratings are skipped, as their publisher advises."""
  texts = "chosen_response" in row
  ending = "_avg_rating" if texts else "-rating"
  scores = {f"score_{name}": row.get(f"{name}{ending}") for name in ("chosen", "rejected")}
  if scores["score_chosen"] == scores["score_rejected"]:
    raise Skipped("equal_ratings")
  if not texts:
    return {**row, **scores}
  sides = {name: _said(row.get(f"{name}_response")) for name in ("chosen", "rejected")}
  return {"prompt": _asked(row.get("instruction")), **sides, **scores}


def _asked(text: Any) -> list[dict[str, Any]]:
  return [{"role": "user", "content": text}]


def _said(text: Any) -> list[dict[str, Any]]:
  """A message, since a bare text that looks like a transcript would be read as one."""
  return [{"role": "assistant", "content": text}]
