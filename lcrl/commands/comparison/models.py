"""The models of a comparison: a run, with all its seeds, or what one evaluation.json measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcrl.commands.run_folders import Result
from lcrl.evaluation import read_json, seed_estimate
from lcrl.training.remote import origin

__all__ = ["Model", "asked", "budgets", "models_of", "paths"]

KEYS = ("accuracy", "tokens")


@dataclasses.dataclass
class Model:
  """One line or colour of the page."""

  name: str
  homes: tuple[Path, ...]  # a folder for each seed
  results: list[tuple[str, Result]]  # with their names in the tables


def models_of(results: Mapping[str, Result]) -> list[Model]:
  """A model for each run; evaluations belong to the run in their folder, or are models, too."""
  found: list[Model] = []
  names = set(results)
  for name, one in results.items():
    if one.cap is None:
      found.append(Model(name, one.homes, [(name, one)]))
  for name, one in results.items():
    if one.cap is None:
      continue
    owner = next((model for model in found if set(one.homes) <= set(model.homes)), None)
    if owner is None:
      short = name.removesuffix(f", {one.cap} tokens")
      owner = Model(short if short not in names else name, one.homes, [])
      names.add(owner.name)
      found.append(owner)
    owner.results.append((name, one))
  return found


def _pooled(points: Sequence[Mapping[str, Any]], key: str) -> list[float | None]:
  """A number and its interval: over seeds if there are several, else over prompts."""
  values = [point[key] for point in points if point.get(key) is not None]
  if not values:
    return [None, None, None]
  if len(points) == 1:
    return [values[0], *(points[0].get(f"{key}_ci") or (None, None))]
  value, low, high = (float(x) for x in seed_estimate(values))
  return [value, max(low, 0.0), min(high, 1.0) if key == "accuracy" else high]


def budgets(model: Model) -> list[dict[str, Any]]:
  """Accuracy and tokens at each cap of the model's evaluations, in ascending order."""
  at: dict[int, list[Mapping[str, Any]]] = {}
  for _, one in model.results:
    if one.cap is not None:
      at.setdefault(one.cap, []).append(one.summary)
  return [{"cap": cap, **{k: _pooled(at[cap], k) for k in KEYS}} for cap in sorted(at)]


def asked(model: Model) -> list[dict[str, Any]]:
  """Accuracy and tokens at each budget that prompts asked for, in ascending order; those without a
  number of tokens last."""
  at: dict[tuple[str, Any], list[Mapping[str, Any]]] = {}
  for seed in (seed for _, one in model.results for seed in one.members or (one,)):
    for point in seed.summary.get("asked") or ():
      at.setdefault((str(point.get("label")), point.get("target")), []).append(point)
  found = [
    {"label": label, "target": target, **{k: _pooled(points, k) for k in KEYS}}
    for (label, target), points in at.items()
  ]
  return sorted(found, key=lambda x: (x["target"] is None, x["target"] or 0))


def paths(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
  """The points of each path.json of `lcrl-evaluate --along` at each cap, and a sentence for
  each file that is none."""
  found, skipped = list[dict[str, Any]](), list[str]()
  for path in sorted({file for folder in folders for file in folder.rglob("path.json")}):
    try:
      strengths: dict[str, Any] = read_json(path)["strengths"]
      for cap in next(iter(strengths.values()))["budgets"]:
        points = [
          {"strength": strength, **{k: _pooled([one["budgets"][cap]], k) for k in KEYS}}
          for strength, one in strengths.items()
          if None not in (one["budgets"][cap][k] for k in KEYS)
        ]
        found.append({"name": path.parent.name, "cap": int(cap), "points": points})
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
      skipped.append(f"{origin(path)} is not a path that lcrl-evaluate writes.")
  return found, skipped
