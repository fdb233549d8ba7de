"""Finds results in folders, averages the seeds of one setting, and groups comparable results.

A result is the summary.json of a finished run, or one budget of an evaluation.json.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lcrl.evaluation import check_point, pool, read_json, read_summary
from lcrl.evaluation.report import unfinished
from lcrl.evaluation.setup import model_of
from lcrl.evaluation.summaries import Summary
from lcrl.training.remote import opened, origin
from lcrl.training.resume import differing

COMPARABLE = ("data", "model", "prompts", "max_tokens", "temperature", "accuracy of")


@dataclasses.dataclass(frozen=True)
class Result:
  """One result, or the mean of several that differ in their seed alone."""

  folder: Path  # as it was named
  home: Path  # the folder of its file
  method: str
  summary: Summary
  config: Mapping[str, Any] | None  # None: unknown
  setup: Mapping[str, Any]  # must be equal for a comparison: `COMPARABLE`
  cap: int | None = None  # of an evaluation.json's budget
  members: tuple[Result, ...] = ()  # of a mean

  @property
  def homes(self) -> tuple[Path, ...]:
    """The folders of all seeds."""
    return tuple(one.home for one in self.members or (self,))


def find(folders: Sequence[str]) -> tuple[list[Result], list[str]]:
  """All results at or below the folders, and a sentence for each folder that is skipped.

  Raises:
    ValueError: a folder that does not exist, or no result in all of them.
  """
  if not folders:
    raise ValueError("there are no run folders: name at least one.")
  by_file: dict[Path, list[Result]] = {}
  skipped = []
  for folder in map(opened, folders):
    if not folder.exists():
      raise ValueError(f"{origin(folder)} is not a folder.")
    homes = _result_files(folder)
    if not homes:
      skipped.append(_why_empty(folder).replace(str(folder), str(origin(folder))))
    for path in homes:
      try:
        by_file.setdefault(path.resolve(), list(_read(folder, path)))
      except (ValueError, OSError) as why:
        skipped.append(str(why).replace(str(folder), str(origin(folder))))
  results = [result for several in by_file.values() for result in several]
  if not results:
    raise ValueError("there is nothing to compare: " + " ".join(skipped))
  return results, list(dict.fromkeys(skipped))


def _result_files(folder: Path) -> list[Path]:
  """The files to read: each evaluation.json; each summary.json that aggregates no others; and
  metrics.jsonl of runs without a summary."""
  summaries = sorted(folder.rglob("summary.json"))
  above = {parent for path in summaries for parent in path.parent.parents}
  running = [p for p in folder.rglob("metrics.jsonl") if not (p.parent / "summary.json").exists()]
  leaves = [path for path in summaries if path.parent not in above]
  return sorted([*leaves, *folder.rglob("evaluation.json"), *running])


def _why_empty(folder: Path) -> str:
  if any((folder / f"{name}.csv").exists() for name in ("comparison", "compare")):
    return f"{folder} is a comparison."
  if (folder / "config.json").exists():
    return f"{folder} is a run without a result: it has no summary.json yet."
  return f"{folder} holds no summary.json and no evaluation.json."


def _read(folder: Path, path: Path) -> Iterable[Result]:
  """The results of one file. Raises ValueError if it has none."""
  home = path.parent
  config_file = home / "config.json"
  described = read_json(config_file) if config_file.exists() else {}
  config = described.get("config")
  if not isinstance(config, Mapping):  # such as a model's config.json
    described, config = {}, None
  if path.name == "metrics.jsonl":
    raise ValueError(f"{home} is a run without a result: it has no summary.json yet.")
  if path.name == "evaluation.json":
    return _budgets(folder, path)
  summary = read_summary(path)
  if why := unfinished(summary) or _outdated(home, config):
    raise ValueError(f"{home} is unfinished: {why}.")
  if summary["accuracy"] is None or summary["tokens"] is None:
    raise ValueError(f"{path} has no accuracy or no tokens.")
  method = summary.get("method") or described.get("method") or summary["reward"]
  made_on = summary.get("evaluation") or (_setup_of_config(config) if config else {})
  setup = {name: made_on.get(name) for name in COMPARABLE}
  setup["accuracy of"] = summary.get("accuracy_of", "right answers")
  return [Result(folder, home, method, summary, config, setup)]


def _outdated(home: Path, config: Mapping[str, Any] | None) -> str | None:
  """A reason why the summary is old: the run has continued since; None if it is current."""
  steps = ((config or {}).get("train") or {}).get("steps")
  lines = home / "metrics.jsonl"
  if not isinstance(steps, int) or not lines.exists():
    return None
  last = 0
  for line in reversed(lines.read_text(encoding="utf-8", errors="replace").splitlines()):
    try:
      last = json.loads(line)["step"]
      break
    except (ValueError, TypeError, KeyError):
      continue  # an incomplete line
  return f"it is at step {last} of {steps}" if last < steps else None


def _setup_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
  """The setup of a run from its config, if the summary lacks it."""
  section = lambda name: config.get(name) or {}
  own = section("eval").get("temperature")
  return {
    "data": section("eval_task") or section("task") or section("data"),
    "model": model_of(section("policy")),
    "prompts": section("eval").get("prompts"),
    "max_tokens": section("train").get("max_tokens"),
    "temperature": section("sampling").get("temperature") if own is None else own,
  }


def _budgets(folder: Path, path: Path) -> list[Result]:
  """A result for each budget of an evaluation.json. They compare models."""
  record, results = read_json(path), []
  try:
    for cap, point in record["budgets"].items():
      check_point(path, point)
      made_on = {"data": record["task"], "temperature": record["temperature"]}
      made_on |= {**record.get("evaluation", {}), "max_tokens": int(cap)}
      about = {key: record[key] for key in ("seed", "wall_s", "device", "commit")}
      method = f"{record.get('method') or path.parent.name}, {cap} tokens"
      summary = {"start": None, **point, **about, "reward": method}
      if "evaluation" in record:
        summary["evaluation"] = made_on
      if cap == max(record["budgets"], key=int):  # what was not measured at this cap, once
        summary |= {key: record[key] for key in ("asked", "tasks") if key in record}
      setup = {name: made_on.get(name) for name in COMPARABLE}
      setup |= {"model": "that of each evaluation", "accuracy of": "right answers"}
      results.append(Result(folder, path.parent, method, summary, None, setup, int(cap)))
  except (KeyError, TypeError, AttributeError) as why:
    raise ValueError(f"{path} is not what lcrl-evaluate writes: {why!r}.") from None
  return results


def averaged(results: Sequence[Result]) -> list[Result]:
  """Averages results whose configs differ in the seed alone; if the config is unknown, results of
  one method below one folder."""
  groups: dict[str, list[Result]] = {}
  for one in results:
    same: Any = {"folder": str(one.folder)}
    if one.config is not None:
      same = {name: value for name, value in one.config.items() if name != "seed"}
    key = json.dumps([same, one.method, one.setup], sort_keys=True, default=str)
    groups.setdefault(key, []).append(one)
  joined = []
  for group in groups.values():
    seeds = {str(one.summary["seed"]) for one in group}
    if len(seeds) < len(group) or group[0].summary["start"] is None:  # a sweep, not seeds
      joined += group
    else:
      whole = pool([one.summary for one in group])
      home = group[0].home if len(group) == 1 else Path(os.path.commonpath([x.home for x in group]))
      joined.append(dataclasses.replace(group[0], summary=whole, home=home, members=tuple(group)))
  return joined


def named(results: Sequence[Result]) -> dict[str, Result]:
  """Unique name -> result: the method, or the differing part of the folder."""
  alike: dict[str, list[Result]] = {}
  for one in results:
    alike.setdefault(one.method, []).append(one)
  runs: dict[str, Result] = {}
  for one in results:
    homes = [other.home.resolve() for other in alike[one.method]]
    path = one.home.resolve().relative_to(os.path.commonpath(homes))
    is_telling = len(path.parts) > 1 or path.name == one.method
    name = one.method if len(homes) == 1 else str(path) if is_telling else f"{path}/{one.method}"
    runs[name if name not in runs else str(one.home)] = one
  return runs


def comparable(runs: Mapping[str, Result]) -> list[dict[str, Result]]:
  """Groups of equal setup, the largest first."""
  groups: dict[str, dict[str, Result]] = {}
  for name, one in runs.items():
    groups.setdefault(json.dumps(one.setup, sort_keys=True, default=str), {})[name] = one
  return sorted(groups.values(), key=len, reverse=True)


def differences(runs: Mapping[str, Result]) -> dict[str, dict[str, str]]:
  """Field of the config -> name of the run -> value, for fields that differ between runs."""
  known = {name: one.config for name, one in runs.items() if one.config is not None}
  first = next(iter(known.values()), {})
  fields = set().union(*(differing(first, config) for config in known.values())) - {"seed"}
  return {
    field: {name: _at(config, field) for name, config in known.items()} for field in sorted(fields)
  }


def _at(config: Any, field: str) -> str:
  for name in field.split("."):
    if not isinstance(config, Mapping) or name not in config:
      return ""
    config = config[name]
  return json.dumps(config) if isinstance(config, Mapping | list) else str(config)
