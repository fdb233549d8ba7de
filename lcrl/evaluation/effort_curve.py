"""Accuracy against tokens over the efforts of one policy, alone and against single methods.

All on the host. A point is a mapping with tokens, accuracy and accuracy_ci, as `measure` gives it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lcrl.evaluation.intervals import Estimate, difference

__all__ = ["against_front", "attainable", "effort_measures", "monotonicity", "vertices"]

Point = Mapping[str, Any]


def monotonicity(values: Sequence[float]) -> float | None:
  """The share of pairs whose later value is the larger one; None without pairs.

  >>> monotonicity([10, 30, 20, 40])
  0.8333333333333334
  """
  pairs = list(itertools.combinations(values, 2))
  if not pairs:
    return None
  return sum(b > a for a, b in pairs) / len(pairs)


def effort_measures(points: Sequence[Point]) -> dict[str, Any]:
  """How a policy follows its effort.

    monotonicity = share of pairs of efforts that spend more at the higher one
    accuracy_monotonicity = the same of accuracy; None if nothing was verified
    range = longest / shortest mean length
    calibration = tokens spent / the budget's target at each effort, 1 where it does as it is told

  Args:
    points: of the efforts, in ascending order, with `target`, effort times `budget.tokens`.

  >>> point = lambda tokens, target: dict(tokens=tokens, accuracy=0.9, target=target)
  >>> effort_measures([point(10.0, 10), point(40.0, 20)])
  {'monotonicity': 1.0, 'accuracy_monotonicity': 0.0, 'range': 4.0, 'calibration': [1.0, 2.0]}
  """
  tokens = [float(point["tokens"]) for point in points]
  right = [point["accuracy"] for point in points]
  return {
    "monotonicity": monotonicity(tokens),
    "accuracy_monotonicity": None if None in right else monotonicity(right),
    "range": max(tokens) / min(tokens) if min(tokens) > 0 else None,
    "calibration": [n / point["target"] for n, point in zip(tokens, points, strict=True)],
  }


def vertices(points: Sequence[Point]) -> list[Point]:
  """The points that mixtures of others do not beat: the upper concave hull from the shortest to the
  most accurate, by ascending tokens.

  >>> points = [{"tokens": n, "accuracy": a} for n, a in ((1, 0.1), (2, 0.2), (3, 0.7), (4, 0.6))]
  >>> [point["tokens"] for point in vertices(points)]
  [1, 3]
  """
  chain: list[Point] = []
  for point in sorted(points, key=lambda p: (p["tokens"], -p["accuracy"])):
    if chain and point["accuracy"] <= chain[-1]["accuracy"]:
      continue
    while len(chain) > 1 and _slope(chain[-2], chain[-1]) <= _slope(chain[-2], point):
      chain.pop()
    chain.append(point)
  return chain


def _slope(a: Point, b: Point) -> float:
  return float((b["accuracy"] - a["accuracy"]) / (b["tokens"] - a["tokens"]))


def attainable(points: Sequence[Point], tokens: float) -> Estimate:
  """The best accuracy within `tokens` tokens on average, if each prompt may draw among the points:
  on the lines between `vertices`, and level behind the last. The ends of its interval are
  interpolated alike; all are nan below the shortest point.

  >>> point = lambda tokens, right: dict(tokens=tokens, accuracy=right, accuracy_ci=[right, right])
  >>> attainable([point(10.0, 0.5), point(20.0, 1.0)], 15.0)
  Estimate(value=0.75, low=0.75, high=0.75)
  """
  chain = vertices(points)
  if not chain or tokens < chain[0]["tokens"]:
    return Estimate(math.nan, math.nan, math.nan)
  at = [point["tokens"] for point in chain]
  ends = [(p["accuracy"], *p.get("accuracy_ci", (None, None))) for p in chain]
  known = [[math.nan if x is None else x for x in column] for column in zip(*ends, strict=True)]
  return Estimate(*(float(np.interp(tokens, at, column)) for column in known))


def against_front(points: Sequence[Point], singles: Mapping[str, Point]) -> dict[str, Any]:
  """A curve against methods that have one point each.

  Args:
    points: of the efforts of one policy.
    singles: name -> point.
  Returns: `area` and `front_area`, the mean of `attainable` over the tokens [from, to] that both
    reach, None if there are none; `points`, for each method its name, tokens and accuracy, the
    curve's accuracy within its tokens, and their difference `gap` with its interval, None where the
    curve is longer everywhere; and `reached`, how many methods lie on or below the curve.

  >>> curve = [{"tokens": n, "accuracy": a} for n, a in ((10, 0.4), (20, 0.8))]
  >>> found = against_front(curve, {"one": {"tokens": 10, "accuracy": 0.5}})
  >>> print("{area:.2f} {front_area:.2f} {reached}".format(**found))
  0.60 0.50 0
  """
  rows = []
  for name, single in singles.items():
    own = attainable(points, single["tokens"])
    gap = difference(own, attainable([single], single["tokens"]))
    curve, value, *ends = (None if math.isnan(x) else x for x in (own.value, *gap))
    row = {"name": name, "tokens": single["tokens"], "accuracy": single["accuracy"]}
    rows.append({**row, "curve": curve, "gap": value, "gap_ci": ends})
  reached = sum(row["gap"] is not None and row["gap"] >= 0 for row in rows)
  return _areas(points, [*singles.values()]) | {"points": rows, "reached": reached}


def _areas(points: Sequence[Point], singles: Sequence[Point]) -> dict[str, float | None]:
  lengths = [[p["tokens"] for p in side] for side in (points, singles)]
  low, high = max(map(min, lengths)), max(map(max, lengths))
  if low >= high:
    return dict.fromkeys(("area", "front_area", "from", "to"))
  knots = np.unique(np.clip([*lengths[0], *lengths[1]], low, high))

  def mean(side: Sequence[Point]) -> float:
    heights = [attainable(side, n).value for n in knots]
    return float(np.trapezoid(heights, knots) / (high - low))

  return {"area": mean(points), "front_area": mean(singles), "from": low, "to": high}
