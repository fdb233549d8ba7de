"""How near answers come to the length that their prompt asks for: Ruler, LongBench-Write, LCFO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lcrl.evaluation.answers.rows import Measured, Rows, by_prompt, field, grouped, number, text
from lcrl.evaluation.verbosity import (
  RULER,
  length_score,
  ruler_scores,
  whitespace_words,
  word_count,
  written_length,
)

BINS = (0, 500, 2000, 4000, math.inf)  # words required, of LongBench-Write's table


def ruler(rows: Rows, *, target: str = "target_words") -> Measured:
  """Ruler's precise and flexible match (PM, FM) in percent, by level and by target.

  Source: Ruler, arXiv:2409.18943. The exact match and the root mean square error of words leave
  out the target >800.

  Args:
    rows: answers.
    target: field of the words asked for, one of the targets of `verbosity.RULER`.

  >>> text, row = "one two three four five six seven eight nine ten", dict(target_words="10")
  >>> ruler([dict(prompt_id=0, sample=0, text=text, row=row)]).numbers["PM"]
  100.0
  """
  by_prompt(rows)
  targets, words = [str(field(row, target)) for row in rows], [word_count(r["text"]) for r in rows]
  for row, name in zip(rows, targets, strict=True):
    if name not in RULER:
      raise ValueError(
        f"prompt {row['prompt_id']}: {target} must be one of {', '.join(RULER)}, got {name!r}."
      )
  scores = ruler_scores(targets, words)
  gaps = [w - int(t) for t, w in zip(targets, words, strict=True) if t.isdigit()]
  numbers: dict[str, Any] = _percent(scores["all"])
  numbers["exact match"] = 100 * float(np.mean(np.equal(gaps, 0))) if gaps else None
  numbers["RMSE of words"] = float(np.sqrt(np.mean(np.square(gaps)))) if gaps else None
  numbers["by level"] = {str(k): _percent(v) for k, v in scores["by_level"].items()}
  of_target = grouped(zip(targets, words, strict=True))
  numbers["by target"] = {
    name: _percent(ruler_scores([name] * len(of_target[name]), of_target[name])["all"])
    | {"mean words": float(np.mean(of_target[name])), "answers": len(of_target[name])}
    for name in RULER
    if name in of_target
  }
  return Measured(numbers)


def _percent(scores: dict[str, float]) -> dict[str, float]:
  return {name.upper(): value for name, value in scores.items()}


def longbench_write(rows: Rows, *, required: str = "length") -> Measured:
  """LongBench-Write's S_l, 100 at the length asked for, over all answers and by length asked for.

  Source: LongWriter, arXiv:2408.07055.

  Args:
    rows: answers.
    required: field of the words asked for; Chinese characters count as words.

  >>> rows = [dict(prompt_id=0, sample=0, text="one two", row=dict(length=2))]
  >>> longbench_write(rows).numbers["S_l"]
  100.0
  """
  by_prompt(rows)
  asked = np.array([number(row, required) for row in rows])
  words = np.array([written_length(row["text"]) for row in rows])
  scores = length_score(asked, words)
  at = np.digitize(asked, BINS[1:])
  bins = {}
  for i in np.unique(at):
    label = f"{BINS[i]} to {BINS[i + 1]:g}" if math.isfinite(BINS[i + 1]) else f"{BINS[i]} and more"
    bins[label] = {"S_l": float(scores[at == i].mean()), "answers": int((at == i).sum())}
  numbers = {"S_l": float(scores.mean()), "mean words": float(words.mean())}
  return Measured(numbers | {"by words asked for": bins})


def lcfo(rows: Rows, *, source: str = "source", ratio: str | None = "ratio") -> Measured:
  """Length ratio, words of the answer over words of its source, and its error to the one asked for.

  For summaries (below 1) and expansions (above). Source: LCFO, arXiv:2412.08268.

  Args:
    rows: answers.
    source: field of the source text.
    ratio: field of the ratio asked for; None: none was.

  >>> row = dict(source="one two three four", ratio=0.5)
  >>> lcfo([dict(prompt_id=0, sample=0, text="one two", row=row)]).numbers["length ratio"]
  0.5
  """
  pairs = []
  for group in by_prompt(rows):
    words = whitespace_words(text(group[0], source))
    if not words:
      raise ValueError(f"prompt {group[0]['prompt_id']}: {source} has no words.")
    asked = None if ratio is None else number(group[0], ratio)
    pairs += [(asked, whitespace_words(row["text"]) / words) for row in group]
  numbers: dict[str, Any] = _ratios(pairs)
  if ratio is not None:
    parts = grouped((asked, (asked, found)) for asked, found in pairs)
    numbers["by ratio asked for"] = {f"{asked:g}": _ratios(part) for asked, part in parts.items()}
  return Measured(numbers)


def _ratios(pairs: Sequence[tuple[float | None, float]]) -> dict[str, Any]:
  found: dict[str, Any] = {"length ratio": float(np.mean([ratio for _, ratio in pairs]))}
  errors = [ratio - asked for asked, ratio in pairs if asked is not None]
  if errors:
    found |= {"error": float(np.mean(errors)), "absolute error": float(np.mean(np.abs(errors)))}
  return found | {"answers": len(pairs)}
