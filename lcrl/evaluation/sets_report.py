"""The part of a report on further sets of prompts, and on budgets that prompts ask for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lcrl.evaluation import effort_report, tables
from lcrl.evaluation.labels import name_lines
from lcrl.evaluation.plots import BARS, COLOURS, GREY, STYLE, save, with_error, within_percent
from lcrl.evaluation.setup import described, warning

__all__ = ["asked_picture", "asked_table", "sections", "sets_table"]

Runs = Mapping[str, Mapping[str, Any]]


def sections(folder: Path, runs: Runs, *, prefix: str = "") -> list[str]:
  """Markdown of both parts, as far as the runs have them; writes pictures, whose names begin with
  the prefix: asked.png, efforts.png."""
  text = []
  if any(run.get("tasks") for run in runs.values()):
    setups = [task["evaluation"] for run in runs.values() for task in run.get("tasks", {}).values()]
    notes = [described(one) for one in setups]
    notes += [f"**Warning. {said}**" for one in setups if (said := warning(one))]
    text += ["## Further sets", tables.to_markdown(sets_table(runs)), *dict.fromkeys(notes)]
  # Efforts have a part of their own.
  asking = {name: run for name, run in runs.items() if run.get("asked") and not run.get("curve")}
  if asking:
    picture = f"{prefix}asked.png"
    asked_picture(folder / picture, asking)
    text += [
      "## Tokens that were asked for",
      tables.to_markdown(asked_table(asking)),
      *(f"{name}: {said}" for name, run in asking.items() if (said := follows(run))),
      f"![tokens spent and accuracy against tokens asked]({picture})",
    ]
  return text + effort_report.sections(folder, runs, prefix=prefix)


def sets_table(runs: Runs) -> tables.Cells:
  """Every run on every further set, with the numbers before training."""
  header = ["run", "set", "answers", "accuracy, %", "tokens", "accuracy before, %", "tokens before"]
  body = [
    [name, task, str(point.get("n", ""))]
    + [cell for one in (point, point.get("start")) for cell in tables.point_cells(one)]
    for name, run in runs.items()
    for task, point in run.get("tasks", {}).items()
  ]
  return header, body


def asked_table(runs: Runs) -> tables.Cells:
  """Every run at every budget that its prompts ask for."""
  header = ["run", "asked for", "accuracy, %", "tokens", "mean error, tokens"]
  header += ["mean error, %", "within 10 %, %", "met the cap, %"]
  body = []
  for name, run in runs.items():
    for point in run.get("asked", ()):
      error, share, within = (point.get(k) for k in ("error", "error_share", "within_10"))
      numbers = [tables.signed(error), tables.signed(None if share is None else 100 * share)]
      numbers += ["" if x is None else f"{100 * x:.1f}" for x in (within, point.get("truncated"))]
      body.append([name, point["label"], *tables.point_cells(point), *numbers])
  return header, body


def follows(run: Mapping[str, Any]) -> str:
  """How tokens move with what was asked, in a sentence; empty if it is not known."""
  found = run.get("following") or {}
  if (slope := found.get("slope")) is None:
    return ""
  correlation = found["correlation"]
  related = "" if correlation is None else f", correlation {correlation:.2f}"
  levels = all(point["target"] is None for point in run["asked"])
  unit = "to a higher level" if levels else "asked"
  return f"{slope:.2f} tokens more for each {'step' if levels else 'token'} {unit}{related}."


def asked_picture(path: str | os.PathLike, runs: Runs) -> None:
  """Tokens spent against tokens asked (or levels), and accuracy along it; one line a run."""
  labels = list(dict.fromkeys(p["label"] for run in runs.values() for p in run.get("asked", ())))
  targets = {p["label"]: p["target"] for run in runs.values() for p in run.get("asked", ())}
  numeric = all(target is not None for target in targets.values())
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(9.2, 3.8))
    left, right = figure.subplots(1, 2)
    ends = []
    for i, (name, run) in enumerate(runs.items()):
      if not (points := run.get("asked")):
        continue
      colour = COLOURS[i % len(COLOURS)]
      x = np.array([targets[p["label"]] if numeric else labels.index(p["label"]) for p in points])
      judged = points[0]["accuracy"] is not None
      for ax, key, scale in ((left, "tokens", 1), (right, "accuracy", 100))[: 1 + judged]:
        values, errors = zip(*(with_error(point, key) for point in points), strict=True)
        y, error = scale * np.array(values), scale * np.concatenate(errors, axis=1)
        ax.errorbar(x, y, error, fmt="o-", ms=5, color=colour, **BARS)
      if judged:
        ends.append((x[-1], 100 * points[-1]["accuracy"], name, colour))
    right.set_visible(bool(ends))  # without a verifier there is no accuracy
    if numeric:
      top = max(targets.values())
      left.plot([0, top], [0, top], color=GREY, ls=(0, (4, 3)), lw=1.1)
      left.annotate(
        "as asked",
        (top, top),
        (-4, -12),
        textcoords="offset points",
        ha="right",
        color=GREY,
        fontsize=9,
      )
    left.set_title("mean tokens spent")
    right.set_title("accuracy, %")
    left.set_ylim(bottom=0)
    within_percent(right)
    for ax in (left, right):
      ax.set_xlabel("tokens asked for" if numeric else "budget that the prompt shows")
      if not numeric:
        ax.set_xticks(range(len(labels)), labels)
        ax.set_xlim(-0.35, len(labels) - 0.65)
    if len(ends) > 1:
      name_lines(right, ends)
    save(figure, path)
