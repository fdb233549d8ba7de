"""Pictures of runs: accuracy against tokens, both by difficulty, both against steps; reward by
length.

`runs` maps a name to its summary (`summaries.summary`), in the order in which colours are taken.
Each picture is written as PNG and, beside it under the same name, as SVG.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lcrl.evaluation.labels import name_lines, name_points, short
from lcrl.evaluation.pareto import on_front

matplotlib.use("agg")

__all__ = ["by_difficulty", "curves", "line", "pareto", "reward_by_length"]

# Okabe and Ito 2008: distinct also to readers who do not tell red from green.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
MARKERS = "os^vDP*X<>"  # of every seven names
MOST_NAMES, MOST_LETTERS = 10, 100  # inside a picture
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
  "svg.fonttype": "none",  # text stays text
  "svg.hashsalt": "lcrl",  # the same picture is the same file
}
BARS: dict[str, Any] = {"elinewidth": 1.2, "capsize": 2.5, "clip_on": False}

Runs = Mapping[str, Mapping[str, Any]]


def _colours(names) -> dict[str, str]:
  return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}


def save(figure: Figure, path: str | os.PathLike) -> None:
  figure.draw_without_rendering()  # lays it out, once for both files
  figure.set_layout_engine("none")
  figure.savefig(path)
  figure.savefig(Path(path).with_suffix(".svg"), metadata={"Date": None})


def within_percent(ax: Axes) -> None:
  """Ends an axis of percentages at 0 and 100, and draws markers at its ends whole."""
  low, high = ax.get_ylim()
  ax.set_ylim(max(low, 0), min(high, 100))


def with_error(point: Mapping[str, Any], key: str) -> tuple[float, np.ndarray]:
  """The value and its distances to the interval's ends, [2, 1], 0 where there is no interval."""
  value = point[key]
  ends = [value if end is None else end for end in point[f"{key}_ci"]]
  return value, np.abs(np.array(ends)[:, None] - value)


def _percent(point: Mapping[str, Any]) -> tuple[float, np.ndarray]:
  value, error = with_error(point, "accuracy")
  return 100 * value, 100 * error


def draw_point(ax: Axes, point: Mapping[str, Any], colour: str, **marker) -> np.ndarray:
  """Draws a point with its error bars; returns the points that it covers, [K, 2]."""
  (y, y_error), (x, x_error) = _percent(point), with_error(point, "tokens")
  ax.errorbar(x, y, y_error, x_error, ms=7, color=colour, zorder=3, **marker, **BARS)
  (left, right), (low, high) = x_error[:, 0], y_error[:, 0]
  bars = dense([x - left, x + right], [y, y]), dense([x, x], [y - low, y + high])
  return np.concatenate(bars)


def dense(x: Any, y: Any) -> np.ndarray:
  """Points [K, 2] along the line through x, y [N]."""
  corners = np.arange(len(x))
  at = np.linspace(0, corners[-1], 60 * max(len(corners) - 1, 1))
  return np.stack([np.interp(at, corners, x), np.interp(at, corners, y)], 1)


def _draw_front(ax: Axes, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Draws the best accuracy within each number of tokens; returns the points it covers, [K, 2]."""
  front = np.flatnonzero(on_front(y, x))
  front = front[np.argsort(x[front])]
  right = ax.get_xlim()[1]
  x, y = np.append(np.repeat(x[front], 2)[1:], right), np.repeat(y[front], 2)
  ax.plot(x, y, color=GREY, ls=(0, (4, 3)), lw=1.1, zorder=2)
  return dense(x, y)


def pareto(path: str | os.PathLike, runs: Runs) -> None:
  """Accuracy against mean tokens: one point a run, intervals both ways, the start, the front.

  `measure` will do for a summary: it has no start, and none is drawn.
  """
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(6.4, 4.4))
    ax = figure.subplots()
    starts = [run["start"] for run in runs.values() if _measured(run.get("start"))]
    starts = list({(start["tokens"], start["accuracy"]): start for start in starts}.values())
    colours = _colours(runs)
    drawn = [(name, run, colours[name]) for name, run in runs.items() if _measured(run)]
    marks = [MARKERS[i // len(COLOURS) % len(MARKERS)] for i in range(len(drawn))]
    ink = [draw_point(ax, run, c, fmt=m) for (_, run, c), m in zip(drawn, marks, strict=True)]
    ink += [draw_point(ax, start, GREY, fmt="D", mfc="white") for start in starts]
    drawn += [("start" if i == 0 else "", s, GREY) for i, s in enumerate(starts)]
    named = [(p["tokens"], 100 * p["accuracy"], name, colour) for name, p, colour in drawn]

    ax.set(xlabel="mean tokens per answer", title="accuracy, %")
    ax.set_xlim(0, 1.06 * max(ax.get_xlim()[1], 1))
    ax.margins(y=0.16)
    within_percent(ax)
    x, y = (np.array([point[i] for point in named]) for i in (0, 1))
    if named:
      ink.append(_draw_front(ax, x, y))
      letters = sum(len(short(point[2])) for point in named)
      if len(named) > MOST_NAMES or letters > MOST_LETTERS:
        _legend(figure, ax, named, [*marks, *"D" * len(starts)])
      else:
        name_points(ax, [point for point in named if point[2]], np.concatenate(ink))
    save(figure, path)


def line(
  path: str | os.PathLike, lines: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]]
) -> None:
  """Accuracy against mean tokens along a line of points, such as the strengths of a merge.

  Args:
    path: of the PNG.
    lines: name -> (label, summary) of each point in turn.
  """
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(6.4, 4.4))
    ax = figure.subplots()
    ink, named = [], []
    for name, colour in _colours(lines).items():
      points = [(label, point) for label, point in lines[name] if _measured(point)]
      ink += [draw_point(ax, point, colour, fmt="o") for _, point in points]
      at = [(point["tokens"], 100 * point["accuracy"]) for _, point in points]
      named += [(*xy, label, colour) for xy, (label, _) in zip(at, points, strict=True)]
      if at:
        x, y = np.array(at).T
        ax.plot(x, y, color=colour, label=name, zorder=2)
        ink.append(dense(x, y))
    ax.set(xlabel="mean tokens per answer", title="accuracy, %")
    ax.set_xlim(0, 1.06 * max(ax.get_xlim()[1], 1))
    ax.margins(y=0.16)
    within_percent(ax)
    if len(lines) > 1:
      figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    if named:
      name_points(ax, named, np.concatenate(ink))
    save(figure, path)


def _legend(figure: Figure, ax: Axes, named: Sequence[tuple], marks: Sequence[str]) -> None:
  """Names beside the picture, where they would cover each other in it."""
  for (*_, name, colour), mark in zip(named, marks, strict=True):
    if name:
      face = "white" if colour == GREY else colour
      ax.plot([], [], mark, ms=7, color=colour, mfc=face, label=short(name))
  figure.legend(loc="outside right upper", frameon=False, fontsize=9)


def _measured(point: Mapping[str, Any] | None) -> bool:
  return point is not None and point["accuracy"] is not None and point["tokens"] is not None


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
      present = [d for d in levels if d in points]
      x = np.array([levels.index(d) for d in present]) + 0.05 * (i - (len(runs) - 1) / 2)
      for ax, read in ((left, _percent), (right, lambda p: with_error(p, "tokens"))):
        values, errors = zip(*(read(points[d]) for d in present), strict=True)
        error = np.concatenate(errors, axis=1)
        ax.errorbar(x, values, error, fmt="o-", ms=5, color=colour, **BARS)
      ends.append((x[-1], points[present[-1]]["tokens"], name, colour))
    for ax in (left, right):
      ax.set_xticks(range(len(levels)), levels)
      ax.set_xlim(-0.35, len(levels) - 0.65)
      ax.set_xlabel("difficulty")
      ax.grid(visible=False, axis="x")
    within_percent(left)
    right.set_ylim(bottom=0)
    name_lines(right, ends)
    save(figure, path)


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
        ax.plot(step, values.mean(0), color=colour, clip_on=False)
      ends.append((step[-1], values.mean(0)[-1], name, colour))
    for ax in (left, right):
      ax.set_xlabel("training step")
      ax.margins(x=0)
      ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    within_percent(left)
    right.set_ylim(bottom=0)
    name_lines(right, ends)
    save(figure, path)


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
    name_lines(ax, ends)
    save(figure, path)


def _as_number(text: str) -> tuple[bool, float, str]:
  """Sorts "10" after "9", and words after numbers."""
  try:
    return False, float(text), text
  except ValueError:
    return True, 0.0, text
