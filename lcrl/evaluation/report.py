"""report.md: a table, pictures, and conclusions in sentences."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcrl.evaluation import plots, sets_report, tables, training_plots
from lcrl.evaluation.intervals import difference
from lcrl.evaluation.setup import described, warning

__all__ = ["collapsed", "setups", "unfinished", "verdict", "write_report"]

Runs = Mapping[str, Mapping[str, Any]]


def unfinished(run: Mapping[str, Any]) -> str | None:
  """A sentence about a run that was stopped; None for a finished one.

  >>> unfinished(dict(stopped=30, accuracy=0.5, evaluated_at=20))
  'stopped after step 30; its numbers are those of the evaluation at step 20'
  """
  if run.get("stopped") is None:
    return None
  text = f"stopped after step {run['stopped']}"
  if run["accuracy"] is None:
    return f"{text}, not evaluated yet"
  return f"{text}; its numbers are those of the evaluation at step {run.get('evaluated_at')}"


def collapsed(run: Mapping[str, Any], reference: Mapping[str, Any]) -> bool:
  """Length went and accuracy with it: fewer tokens, and surely less than half as often right.

  >>> point = lambda right, tokens: dict(accuracy=right, accuracy_ci=[right, right], tokens=tokens)
  >>> collapsed(point(0.1, 2.0), point(0.9, 40.0)), collapsed(point(0.8, 20.0), point(0.9, 40.0))
  (True, False)
  """
  accuracy = tables.estimate(run, "accuracy")
  highest = accuracy.value if accuracy.high != accuracy.high else accuracy.high
  return run["tokens"] < reference["tokens"] and highest < 0.5 * reference["accuracy"]


def _share(value: float) -> str:
  return f"{100 * value:.1f} %"


def verdict(name: str, run: Mapping[str, Any], reference: Mapping[str, Any], other: str) -> str:
  """Compares one run with a reference in plain words, by its numbers.

  Args:
    name: of the run.
    run: its summary.
    reference: accuracy and tokens with intervals to compare with: a summary, or its start.
    other: what to call the reference.

  >>> run = dict(accuracy=0.9, accuracy_ci=[0.9, 0.9], tokens=20.0)
  >>> print(verdict("laser", run, run | dict(accuracy=0.99, tokens=40.0), "correctness")[:59])
  **laser** spends 50 % fewer tokens than correctness (20.0 a
  """
  right, spent, before = _share(run["accuracy"]), run["tokens"], reference["tokens"]
  gap = difference(*(tables.estimate(p, "accuracy") for p in (run, reference)))
  if collapsed(run, reference):
    return (
      f"**{name}** collapsed: {spent:.1f} tokens instead of {other}'s {before:.1f}, "
      f"and {right} right instead of {_share(reference['accuracy'])}."
    )
  change = 100 * (spent / before - 1) if before > 0 else 0.0
  if abs(change) < 0.5:
    length = f"as many tokens as {other} ({spent:.1f} and {before:.1f})"
  else:
    more = "more" if change > 0 else "fewer"
    length = f"{abs(change):.0f} % {more} tokens than {other} ({spent:.1f} against {before:.1f})"
  points = 100 * gap.value
  side = "above" if points > 0 else "below"
  accuracy = f"{abs(points):.1f} points {side} it" if abs(points) >= 0.05 else "level with it"
  if gap.low == gap.low:
    ends = f"{tables.signed(100 * gap.low)} to {tables.signed(100 * gap.high)}"
    noise = "within" if gap.low <= 0 <= gap.high else "beyond"
    accuracy += f" ({noise} the noise: {ends})"
  return f"**{name}** spends {length}; its accuracy, {right}, lies {accuracy}."


def _words(runs: Runs, baseline: str) -> list[str]:
  """Compares each run with the baseline, or with its own start if there is none."""
  base = runs.get(baseline)
  lines = []
  for name, run in runs.items():
    if base is not None and name != baseline:
      lines.append(verdict(name, run, base, baseline))
    elif run["start"]["accuracy"] is not None:
      lines.append(verdict(name, run, run["start"], "the start"))
  return lines


def setups(runs: Runs) -> list[str]:
  """The evaluation setups of the runs and their warnings, each once."""
  setups = [run["evaluation"] for run in runs.values() if run.get("evaluation")]
  lines = []
  for setup in setups:
    text = warning(setup)
    lines += [described(setup), *([f"**Warning. {text}**"] if text else [])]
  return list(dict.fromkeys(lines))


def _starts(runs: Runs) -> list[str]:
  """Lines on runs with an evaluation of the start only."""
  lines = []
  for name, run in runs.items():
    if run["start"]["accuracy"] is not None:
      right, spent = _share(run["start"]["accuracy"]), run["start"]["tokens"]
      lines.append(f"The start of {name}: {right} right, {spent:.1f} tokens.")
  return lines


def _results(folder: Path, runs: Runs, baseline: str) -> list[str]:
  """The table of the evaluated runs, with conclusions and pictures."""
  table = tables.overview(tables.rows(runs, baseline=baseline), baseline=baseline)
  source = "seeds" if any(isinstance(run["seed"], list) for run in runs.values()) else "prompts"
  plots.pareto(folder / "pareto.png", runs)
  text = [
    tables.to_markdown(table),
    f"Brackets hold 95 % intervals over {source}. * marks runs that no other beats in both.",
    *_words(runs, baseline),
    "![accuracy against tokens](pareto.png)",
  ]
  if any(run["by_difficulty"] for run in runs.values()):
    plots.by_difficulty(folder / "by_difficulty.png", runs)
    text += ["## By difficulty", "![by difficulty](by_difficulty.png)"]
    text += [tables.to_markdown(tables.by_difficulty(runs))]
  return text


def _origin(runs: Runs, command: str) -> list[str]:
  def distinct(key: str) -> str:
    return ", ".join(dict.fromkeys(str(run[key]) for run in runs.values()))

  seeds = ", ".join(dict.fromkeys(str(run["seed"]).strip("[]") for run in runs.values()))
  wall = sum(run["wall_s"] for run in runs.values())
  return [
    f"```\n{command}\n```",
    f"Seeds {seeds}; {distinct('device')}; commit {distinct('commit')}; {wall:.0f} s of training.",
  ]


def write_report(
  folder: str | os.PathLike,
  runs: Runs,
  *,
  title: str,
  command: str,
  curves: Mapping[str, Mapping[str, Any]] | None = None,
  training: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]] | None = None,
  baseline: str = "correctness",
  sections: Sequence[str] = (),
) -> Path:
  """Writes report.md and its plots into `folder`; returns the path of report.md.

  Args:
    folder: is made where it is missing.
    runs: name -> summary; pool seeds first (`summaries.pool`).
    title: heading.
    command: what to type to get the same.
    curves: for `plots.curves`; no such plot if None.
    training: of a single run, for `training_plots.training`: its steps and its evaluations.
    baseline: the run that others are compared with, where it is among them.
    sections: more Markdown, before the last section.
  """
  if not runs:
    raise ValueError("there are no runs to report.")
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  evaluated = {name: run for name, run in runs.items() if run["accuracy"] is not None}
  text = [f"# {title}"]
  text += [f"**{name}: {note}.**" for name, run in runs.items() if (note := unfinished(run))]
  text += setups(runs)
  text += _results(folder, evaluated, baseline) if evaluated else _starts(runs)
  text += sets_report.sections(folder, evaluated)
  if curves:
    plots.curves(folder / "curves.png", curves)
    text += ["## Training", "![accuracy and tokens by step](curves.png)"]
  if training and training[0]:
    training_plots.training(folder / "training.png", *training)
    text += ["## Training", "![what each step and the evaluations measured](training.png)"]
    if training_plots.dynamics(folder / "dynamics.png", training[0]):
      text += ["## Learning dynamics", "![clipping, KL, lengths and terms by step](dynamics.png)"]
  text += [*sections, "## How to get this again", *_origin(runs, command)]
  path = folder / "report.md"
  path.write_text("\n\n".join(text) + "\n", encoding="utf-8")
  return path
