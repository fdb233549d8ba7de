"""The papers' claims, each with a rule that was written before any result was seen.

A unit is a start policy with a seed. A difference counts as seen if its 95 % interval over units,
coefficients averaged within each, lies on the claim's side of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lcrl.evaluation import accuracy_efficiency_score, seed_estimate
from lcrl.evaluation.laws import quadratic_peak

REPRODUCED, NOT, UNTESTABLE = "reproduced", "not reproduced", "not testable"
GATED = ("laser", "efficient_reasoning", "gr3", "lcr1", "hapo", "l1_max", "drpo", "qglas")
BINS = 5
# Methods of which a rule reads more than one coefficient, here or in `method_claims`.
EVERY_COEFFICIENT = frozenset(
  {
    *GATED,
    *("grpo", "naive", "hard_cap", "fixed_length", "curriculum", "fixed_target", "siri"),
    *("thinkprune", "grpo_lambda", "length_dual", "lagrangian", "token_mean"),
  }
)
CHOOSING = 3  # seeds that choose the coefficient of a method; further ones only judge it

Results = Sequence[Mapping[str, Any]]
Starts = Mapping[str, Mapping[str, Any]]  # "good/0" -> its measurement


class Verdict(NamedTuple):
  claim: str
  rule: str
  verdict: str
  numbers: str


def verdicts(results: Results, starts: Starts) -> list[Verdict]:
  """All claims, decided."""
  return [claim(results, starts) for claim in CLAIMS]


def collapsed(result: Mapping[str, Any], start: Mapping[str, Any]) -> bool:
  """Fewer tokens than its start, and less than half as often right."""
  return result["tokens"] < start["tokens"] and result["accuracy"] < 0.5 * start["accuracy"]


def of(results: Results, name: str) -> list[Mapping[str, Any]]:
  return [r for r in results if r["method"] == name]


def best_value(results: Results, starts: Starts, name: str) -> float:
  """The coefficient with the highest AES against the start, start policies averaged, over the first
  seeds if the method ran with these."""
  tried: dict[float, dict[str, list[Mapping[str, Any]]]] = {}
  runs = of(results, name)
  for r in [r for r in runs if r["seed"] < CHOOSING] or runs:
    tried.setdefault(r["value"], {}).setdefault(r["start"], []).append(r)
  score = lambda groups: float(np.mean([efficiency(starts, rows) for rows in groups.values()]))
  return max(tried, key=lambda value: score(tried[value]), default=float("nan"))


def efficiency(starts: Starts, rows: Sequence[Mapping[str, Any]]) -> float:
  """AES of some runs against the starts that they began from."""
  own = [starts[f"{r['start']}/{r['seed']}"] for r in rows]
  points = [
    float(np.mean([x[key] for x in some])) for some in (rows, own) for key in ("accuracy", "tokens")
  ]
  return accuracy_efficiency_score(*points)


def units(results: Iterable[Mapping[str, Any]], number: Callable) -> dict[str, float]:
  """unit -> mean of the number over its results; a number of None does not count."""
  found: dict[str, list[float]] = {}
  for r in results:
    value = number(r)
    if value is not None:
      found.setdefault(f"{r['start']}/{r['seed']}", []).append(value)
  return {unit: float(np.mean(values)) for unit, values in found.items()}


def _decide(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[str, str]:
  """Whether the first is surely larger, and the difference in words."""
  shared = [unit for unit in first if unit in second]
  if len(shared) < 2:
    return UNTESTABLE, f"{len(shared)} units have both"
  mean, low, high = seed_estimate([first[u] - second[u] for u in shared])
  words = f"{mean:+.3g} ({low:+.3g} to {high:+.3g}, {len(shared)} units)"
  return REPRODUCED if low > 0 else NOT, words


def naive_collapses(results: Results, starts: Starts) -> Verdict:
  claim = "A naive price for every token collapses where gated forms do not"
  rule = (
    "Half or more of the runs at the highest naive price collapse (fewer tokens than the start, "
    f"under half its accuracy), and at most 5 % of the runs of {', '.join(GATED)} do."
  )
  fell = lambda r: collapsed(r, starts[f"{r['start']}/{r['seed']}"])
  naive = of(results, "naive")
  gated = [r for name in GATED for r in of(results, name)]
  if not naive or not gated:
    return Verdict(claim, rule, UNTESTABLE, "runs are missing")
  highest = max(r["value"] for r in naive)
  shares = {
    price: float(np.mean([fell(r) for r in naive if r["value"] == price]))
    for price in sorted({r["value"] for r in naive})
  }
  share = float(np.mean([fell(r) for r in gated]))
  which = sorted({r["method"] for r in gated if fell(r)})
  numbers = "naive: " + ", ".join(f"{100 * s:.0f} % at {price:g}" for price, s in shares.items())
  numbers += f"; gated: {100 * share:.1f} % of {len(gated)} runs"
  numbers += f" ({', '.join(which)})" if which else ""
  seen = shares[highest] >= 0.5 and share <= 0.05
  return Verdict(claim, rule, REPRODUCED if seen else NOT, numbers)


def step_bonus_beats_cap(results: Results, starts: Starts) -> Verdict:
  claim = "A step bonus (LASER) is righter than a hard cap at equal tokens"
  rule = (
    "Accuracy of laser minus that of hard_cap, each interpolated over tokens between its three "
    "targets and the run without any (token_mean), averaged over the tokens that both cover."
  )
  free = [r for r in of(results, "token_mean") if r["value"] == 1.0]
  gaps = {}
  for unit in starts:
    lines = []
    for name in ("laser", "hard_cap"):
      own = [r for r in (*of(results, name), *free) if f"{r['start']}/{r['seed']}" == unit]
      lines.append(np.array(sorted((r["tokens"], r["accuracy"]) for r in own)).reshape(-1, 2))
    gap = line_gap(*lines)
    if gap is not None:
      gaps[unit] = gap
  verdict, words = _decide(gaps, dict.fromkeys(gaps, 0.0))
  points = "; ".join(_points(results, name) for name in ("laser", "hard_cap"))
  return Verdict(claim, rule, verdict, f"{words}; {points}")


def line_gap(first: np.ndarray, second: np.ndarray) -> float | None:
  """Mean height of one line of (x, y) over another where both are; None where they never are."""
  if len(first) < 2 or len(second) < 2:
    return None
  low, high = max(first[0, 0], second[0, 0]), min(first[-1, 0], second[-1, 0])
  if low >= high:
    return None
  at = np.linspace(low, high, 50)
  return float(np.mean(np.interp(at, *first.T) - np.interp(at, *second.T)))


def curriculum_beats_fixed(results: Results, starts: Starts) -> Verdict:
  del starts
  claim = "A budget that shrinks (Train Long, Think Short) ends righter than the fixed budget"
  rule = "Accuracy of curriculum minus that of fixed_target, whose reward and last target it has."
  accuracy = lambda name: units(of(results, name), lambda r: r["accuracy"])
  verdict, words = _decide(accuracy("curriculum"), accuracy("fixed_target"))
  names = ("curriculum", "fixed_target", "hard_cap")
  return Verdict(
    claim, rule, verdict, f"{words}; " + "; ".join(_points(results, name) for name in names)
  )


def correctness_lengthens(results: Results, starts: Starts) -> Verdict:
  claim = "RL from correctness alone makes answers longer"
  rule = "Tokens of grpo at the study's learning rate minus those of its start."
  ran = [r for r in of(results, "grpo") if r["value"] == 1.0]
  before = {unit: start["tokens"] for unit, start in starts.items()}
  verdict, words = _decide(units(ran, lambda r: r["tokens"]), before)
  by_start = []
  for name in ("good", "weak"):
    own = [r for r in ran if r["start"] == name]
    if own:
      began = np.mean([starts[f"{name}/{r['seed']}"]["tokens"] for r in own])
      by_start.append(f"{name} start {began:.1f} to {np.mean([r['tokens'] for r in own]):.1f}")
  return Verdict(claim, rule, verdict, "; ".join([words, *by_start]))


def sequence_mean_biases(results: Results, starts: Starts) -> Verdict:
  del starts
  claim = "The sequence mean (1 / length) lets wrong answers grow long (Dr. GRPO)"
  rule = "Tokens of wrong answers, grpo minus fixed_length, which differs in the weights alone."
  wrong = lambda name: units(of(results, name), lambda r: r["tokens_wrong"])
  verdict, words = _decide(wrong("grpo"), wrong("fixed_length"))
  right = lambda name: units(of(results, name), lambda r: r["tokens_right"])
  other = _decide(right("grpo"), right("fixed_length"))[1]
  return Verdict(claim, rule, verdict, f"wrong answers {words}; right answers {other}")


def inverted_u(results: Results, starts: Starts) -> Verdict:
  del results
  claim = "Accuracy over length is an inverted U"
  rule = (
    f"Answers of the start policies, seeds pooled, by start and difficulty from 4 on: the parabola "
    f"through accuracy in {BINS} bins of length opens downwards and peaks between the outer bins "
    "in two thirds of the cells or more."
  )
  peaks: dict[str, bool] = {}
  for start in ("good", "weak"):
    rows = np.array(
      [row for unit, s in starts.items() if unit.startswith(start) for row in s["by_length"]]
    )
    for difficulty in np.unique(rows[:, 0]):
      own = rows[rows[:, 0] == difficulty]
      if difficulty >= 4 and own[:, 2:].sum() >= 20 * BINS:
        peaks[f"{start} {difficulty}"] = _peaks_inside(own)
  if not peaks:
    return Verdict(claim, rule, UNTESTABLE, "too few answers")
  share = np.mean(list(peaks.values()))
  inside = ", ".join(cell for cell, peak in peaks.items() if peak) or "none"
  numbers = f"{sum(peaks.values())} of {len(peaks)} cells: {inside}"
  return Verdict(claim, rule, REPRODUCED if share >= 2 / 3 else NOT, numbers)


def _peaks_inside(rows: np.ndarray) -> bool:
  """Rows of (difficulty, length, right, wrong): does accuracy peak at a middling length?"""
  lengths = np.repeat(rows[:, 1], rows[:, 2] + rows[:, 3])
  right = np.concatenate([np.repeat([1, 0], (r, w)) for _, _, r, w in rows])
  order = np.argsort(lengths, kind="stable")
  length, accuracy = (
    np.array([part.mean() for part in np.array_split(x[order], BINS)]) for x in (lengths, right)
  )
  if np.ptp(length) == 0:
    return False
  coefficients, peak = quadratic_peak(length, accuracy)
  return bool(coefficients[0] < 0 and length[0] < peak < length[-1])


def _points(results: Results, name: str) -> str:
  """Accuracy at tokens for each coefficient, over all starts and seeds."""
  own = of(results, name)
  points = []
  for value in sorted({r["value"] for r in own}):
    at = [r for r in own if r["value"] == value]
    accuracy, tokens = (np.mean([r[key] for r in at]) for key in ("accuracy", "tokens"))
    points.append(f"{100 * accuracy:.1f} % at {tokens:.1f}")
  return f"{name} {', '.join(points)}"


CLAIMS = (
  naive_collapses,
  step_bonus_beats_cap,
  curriculum_beats_fixed,
  correctness_lengthens,
  sequence_mean_biases,
  inverted_u,
)
