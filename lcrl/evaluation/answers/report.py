"""Reads answers files, applies measures by name, and writes what they find.

measures.json holds the numbers, measures.md tables of them and pictures, NAME.csv the details of a
measure, such as the spread of length at each prompt.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcrl.evaluation import answers, laws, tables
from lcrl.evaluation.answers.rows import Measured, Row, Rows, grouped
from lcrl.evaluation.summaries import write_json
from lcrl.registry import check, resolve

NEEDED = ("prompt_id", "sample", "text", "tokens", "truncated")
POINT = ("set", "step", "budget", "target", "level")  # answers that differ in one are kept apart

Spec = Mapping[str, Any]
Found = dict[str, dict[str, Measured]]  # point -> measure -> what it found


def read_answers(path: str | os.PathLike) -> dict[str, Rows]:
  """The answers of a file by what they were sampled for, such as a budget of tokens.

  Raises:
    ValueError: a line that is no answer, or no line at all.
  """
  points: dict[tuple, list[Row]] = {}
  for i, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError as why:
      raise ValueError(f"{path}, line {i}: {why}") from None
    if missing := [name for name in NEEDED if name not in row]:
      raise ValueError(f"{path}, line {i} is no answer of an evaluation: it lacks {missing}.")
    points.setdefault(tuple(row.get(name) for name in POINT), []).append(row)
  if not points:
    raise ValueError(f"{path} holds no answers.")
  columns = zip(POINT, zip(*points, strict=True), strict=True)
  differ = {name for name, values in columns if name == "budget" or len(set(values)) > 1}
  return {_label(point, differ): rows for point, rows in points.items()}


def _label(point: tuple, differ: set[str]) -> str:
  """What tells the answers of a point apart, such as "budget 64, target 32"."""
  known = [(n, x) for n, x in zip(POINT, point, strict=True) if n in differ and x is not None]
  return ", ".join(f"{name} {value}" for name, value in known) or "all"


def check_specs(specs: Sequence[Spec]) -> None:
  """Raises ValueError for a measure that does not exist or does not take its arguments."""
  names = [spec["fn"] for spec in specs]
  if twice := {name for name in names if names.count(name) > 1}:
    raise ValueError(f"measures has {twice.pop()} twice: give it all its values at once.")
  for spec in specs:
    check(answers, spec, field="measures", gives=Measured, whole=False)


def apply(points: Mapping[str, Rows], specs: Sequence[Spec]) -> Found:
  """Every measure of the answers at every point."""
  check_specs(specs)
  measures = {spec["fn"]: resolve(answers, spec, field="measures") for spec in specs}
  found: Found = {}
  for label, rows in points.items():
    for name, measure in measures.items():
      try:
        found.setdefault(label, {})[name] = measure(rows)
      except ValueError as why:
        raise ValueError(f"{name} ({label}): {why}") from why
  return found


def law_of(found: Found, sizes: Sequence[float]) -> dict[str, Any]:
  """PassUntil's law over models, p = exp(-c N^-alpha), from `pass_until` at one point a model.

  Raises:
    ValueError: other sizes than points, too few, or a pass probability of 0 or 1.
  """
  if len(sizes) != len(found) or len(set(sizes)) < 2 or min(sizes) <= 0:
    raise ValueError(
      f"sizes must be positive, one for each of {len(found)} answers files and budgets, and at "
      f"least two must differ, got {list(sizes)}."
    )
  if missing := [label for label, measures in found.items() if "pass_until" not in measures]:
    raise ValueError(f"the law needs the measure pass_until, which {missing[0]} lacks.")
  passes = [measures["pass_until"].numbers["PassUntil"] for measures in found.values()]
  law = laws.pass_law(sizes, passes)
  numbers = {"alpha": law.alpha, "c": law.c, "PassUntil": dict(zip(found, passes, strict=True))}
  return numbers | {"F": dict(zip(found, map(float, law.values), strict=True))}


def write(out: Path, found: Found, law: Mapping[str, Any] | None = None) -> str:
  """Writes all files into a folder; returns the tables."""
  out.mkdir(parents=True, exist_ok=True)
  record = {label: {n: m.numbers for n, m in one.items()} for label, one in found.items()}
  extra = {} if law is None else {"law": law}
  write_json(out / "measures.json", {"points": record, **extra})
  text = []
  for name in next(iter(found.values())):
    of_points = {label: measures[name] for label, measures in found.items()}
    text += [f"## {name}", *_tables({label: m.numbers for label, m in of_points.items()})]
    text += _pictures(out, name, of_points)
    _write_details(out / f"{name}.csv", of_points)
  if law is not None:
    text += ["## Pass probability by model size", *_tables({"law": law})]
  whole = "\n\n".join(text)
  (out / "measures.md").write_text(f"# Measures of answers\n\n{whole}\n", encoding="utf-8")
  return whole


def _tables(points: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """A table of the plain numbers of all points, and one for each mapping among them."""
  plain = {k: {n: v for n, v in p.items() if not isinstance(v, Mapping)} for k, p in points.items()}
  parts = grouped(
    (name, (f"{label}: {key}", value if isinstance(value, Mapping) else {name: value}))
    for label, numbers in points.items()
    for name, mapping in numbers.items()
    if isinstance(mapping, Mapping)
    for key, value in mapping.items()
  )
  return [_table("answers", plain), *(_table(name, dict(rows)) for name, rows in parts.items())]


def _table(first: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
  columns = [c for c in dict.fromkeys(c for row in rows.values() for c in row) if c[-3:] != "_ci"]
  cell = lambda row, c: _number(row.get(c)) + _ends(row.get(f"{c}_ci"))
  body = [[label, *(cell(row, c) for c in columns)] for label, row in rows.items()]
  return tables.to_markdown(([first, *columns], body))


def _number(value: Any) -> str:
  if value is None:
    return "-"
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def _ends(ends: Sequence[float | None] | None) -> str:
  return "" if ends is None or None in ends else f" [{ends[0]:.4g}, {ends[1]:.4g}]"


def _pictures(out: Path, name: str, points: Mapping[str, Measured]) -> list[str]:
  links = []
  for label, measured in points.items():
    if measured.draw is not None:
      file = re.sub(r"\W+", "_", f"{name}_{label}") + ".png"
      measured.draw(out / file)
      links.append(f"![{name}, {label}]({file})")
  return links


def _write_details(path: Path, points: Mapping[str, Measured]) -> None:
  rows = [{"answers": label, **row} for label, m in points.items() for row in m.details]
  if rows:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
      writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
      writer.writeheader()
      writer.writerows(rows)
