"""Rows of an answers file, and what a measure of them gives.

A row is an answer: prompt_id, sample, text (what the verifier reads), tokens, truncated, correct
(None without a verifier), budget (the cap), and `row`, the prompt's own fields in its file. Newer
files also have end_reason and, with a control that cuts the thinking, thinking_cut and forced.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lcrl.evaluation.intervals import Estimate

Row = Mapping[str, Any]
Rows = Sequence[Row]


class Measured(NamedTuple):
  """What a measure found. Mappings in `numbers` become tables, with a row for each key."""

  numbers: dict[str, Any]  # of JSON types
  details: Sequence[Mapping[str, Any]] = ()  # rows of a table of its own
  draw: Callable[[Path], None] | None = None  # writes a picture


def by_prompt(rows: Rows) -> list[list[Row]]:
  """The answers to each prompt, in the order in which they were sampled."""
  if not rows:
    raise ValueError("there are no answers to measure.")
  groups: dict[Any, list[Row]] = {}
  for row in rows:
    groups.setdefault(row["prompt_id"], []).append(row)
  return [sorted(group, key=lambda row: row["sample"]) for group in groups.values()]


def field(row: Row, name: str) -> Any:
  """A field of the prompt's row in its file, else of the answer."""
  own = row.get("row") or {}
  if name in own or name in row:
    return own[name] if name in own else row[name]
  raise ValueError(
    f"prompt {row['prompt_id']} has no field {name!r}; its file has {', '.join(own) or 'none'}."
  )


def number(row: Row, name: str) -> float:
  """A field that is a positive number."""
  value = field(row, name)
  try:
    known = float(value)
  except (TypeError, ValueError):
    known = math.nan
  if not 0 < known < math.inf:
    raise ValueError(
      f"prompt {row['prompt_id']}: {name} must be a positive number, got {value!r:.40}."
    )
  return known


def text(row: Row, name: str) -> str:
  """A field that is a text."""
  value = field(row, name)
  if not isinstance(value, str):
    raise ValueError(f"prompt {row['prompt_id']}: {name} must be a text, got {value!r:.40}.")
  return value


def verdicts(group: Rows) -> np.ndarray:
  """[n] bool, which answers to a prompt are right."""
  found = [row["correct"] for row in group]
  if None in found:
    raise ValueError(f"nothing verified the answers to prompt {group[0]['prompt_id']}.")
  return np.array(found, bool)


def increasing(values: Sequence[int], name: str) -> None:
  """Raises ValueError unless the values are positive and in order."""
  if not values or values[0] < 1 or any(a >= b for a, b in itertools.pairwise(values)):
    raise ValueError(f"{name} must be positive and increase, got {list(values)}.")


def with_ends(name: str, estimate: Estimate) -> dict[str, Any]:
  """An estimate as two numbers of a record: the value, and [low, high]."""
  ends = [float(end) if math.isfinite(end) else None for end in estimate[1:]]
  return {name: float(estimate.value), f"{name}_ci": ends}


def grouped(values: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
  """(key, value) -> the values of each key, keys in order."""
  found: dict[Any, list[Any]] = {}
  for key, value in values:
    found.setdefault(key, []).append(value)
  return dict(sorted(found.items()))
