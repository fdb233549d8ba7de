"""Records of the study: read, grouped by start and method, averaged over seeds.

From three seeds on, an interval adds the variances over seeds and over problems, the second of
the mean answer of all seeds to each problem; its t quantile has Satterthwaite's degrees of freedom.
With fewer it is over problems alone: what another seed would give is then unknown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from lcrl.evaluation import Estimate
from lcrl.evaluation.effort_curve import against_front
from lcrl.evaluation.tables import estimate

TASKS = {"gsm8k": "GSM8K test", "math500": "MATH-500", "svamp": "SVAMP"}
SEEDS = 3  # that say how much seeds differ
MODELS = {494_032_768: "Qwen2.5-Coder-0.5B-Instruct", 1_543_714_304: "Qwen2.5-Coder-1.5B-Instruct"}
COLLAPSED = 0.05  # accuracy on GSM8K below which a method collapsed
NAMES = {
  "alp": "ALP", "brevity": "asked for brevity", "budget_forcing": "budget forcing", "dapo": "DAPO",
  "dial_exact": "dial, exact", "distill": "distilled specialists", "dler": "DLER", "dpo": "DPO",
  "dr_grpo": "Dr. GRPO", "drpo": "DRPO", "efficient_reasoning": "Efficient Reasoning",
  "eos_ramp": "ramp of the end token", "gr3": "GR3", "grpo": "GRPO", "hapo": "HAPO",
  "kimi": "Kimi", "l1_max": "L1-Max", "laser": "LASER", "laser_d": "LASER-D",
  "laser_long": "LASER, three times the steps", "ld_dpo": "LD-DPO",
  "leash": "Leash", "line": "line to LASER", "naive": "naive price",
  "on_policy_sft": "on-policy SFT", "r_dpo": "R-DPO", "sft": "SFT on the shortest",
  "short_rl": "Short-RL", "shorter_better": "ShorterBetter", "simpo": "SimPO", "siri": "SIRI",
  "told": "told lengths",
}  # fmt: skip

Record = Mapping[str, Any]
Point = Mapping[str, Any]
Term = tuple[float, float]  # a variance and its degrees of freedom


class Group(NamedTuple):
  """The seeds of a method at one coefficient."""

  method: str
  value: float | None
  kind: str
  runs: Sequence[Record]

  @property
  def name(self) -> str:
    return NAMES.get(self.method, self.method)

  @property
  def label(self) -> str:
    return self.name if self.value is None else f"{self.name}, {self.value:g}"

  def points(self, task: str) -> list[Point]:
    return [r["evaluations"][task] for r in self.runs if task in r["evaluations"]]

  def asked(self, task: str) -> dict[int, str]:
    """Budgets that the policy was asked for, the least first -> names of the evaluations."""
    names = {name for run in self.runs for name in run["evaluations"]}
    found = {int(name.split("@")[1]): name for name in names if name.startswith(f"{task}@")}
    return dict(sorted(found.items()))

  def mean(self, task: str, key: str) -> Estimate:
    return mean(self.points(task), key)

  def summary(self, task: str) -> dict[str, Any]:
    """Means and intervals as the pictures and curves of `lcrl.evaluation` read them."""
    found: dict[str, Any] = {}
    for key in ("accuracy", "tokens"):
      value, low, high = self.mean(task, key)
      found |= {key: value, f"{key}_ci": [max(low, 0.0), high]}
    return found

  @property
  def collapsed(self) -> bool:
    points = self.points("gsm8k")
    return bool(points) and mean(points, "accuracy").value < COLLAPSED


class Study(NamedTuple):
  """What began from one start: the start itself, correctness alone, and all methods."""

  fingerprint: str
  start: Group | None
  groups: Sequence[Group]

  @property
  def model(self) -> str:
    """Its name; the first records are of the small one, and do not say so."""
    count = self.groups[0].runs[0].get("parameters", min(MODELS))
    return MODELS.get(count, f"a policy of {count:,} parameters")

  @property
  def grpo(self) -> Group | None:
    return next((g for g in self.groups if g.method == "grpo"), None)

  def standing(self, task: str) -> list[Group]:
    """What was judged on a task without a budget and did not collapse."""
    return [g for g in self.groups if g.points(task) and not g.collapsed]

  def curve(self, group: Group, task: str = "gsm8k") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The points of a policy that was asked for budgets, and how they stand to the runs with one,
    as `against_front` gives it."""
    asked = group.asked(task).items()
    points = [group.summary(name) | {"target": budget} for budget, name in asked]
    return points, against_front(points, {g.label: g.summary(task) for g in self.standing(task)})


def read(folder: Path) -> list[Record]:
  """The records of all files but the sweep's. Raises ValueError if a run is there twice."""
  files = (f for f in sorted(folder.glob("*.jsonl")) if f.name != "choice.jsonl")
  rows = [row for file in files for row in lines(file) if "method" in row]
  seen: set[tuple[Any, ...]] = set()
  for row in rows:
    key = tuple(row.get(name) for name in ("method", "value", "seed", "start"))
    if key in seen and row["method"] != "start":
      raise ValueError(f"{folder}: two records of {key}.")
    seen.add(key)
  return rows


def lines(file: Path) -> list[Record]:
  return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def studies(rows: Sequence[Record]) -> list[Study]:
  """One for each start, the one with most methods and coefficients of three seeds first."""
  found: dict[str, dict[tuple[str, float | None, str], list[Record]]] = {}
  for row in rows:
    key = (row["method"], row["value"], row.get("kind", "rl"))
    found.setdefault(row.get("start", ""), {}).setdefault(key, []).append(row)
  made = []
  for fingerprint, own in found.items():
    groups = [Group(*key, runs) for key, runs in own.items()]
    begun = next((g for g in groups if g.method == "warmup"), None)
    rest = [g for g in groups if g.method not in ("warmup", "start")]
    made.append(Study(fingerprint, begun, rest))
  made = [study for study in made if study.groups]
  return sorted(made, key=lambda s: -sum(len(g.runs) >= SEEDS for g in s.groups))


def mean(points: Sequence[Point], key: str) -> Estimate:
  """The mean over seeds with its interval.

  >>> point = dict(accuracy=0.5, accuracy_ci=[0.2, 0.8], right="0101", samples=1)
  >>> mean([point], "accuracy")
  Estimate(value=0.5, low=0.2, high=0.8)
  >>> print("{:.2f} {:.2f} {:.2f}".format(*mean([point] * 3, "accuracy")))
  0.50 -0.42 1.42
  """
  if len(points) == 1:
    return estimate(points[0], key)
  value = float(np.mean([p[key] for p in points]))
  return _interval(value, [_over_problems(points, key), *_over_seeds(points, key)])


def change(points: Sequence[Point], others: Sequence[Point], key: str) -> Estimate:
  """The mean of some runs minus that of others; answers to the same problems are paired."""
  value = float(np.mean([p[key] for p in points]) - np.mean([p[key] for p in others]))
  one, two = _by_problem(points, key), _by_problem(others, key)
  if one is not None and two is not None and one.shape == two.shape:
    terms = [_variance(one - two)]
  else:
    terms = [_over_problems(points, key), _over_problems(others, key)]
  return _interval(value, [*terms, *_over_seeds(points, key), *_over_seeds(others, key)])


def _by_problem(points: Sequence[Point], key: str) -> np.ndarray | None:
  """[problems]: mean over seeds and answers; None where a record has no single answers."""
  field = "right" if key == "accuracy" else "lengths"
  each = [[float(x) for x in p.get(field, ())] for p in points]
  if not each[0] or len({len(x) for x in each}) > 1:
    return None
  return np.reshape(each, (len(points), -1, points[0].get("samples", 1))).mean((0, 2))


def _variance(x: np.ndarray) -> Term:
  return float(x.var(ddof=1)) / len(x), len(x) - 1


def _over_problems(points: Sequence[Point], key: str) -> Term:
  """Without single answers, as if the problems were all that makes a run's answers differ."""
  by_problem = _by_problem(points, key)
  if by_problem is not None:
    return _variance(by_problem)
  halves = [(high - low) / 2 for _, low, high in (estimate(p, key) for p in points)]
  return float(np.mean(np.square(halves))) / 1.96**2, min(p["n"] for p in points) - 1


def _over_seeds(points: Sequence[Point], key: str) -> list[Term]:
  return [_variance(np.array([p[key] for p in points]))] if len(points) >= SEEDS else []


def _interval(value: float, terms: Sequence[Term], level: float = 0.95) -> Estimate:
  total = sum(variance for variance, _ in terms)
  if total == 0:
    return Estimate(value, value, value)
  freedom = total**2 / sum(variance**2 / degrees for variance, degrees in terms)
  half = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(total)
  return Estimate(value, value - half, value + half)
