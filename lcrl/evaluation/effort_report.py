"""The part of a report on efforts: one policy's accuracy against its tokens, at each effort."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lcrl.evaluation import tables
from lcrl.evaluation.effort_curve import against_front, vertices
from lcrl.evaluation.labels import name_points
from lcrl.evaluation.plots import COLOURS, GREY, STYLE, dense, draw_point, save, within_percent

__all__ = ["curve_picture", "efforts_table", "front_table", "sections"]

Runs = Mapping[str, Mapping[str, Any]]


def sections(folder: Path, runs: Runs, *, prefix: str = "") -> list[str]:
  """Markdown of the runs that were asked for efforts; writes efforts.png behind the prefix.

  A run's "front" maps names of single methods to their points.
  """
  runs = {name: run for name, run in runs.items() if run.get("curve")}
  if not runs:
    return []
  text = [
    "## Efforts",
    tables.to_markdown(efforts_table(runs)),
    *map(measured, runs, runs.values()),
  ]
  judged = {name: run for name, run in runs.items() if _judged(run)}
  fronts = {
    name: against_front(run["asked"], run["front"])
    for name, run in judged.items()
    if run.get("front")
  }
  for name, found in fronts.items():
    text += [tables.to_markdown(front_table(found)), compared(name, found)]
  if judged:
    picture = f"{prefix}efforts.png"
    curve_picture(folder / picture, judged)
    text.append(f"![accuracy against tokens at each effort]({picture})")
  return text


def _judged(run: Mapping[str, Any]) -> bool:
  return all(point["accuracy"] is not None for point in run["asked"])


def efforts_table(runs: Runs) -> tables.Cells:
  """Every run at every effort."""
  header = ["run", "effort", "accuracy, %", "tokens", "target", "tokens / target"]
  header += ["within 10 %, %", "met the cap, %"]
  body = []
  for name, run in runs.items():
    for point, ratio in zip(run["asked"], run["curve"]["calibration"], strict=True):
      shares = [point.get("within_10"), point.get("truncated")]
      numbers = [str(point["target"]), f"{ratio:.2f}"]
      numbers += ["" if x is None else f"{100 * x:.1f}" for x in shares]
      body.append([name, f"{point['effort']:g}", *tables.point_cells(point), *numbers])
  return header, body


def measured(name: str, run: Mapping[str, Any]) -> str:
  """The measures of a curve in a sentence."""
  found = run["curve"]
  ratios = found["calibration"]
  spent = f"{min(ratios):.2f} to {max(ratios):.2f} tokens for each token of the budget's target"
  parts = [f"**{name}** spends {spent}"]
  if found["range"] is not None:
    parts.append(
      f"its longest mean answer has {found['range']:.2f} times the tokens of its shortest"
    )
  text = "; ".join(parts) + "."
  if found["monotonicity"] is None:
    return text
  text += f" Of two efforts the higher one spends more in {100 * found['monotonicity']:.0f} %"
  if found["accuracy_monotonicity"] is not None:
    text += f" and is right more often in {100 * found['accuracy_monotonicity']:.0f} %"
  return f"{text} of the pairs."


def front_table(found: Mapping[str, Any]) -> tables.Cells:
  """The single methods, and the curve within the tokens of each."""
  header = ["single method", "tokens", "accuracy, %", "curve within its tokens, %", "points above"]
  body = []
  for row in found["points"]:
    curve, gap, ends = row["curve"], row["gap"], row["gap_ci"]
    cell = "" if gap is None else tables.signed(100 * gap)
    if gap is not None and None not in ends:
      cell += " [" + ", ".join(tables.signed(100 * end) for end in ends) + "]"
    shown = "longer everywhere" if curve is None else f"{100 * curve:.1f}"
    body.append([row["name"], f"{row['tokens']:.1f}", f"{100 * row['accuracy']:.1f}", shown, cell])
  return header, body


def compared(name: str, found: Mapping[str, Any]) -> str:
  """The curve against the front of single methods, in words."""
  text = f"**{name}** lies on or above {found['reached']} of {len(found['points'])} single methods."
  if found["area"] is None:
    return text
  area, front = (f"{100 * found[key]:.1f} %" for key in ("area", "front_area"))
  return (
    f"{text} From {found['from']:.1f} to {found['to']:.1f} tokens its mean accuracy is {area}, and "
    f"that of their front {front}, where each prompt may draw among the points of a side."
  )


def curve_picture(path: str | os.PathLike, runs: Runs) -> None:
  """Accuracy against mean tokens, a line through the efforts of each run; and single methods with
  their front, the best mixtures of them."""
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(6.4, 4.4))
    ax = figure.subplots()
    ink, named = [], []
    for i, (name, run) in enumerate(runs.items()):
      colour = COLOURS[i % len(COLOURS)]
      ink += [draw_point(ax, point, colour, fmt="o") for point in run["asked"]]
      x, y = _xy(run["asked"])
      ax.plot(x, y, color=colour, label=name, zorder=2)
      ink.append(dense(x, y))
      named += [
        (*at, f"{p['effort']:g}", colour) for *at, p in zip(x, y, run["asked"], strict=True)
      ]
    singles = {
      name: point for run in runs.values() for name, point in (run.get("front") or {}).items()
    }
    ink += [draw_point(ax, point, GREY, fmt="D", mfc="white") for point in singles.values()]
    named += [(p["tokens"], 100 * p["accuracy"], name, GREY) for name, p in singles.items()]
    ax.set(xlabel="mean tokens per answer", title="accuracy, %")
    ax.set_xlim(0, 1.06 * max(ax.get_xlim()[1], 1))
    ax.margins(y=0.16)
    within_percent(ax)
    if singles:
      x, y = _xy(vertices([*singles.values()]))
      x, y = np.append(x, ax.get_xlim()[1]), np.append(y, y[-1])
      ax.plot(x, y, color=GREY, ls=(0, (4, 3)), lw=1.1, zorder=1, label="front of single methods")
      ink.append(dense(x, y))
    if len(runs) > 1 or singles:
      figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    name_points(ax, named, np.concatenate(ink))
    save(figure, path)


def _xy(points: Any) -> tuple[np.ndarray, np.ndarray]:
  return (
    np.array([point["tokens"] for point in points], float),
    np.array([100 * point["accuracy"] for point in points], float),
  )
