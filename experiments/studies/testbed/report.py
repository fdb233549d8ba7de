"""Makes README.md, tables.md, results.json and the plots from what `run` wrote.

python -m experiments.studies.testbed.report --workdir=runs/testbed
python -m experiments.studies.testbed.report --workdir=experiments/studies/testbed,runs/new
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
from absl import app, flags
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.studies.testbed import claims, dials, method_claims
from experiments.studies.testbed.claims import Results, Starts, Verdict, best_value
from experiments.studies.testbed.methods import (
  ADAPTIVE,
  CORE,
  LIMITS,
  METHODS,
  NOT_APPLICABLE,
  OTHERS,
  PROBING,
  RECENT,
  Method,
)
from experiments.studies.testbed.program import WANTED, Sizes, policy
from lcrl.evaluation import on_front, seed_estimate
from lcrl.evaluation.plots import COLOURS, GREY, STYLE
from lcrl.evaluation.tables import signed

FLAGS = flags.FLAGS
HOME = Path(__file__).parent
STARTS = ("good", "weak")
NUMBERS = ("starts", "origin")
MISSED = 0.1  # of accuracy, by which a start is not what it was to be
FAMILIES = {
  "compared in the claims": CORE,
  "adaptive": ADAPTIVE,
  "budgets and limits": LIMITS,
  "others": (*OTHERS, *PROBING),
  "of 2025 and 2026": RECENT,
}
ABOUT = """# Every length method on sums whose shortest working is known

A problem is a sum modulo 10 of 2 to 8 digits; a response is a working of steps that each take one
to three operands and may stand twice (`lcrl.tasks.sums`). A decoder of {parameters:.2f} M
parameters first imitates long workings; of that course two snapshots are the starts. Then {steps}
steps of {prompts} prompts with {group} answers each, {updates} optimizer updates a step, learning
rate {rate:g}, cap {cap} tokens, {rows} training problems. {judged} problems that were never
trained on judge every run, answers sampled at temperature 1. Seeds: up to {seeds}, each with a
start of its own; the first {choosing} choose the coefficient of a method, further ones run with
that alone, where no claim compares several. Only the method differs between runs: all of them are
lanes of one compiled program. {runs} runs on {device}, commit {commit}.
Starts whose imitation missed its accuracy (90 % or 50 %) by more than {tolerance} points do not
count: {missed}.

| start | right | tokens | above the shortest | right by terms ({terms}) |
|---|---|---|---|---|
{starts}

## What papers claim, and what is seen here

The rules stand in `claims.py` and were written before there were results. A difference counts if
its 95 % interval over starts and seeds excludes 0; numbers in brackets are that interval.

{claims}

## What each method's paper claims

These rules stand in `method_claims.py`. They were written when results of three seeds were known,
and applied to the methods of 2026 when theirs were; a method is taken at the coefficient of the
table below. GRPO, with which most are compared, has the study's learning rate. A claim is
reproduced if all of a 95 % interval over starts and seeds agrees, contradicted if none of it does.
Verdicts hold for these sums, not for long chains of thought.

{method_claims}

## Accuracy against tokens

![accuracy against tokens](pareto.png)

Every point is a method at one coefficient, the mean of its seeds. Numbers stand for methods on the
front.

## Methods

Each at the coefficient with the highest AES (arXiv:2501.12570) against the start, good and weak
starts averaged, over the first {choosing} seeds, or over all of a method that did not run with
these: a choice made on the same problems, so slightly flattering. Intervals are over the seeds
that are counted there. "vs. GRPO" is against correctness-only GRPO with the same starts and seeds;
"pushed down" is the share of right answers with a negative advantage in the last quarter of
training. All coefficients, by difficulty too, are in [tables.md](tables.md); single runs with
curves in [results.json](results.json).

{table}

Notes: {notes}

Not applicable here: {missing}

{dials}

## Again

    python -m experiments.studies.testbed.run --workdir=runs/testbed --deadline_seconds=540
    python -m experiments.studies.testbed.report --workdir=runs/testbed

A run that met its deadline is continued by the same command; `--resume` takes another folder.
`--workdir=experiments/studies/testbed` of the report decides the claims anew from these results.
"""


def read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
  """Results, starts, and where they were made: of a run of the study, or of an earlier report."""
  starts, origin = (json.loads((folder / f"{name}.json").read_text()) for name in NUMBERS)
  lines = folder / "results.jsonl"
  if lines.exists():
    return [json.loads(line) for line in lines.read_text().splitlines()], starts, origin
  return json.loads((folder / "results.json").read_text()), starts, origin


def together(parts: Sequence[tuple]) -> tuple[list, dict[str, Any], dict[str, str]]:
  """What `read` gives of several folders as one. Raises ValueError if a run is in two of them."""
  results = [r for rows, _, _ in parts for r in rows]
  counts = Counter((r["method"], r["value"], r["start"], r["seed"]) for r in results)
  if twice := [key for key, count in counts.items() if count > 1]:
    raise ValueError(f"--workdir: {len(twice)} runs stand in two folders, such as {twice[0]}.")
  starts: dict[str, Any] = {}
  for _, own, _ in parts:
    starts |= own
  every = lambda key: (text for _, _, origin in parts for text in origin[key].split(" and "))
  texts = lambda key: " and ".join(dict.fromkeys(every(key)))
  return results, starts, {key: texts(key) for key in parts[0][2]}


def on_target(starts: Starts) -> dict[str, Any]:
  """The starts whose accuracy comes near the one at which the snapshot was to be taken."""
  missed = lambda unit, s: abs(s["accuracy"] - WANTED[unit.partition("/")[0]]) > MISSED
  return {unit: s for unit, s in starts.items() if not missed(unit, s)}


def group(results: Results) -> dict[tuple[str, float, str], list[Mapping[str, Any]]]:
  """(method, value, start) -> its seeds."""
  found: dict[tuple[str, float, str], list[Mapping[str, Any]]] = {}
  for r in results:
    found.setdefault((r["method"], r["value"], r["start"]), []).append(r)
  return found


def mean(rows: Sequence[Mapping[str, Any]], key: str) -> float:
  values = [r[key] for r in rows if r[key] is not None]
  return float(np.mean(values)) if values else float("nan")


def interval(rows: Sequence[Mapping[str, Any]], key: str, scale: float = 1.0) -> str:
  """The mean with half its interval over seeds."""
  value, _, high = seed_estimate([scale * r[key] for r in rows])
  return f"{value:.1f}" if high != high else f"{value:.1f} ± {high - value:.1f}"


def start_of(starts: Starts, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Accuracy and tokens from which these runs began."""
  own = [starts[f"{r['start']}/{r['seed']}"] for r in rows]
  return {key: mean(own, key) for key in ("accuracy", "tokens")}


def cells(rows: Sequence[Mapping[str, Any]], grpo, starts: Starts) -> list[str]:
  """Seeds, accuracy, tokens, both against the start and against GRPO of these seeds, tokens
  above the shortest, pushed down."""
  grpo = [r for r in grpo or () if r["seed"] in {own["seed"] for own in rows}]
  base = start_of(starts, rows)
  accuracy, tokens = mean(rows, "accuracy"), mean(rows, "tokens")
  pushed = mean(rows, "pushed_down")
  against = "-"
  if grpo:
    points = 100 * (accuracy - mean(grpo, "accuracy"))
    against = f"{signed(points)}, {signed(100 * (tokens / mean(grpo, 'tokens') - 1))} %"
  return [
    str(len(rows)),
    interval(rows, "accuracy", 100),
    interval(rows, "tokens"),
    f"{signed(100 * (accuracy - base['accuracy']))}, "
    f"{signed(100 * (tokens / base['tokens'] - 1))} %",
    against,
    f"{mean(rows, 'excess_tokens'):.1f}",
    "-" if pushed != pushed else f"{100 * pushed:.1f} %",
  ]


def line(values: Sequence[str]) -> str:
  return f"| {' | '.join(values)} |"


def header(values: Sequence[str]) -> list[str]:
  return [line(values), "|" + "---|" * len(values)]


COLUMNS = (
  "seeds",
  "right, %",
  "tokens",
  "vs. start",
  "vs. GRPO",
  "above the shortest",
  "pushed down",
)


def condensed(results: Results, starts: Starts) -> str:
  groups = group(results)
  lines = header(["method", "source", "coefficient", "start", *COLUMNS])
  for method in METHODS.values():
    tried = {
      v: [groups[method.name, v, s] for s in STARTS if (method.name, v, s) in groups]
      for v in method.values
    }
    tried = {v: rows for v, rows in tried.items() if rows}
    if not tried:
      continue
    best = best_value(results, starts, method.name)
    for rows in tried[best]:
      start = rows[0]["start"]
      grpo = groups.get(("grpo", 1.0, start))
      first = [method.name, _source(method), f"{method.coefficient} {best:g}"]
      names = first if rows is tried[best][0] else ["", "", ""]
      lines.append(line([*names, start, *cells(rows, grpo, starts)]))
  return "\n".join(lines)


def full(results: Results, starts: Starts) -> str:
  """Every coefficient, with accuracy and tokens by difficulty."""
  groups = group(results)
  out = ["# All coefficients", ""]
  for start in STARTS:
    out += [f"## From the {start} start", ""]
    out += header(["method", "value", *COLUMNS, "right by terms, %", "tokens by terms"])
    for method in METHODS.values():
      for value in method.values:
        rows = groups.get((method.name, value, start))
        if not rows:
          continue
        grpo = groups.get(("grpo", 1.0, start))
        by = [
          " ".join(f"{scale * x:.0f}" for x in _columns(rows, key))
          for key, scale in (("accuracy", 100), ("tokens", 1))
        ]
        out.append(line([method.name, f"{value:g}", *cells(rows, grpo, starts), *by]))
    out.append("")
  told = [r for r in results if "by_level" in r]
  if told:
    out += ["## Budgets that the prompt shows", ""]
    out += header(["method", "value", "start", "right at each level, %", "tokens at each level"])
    for (name, value, start), rows in group(told).items():
      levels = np.mean([r["by_level"] for r in rows], axis=0)
      by = [" ".join(f"{scale * x:.0f}" for x in levels[:, i]) for i, scale in ((0, 100), (1, 1))]
      out.append(line([name, f"{value:g}", start, *by]))
  return "\n".join(out).rstrip() + "\n"


def _columns(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
  return np.mean([r["by_difficulty"][key] for r in rows], axis=0)


def _source(method: Method) -> str:
  return f"arXiv:{method.source}" if method.source[:4].isdigit() else method.source


def pareto(path: Path, results: Results, starts: Starts) -> None:
  """One panel a start: every configuration, the front with names, the start, GRPO."""
  groups = group(results)
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(11, 5.8))
    for ax, start in zip(figure.subplots(1, 2), STARTS, strict=True):
      named = [key for key in groups if key[2] == start]
      x, y = (np.array([mean(groups[k], v) for k in named]) for v in ("tokens", "accuracy"))
      _panel(ax, [key[0] for key in named], x, 100 * y)
      begun = [s for unit, s in starts.items() if unit.startswith(start)]
      at = mean(begun, "tokens"), 100 * mean(begun, "accuracy")
      ax.plot(*at, "D", color=GREY, mfc="white", ms=8)
      ax.annotate("start", at, (7, 5), textcoords="offset points", color=GREY)
      ax.set(xlabel="mean tokens per answer", title=f"accuracy, %, from the {start} start")
      ax.set_xlim(0, 76)
      ax.set_ylim(-3, 103)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, ncols=5, loc="outside lower center")
    figure.savefig(path)


def _panel(ax: Axes, names: Sequence[str], x: np.ndarray, y: np.ndarray) -> None:
  for (family, methods), colour in zip(FAMILIES.items(), COLOURS, strict=False):
    own = np.isin(names, [m.name for m in methods])
    ax.plot(x[own], y[own], "o", ms=4, color=colour, alpha=0.75, label=family)
  if not len(x):
    return
  front = np.flatnonzero(on_front(y, x))
  front = front[np.argsort(x[front])]
  ax.step(x[front], y[front], where="post", color=GREY, ls=(0, (4, 3)), lw=1.0)
  for number, i in enumerate(front[told(y[front])], 1):
    at = x[i], y[i]
    ax.annotate(str(number), at, (-9, 3), textcoords="offset points", fontsize=8, color=GREY)
    ax.text(
      0.79, 0.68 - 0.045 * number, f"{number}  {names[i]}", fontsize=8, transform=ax.transAxes
    )


def told(accuracy: np.ndarray) -> list[int]:
  """Places on the front, of rising accuracy, that are numbered: from 50 % on, each righter than the
  one before by a point.

  >>> told(np.array([3.0, 62.0, 62.5, 80.0]))
  [1, 3]
  """
  places: list[int] = []
  last = 50.0
  for place, value in enumerate(accuracy):
    if value >= last:
      places.append(place)
      last = value + 1.0
  return places


def decided(verdicts: Sequence[Verdict]) -> str:
  """Claims and their verdicts as a table."""
  rows = [line([v.claim, f"**{v.verdict}**", v.numbers, v.rule]) for v in verdicts]
  return "\n".join([*header(["claim", "verdict", "numbers", "rule"]), *rows])


def readme(
  results: Results,
  starts: Starts,
  origin: Mapping[str, str],
  sizes: Sizes,
  parameters: float,
  missed: Sequence[str],
  curves: Sequence[dials.Dial],
) -> str:
  """`results` of methods with one point each, and `curves` of dials."""
  setup = sizes.setup
  rows = []
  for name in STARTS:
    own = [s for unit, s in starts.items() if unit.startswith(name)]
    by = " ".join(f"{100 * a:.0f}" for a in _columns(own, "accuracy"))
    excess = f"{mean(own, 'excess_tokens'):.1f}"
    rows.append(line([name, interval(own, "accuracy", 100), interval(own, "tokens"), excess, by]))
  return ABOUT.format(
    **origin,
    runs=len(results) + sum(len(dial.curves) for dial in curves),
    parameters=parameters / 1e6,
    steps=setup.steps,
    prompts=sizes.prompts,
    group=sizes.group,
    updates=sizes.updates,
    rate=sizes.rate,
    cap=setup.cap,
    rows=setup.rows,
    judged=sizes.judged,
    seeds=len({r["seed"] for r in results}),
    choosing=claims.CHOOSING,
    tolerance=f"{100 * MISSED:.0f}",
    missed=", ".join(missed) or "none",
    terms=f"{setup.sums.fewest} to {setup.sums.most}",
    starts="\n".join(rows),
    claims=decided(claims.verdicts(results, starts)),
    method_claims=decided(method_claims.verdicts(results, starts)),
    table=condensed(results, starts),
    notes="; ".join(f"{m.name}: {m.note}" for m in METHODS.values() if m.note) + ".",
    missing="; ".join(f"{name} ({why})" for name, why in NOT_APPLICABLE.items()) + ".",
    dials=dials.section(curves),
  )


def write(folders: Sequence[Path], home: Path, sizes: Sizes) -> None:
  """All files of the report into `home`."""
  results, every_start, origin = together([read(folder) for folder in folders])
  starts = on_target(every_start)
  kept = [r for r in results if f"{r['start']}/{r['seed']}" in starts]
  shapes = jax.eval_shape(policy(sizes).init, jax.random.key(0))
  parameters = sum(x.size for x in jax.tree.leaves(shapes))
  home.mkdir(parents=True, exist_ok=True)
  missed = [
    f"{unit} ({100 * s['accuracy']:.0f} %)" for unit, s in every_start.items() if unit not in starts
  ]
  curves = dials.measured(kept)
  single = [r for r in kept if r["method"] not in dials.NAMES]
  (home / "README.md").write_text(readme(single, starts, origin, sizes, parameters, missed, curves))
  (home / "tables.md").write_text(full(single, starts) + dials.table(curves, "\n## Dials\n\n"))
  lines = ",\n".join(json.dumps(r, separators=(",", ":")) for r in results)
  (home / "results.json").write_text(f"[\n{lines}\n]\n")
  for name, numbers in zip(NUMBERS, (every_start, origin), strict=True):
    (home / f"{name}.json").write_text(json.dumps(numbers, separators=(",", ":")) + "\n")
  pareto(home / "pareto.png", single, starts)
  if curves:
    dials.picture(home / "dials.png", kept, dials.best(curves))


def main(_) -> None:
  write([Path(folder) for folder in FLAGS.workdir], Path(FLAGS.home), Sizes())


if __name__ == "__main__":
  flags.DEFINE_list(
    "workdir", ["runs/testbed"], "Folders that `run` wrote, or an earlier report of these."
  )
  flags.DEFINE_string("home", str(HOME), "Folder of the report.")
  app.run(main)
