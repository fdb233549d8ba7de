"""Metrics of runs over their steps, thinned to what a picture can show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lcrl.training.metric_names import explanation
from lcrl.training.metrics import read_lines

__all__ = ["MAIN", "curves", "described", "evaluations", "rounded"]

PERCENT = "%"
SHOWN = {  # metric -> title, unit
  "accuracy": ("accuracy of training answers", PERCENT),
  "length/mean": ("length of training answers", "tokens"),
  "reward": ("reward", "mean of answers"),
  "length/right_p50": ("length of right answers, median", "tokens"),
  "length/wrong_p50": ("length of wrong answers, median", "tokens"),
  "length/right_p90": ("length of right answers, 90 % quantile", "tokens"),
  "truncated": ("answers cut at their cap", PERCENT),
  "end_probability": ("probability of the end token", PERCENT),
  "negative_adv_on_correct": ("right answers with negative advantage", PERCENT),
  "length_term/negative_adv": ("right answers made negative by other terms", PERCENT),
  "length_term/no_reward": ("right answers without reward", PERCENT),
  "clip_fraction": ("clipped tokens", PERCENT),
  "approx_kl": ("KL(old policy || policy)", "nats per token"),
  "sampler_kl": ("KL(sampler || policy)", "nats per token"),
  "kl": ("KL(policy || reference)", "nats per token"),
  "entropy": ("entropy", "nats per token"),
  "nll": ("negative log-likelihood", "nats per token"),
  "loss": ("loss", "per step"),
  "grad_norm": ("gradient norm", "before clipping"),
  "kept_fraction": ("rollouts that train", PERCENT),
  "groups/all_right": ("groups without a wrong answer", PERCENT),
  "groups/all_wrong": ("groups without a right answer", PERCENT),
  "pairs/accuracy": ("pairs in the right order", PERCENT),
  "pairs/margin": ("margin of pairs", "reward"),
  "time/step": ("time of a step", "seconds"),
}
MAIN = ("accuracy", "length/mean", "reward")


def described(names: Iterable[str]) -> list[dict[str, str]]:
  """Title, unit and meaning of metrics for the page, in the order of `SHOWN`."""
  there = set(names)
  return [
    {"name": name, "title": title, "unit": unit, "meaning": explanation(name) or ""}
    for name, (title, unit) in SHOWN.items()
    if name in there
  ]


def rounded(x: Any, digits: int = 4) -> Any:
  """Numbers at `digits` significant digits, at any depth; None if they are not finite."""
  if isinstance(x, Mapping):
    return {key: rounded(value, digits) for key, value in x.items()}
  if isinstance(x, list | tuple | np.ndarray):
    return [rounded(value, digits) for value in x]
  if isinstance(x, float):
    short = float(f"{x:.{digits}g}") if math.isfinite(x) else None
    return int(short) if short is not None and short == int(short) else short
  return x


def curves(homes: Sequence[Path], *, points: int, seeds: bool) -> dict[str, Any]:
  """The metrics of a model: {"step": [K], "mean": {metric: [K]}, "seeds": {metric: [[K], ...]}}.

  Args:
    homes: run folders, one a seed.
    points: the most steps K; with more, each point is the mean of neighbouring steps.
    seeds: keep the lines of single seeds, of the `MAIN` metrics.
  Returns: {} if no folder has metrics of steps.
  """
  runs = [_steps(home / "metrics.jsonl") for home in homes]
  runs = [rows for rows in runs if rows]
  if not runs:
    return {}
  last = max(row["step"] for rows in runs for row in rows)
  count = min(points, last)
  place = lambda step: min((step - 1) * count // last, count - 1)
  first = [math.ceil(i * last / count) + 1 for i in range(count)]
  middle = [(a + b) / 2 for a, b in zip(first, [*(x - 1 for x in first[1:]), last], strict=True)]
  names = dict.fromkeys(x for rows in runs for row in rows for x in row if _shown(x))
  found: dict[str, Any] = {"step": middle, "mean": {}, "seeds": {}}
  for name in names:
    scale = 100 if SHOWN.get(name, ("", ""))[1] == PERCENT else 1
    lines = np.full((len(runs), count), np.nan)
    for line, rows in zip(lines, runs, strict=True):
      line[:] = _bucketed([(place(r["step"]), r[name]) for r in rows if _is_number(r, name)], count)
    there = np.isfinite(lines)
    if not there.any():
      continue
    mean = np.where(there, lines, 0).sum(0) / np.where(there.any(0), there.sum(0), np.nan)
    found["mean"][name] = scale * mean
    if seeds and len(runs) > 1 and name in MAIN:
      found["seeds"][name] = scale * lines
  return rounded(found)


def _steps(path: Path) -> list[dict[str, Any]]:
  """Lines of steps, not those of evaluations."""
  return [row for row in read_lines(path) if row["step"] > 0 and "time/step" in row]


def _shown(name: str) -> bool:
  return name in SHOWN or name.startswith("term/")


def _is_number(row: Mapping[str, Any], name: str) -> bool:
  return isinstance(row.get(name), int | float) and math.isfinite(row[name])


def _bucketed(values: Sequence[tuple[int, float]], count: int) -> np.ndarray:
  """The mean of the values of each bucket; nan where there is none. -> [count]."""
  at, x = (np.array([value[i] for value in values]) for i in (0, 1))
  total = np.bincount(at.astype(int), x.astype(float), count)
  number = np.bincount(at.astype(int), minlength=count)
  return np.divide(total, number, out=np.full(count, np.nan), where=number > 0)


def evaluations(homes: Sequence[Path]) -> dict[str, Any]:
  """Evaluations during training, means over seeds: {"step", "accuracy", "length/mean"}: [K]."""
  at: dict[int, list[dict[str, Any]]] = {}
  for home in homes:
    for row in read_lines(home / "evaluations.jsonl"):
      at.setdefault(row["step"], []).append(row)
  if not at:
    return {}
  steps = sorted(at)
  found: dict[str, Any] = {"step": steps}
  for name, key, scale in (("accuracy", "accuracy", 100.0), ("length/mean", "tokens", 1.0)):
    values = [[row[key] for row in at[step] if _is_number(row, key)] for step in steps]
    found[name] = [scale * float(np.mean(x)) if x else None for x in values]
  return rounded(found)
