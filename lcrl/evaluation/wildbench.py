"""WB-Reward and WB-Score from the result files of WildBench.

Source: arXiv:2406.04770; allenai/WildBench, `leaderboard/data_dir/_create_tables.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lcrl.evaluation.verbosity import wildbench_reward, wildbench_score, wildbench_task_macro

__all__ = ["rewards", "scores"]

TRUNCATED, EMPTY = "... (truncated)", "[This model response is empty.]"
TASKS = {  # tags of the data set -> tasks of the leaderboard
  **dict.fromkeys(("Information seeking", "Advice seeking"), "Information/Advice seeking"),
  **dict.fromkeys(("Creative Writing", "Editing", "Brainstorming"), "Creative Tasks"),
  **dict.fromkeys(("Role playing", "Others"), "Creative Tasks"),
  **dict.fromkeys(("Reasoning", "Planning"), "Planning & Reasoning"),
  **dict.fromkeys(("Math", "Data Analysis"), "Math & Data Analysis"),
  "Coding & Debugging": "Coding & Debugging",
}
Items = Sequence[Mapping[str, Any]]
Tags = Mapping[str, Sequence[str]]


def rewards(
  items: Items, references: Sequence[str], tags: Tags | None = None, *, margin: float = 500
) -> dict[str, Any]:
  """WB-Reward of the tested model against the reference of a file, times 100.

  An item has session_id, model_outputs (two models and their texts), winner and extent (1 or 2).
  Cut and empty outputs count as 0 and belong to no task, as in the official code.

  Args:
    items: of a file.
    references: names of reference models, one of which is in the file.
    tags: session_id -> tags of WildBench, for the mean over tasks; None: there is none.
    margin: K, characters; negative switches the rule on length off.
  """
  names = list(items[0]["model_outputs"])
  known = [name for name in names if name in references]
  if len(names) != 2 or len(known) != 1:
    raise ValueError(f"one of {names} must be a reference, and references are {list(references)}.")
  (reference,) = known
  model = next(name for name in names if name != reference)
  outcome, lengths, counted = [], [], []
  for item in items:
    ours, theirs = item["model_outputs"][model], item["model_outputs"][reference]
    counted.append(not any(x.endswith(TRUNCATED) or x == EMPTY for x in (ours, theirs)))
    lengths.append((len(ours), len(theirs)))
    outcome.append(_outcome(item, model, reference))
  values = 100 * wildbench_reward(outcome, *np.array(lengths).T, margin=margin)
  valid = np.array(counted)
  found = {"model": model, "reference": reference, "items": len(items), "counted": sum(counted)}
  found["WB-Reward"] = float(np.where(valid, values, 0).mean())
  return found | _by_task("WB-Reward", values, items, valid, tags)


def _outcome(item: Mapping[str, Any], model: str, reference: str) -> int:
  winner, extent = item["winner"], item.get("extent")
  if winner == "tie":
    return 0
  if winner not in (model, reference) or extent not in (1, 2):
    raise ValueError(
      f"{item['session_id']}: the winner is {winner!r} by {extent!r}; it has to be a model of the "
      "file by 1 or 2, or tie."
    )
  return extent if winner == model else -extent


def scores(items: Items, tags: Tags | None = None) -> dict[str, Any]:
  """WB-Score of a file, 2 (mark - 5) in the mean, times 10 as on the leaderboard.

  An item has session_id, model_output, model_test (or generator) and score (1 to 10), or
  parsed_result with the score.
  """
  marks = []
  for item in items:
    mark = item.get("score", (item.get("parsed_result") or {}).get("score"))
    try:
      marks.append(float(mark))  # type: ignore[arg-type]
    except (TypeError, ValueError):
      marks.append(np.nan)
    if not 1 <= marks[-1] <= 10:
      raise ValueError(f"{item['session_id']}: the score is {mark!r}; it must be from 1 to 10.")
  texts = [x[0] if isinstance(x := item["model_output"], list) else x for item in items]
  valid = np.array([bool(text) and not text.endswith(TRUNCATED) for text in texts])
  found = {"model": items[0].get("model_test") or items[0].get("generator"), "items": len(items)}
  found["WB-Score"] = 10 * wildbench_score(marks)
  return found | _by_task("WB-Score", 20 * (np.array(marks) - 5), items, valid, tags)


def _by_task(
  name: str, values: np.ndarray, items: Items, valid: np.ndarray, tags: Tags | None
) -> dict[str, Any]:
  if tags is None:
    return {}
  if missing := [item["session_id"] for item in items if item["session_id"] not in tags]:
    raise ValueError(f"{len(missing)} items have no tags, such as {missing[0]}.")
  tasks = [{TASKS[tag] for tag in tags[item["session_id"]]} for item in items]
  kept = np.flatnonzero(valid)
  macro, means = wildbench_task_macro(values[kept], [sorted(tasks[i]) for i in kept])
  return {f"{name}, mean over tasks": macro, "by task": means}
