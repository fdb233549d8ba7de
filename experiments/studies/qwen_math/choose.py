"""Chooses the coefficient of each method by its runs on the validation problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

SLACK = 0.02  # of accuracy, below that of correctness alone


def chosen(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
  """Records of a sweep -> the coefficient of each method.

  The value with the fewest tokens among those that are at most `SLACK` less accurate than GRPO; the
  most accurate one where all lose more. A policy that was asked for several budgets counts by the
  means over them.

  Raises:
    ValueError: there is no record of GRPO.

  >>> at = lambda accuracy, tokens: {"validation": {"accuracy": accuracy, "tokens": tokens}}
  >>> row = lambda method, value, *at_: dict(method=method, value=value, evaluations=at(*at_))
  >>> rows = [row("grpo", None, 0.4, 300), row("laser", 128, 0.39, 150)]
  >>> chosen([*rows, row("laser", 64, 0.3, 90), row("laser", 256, 0.4, 200)])
  {'grpo': None, 'laser': 128}
  """
  points: dict[str, list[tuple[float, float, float | None]]] = {}
  for row in rows:
    asked = [p for name, p in row["evaluations"].items() if name.split("@")[0] == "validation"]
    if asked:
      right, tokens = (fmean(p[key] for p in asked) for key in ("accuracy", "tokens"))
      points.setdefault(row["method"], []).append((right, tokens, row["value"]))
  if "grpo" not in points:
    raise ValueError("no record of grpo on validation problems: accuracy has nothing to hold to.")
  least = max(accuracy for accuracy, *_ in points["grpo"]) - SLACK

  def best(found: list[tuple[float, float, float | None]]) -> float | None:
    held = [x for x in found if x[0] >= least]
    return min(held, key=lambda x: x[1])[2] if held else max(found, key=lambda x: x[0])[2]

  return {method: best(found) for method, found in points.items()}
