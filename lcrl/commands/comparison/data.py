"""The data of the page, thinned until it fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lcrl.commands.comparison.answers import histograms, side_by_side
from lcrl.commands.comparison.curves import MAIN, curves, described, evaluations, rounded
from lcrl.commands.comparison.models import Model, asked, budgets, models_of, paths
from lcrl.commands.comparison.page import TooLarge, render
from lcrl.commands.run_folders import Result
from lcrl.evaluation.pareto import on_front
from lcrl.training.remote import origin

__all__ = ["Detail", "interactive"]

MOST_FIELDS, MOST_LETTERS = 8, 160  # of a config, in a tooltip


class Detail(NamedTuple):
  """How much of each model the page shows."""

  points: int  # of a curve
  prompts: int
  letters: int  # of a text
  models: int  # with curves and samples


def _detail(models: int, share: float) -> Detail:
  """What fits into `share` of the page, for so many models."""
  kept = min(models, max(int(120 * share), 4))
  numbers, texts = 700_000 * share / (30 * 7 * kept), 600_000 * share / kept
  prompts = int(min(24, max(2, texts / 1500)))
  return Detail(int(min(200, max(12, numbers))), prompts, _between(texts / prompts / 2), kept)


def _between(letters: float) -> int:
  return int(min(4000, max(120, letters)))


def interactive(
  groups: Sequence[Mapping[str, Result]],
  differences: Mapping[str, Mapping[str, str]],
  folders: Sequence[Path],
  setups: Sequence[str],
  *,
  title: str,
  notes: Sequence[str],
  tables: str,
) -> bytes:
  """The page of groups of comparable results.

  Args:
    groups: name -> result; results of one group share a front.
    differences: field of the configs -> name of the run -> value.
    folders: that were named; any path.json below them is shown.
    setups: a sentence for each group.
    title, notes, tables: as in `render`.
  """
  runs = {name: one for group in groups for name, one in group.items()}
  models = models_of(runs)
  error = TooLarge("")
  for share in (1.0, 0.5, 0.2, 0.05, 0.0):
    detail = _detail(len(models), share)
    data, left_out = _data(groups, models, differences, folders, setups, detail)
    try:
      return render(data, title=title, notes=notes, tables=tables, left_out=left_out)
    except TooLarge as why:
      error = why
  raise ValueError(f"{len(models)} models are too many for one page: {error}")


def _data(
  groups: Sequence[Mapping[str, Result]],
  models: Sequence[Model],
  differences: Mapping[str, Mapping[str, str]],
  folders: Sequence[Path],
  setups: Sequence[str],
  detail: Detail,
) -> tuple[dict[str, Any], list[str]]:
  """The data of the scripts, and sentences about what was left out."""
  full = models[: detail.models]
  drawn: list[dict[str, Any]] = [
    {
      "name": model.name,
      "notes": _about(model, differences),
      "curves": curves(model.homes, points=detail.points, seeds=True) if i < len(full) else {},
      "evaluations": evaluations(model.homes) if i < len(full) else {},
      "budgets": rounded(budgets(model)),
      "asked": rounded(asked(model)),
    }
    for i, model in enumerate(models)
  ]
  samples = side_by_side(full, prompts=detail.prompts, letters=detail.letters)
  names = [
    x for one in drawn for part in (one["curves"].get("mean", {}), one["evaluations"]) for x in part
  ]
  along, skipped = paths(folders)
  has = lambda one: one.summary["accuracy"] is not None and one.summary["tokens"] is not None
  measured = [{name: one for name, one in group.items() if has(one)} for group in groups]
  data = {
    "models": drawn,
    "groups": [_group(*x, models) for x in zip(measured, setups, strict=True) if x[0]],
    "metrics": described(names),
    "main": list(MAIN),
    "paths": rounded(along),
    "histograms": rounded(histograms(models)),
    "samples": samples,
  }
  return data, [*skipped, *_left_out(models, samples, detail, drawn)]


def _left_out(
  models: Sequence[Model], samples: Sequence[Any], detail: Detail, drawn: Sequence[Mapping]
) -> list[str]:
  absent = {
    "budget curves: no evaluation was made at a cap": not any(one["budgets"] for one in drawn),
    "learning curves: no folder has metrics of training steps": not any(
      one["curves"] or one["evaluations"] for one in drawn
    ),
    "samples: no folder has answers": not samples,
  }
  said = [f"There are no {what}." for what, is_absent in absent.items() if is_absent]
  if len(models) > detail.models:
    said += [f"Only the first {detail.models} of {len(models)} runs have curves and samples here."]
  if any(len(one["curves"].get("step", ())) == detail.points for one in drawn):
    said += [
      f"Curves have at most {detail.points} points; in a longer run each is the mean of "
      "neighbouring steps. All steps are in the metrics.jsonl of each run."
    ]
  if samples:
    said += [
      f"Samples are at most {detail.prompts} prompts that most runs answered, first those on which "
      f"runs disagree; texts longer than {detail.letters:,} characters are cut in the middle."
    ]
  return said


def _about(model: Model, differences: Mapping[str, Mapping[str, str]]) -> list[str]:
  """Lines of a tooltip: the fields in which the config differs, and the folders."""
  name = model.results[0][0]
  fields = [f"{field}: {values[name]}" for field, values in differences.items() if name in values]
  folders = [str(origin(home)) for home in model.homes]
  lines = [*fields[:MOST_FIELDS], *folders[:3]]
  lines += [f"and {len(folders) - 3} more folders"] * (len(folders) > 3)
  return [line[:MOST_LETTERS] for line in lines]


def _group(group: Mapping[str, Result], setup: str, models: Sequence[Model]) -> dict[str, Any]:
  """The points of a front, with single seeds, and the starts of runs."""
  owner = {name: i for i, model in enumerate(models) for name, _ in model.results}
  front = on_front(
    *([one.summary[key] for one in group.values()] for key in ("accuracy", "tokens"))
  )
  starts = {}
  for one in group.values():
    start = one.summary["start"]
    if start and start["accuracy"] is not None and start["tokens"] is not None:
      starts[start["accuracy"], start["tokens"]] = _point(start)
  points = [
    _point(one.summary)
    | {
      "model": owner[name],
      "label": name,
      "front": bool(is_best),
      "seeds": [[m.summary["accuracy"], m.summary["tokens"]] for m in one.members],
    }
    for (name, one), is_best in zip(group.items(), front, strict=True)
  ]
  many = f"{len(points)} result{'s' if len(points) > 1 else ''}"
  cap = next(iter(group.values())).setup.get("max_tokens")
  title = many if cap is None else f"{many}, at most {cap} tokens"
  return rounded({"title": title, "setup": setup, "points": points, "starts": [*starts.values()]})


def _point(summary: Mapping[str, Any]) -> dict[str, Any]:
  finite = lambda x: x if x is not None and math.isfinite(x) else None
  return {
    key: [summary[key], *(finite(end) for end in summary[f"{key}_ci"])]
    for key in ("accuracy", "tokens")
  }
