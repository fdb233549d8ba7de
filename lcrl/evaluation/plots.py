"""Pictures of runs: accuracy against tokens, both by difficulty, both against steps; reward by
length.

`runs` maps a name to its summary (`summaries.summary`), in the order in which colours are taken.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from lcrl.evaluation.pareto import on_front

matplotlib.use("agg")

__all__ = ["by_difficulty", "curves", "pareto", "reward_by_length"]

# Okabe and Ito 2008: distinct also to readers who do not tell red from green.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
GREY, LIGHT = "#777777", "#E4E4E4"
STYLE: Any = {
  "figure.dpi": 160,
  "figure.constrained_layout.use": True,
  "font.size": 11,
  "axes.titlesize": 11,
  "axes.titlelocation": "left",
  "axes.titlepad": 10,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.edgecolor": GREY,
  "axes.grid": True,
  "axes.axisbelow": True,
  "grid.color": LIGHT,
  "xtick.color": GREY,
  "ytick.color": GREY,
  "xtick.labelcolor": "black",
  "ytick.labelcolor": "black",
  "lines.linewidth": 1.8,
  "lines.solid_capstyle": "round",
}
BARS: dict[str, Any] = {"elinewidth": 1.2, "capsize": 2.5}

Runs = Mapping[str, Mapping[str, Any]]


def _colours(names) -> dict[str, str]:
  return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def _error(point: Mapping[str, Any], key: str) -> tuple[float, np.ndarray]:
  """The value and its distances to the interval's ends, [2, 1], 0 where there is no interval."""
  value = point[key]
  ends = [value if end is None else end for end in point[f"{key}_ci"]]
  return value, np.abs(np.array(ends)[:, None] - value)


def _percent(point: Mapping[str, Any]) -> tuple[float, np.ndarray]:
  value, error = _error(point, "accuracy")
  return 100 * value, 100 * error


def _name_points(
  ax: Axes, points: Sequence[tuple[float, float, str, str]], ink: np.ndarray
) -> None:
  """Names (x, y, name, colour) beside their points, where they cover least of the ink [K, 2]."""
  ax.figure.canvas.draw()
  ink = ax.transData.transform(ink)
  taken: list[Bbox] = []
  for x, y, name, colour in points:
    tried: list[tuple[float, int, Annotation, Bbox]] = []
    for dx, dy in ((9, 7), (9, -7), (-9, 7), (-9, -7), (16, 18), (16, -18), (-16, 18), (-16, -18)):
      ha, va = "left" if dx > 0 else "right", "bottom" if dy > 0 else "top"
      label = ax.annotate(
        name, (x, y), (dx, dy), textcoords="offset points", color=colour, ha=ha, va=va
      )
      box = label.get_window_extent().padded(2)
      covered = ((ink > box.min) & (ink < box.max)).all(1).sum() + 9 * box.count_overlaps(taken)
      outside = box.x0 < ax.bbox.x0 or box.x1 > ax.bbox.x1 or box.y0 < ax.bbox.y0
      tried.append((covered + 3 * outside, len(tried), label, box))
    _, best, _, box = min(tried, key=lambda t: t[:2])
    taken.append(box)
    for _, i, label, _ in tried:
      if i != best:
        label.remove()


def _name_lines(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
  """Names (x, y, name, colour) at the right end of their lines, pushed apart where they meet."""
  ax.figure.canvas.draw()
  points_a_pixel = 72 / ax.figure.dpi
  lowest = -np.inf
  for x, y, name, colour in sorted(ends, key=lambda end: end[1]):
    height = ax.transData.transform((x, y))[1] * points_a_pixel
    lowest = max(height, lowest + 14)
    ax.annotate(
      name,
      (x, y),
      (8, lowest - height),
      textcoords="offset points",
      va="center",
      color=colour,
      annotation_clip=False,
    )


def _draw_point(ax: Axes, point: Mapping[str, Any], colour: str, **marker) -> np.ndarray:
  """A point with its error bars; returns where it put ink, [K, 2]."""
  (y, y_error), (x, x_error) = _percent(point), _error(point, "tokens")
  ax.errorbar(x, y, y_error, x_error, ms=7, color=colour, zorder=3, **marker, **BARS)
  across = np.linspace(x - x_error[0, 0], x + x_error[1, 0], 15)
  along = np.linspace(y - y_error[0, 0], y + y_error[1, 0], 15)
  return np.stack([np.append(across, np.full(15, x)), np.append(np.full(15, y), along)], 1)


def _draw_front(ax: Axes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """The best accuracy within each number of tokens; returns where it put ink, [K, 2]."""
  front = np.flatnonzero(on_front(y, x))
  front = front[np.argsort(x[front])]
  right = ax.get_xlim()[1]
  steps = np.append(x[front], right), np.append(y[front], y[front[-1]])
  ax.step(*steps, where="post", color=GREY, ls=(0, (4, 3)), lw=1.1, zorder=2)
  at = np.linspace(x[front[0]], right, 120)
  return np.stack([at, steps[1][np.searchsorted(steps[0], at, side="right") - 1]], 1)


def pareto(path: str | os.PathLike, runs: Runs) -> None:
  """Accuracy against mean tokens: one point a run, intervals both ways, the start, the front.

  `measure` will do for a summary: it has no start, and none is drawn.
  """
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(6.4, 4.4))
    ax = figure.subplots()
    starts = [run["start"] for run in runs.values() if "start" in run]
    starts = list({(start["tokens"], start["accuracy"]): start for start in starts}.values())
    drawn = [(name, runs[name], colour) for name, colour in _colours(runs).items()]
    ink = [_draw_point(ax, run, colour, fmt="o") for _, run, colour in drawn]
    ink += [_draw_point(ax, start, GREY, fmt="D", mfc="white") for start in starts]
    drawn += [("start" if i == 0 else "", s, GREY) for i, s in enumerate(starts)]
    named = [(p["tokens"], 100 * p["accuracy"], name, colour) for name, p, colour in drawn]

    ax.set(xlabel="mean tokens per answer", title="accuracy, %")
    ax.set_xlim(0, 1.06 * max(ax.get_xlim()[1], 1))
    ax.margins(y=0.16)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -4), min(high, 104))
    x, y = (np.array([point[i] for point in named]) for i in (0, 1))
    ink.append(_draw_front(ax, x, y))
    _name_points(ax, [point for point in named if point[2]], np.concatenate(ink))
    figure.savefig(path)


def _two_panels(width: float = 9.2) -> tuple[Figure, Axes, Axes]:
  figure = Figure(figsize=(width, 3.8))
  left, right = figure.subplots(1, 2)
  left.set_title("accuracy, %")
  right.set_title("mean tokens per answer")
  return figure, left, right


def by_difficulty(path: str | os.PathLike, runs: Runs) -> None:
  """Accuracy and tokens of each run by difficulty, with intervals."""
  with matplotlib.rc_context(STYLE):
    figure, left, right = _two_panels()
    levels = sorted({d for r in runs.values() for d in r["by_difficulty"]}, key=_as_number)
    ends = []
    for i, (name, colour) in enumerate(_colours(runs).items()):
      points = runs[name]["by_difficulty"]
      here = [d for d in levels if d in points]
      x = np.array([levels.index(d) for d in here]) + 0.05 * (i - (len(runs) - 1) / 2)
      for ax, read in ((left, _percent), (right, lambda p: _error(p, "tokens"))):
        values, errors = zip(*(read(points[d]) for d in here), strict=True)
        error = np.concatenate(errors, axis=1)
        ax.errorbar(x, values, error, fmt="o-", ms=5, color=colour, **BARS)
      ends.append((x[-1], points[here[-1]]["tokens"], name, colour))
    for ax in (left, right):
      ax.set_xticks(range(len(levels)), levels)
      ax.set_xlim(-0.35, len(levels) - 0.65)
      ax.set_xlabel("difficulty")
      ax.grid(visible=False, axis="x")
    low, high = left.get_ylim()
    left.set_ylim(max(low, -4), min(high, 104))
    right.set_ylim(bottom=0)
    _name_lines(right, ends)
    figure.savefig(path)


def curves(path: str | os.PathLike, curves: Mapping[str, Mapping[str, Any]]) -> None:
  """Accuracy and tokens against training steps.

  Args:
    path: of the PNG.
    curves: name -> {"step": [K], "accuracy": [K] or [S, K], "tokens": [K] or [S, K]}; with S
      seeds each is drawn faintly below their mean.
  """
  with matplotlib.rc_context(STYLE):
    figure, left, right = _two_panels()
    ends = []
    for name, colour in _colours(curves).items():
      step = np.asarray(curves[name]["step"])
      for ax, key, scale in ((left, "accuracy", 100), (right, "tokens", 1)):
        values = scale * np.atleast_2d(np.asarray(curves[name][key], np.float64))
        if len(values) > 1:
          ax.plot(step, values.T, color=colour, lw=0.8, alpha=0.35)
        ax.plot(step, values.mean(0), color=colour)
      ends.append((step[-1], values.mean(0)[-1], name, colour))
    for ax in (left, right):
      ax.set_xlabel("training step")
      ax.margins(x=0)
      ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    low, high = left.get_ylim()
    left.set_ylim(max(low, -4), min(high, 104))
    right.set_ylim(bottom=0)
    _name_lines(right, ends)
    figure.savefig(path)


def reward_by_length(path: str | os.PathLike, lines: Mapping[str, Mapping[str, Any]]) -> None:
  """Reward against length: name -> {"length": [K], "reward": [K]}."""
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(6.4, 3.8))
    ax = figure.subplots()
    ends = []
    for name, colour in _colours(lines).items():
      x, y = lines[name]["length"], lines[name]["reward"]
      ax.plot(x, y, "o-", ms=5, color=colour)
      ends.append((x[-1], y[-1], name, colour))
    ax.set(xlabel="tokens per answer", title="mean reward that the policy implies")
    _name_lines(ax, ends)
    figure.savefig(path)


def _as_number(text: str) -> tuple[bool, float, str]:
  """Sorts "10" after "9", and words after numbers."""
  try:
    return False, float(text), text
  except ValueError:
    return True, 0.0, text
