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

from lcrl.evaluation.labels import name_lines
from lcrl.evaluation.plots import BARS, COLOURS, STYLE, save, with_error, within_percent

__all__ = ["dynamics", "training"]

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
    ax.plot(at, smoothed(y), color=COLOURS[0], label=f"training, mean of {window} steps")


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


DYNAMICS: tuple[tuple[str, float, dict[str, str]], ...] = (  # title, scale, metric -> label
  ("clipped tokens, %", 100, {"clip_fraction": "clip", "dual_clip_fraction": "second clip"}),
  (
    "approximate KL, nats per token",
    1,
    {
      "approx_kl": "old, policy",
      "sampler_kl": "sampler, policy",
      "kl": "policy, reference",
      "teacher_kl": "policy, teacher",
    },
  ),
  ("mean probability of the end token, %", 100, {"end_probability": ""}),
  ("answers cut at the cap, %", 100, {"truncated": ""}),
  (
    "right answers that other terms turned, %",
    100,
    {"length_term/negative_adv": "advantage < 0", "length_term/no_reward": "reward \u2264 0"},
  ),
)
SIDES = (("right", COLOURS[0]), ("wrong", COLOURS[1]))
LEAST_SPAN = {100: 1.0, 1: 1e-3}  # of an axis by scale: what is smaller is rounding


def dynamics(path: str | os.PathLike, steps: Sequence[Mapping[str, Any]]) -> bool:
  """How a run of RL learned: lengths by right and wrong, `DYNAMICS`, and the reward by term.

  Args:
    path: of the PNG.
    steps: lines of metrics.jsonl, one a step.
  Returns: False if the steps have no such metrics; nothing is drawn then.
  """
  names = dict.fromkeys(name for row in steps for name, x in row.items() if x is not None)
  terms = {name: name[5:] for name in names if name.startswith("term/")}
  panels = [(t, s, {n: x for n, x in of.items() if n in names}) for t, s, of in DYNAMICS]
  panels = [panel for panel in panels if panel[2]]
  panels += [("mean reward by term", 1, terms)] if len(terms) > 1 else []
  if not panels or not names.keys() & {"length/right_p50", "length/wrong_p50"}:
    return False
  with matplotlib.rc_context(STYLE):
    rows = -(-(len(panels) + 1) // 2)
    figure = Figure(figsize=(9.2, 3.1 * rows))
    first, *axes = figure.subplots(rows, 2, squeeze=False).ravel()
    drawn = [(first, _draw_quantiles(first, steps))]
    for ax, (title, scale, labels) in zip(axes, panels, strict=False):
      ax.set_title(title)
      drawn.append((ax, _draw_means(ax, steps, labels, scale)))
    for ax in axes[len(panels) :]:
      ax.set_axis_off()
    for ax, ends in drawn:
      ax.set_xlabel("training step")
      ax.margins(x=0)
      ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
      name_lines(ax, ends if len(ends) > 1 else [])
    save(figure, path)
  return True


Ends = list[tuple[float, float, str, str]]  # of lines: x, y, name, colour


def _draw_quantiles(ax: Axes, steps: Sequence[Mapping[str, Any]]) -> Ends:
  """The median length of right and of wrong answers, over their 10 % and 90 % quantiles."""
  ax.set_title("tokens per answer: median, 10 to 90 %")
  at, ends = [row["step"] for row in steps], Ends()
  for side, colour in SIDES:
    low, mid, high = (smoothed(_values(steps, f"length/{side}_p{q}")) for q in (10, 50, 90))
    ax.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
    ends += _draw_line(ax, at, mid, side, colour)
  ax.set_ylim(bottom=0)
  return ends


def _draw_means(
  ax: Axes, steps: Sequence[Mapping[str, Any]], labels: Mapping[str, str], scale: float
) -> Ends:
  """The running means of several metrics."""
  at, ends = [row["step"] for row in steps], Ends()
  for i, (name, label) in enumerate(labels.items()):
    y = scale * smoothed(_values(steps, name))
    ends += _draw_line(ax, at, y, label, COLOURS[i % len(COLOURS)])
  low, high = ax.get_ylim()
  middle, half = (low + high) / 2, max(high - low, LEAST_SPAN[int(scale)]) / 2
  ax.set_ylim(middle - half, middle + half)
  if scale == 100:
    ax.set_ylim(0, min(max(high, LEAST_SPAN[100]), 100))
  return ends


def _draw_line(ax: Axes, at: Sequence[int], y: np.ndarray, name: str, colour: str) -> Ends:
  there = np.flatnonzero(np.isfinite(y))
  ax.plot(at, y, color=colour, clip_on=False)
  return [(at[-1], float(y[there[-1]]), name, colour)] if there.size else []


def _values(steps: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
  return np.array([row.get(name) for row in steps], np.float64)


def smoothed(y: np.ndarray) -> np.ndarray:
  """The running mean over a twentieth of the steps; nan where none of them has a number."""
  there, ones = np.isfinite(y), np.ones(max(len(y) // 20, 1))
  count = np.convolve(there, ones, "same")
  return np.convolve(np.where(there, y, 0), ones, "same") / np.where(count > 0.5, count, np.nan)
