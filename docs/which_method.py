"""The numbers of the page "Which method should I use?", read from the results of the studies."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from docs.pages import table
from experiments.studies.qwen_math import records
from experiments.studies.qwen_math.methods import METHODS, named
from experiments.studies.testbed import dials, report
from experiments.studies.testbed.claims import best_value, collapsed
from lcrl.evaluation import on_front

STUDIES = Path(__file__).parent.parent / "experiments" / "studies"
TOLD = 0.7  # of the accuracy: methods of the front below it are left out


def values() -> dict[str, str]:
  """Name -> what stands on the page in its place."""
  return {**_demo(), **_dial(), **_qwen(), **_smollm2(), **_testbed(), **_pairs()}


def _read(path: str) -> Any:
  return json.loads((STUDIES / path).read_text(encoding="utf-8"))


def _point(accuracy: float, tokens: float) -> str:
  return (
    f"{100 * accuracy:.1f} % at {tokens:.1f}"
    if tokens < 100
    else f"{100 * accuracy:.1f} % at {tokens:.0f}"
  )


def _mean(rows: Iterable[Mapping[str, Any]]) -> str:
  points = np.array([(row["accuracy"], row["tokens"]) for row in rows])
  return _point(*points.mean(0))


def _demo() -> dict[str, str]:
  runs = _read("demo/summary.json")["runs"]
  return {f"demo {name}": _point(run["accuracy"], run["tokens"]) for name, run in runs.items()}


def _dial() -> dict[str, str]:
  """Each effort of the dial on sums, before and after training, beside runs with one target."""
  results = _read("dial/results.json")
  cell = lambda point: _point(point["accuracy"], point["tokens"])
  rows = [
    (f"{effort:g}", cell(start), cell(end), f"{name}: {cell(single)}")
    for effort, start, end, (name, single) in zip(
      results["efforts"], results["start"], results["dial"], results["singles"].items(), strict=True
    )
  ]
  return {"dial table": table(("effort", "start", "the dial", "a run of its own"), rows)}


def _qwen() -> dict[str, str]:
  """GSM8K test from the start of the naive price, and a table of the start with most seeds."""
  found = records.studies(records.read(STUDIES / "qwen_math/results"))
  priced = next(s for s in found if any(g.method == "naive" for g in s.groups))
  sets = ("gsm8k", "svamp", "math500")
  point = lambda g, task: _point(*(g.mean(task, key).value for key in ("accuracy", "tokens")))
  groups = [g for g in found[0].groups if all(map(g.points, sets))]
  rows = [(g.label, str(len(g.runs)), *(point(g, task) for task in sets)) for g in groups]
  head = ("method and coefficient", "seeds", *(records.TASKS[task] for task in sets))
  numbers = {f"qwen {g.method}": point(g, "gsm8k") for g in priced.groups}
  return numbers | {"qwen table": table(head, rows), **_qwen_dials(found)}


def _qwen_dials(studies: Sequence[records.Study]) -> dict[str, str]:
  """Policies that were asked for budgets, and their teachers, which have one budget each."""
  study = max(studies, key=lambda s: sum(bool(g.asked("gsm8k")) for g in s.groups))
  point = lambda g, name: _point(*(g.mean(name, key).value for key in ("accuracy", "tokens")))
  asked = {g.label: g.asked("gsm8k") for g in study.groups}
  budgets = sorted(set().union(*asked.values()))
  cells = lambda g: [point(g, asked[g.label][b]) if b in asked[g.label] else "" for b in budgets]
  rows = [(g.label, *cells(g)) for g in study.groups if asked[g.label]]
  teachers = [named(text) for text in METHODS["distill"].teachers]
  alone = {
    (g.method, g.value): f"{g.label}: {point(g, 'gsm8k')}"
    for g in study.groups
    if g.points("gsm8k")
  }
  return {
    "qwen dials": table(("recipe", *(f"asked for {b}" for b in budgets)), rows),
    "qwen teachers": "; ".join(alone[teacher] for teacher in teachers),
    "qwen laser_long": alone["laser_long", 160],
  }


def _smollm2() -> dict[str, str]:
  names = ("plain", "laser", "naive")
  runs = {
    name: _read(f"smollm2_chain_sum/runs/token_mean/{name}/seed0/summary.json") for name in names
  }
  return {f"smollm2 {name}": _point(run["accuracy"], run["tokens"]) for name, run in runs.items()}


def _testbed() -> dict[str, str]:
  """Each method at its best coefficient; the front of both starts together; collapses; claims; and
  the dials whose start knew of lengths."""
  starts = report.on_target(_read("testbed/starts.json"))
  every = [r for r in _read("testbed/results.json") if f"{r['start']}/{r['seed']}" in starts]
  results = [r for r in every if r["method"] not in dials.NAMES]
  groups = report.group(results)
  points, ends = {}, {}
  for name in dict.fromkeys(key[0] for key in groups):
    best = best_value(results, starts, name)
    own = [groups[name, best, start] for start in report.STARTS if (name, best, start) in groups]
    ends[name] = [_mean(rows) for rows in own]
    points[name] = np.mean([[report.mean(r, "accuracy"), report.mean(r, "tokens")] for r in own], 0)
  accuracy, tokens = np.array(list(points.values())).T
  front = [name for name, on in zip(points, on_front(accuracy, tokens), strict=True) if on]
  front = sorted((n for n in front if points[n][0] >= TOLD), key=lambda name: points[name][1])
  fell = lambda r: collapsed(r, starts[f"{r['start']}/{r['seed']}"])
  fallen = {name: [fell(r) for r in results if r["method"] == name] for name in points}
  falls = {name: f"{sum(runs)} of {len(runs)}" for name, runs in fallen.items()}
  head = ("method", "both starts", "strong start", "weak start", "runs that collapsed")
  rows = [(f"`{n}`", _point(*points[n]), *ends[n], falls[n]) for n in front]
  found = {f"testbed {name}": " and ".join(both) for name, both in ends.items()}
  found |= {f"collapsed {name}": falls[name] for name in points}
  found |= {"testbed front": table(head, rows), "testbed dials": _dials(every)}
  return found | _claims()


def _dials(results: Sequence[Mapping[str, Any]]) -> str:
  chosen = [d for d in dials.best(dials.measured(results)) if d.start == "told"]
  cells = [dict(zip(dials.COLUMNS, dials.cells(dial), strict=True)) for dial in chosen]
  names = ("recipe", *dials.COLUMNS[4:])
  return table(names, [[f"`{c['recipe']}`", *(c[name] for name in names[1:])] for c in cells])


def _claims() -> dict[str, str]:
  """claim -> verdict and numbers, as the study's own page has them."""
  text = (STUDIES / "testbed/README.md").read_text(encoding="utf-8")
  cells = re.findall(r"^\| (.+?) \| \*\*(.+?)\*\* \| (.+?) \|", text, re.MULTILINE)
  return {f"claim {claim}": f"{verdict}: {numbers}" for claim, verdict, numbers in cells}


def _pairs() -> dict[str, str]:
  """What each loss ends at, for each kind of pairs; means over seeds."""
  found = {}
  for name in ("twin", "smollm2"):
    kinds = _read(f"preference/{name}.json")["kinds"]
    losses = list(dict.fromkeys(loss for kind in kinds.values() for loss in kind["losses"]))
    cell = lambda run: _end(run) if run else ""
    rows = [(loss, *(cell(kind["losses"].get(loss)) for kind in kinds.values())) for loss in losses]
    head = ("loss", *(f"{kind} ({_sides(x['pairs'])})" for kind, x in kinds.items()))
    found[f"pairs {name}"] = table(head, rows)
  return found


def _sides(pairs: Mapping[str, Sequence[float]]) -> str:
  return f"{np.mean(pairs['chosen']):.0f} over {np.mean(pairs['rejected']):.0f} tokens"


def _end(run: Mapping[str, Sequence[Sequence[float]]]) -> str:
  last = lambda key: float(np.mean([seed[-1] for seed in run[key]]))
  return (
    _point(last("accuracy"), last("tokens"))
    if "accuracy" in run
    else f"{last('tokens'):.1f} tokens"
  )
