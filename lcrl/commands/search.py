"""Searches the thresholds of a config by whole runs, without gradients (Nelder-Mead).

  lcrl-search --config=configs/lagrangian.py --workdir=runs/search \
      --fields=reward.targets[0],reward.targets[1] --spread=0.1,0.5 --runs=12

Each point is a run in a folder of its own, named after its values, and is judged by a number of its
summary, or by a function of it. The same command continues a stopped search, and reads finished
runs. search.json in the folder lists the points in the order of the search, and the best one.

Source: Constrained RLHF, arXiv:2310.04373, which searches the thresholds up to which its reward
models are to be trusted by an evaluation that none of them sees. The paper moves the thresholds of
one run as it goes; here each point is a run, so no point depends on those before it. Coefficients
are those of Nelder and Mead: reflect 1, expand 2, contract and shrink 1/2.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from scipy.optimize import minimize

from lcrl.commands import command, sweep
from lcrl.evaluation import read_json, write_json
from lcrl.training.remote import AnyPath, opened

FLAGS = flags.FLAGS


class Point(NamedTuple):
  values: list[float]
  score: float  # more is better


def nelder_mead(
  score: Callable[[list[float]], float],
  start: Sequence[float],
  spread: Sequence[float],
  *,
  runs: int,
) -> list[Point]:
  """The points of a search for the values with the highest score, in their order.

  The first simplex is `start`, and `start` with each value moved by its spread. A score that is not
  finite counts as the worst.

  Raises:
    ValueError: as many spreads as values are needed, none of them 0, and runs for a whole simplex.
  """
  if len(spread) != len(start) or not all(spread):
    raise ValueError(f"spread must be a number other than 0 a field, got {[*spread]}.")
  if runs <= len(start):
    raise ValueError(f"runs must be above the number of fields, {len(start)}, got {runs}.")
  points: list[Point] = []

  def loss(values: np.ndarray) -> float:
    points.append(Point(values.tolist(), score(values.tolist())))
    return -points[-1].score if math.isfinite(points[-1].score) else math.inf

  simplex = np.array(start) + np.vstack([np.zeros(len(start)), np.diag(spread)])
  minimize(
    loss,
    np.array(start, float),
    method="Nelder-Mead",
    options={"initial_simplex": simplex, "maxfev": runs, "xatol": 0.0, "fatol": 0.0},
  )
  return points


def best(points: Sequence[Point]) -> Point:
  finite = [point for point in points if math.isfinite(point.score)]
  if not finite:
    raise ValueError("no run of the search has a finite score.")
  return max(finite, key=lambda point: point.score)


def judge(name: str) -> Callable[[Mapping[str, Any]], float]:
  """A function of a summary: its number at a dotted name, or "package.module:function".

  >>> judge("pairs.final.margin")({"pairs": {"final": {"margin": 0.5}}})
  0.5
  """
  if ":" in name:
    home, _, function = name.partition(":")
    return getattr(importlib.import_module(home), function)

  def read(summary: Any) -> float:
    for key in name.split("."):
      if not isinstance(summary, Mapping) or key not in summary:
        raise ValueError(f"--objective={name}: the summary has no {key!r}.")
      summary = summary[key]
    if not isinstance(summary, int | float):
      raise ValueError(f"--objective={name} is {summary!r:.40} in the summary, no number.")
    return float(summary)

  return read


def at(config: Mapping[str, Any], field: str) -> float:
  """The number that a config has at a field such as "reward.targets[0]"."""
  value: Any = config
  for key in field.replace("[", ".").replace("]", "").split("."):
    try:
      value = value[int(key) if isinstance(value, list | tuple) else key]
    except (KeyError, IndexError, ValueError, TypeError):
      raise ValueError(f"--fields: the config has no {field}.") from None
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise ValueError(f"--fields: {field} is {value!r:.40}, no number.")
  return float(value)


class Stopped(Exception):
  """A run was stopped, and the search with it."""


def search(
  experiment: command.Experiment,
  workdir: AnyPath,
  train: sweep.Train,
  *,
  fields: Sequence[str],
  spread: Sequence[float],
  runs: int,
  objective: str = "accuracy",
) -> list[Point]:
  """Trains at most `runs` runs, and writes search.json."""
  start = [at(experiment.to_dict(), field) for field in fields]
  measure, done = judge(objective), list[Point]()

  def score(values: list[float]) -> float:
    texts = [f"{value:.6g}" for value in values]
    overrides = (*experiment.overrides, *zip(fields, texts, strict=True))
    config = dataclasses.replace(experiment, overrides=overrides).to_dict()
    named = zip(fields, texts, strict=True)
    folder = workdir / "+".join(f"{field.replace('[', '.').rstrip(']')}={t}" for field, t in named)
    if sweep.finished(opened(folder), config):
      summary = read_json(opened(folder) / "summary.json")
    else:
      summary = train(config, folder, method=f"{experiment.name}, {folder.name}")
    if summary.get("stopped") is not None:
      raise Stopped
    done.append(Point(values, measure(summary)))
    print(f"run {len(done)}: {folder.name} has {objective} {done[-1].score:.4g}", file=sys.stderr)
    record: dict[str, Any] = {
      "fields": [*fields],
      "objective": objective,
      "points": [p._asdict() for p in done],
    }
    if any(math.isfinite(point.score) for point in done):
      record["best"] = best(done)._asdict()
    write_json(opened(workdir) / "search.json", record)
    return done[-1].score

  return nelder_mead(score, start, spread, runs=runs)


def main(_) -> None:
  from lcrl.training import remote
  from lcrl.training.loop import train

  try:
    points = search(
      FLAGS.config,
      remote.parse(FLAGS.workdir),
      train,
      fields=FLAGS.fields,
      spread=[float(x) for x in FLAGS.spread],
      runs=FLAGS.runs,
      objective=FLAGS.objective,
    )
  except Stopped:
    print("The search was stopped; the same command continues it.", file=sys.stderr)
    return
  print(json.dumps(dict(zip(FLAGS.fields, best(points).values, strict=True))))


if __name__ == "__main__":
  command.define_config(required=True)
  flags.DEFINE_string("workdir", None, "Folder of the search.", required=True)
  flags.DEFINE_list("fields", ["reward.targets[0]"], "Fields of the config that are searched.")
  flags.DEFINE_list("spread", ["0.1"], "First step of each field.")
  flags.DEFINE_integer("runs", 10, "Runs, at most.")
  flags.DEFINE_string("objective", "accuracy", "Number of the summary, or package.module:function.")
  command.run(main, "search")
