"""Results of single methods, with which lcrl-evaluate compares the efforts of one policy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lcrl.commands.run_folders import Result, averaged, find, named
from lcrl.evaluation import POINT
from lcrl.evaluation.setup import listed

ALIKE = ("data", "prompts", "temperature")


def single_methods(folders: Sequence[str]) -> dict[str, Result]:
  """Name -> result, seeds averaged, of runs and evaluations in the folders.

  Raises:
    ValueError: a folder is missing, or holds no result, or one over several budgets.
  """
  results, skipped = find(folders)
  if skipped:
    raise ValueError(f"front: {' '.join(skipped)}")
  found = named(averaged(results))
  for name, one in found.items():
    budgets = len((one.summary.get("evaluation") or {}).get("asked") or ())
    if budgets > 1:
      raise ValueError(f"front: {name} was asked for {budgets} budgets, and has no single point.")
  return found


def comparable_front(front: Mapping[str, Result], record: Mapping[str, Any]) -> dict[str, Any]:
  """Name -> accuracy and tokens with their intervals, for evaluation.json.

  Raises:
    ValueError: the record has no efforts, or a result is of other data, of other prompts, at
      another temperature or at a larger cap.
  """
  if "curve" not in record:
    raise ValueError("front is compared with a curve: name its --efforts.")
  ours = _comparable(record["evaluation"])
  cap = max(map(int, record["budgets"]))
  for name, one in front.items():
    its = _comparable(one.setup)
    for key, value in ours.items():
      if its[key] != value:
        raise ValueError(
          f"front: {name} was measured with another {key} than the curve: {listed(its[key])}, not "
          f"{listed(value)}."
        )
    if (one.setup["max_tokens"] or 0) > cap:
      raise ValueError(
        f"front: {name} may write {one.setup['max_tokens']} tokens, the curve only {cap}."
      )
  return {name: {key: one.summary[key] for key in POINT} for name, one in front.items()}


def _comparable(setup: Mapping[str, Any]) -> dict[str, Any]:
  """What must be equal, as it is read from JSON, without what a prompt shows of a budget."""
  plain = json.loads(json.dumps({key: setup.get(key) for key in ALIKE}, default=str))
  if isinstance(plain["data"], dict):
    plain["data"] = {name: x for name, x in plain["data"].items() if name != "render"}
  return plain
