"""The picture of one run: what it measured at every step, and in its evaluations."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lcrl.evaluation.plots import BARS, COLOURS, STYLE, save, with_error, within_percent

__all__ = ["training"]

PANELS = (  # metric of a step, where an evaluation has it, title, scale
  ("accuracy", ("accuracy",), "accuracy, %", 100),
  ("length/mean", ("tokens",), "mean tokens per answer", 1),
  ("reward", (), "mean reward", 1),
  ("pairs/accuracy", ("pairs", "accuracy"), "pairs in the right order, %", 100),
  ("nll", ("pairs", "nll"), "negative log-likelihood, nats per token", 1),
  ("loss", (), "loss", 1),
)


def training(
  path: str | os.PathLike,
  steps: Sequence[Mapping[str, Any]],
  evaluations: Sequence[Mapping[str, Any]],
) -> None:
  """What one run measured at every step, and in its evaluations: up to four panels of `PANELS`.

  Args:
    path: of the PNG.
    steps: lines of metrics.jsonl, one a step; a number may be missing or None.
    evaluations: lines of evaluations.jsonl.
  """
  there = [p for p in PANELS if any(row.get(p[0]) is not None for row in steps)]
  if not any(p[0] == "length/mean" for p in there) and evaluations:
    there.insert(0, PANELS[1])  # a run on pairs writes answers in its evaluations alone
  there = there[:4]
  if not there:
    return
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(9.2, 3.4 * -(-len(there) // 2)))
    axes = figure.subplots(-(-len(there) // 2), 2, squeeze=False).ravel()
    for ax in axes[len(there) :]:
      ax.set_axis_off()
    for ax, (name, keys, title, scale) in zip(axes, there, strict=False):
      ax.set(title=title, xlabel="training step")
      ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
      _draw_steps(ax, steps, name, scale)
      _draw_evaluations(ax, evaluations, keys, scale)
      if scale == 100:
        within_percent(ax)
    most = max((ax.get_legend_handles_labels() for ax in axes), key=lambda found: len(found[0]))
    figure.legend(*most, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    save(figure, path)


def _draw_steps(ax: Axes, steps: Sequence[Mapping[str, Any]], name: str, scale: float) -> None:
  """Each step; with many of them faintly, below their running mean."""
  at = np.array([row["step"] for row in steps])
  y = scale * np.array([row.get(name) for row in steps], np.float64)  # None: nan, a gap
  window, there = max(len(y) // 20, 1), np.isfinite(y)
  if not there.any():
    return
  few = window < 3
  ax.plot(
    at, y, color=COLOURS[0], lw=1.4 if few else 0.7, alpha=1 if few else 0.4, label="training"
  )
  if not few:
    ones = np.ones(window)
    count = np.convolve(there, ones, "same")
    mean = np.convolve(np.where(there, y, 0), ones, "same") / np.where(count, count, np.nan)
    ax.plot(at, mean, color=COLOURS[0], label=f"training, mean of {window} steps")


def _draw_evaluations(
  ax: Axes, evaluations: Sequence[Mapping[str, Any]], keys: Sequence[str], scale: float
) -> None:
  rows = []
  for line in evaluations if keys else ():
    holder: Any = functools.reduce(lambda x, key: x.get(key) or {}, keys[:-1], line)
    if holder.get(keys[-1]) is not None:
      value, error = with_error({f"{keys[-1]}_ci": [None, None], **holder}, keys[-1])
      rows.append((line["step"], scale * value, scale * error))
  if rows:
    x, y, errors = zip(*rows, strict=True)
    error = np.concatenate(errors, axis=1)
    how: dict[str, Any] = {
      "fmt": "D",
      "ms": 5,
      "color": COLOURS[1],
      "zorder": 3,
      "label": "evaluation",
    }
    ax.errorbar(x, y, error, **how, **BARS)
