"""A comparison of run folders: comparison.csv, .md and .html, and pareto.png.

lcrl-compare runs/* --out=compared

comparison.html is one interactive page that needs no network: accuracy against tokens, curves over
caps and over training steps, what each term of the reward paid, lengths and answers.

A folder holds a summary.json (of a run), an evaluation.json (of lcrl-evaluate), or folders
that do; folders without a result are skipped with a note. Runs whose configs differ in their seed
alone are averaged. Results on other data, from another model, at another cap or temperature form a
group of their own, with its own picture. A summary.json above others only aggregates them and is
left out.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from lcrl.commands import command
from lcrl.commands.comparison.curves import curves
from lcrl.commands.comparison.data import interactive
from lcrl.commands.comparison.models import Model, budgets, models_of
from lcrl.commands.run_folders import (
  COMPARABLE,
  Result,
  averaged,
  comparable,
  differences,
  find,
  named,
)
from lcrl.evaluation import plots, tables
from lcrl.evaluation.report import setups
from lcrl.evaluation.setup import listed
from lcrl.evaluation.summaries import Summary
from lcrl.training.remote import opened, publish

FLAGS = flags.FLAGS

MOST_FIELDS = 30  # of the configs, listed at most
MOST_COLUMNS = 40  # of a table on the page
MOST_LINES = 10  # of a picture
NOTE = "Brackets hold 95 % intervals; * marks runs that no other beats in both."


def gather(folders: Sequence[str]) -> dict[str, Summary]:
  """Name -> summary, seeds pooled, in the order of the folders."""
  return {name: one.summary for name, one in named(averaged(find(folders)[0])).items()}


def compare(folders: Sequence[str], out: Path, *, baseline: str | None = None) -> str:
  """Writes the comparison; returns its Markdown, without the pictures.

  Args:
    folders: of runs and evaluations; those without a result are skipped, which the text says.
    out: the folder; made if absent.
    baseline: name, or reward, of the run that others are compared with; None: "correctness", if
      there is one.
  """
  results, skipped = find(folders)
  groups = comparable(named(averaged(results)))
  bases = [_base(group, baseline or "correctness") for group in groups]
  if baseline is not None and not any(bases):
    names = ", ".join(name for group in groups for name in group)
    raise ValueError(f"--baseline={baseline} is none of {names}.")
  out.mkdir(parents=True, exist_ok=True)
  parts, lines = [], []
  for number, (group, base) in enumerate(zip(groups, bases, strict=True), start=1):
    part, rows = _part(out, number, group, base or "")
    parts.append(part._replace(paragraphs=[*_setup_differences(groups, number), *part.paragraphs]))
    lines += [{"group": number, **row} for row in rows]
  notes = [f"Skipped: {why}" for why in skipped]
  (out / "comparison.csv").write_text(tables.to_csv(lines), encoding="utf-8")
  runs = {name: one for group in groups for name, one in group.items()}
  pictures = _pictures(out, models_of(runs))
  (out / "comparison.md").write_text(_markdown(parts, notes, pictures), encoding="utf-8")
  page = interactive(
    groups,
    differences(runs),
    list(dict.fromkeys(one.folder for one in results)),
    [" ".join(part.paragraphs) for part in parts],
    title=f"Comparison of {len(results)} results",
    notes=notes,
    tables=_tables(parts),
  )
  (out / "comparison.html").write_bytes(page)
  shown = ["\n\n".join([*part.paragraphs, *map(tables.to_markdown, part.tables)]) for part in parts]
  return "\n\n".join([*notes, *shown])


def _base(group: Mapping[str, Result], wanted: str) -> str | None:
  """The name of the group's baseline: `wanted`, or the only run with that reward."""
  if wanted in group:
    return wanted
  rewarded = [name for name, one in group.items() if one.summary["reward"] == wanted]
  return rewarded[0] if len(rewarded) == 1 else None


class Part(NamedTuple):
  """The text, tables and picture of a group of comparable results."""

  paragraphs: list[str]
  tables: list[tables.Cells]
  picture: str


def _part(out: Path, number: int, group: Mapping[str, Result], baseline: str):
  runs = {name: one.summary for name, one in group.items()}
  picture = "pareto.png" if number == 1 else f"pareto_{number}.png"
  plots.pareto(out / picture, runs)
  rows = tables.rows(runs, baseline=baseline)
  cells = [tables.overview(rows, baseline=baseline)]
  if further := tables.further(runs):
    cells.append(further)
  paragraphs = setups(runs)
  if fields := differences(group):
    cells.append(_configs(fields, list(group)))
  if unknown := [
    name for name, one in group.items() if one.config is None and one.summary["start"]
  ]:
    paragraphs.append(f"No config.json says how these were trained: {', '.join(unknown)}.")
  return Part(paragraphs, cells, picture), rows


def _configs(fields: Mapping[str, Mapping[str, str]], names: list[str]) -> tables.Cells:
  shown = list(fields.items())[:MOST_FIELDS]
  body = [[field, *(values.get(name, "") for name in names)] for field, values in shown]
  if more := len(fields) - len(shown):
    body.append([f"and {more} more fields", *[""] * len(names)])
  return ["the configs differ in", *names], body


def _setup_differences(groups: Sequence[Mapping[str, Result]], number: int) -> list[str]:
  """The differences of setup between this group and the first."""
  if len(groups) == 1:
    return []
  first, setup = (next(iter(groups[i].values())).setup for i in (0, number - 1))
  different = [
    f"{k}: {listed(setup[k])}; in the first: {listed(first[k])}"
    for k in COMPARABLE
    if setup[k] != first[k]
  ]
  if not different:
    return [f"These {len(groups)} groups were measured differently; nothing is compared across."]
  return ["Not comparable with the first group. " + ". ".join(different) + "."]


def _pictures(out: Path, models: Sequence[Model]) -> dict[str, str]:
  """Draws accuracy and tokens over caps and over steps; file -> title. Pictures of more than
  MOST_LINES models are left to the page."""
  caps = {m.name: [(str(p["cap"]), _summary(p)) for p in budgets(m)] for m in models}
  caps = {name: points for name, points in caps.items() if len(points) > 1}
  steps = {m.name: curves(m.homes, points=200, seeds=False) for m in models[: MOST_LINES + 1]}
  trained = {
    name: {"step": x["step"], "accuracy": mean["accuracy"], "tokens": mean["length/mean"]}
    for name, x in steps.items()
    if {"accuracy", "length/mean"} <= (mean := x.get("mean", {})).keys()
  }
  for one in trained.values():
    one["accuracy"] = [None if y is None else y / 100 for y in one["accuracy"]]
  drawn = {}
  if 0 < len(caps) <= MOST_LINES:
    plots.line(out / "budgets.png", caps)
    drawn["budgets.png"] = "Accuracy against tokens at each cap"
  if 0 < len(trained) <= MOST_LINES:
    plots.curves(out / "curves.png", trained)
    drawn["curves.png"] = "Training answers by step"
  return drawn


def _summary(point: Mapping[str, Any]) -> dict[str, Any]:
  pairs = [(key, point[key]) for key in ("accuracy", "tokens")]
  return {key: x[0] for key, x in pairs} | {f"{key}_ci": x[1:] for key, x in pairs}


def _markdown(parts: Sequence[Part], notes: Sequence[str], pictures: Mapping[str, str]) -> str:
  text = ["# Accuracy against tokens", *notes]
  for number, part in enumerate(parts, start=1):
    text += [f"## Group {number}"] * (len(parts) > 1) + part.paragraphs
    text += [*map(tables.to_markdown, part.tables), NOTE, f"![pareto]({part.picture})"]
  text += [f"## {title}\n\n![{title}]({file})" for file, title in pictures.items()]
  return "\n\n".join(text) + "\n"


def _tables(parts: Sequence[Part]) -> str:
  """The tables as HTML; those too wide to be read on the page stay in comparison.md."""
  body = []
  for number, part in enumerate(parts, start=1):
    body += [f"<h3>Group {number}</h3>"] * (len(parts) > 1)
    wide = [len(header) > MOST_COLUMNS for header, _ in part.tables]
    shown = [cells for cells, is_wide in zip(part.tables, wide, strict=True) if not is_wide]
    texts = [NOTE] + ["A table of configs is in comparison.md: it is too wide."] * any(wide)
    body += [*map(tables.to_html, shown), *(f"<p>{html.escape(text)}</p>" for text in texts)]
  return "\n".join(body)


def main(argv: Sequence[str]) -> None:
  out = opened(FLAGS.out)
  print(compare(argv[1:], out, baseline=FLAGS.baseline))
  publish(out)
  print(f"\n{FLAGS.out}/comparison.html")


if __name__ == "__main__":
  flags.DEFINE_string("out", None, "Folder for the comparison.", required=True)
  flags.DEFINE_string(
    "baseline", None, "The run that others are compared with; correctness if it is there."
  )
  command.run(main, "compare")
