"""Accuracy against tokens: a point a method, and a line a policy that was asked for budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.studies.qwen_math.records import TASKS, Group, Study
from lcrl.evaluation import on_front
from lcrl.evaluation.labels import name_points
from lcrl.evaluation.plots import COLOURS, GREY, MARKERS, STYLE, dense, draw_point

PANELS = ("gsm8k", "math500")


def labels(groups: Sequence[Group]) -> list[str]:
  """Names, with the coefficient where a method has several."""
  names = [g.name for g in groups]
  return [g.label if names.count(g.name) > 1 else g.name for g in groups]


def pareto(path: Path, study: Study) -> None:
  """A panel a task: means with their intervals, and seeds as small points."""
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(9.2, 4.2))
    axes = figure.subplots(1, len(PANELS))
    for ax, task in zip(axes, PANELS, strict=True):
      _panel(ax, study, task)
      ax.set(title=f"{TASKS[task]}: accuracy, %", xlabel="mean tokens per answer")
    shown: dict[str, Any] = {}
    for ax in axes:
      handles, names = ax.get_legend_handles_labels()
      shown |= dict(zip(names, handles, strict=True))
    figure.legend(
      shown.values(), shown, frameon=False, fontsize=9, ncols=5, loc="outside lower center"
    )
    figure.savefig(path)


def _panel(ax: Axes, study: Study, task: str) -> None:
  look = {g[:3]: i for i, g in enumerate(g for g in study.groups if not g.collapsed)}
  groups = study.standing(task)
  for group, label in zip(groups, labels(groups), strict=True):
    place = look[group[:3]]
    colour = COLOURS[place % len(COLOURS)]
    mark = MARKERS[place // len(COLOURS) % len(MARKERS)]
    draw_point(ax, group.summary(task), colour, fmt=mark, label=label)
    seeds = [(p["tokens"], 100 * p["accuracy"]) for p in group.points(task)]
    if len(seeds) > 1:
      ax.plot(*np.transpose(seeds), ".", color=colour, ms=4, alpha=0.6)
  if study.start and study.start.points(task):
    draw_point(ax, study.start.summary(task), GREY, fmt="D", mfc="white", label="start")
  ax.margins(x=0.1, y=0.1)


def by_budget(study: Study) -> Mapping[str, list[Group]]:
  """Task -> the policies that were asked for budgets on it."""
  found = {task: [g for g in study.groups if g.asked(task)] for task in TASKS}
  return {task: groups for task, groups in found.items() if groups}


def budgets(path: Path, study: Study) -> None:
  """One policy at its asked budgets, beside the front of runs with one budget each."""
  panels = by_budget(study)
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(6.4 * len(panels), 4.8))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    drawn = [_curves(ax, study, *panel) for ax, panel in zip(axes, panels.items(), strict=True)]
    key = axes[0].get_legend_handles_labels()
    figure.legend(*key, frameon=False, fontsize=9, ncols=3, loc="outside lower center")
    for ax, (named, ink) in zip(axes, drawn, strict=True):
      name_points(ax, named, ink)
    figure.savefig(path)


def _curves(ax: Axes, study: Study, task: str, groups: Sequence[Group]) -> tuple[Any, np.ndarray]:
  """Draws a panel; gives the names that its points need, and its ink."""
  _front(ax, [g for g in study.standing(task) if not g.asked(task)], task)
  named, ink = [], []
  for i, group in enumerate(groups):
    colour = COLOURS[i % len(COLOURS)]
    points = {b: group.summary(name) for b, name in group.asked(task).items()}
    ink += [draw_point(ax, p, colour, fmt="o") for p in points.values()]
    x, y = np.transpose([(p["tokens"], 100 * p["accuracy"]) for p in points.values()])
    ax.plot(x, y, color=colour, label=group.label)
    ink.append(dense(x, y))
    named += [(*at, text, colour) for *at, text in zip(x, y, _asked(points), strict=False)]
  ax.set(title=f"{TASKS[task]}: accuracy, %", xlabel="mean tokens per answer")
  ax.margins(0.12)
  return named, np.concatenate(ink)


def _asked(points: Mapping[int, Mapping[str, Any]]) -> list[str]:
  """The budgets; one name for all where the lengths hardly differ."""
  lengths = [p["tokens"] for p in points.values()]
  if max(lengths) < 1.05 * min(lengths):
    return [f"{min(points)} to {max(points)}"]
  return list(map(str, points))


def _front(ax: Axes, groups: Sequence[Group], task: str) -> None:
  if not groups:
    return
  x, y = (np.array([g.mean(task, key).value for g in groups]) for key in ("tokens", "accuracy"))
  front = np.flatnonzero(on_front(y, x))
  front = front[np.argsort(x[front])]
  ax.plot(x, 100 * y, "o", color=GREY, ms=4, label="runs with one budget")
  ax.step(x[front], 100 * y[front], where="post", color=GREY, ls=(0, (4, 3)), lw=1.1)
