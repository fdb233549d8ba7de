"""summary.json: what one run came to, under names that do not change."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lcrl.evaluation.effort_curve import effort_measures
from lcrl.evaluation.intervals import seed_estimate

__all__ = [
  "POINT",
  "check_point",
  "commit",
  "device",
  "pool",
  "read_json",
  "read_summary",
  "summary",
  "write_json",
]

POINT = ("accuracy", "accuracy_ci", "tokens", "tokens_ci")
KEYS = (*POINT, "start", "by_difficulty", "reward", "seed", "wall_s", "device", "commit")

Summary = dict[str, Any]
UNMEASURED = {"accuracy": None}
EMPTY = dict.fromkeys(POINT)


def device() -> str:
  """What JAX computes on here, in words: "NVIDIA H100 80GB HBM3", "4 x TPU v5e", "CPU, 2 cores"."""
  devices = jax.devices()
  if devices[0].platform == "cpu":
    return f"CPU, {os.cpu_count()} cores"
  kind = devices[0].device_kind
  return kind if len(devices) == 1 else f"{len(devices)} x {kind}"


def commit() -> str:
  """The commit of this source tree, "+changes" where files differ; "unknown" outside git."""
  folder = Path(__file__).parent

  def git(*arguments: str) -> str:
    run = ["git", "-C", str(folder), *arguments]
    return subprocess.run(
      run, capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()

  try:
    head = git("rev-parse", "--short=12", "HEAD")
    return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
  except (OSError, subprocess.SubprocessError):
    return "unknown"


def summary(
  final: Mapping[str, Any],
  start: Mapping[str, Any],
  *,
  reward: str,
  seed: int,
  wall_s: float,
  device: str,
  commit: str,
) -> Summary:
  """One run as plain numbers.

  Args:
    final: `measure` of the policy after training; its by_difficulty is kept.
    start: `measure` of the policy before.
    reward: name of the reward, by which runs are grouped.
    seed: of the run.
    wall_s: seconds of training.
    device: where, in words (`device()`).
    commit: of the code (`commit()`).
  Returns: {"accuracy", "accuracy_ci", "tokens", "tokens_ci", "start": {the same four},
    "by_difficulty", "reward", "seed", "wall_s", "device", "commit"}, of JSON types only; None for
    a number that is not finite.

  >>> point = dict(accuracy=0.5, accuracy_ci=[0.4, 0.6], tokens=9.0, tokens_ci=[8.0, 10.0])
  >>> run = dict(reward="laser", seed=0, wall_s=1.0, device="CPU", commit="abc")
  >>> made = summary(point | dict(by_difficulty={}), point, **run)
  >>> made["reward"], made["accuracy"], made["start"]["tokens"]
  ('laser', 0.5, 9.0)
  """
  return {
    **{key: _finite(final[key]) for key in POINT},
    "start": {key: _finite(start[key]) for key in POINT},
    "by_difficulty": dict(final["by_difficulty"]),
    "reward": reward,
    "seed": int(seed),
    "wall_s": float(wall_s),
    "device": device,
    "commit": commit,
  }


def _finite(x: Any) -> Any:
  if isinstance(x, list | tuple):
    return [_finite(value) for value in x]
  return x if x is not None and math.isfinite(x) else None


def _over_seeds(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The mean of each number over seeds; accuracy and tokens with an interval over seeds."""
  pooled: dict[str, Any] = {}
  for key in points[0]:
    values = [p[key] for p in points if p.get(key) is not None]
    if key == "n":
      pooled[key] = sum(values)
    elif not key.endswith("_ci"):
      pooled[key] = float(np.mean(values)) if values else None
  for key, top in (("accuracy", 1.0), ("tokens", math.inf)):
    _, low, high = seed_estimate([p[key] for p in points])
    pooled[f"{key}_ci"] = [max(low, 0.0), min(high, top)]
  return pooled


def pool(summaries: Sequence[Summary]) -> Summary:
  """Runs that differ in their seed as one summary: means, with intervals over seeds.

  One summary comes back as it is, with its interval over prompts. `seed` becomes the list of
  seeds, `wall_s` the sum.

  >>> point = dict(accuracy=0.5, accuracy_ci=[0.4, 0.6], tokens=9.0, tokens_ci=[8.0, 10.0])
  >>> run = dict(reward="laser", seed=0, wall_s=1.0, device="CPU", commit="abc")
  >>> made = summary(point | dict(by_difficulty={}), point, **run)
  >>> pooled = pool([made, made | dict(seed=1, accuracy=0.75)])
  >>> pooled["seed"], pooled["accuracy"], pooled["wall_s"]
  ([0, 1], 0.625, 2.0)
  """
  if not summaries:
    raise ValueError("there are no summaries to pool.")
  first, seeds = summaries[0], [s["seed"] for s in summaries]
  if len(summaries) == 1:
    return dict(first)
  if len(set(seeds)) < len(seeds):
    raise ValueError(f"seeds must differ to be averaged over, got {seeds}.")
  if len(rewards := {s["reward"] for s in summaries}) > 1:
    raise ValueError(f"only runs with one reward can be pooled, got {sorted(rewards)}.")
  shared = [d for d in first["by_difficulty"] if all(d in s["by_difficulty"] for s in summaries)]
  unmeasured = [s["seed"] for s in summaries if s["accuracy"] is None or s["tokens"] is None]
  if unmeasured:
    raise ValueError(f"a run without accuracy or tokens cannot be pooled: seeds {unmeasured}.")
  kept: dict[str, Any] = {
    key: first[key] for key in ("method", "evaluation", "accuracy_of") if key in first
  }
  kept |= _further(summaries)
  return kept | {
    **_over_seeds([{key: s[key] for key in POINT} for s in summaries]),
    "start": _over_seeds([s["start"] for s in summaries]),
    "by_difficulty": {d: _over_seeds([s["by_difficulty"][d] for s in summaries]) for d in shared},
    "reward": first["reward"],
    "seed": seeds,
    "wall_s": sum(s["wall_s"] for s in summaries),
    "device": ", ".join(dict.fromkeys(s["device"] for s in summaries)),
    "commit": ", ".join(dict.fromkeys(s["commit"] for s in summaries)),
  }


def _further(summaries: Sequence[Summary]) -> dict[str, Any]:
  """The pooled points of budgets and of further sets that all summaries have."""
  found: dict[str, Any] = {}
  asked = [{point["label"]: point for point in s.get("asked", ())} for s in summaries]
  if labels := [label for label in asked[0] if all(label in points for points in asked)]:
    found["asked"] = [_pooled_point([points[label] for points in asked]) for label in labels]
    if all("effort" in point for point in found["asked"]):
      found["curve"] = effort_measures(found["asked"])
  named = [s.get("tasks", {}) for s in summaries]
  measured = lambda name: all(
    tasks.get(name, UNMEASURED)["accuracy"] is not None for tasks in named
  )
  if names := [name for name in named[0] if measured(name)]:
    found["tasks"] = {
      name: _pooled_point([tasks[name] for tasks in named])
      | {"start": _over_seeds([tasks[name].get("start", EMPTY) for tasks in named])}
      for name in names
    }
  return found


def _pooled_point(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """`_over_seeds` of the numbers; the rest is that of the first."""
  same = ("label", "target", "level", "effort")
  is_number = lambda key, x: key not in same and (key.endswith("_ci") or isinstance(x, int | float))
  numbers = [{key: x for key, x in point.items() if is_number(key, x)} for point in points]
  return {**points[0], **_over_seeds(numbers)}


def write_json(path: str | os.PathLike, content: Any) -> None:
  """Writes JSON so that a reader sees the old file or the new one, never half of it.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   write_json(f"{folder}/x.json", {"a": 1})
  ...   read_json(f"{folder}/x.json")
  {'a': 1}
  """
  path = Path(path)
  text = json.dumps(content, indent=2, allow_nan=False) + "\n"
  partial = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    with open(partial, "w", encoding="utf-8") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def read_summary(path: str | os.PathLike) -> Summary:
  """Reads one summary.json; says which file is missing, is not JSON, or what is wrong in it.

  >>> read_summary("no/such/folder/summary.json")
  Traceback (most recent call last):
      ...
  ValueError: no/such/folder/summary.json does not exist.
  """
  found = read_json(path)
  missing = [key for key in KEYS if key not in found]
  start = found.get("start")
  missing += [f"start.{k}" for k in POINT if not isinstance(start, dict) or k not in start]
  if missing:
    raise ValueError(f"{path} lacks {', '.join(missing)}.")
  check_point(path, found)
  check_point(path, found["start"], "start.")
  return found


def read_json(path: str | os.PathLike) -> dict[str, Any]:
  """The JSON object of a file, and a ValueError that names the file where there is none.

  >>> read_json("no/such/file.json")
  Traceback (most recent call last):
      ...
  ValueError: no/such/file.json does not exist.
  """
  try:
    found = json.loads(Path(path).read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise ValueError(f"{path} does not exist.") from None
  except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
    raise ValueError(f"{path} is not valid JSON: {error}.") from None
  if not isinstance(found, dict):
    raise ValueError(f"{path} must hold a JSON object, got {type(found).__name__}.")
  return found


def check_point(path: str | os.PathLike, point: Mapping[str, Any], prefix: str = "") -> None:
  """Raises ValueError for an accuracy, a length or an end of their intervals that cannot be one;
  None, what was not measured, is fine.

  >>> point = dict(accuracy=1.5, accuracy_ci=[1, 2], tokens=9.0, tokens_ci=[8, 9])
  >>> check_point("summary.json", point)
  Traceback (most recent call last):
      ...
  ValueError: summary.json: accuracy is 1.5.
  """
  for key, top in (("accuracy", 1.0), ("tokens", math.inf)):
    ends = point[f"{key}_ci"]
    if not isinstance(ends, list) or len(ends) != 2:
      raise ValueError(f"{path}: {prefix}{key}_ci must be [low, high], got {ends!r}.")
    for name, x in ((key, point[key]), *((f"{key}_ci", end) for end in ends)):
      number = isinstance(x, int | float) and math.isfinite(x) and 0 <= x <= top
      if x is not None and not number:
        raise ValueError(f"{path}: {prefix}{name} is {x!r}.")
