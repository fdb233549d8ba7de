"""Ruler's data for supervised fine-tuning: responses that begin with a meta length token."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any

from lcrl.data.layouts import read_answer
from lcrl.evaluation.verbosity import RULER, length_label, word_count

__all__ = ["labelled"]


def labelled(
  rows: Iterable[tuple[str, Mapping[str, Any]]], *, most: int = 20_000, template: str | None = None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
  """Rows {prompt, completion} whose completion starts with the token of its length, as text.

  Responses outside of every range of Ruler's are dropped. Source: Ruler, arXiv:2409.18943.

  Args:
    rows: (location, row) as `lcrl.data.readers` gives them, in a layout for imitation.
    most: rows that each token gets, the first ones.
    template: added to the last message, with {words}, so that the prompt states the target; None:
      it states none, and the policy learns to choose the token itself.
  Returns: the rows, and how many each token got, "dropped" (no range) and "left over" (above
    `most`).
  """
  if most < 1:
    raise ValueError(f"most must be at least 1, got {most}.")
  kept, counts = list[dict[str, Any]](), collections.Counter[str]()
  for where, row in rows:
    try:
      pair = read_answer(row)
    except ValueError as why:
      raise ValueError(f"{where}: {why}") from why
    (answer,), label = pair.sides, length_label(word_count(pair.sides[0]))
    if label is None or counts[label] >= most:
      counts["dropped" if label is None else "left over"] += 1
      continue
    counts[label] += 1
    *before, last = pair.messages
    if template is not None:
      target = label.removeprefix("[MLT:").removesuffix("]")
      last = {**last, "content": last["content"] + template.replace("{words}", target)}
    kept.append({"prompt": [*before, last], "completion": f"{label}\n{answer}"})
  names = [*(f"[MLT:{name}]" for name in RULER), "dropped", "left over"]
  return kept, {name: counts[name] for name in names}
