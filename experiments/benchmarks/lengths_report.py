"""What `benchmarks.lengths` found, drawn and in tables: is time linear in the mean, flat in the
limit?"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lcrl.evaluation.plots import COLOURS, STYLE

matplotlib.use("agg")

SERIES = {"step_s": "step", "seconds": "sampling", "update_s": "update"}  # the first leads


class Found(NamedTuple):
  common: dict[str, Any]
  by_mean: list[dict[str, Any]]  # points at one limit
  by_limit: list[dict[str, Any]]  # points of one mean

  @property
  def series(self) -> dict[str, str]:
    """Those that every point has."""
    points = self.by_mean + self.by_limit
    return {key: name for key, name in SERIES.items() if all(key in point for point in points)}


class Line(NamedTuple):
  """seconds = start + slope * tokens, by least squares."""

  start: float
  slope: float
  deviation: float  # the largest of a point from it, as a share of the line


def read(text: str) -> Found:
  """The lines that the benchmark prints; points that failed are left out."""
  *points, common = map(json.loads, text.splitlines())
  points = [point for point in points if "error" not in point]
  limit, mean = common["limit_of_means"], common["mean_of_limits"]
  by_mean = sorted((p for p in points if p["limit"] == limit), key=lambda p: p["mean"])
  by_limit = sorted((p for p in points if p["mean"] == mean), key=lambda p: p["limit"])
  if len(by_mean) < 2 or len(by_limit) < 2:
    raise ValueError(f"{len(by_mean)} means and {len(by_limit)} limits are too few.")
  return Found(common, by_mean, by_limit)


def fit(points: list[dict[str, Any]], key: str) -> Line:
  x, y = (np.array([point[name] for point in points]) for name in ("mean_sampled", key))
  slope, start = np.polyfit(x, y, 1).tolist()
  line = start + slope * x
  return Line(start, slope, float(np.max(np.abs(y - line) / line)))


def spread(points: list[dict[str, Any]], key: str) -> float:
  """How far the slowest is above the fastest, as a share of that."""
  times = [point[key] for point in points]
  return max(times) / min(times) - 1


def draw(path: str | os.PathLike, found: Found) -> None:
  common = found.common
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(10, 4.4))
    left, right = figure.subplots(1, 2)
    rows = common["prompts"] * common["group"]
    figure.suptitle(f"{common['device']}: {rows} rows, {common['shape']}", fontsize=12)
    for (key, name), colour in zip(found.series.items(), COLOURS, strict=False):
      _draw_means(left, found.by_mean, key, name, colour)
      _draw_limits(right, found.by_limit, key, name, colour)
    left.set(title=f"at a limit of {common['limit_of_means']} tokens", xlabel="mean length, tokens")
    left.set_xlim(left=0)
    right.set(
      title=f"at a mean length of {common['mean_of_limits']} tokens", xlabel="limit, tokens"
    )
    limits = [point["limit"] for point in found.by_limit]
    right.set_xscale("log", base=2)
    right.set_xticks(limits, [str(limit) for limit in limits])
    for ax in (left, right):
      ax.set(ylabel="seconds")
      ax.set_ylim(0, 1.45 * ax.get_ylim()[1])  # room for the legend
      ax.legend(loc="upper left", frameon=False, fontsize=9)
    figure.savefig(path)


def _draw_means(ax: Axes, points: list, key: str, name: str, colour: str) -> None:
  line = fit(points, key)
  ends = np.array([0, points[-1]["mean_sampled"]])
  label = (
    f"{name}: {line.start:.2g} s + {1e3 * line.slope:.2g} ms a token, "
    f"off by at most {100 * line.deviation:.1f} %"
  )
  ax.plot(ends, line.start + line.slope * ends, color=colour, lw=1.2)
  ax.plot(
    [p["mean_sampled"] for p in points], [p[key] for p in points], "o", color=colour, label=label
  )


def _draw_limits(ax: Axes, points: list, key: str, name: str, colour: str) -> None:
  label = f"{name}: flat within {100 * spread(points, key):.1f} %"
  ax.plot(
    [p["limit"] for p in points], [p[key] for p in points], "o-", color=colour, lw=1.2, label=label
  )


def tables(found: Found) -> str:
  """Both in Markdown, with the line of the first series and the spread."""
  key, name = next(iter(found.series.items()))
  line, fastest = fit(found.by_mean, key), min(p[key] for p in found.by_limit)
  seconds = lambda p: [f"{p[k]:.4g}" for k in found.series]
  heads = [f"{name}, s" for name in found.series.values()]
  means = [
    [
      f"{p['mean_sampled']:.1f}",
      *seconds(p),
      f"{p['tokens_per_s']:,.0f}",
      f"{100 * (p[key] / (line.start + line.slope * p['mean_sampled']) - 1):+.1f} %",
    ]
    for p in found.by_mean
  ]
  limits = [
    [str(p["limit"]), *seconds(p), f"{100 * (p[key] / fastest - 1):+.1f} %"] for p in found.by_limit
  ]
  common = found.common
  return "\n\n".join(
    [
      f"{common['device']}, {common['shape']}, limit {common['limit_of_means']}: {name} takes "
      f"{line.start:.3g} s + {1e3 * line.slope:.3g} ms a token of the mean, within "
      f"{100 * line.deviation:.1f} %.",
      _table(["mean length", *heads, "sampled tokens/s", f"{name} from the line"], means),
      f"Mean length {common['mean_of_limits']}: {name} is flat within "
      f"{100 * spread(found.by_limit, key):.1f} %.",
      _table(["limit", *heads, f"{name} above the fastest"], limits),
    ]
  )


def _table(heads: list[str], rows: list[list[str]]) -> str:
  line = lambda cells: f"| {' | '.join(cells)} |"
  return "\n".join(map(line, [heads, ["---"] * len(heads), *rows]))
