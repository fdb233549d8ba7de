"""Policies with a dial against methods that have one point each: tables and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.studies.testbed.claims import Results
from experiments.studies.testbed.methods import DIALS, LEVELS, METHODS
from experiments.studies.testbed.tables import EFFORTS, FULL
from lcrl.evaluation import seed_estimate
from lcrl.evaluation.effort_curve import against_front, attainable, effort_measures
from lcrl.evaluation.plots import COLOURS, GREY, STYLE
from lcrl.evaluation.tables import to_markdown

NAMES = frozenset(method.name for method in DIALS)
FROM = {"good": "none", "told": "by digit"}  # start -> what its imitation tells of lengths
FOLLOWED = 1.25  # longest over shortest mean length, from which a dial counts as followed
KEYS = "tokens", "accuracy"
LEAST = 0.1  # of the single runs on or below the curve: a policy that collapsed is not named


class Dial(NamedTuple):
  """One recipe at one coefficient and start, over its seeds."""

  method: str
  value: float
  start: str
  curves: list[list[dict[str, Any]]]  # [seeds][levels] of tokens and accuracy
  ranges: list[float]  # longest over shortest mean length
  reached: list[float]  # the share of single runs of that seed on or below the curve
  # Mean over levels of accuracy minus the front's at as many tokens, where it has as few.
  gaps: list[float]
  singles: int  # the most single runs of a seed

  @property
  def range(self) -> float:
    return float(np.mean(self.ranges))


def singles(results: Results, seed: int) -> dict[str, Mapping[str, Any]]:
  """Runs with one point, of this seed, from the good start."""
  own = [r for r in results if r["method"] not in NAMES and r["seed"] == seed]
  return {f"{r['method']} {r['value']:g}": r for r in own if r["start"] == "good"}


def measured(results: Results) -> list[Dial]:
  """Every recipe, coefficient and start that ran, in the order of `DIALS`; a seed counts if single
  runs of the good start counted with it."""
  found = []
  fronts = {seed: singles(results, seed) for seed in {r["seed"] for r in results}}
  for method in DIALS:
    for start in FROM:
      for value in method.values:
        key = method.name, value, start
        rows = [r for r in results if (r["method"], r["value"], r["start"]) == key]
        rows = [r for r in rows if fronts[r["seed"]]]
        if rows:
          found.append(_dial(*key, rows, fronts))
  return found


def _dial(name: str, value: float, start: str, rows: Results, fronts: Mapping) -> Dial:
  curves, ranges, reached, gaps = [], [], [], []
  for row in rows:
    curve = [
      {"accuracy": right, "tokens": tokens, "target": FULL * effort}
      for (right, tokens), effort in zip(row["by_level"], EFFORTS, strict=True)
    ]
    front = fronts[row["seed"]]
    gap = [p["accuracy"] - attainable([*front.values()], p["tokens"]).value for p in curve]
    curves.append(curve)
    ranges.append(effort_measures(curve)["range"])
    reached.append(against_front(curve, front)["reached"] / len(front))
    gaps.append(float(np.nanmean(gap)))
  most = max(len(fronts[row["seed"]]) for row in rows)
  return Dial(name, value, start, curves, ranges, reached, gaps, most)


def best(dials: Sequence[Dial]) -> list[Dial]:
  """Of each recipe and start the coefficient whose curve reaches the most single runs."""
  chosen: dict[tuple[str, str], Dial] = {}
  for dial in dials:
    key = dial.method, dial.start
    if key not in chosen or _reached(dial) > _reached(chosen[key]):
      chosen[key] = dial
  return list(chosen.values())


COLUMNS = [
  "recipe", "source", "coefficient", "lengths told", "seeds", "tokens at each effort",
  "right at each effort, %", "longest / shortest", "single runs on or below the curve",
  "points over the front at equal tokens",
]  # fmt: skip


def by_level(dial: Dial) -> tuple[np.ndarray, np.ndarray]:
  """Tokens and accuracy at each effort, means over seeds."""
  means = ([np.mean([c[i][key] for c in dial.curves]) for i in range(LEVELS)] for key in KEYS)
  tokens, right = map(np.array, means)
  return tokens, right


def cells(dial: Dial) -> list[str]:
  tokens, right = by_level(dial)
  value, low, high = seed_estimate([100 * gap for gap in dial.gaps])
  method = METHODS[dial.method]
  return [
    dial.method,
    method.source,
    f"{method.coefficient} {dial.value:g}",
    FROM[dial.start],
    str(len(dial.curves)),
    " ".join(f"{x:.0f}" for x in tokens),
    " ".join(f"{100 * x:.0f}" for x in right),
    f"{dial.range:.2f}",
    f"{100 * _reached(dial):.0f} %",
    f"{value:+.1f} ({low:+.1f} to {high:+.1f})",
  ]


def table(dials: Sequence[Dial], title: str = "") -> str:
  """The dials as lines under a title; nothing where there are none."""
  return f"{title}{to_markdown((COLUMNS, [*map(cells, dials)]))}\n" if dials else ""


ABOUT = """## One policy with a dial

Seven recipes train one policy at five efforts, {efforts} of {full} tokens, told by a digit
before the problem, with four times the steps of a single run, that is about the tokens of four. Two
starts: the good one, whose imitation says nothing of lengths, and one whose digits told how long
the working is (as often right as the good one). Of each recipe and start the coefficient whose
curve has the most single runs on or below it; all of them are in [tables.md](tables.md). Single
runs are all methods and coefficients that ran from the good start with the same seed; between its
efforts a dial, and between runs the front, may draw for each prompt. Intervals are over seeds.

![accuracy against tokens of dials](dials.png)

{table}
- **Followed** (the longest effort spends at least {followed:g} times the tokens of the shortest):
  {obeyed}. `l1_exact` above is `dial_exact` with a quarter of the steps.
- **Nearest to the front**: {nearest}. {whole} of {count} dials have all single runs on or below
  their curve.
- The front is the best of {singles} runs a seed, chosen among noise, which flatters it; a dial is
  one run.
"""


def section(dials: Sequence[Dial]) -> str:
  """What the README says of dials; nothing where there are none."""
  if not dials:
    return ""
  said = lambda d: f"{d.method} {d.value:g} (told {FROM[d.start]}; {d.range:.2f})"
  followed = [d for d in dials if d.range >= FOLLOWED]
  obeyed = [said(d) for d in followed if _reached(d) > LEAST]
  top = max(dials, key=_reached)
  nearest = f"{said(top)}, {100 * _reached(top):.0f} % of the single runs"
  if followed:
    dial = max(followed, key=_reached)
    nearest += f"; of those that are followed {said(dial)}, {100 * _reached(dial):.0f} %"
  return ABOUT.format(
    efforts=", ".join(f"{effort:g}" for effort in EFFORTS),
    full=FULL,
    table=table(best(dials)),
    followed=FOLLOWED,
    obeyed="; ".join(obeyed) or "none",
    nearest=nearest,
    whole=sum(min(d.reached) == 1 for d in dials),
    count=len(dials),
    singles=max(dial.singles for dial in dials),
  )


def _reached(dial: Dial) -> float:
  return float(np.mean(dial.reached))


def picture(path: Path, results: Results, dials: Sequence[Dial]) -> None:
  """One panel a start: single runs of the seeds that dials have, and each dial at its best."""
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(11, 5.4))
    for ax, start in zip(figure.subplots(1, 2, sharey=True), FROM, strict=True):
      own = [dial for dial in dials if dial.start == start]
      seeds = {r["seed"] for r in results if r["method"] in NAMES and r["start"] == start}
      points = [r for seed in sorted(seeds) for r in singles(results, seed).values()]
      x, y = (np.array([r[key] for r in points]) for key in ("tokens", "accuracy"))
      ax.plot(x, 100 * y, ".", ms=3, color=GREY, alpha=0.25, label="single runs", zorder=0)
      for dial, colour in zip(own, COLOURS * 2, strict=False):
        tokens, right = by_level(dial)
        ax.plot(tokens, 100 * right, "o-", ms=4, lw=1.3, color=colour, label=dial.method)
      ax.set(xlabel="mean tokens per answer", xlim=(0, 62), ylim=(-3, 103))
      ax.set_title(f"right, %; imitation tells of lengths: {FROM[start]}")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, ncols=8, loc="outside lower center")
    figure.savefig(path)
