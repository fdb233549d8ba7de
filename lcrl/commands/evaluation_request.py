"""What `lcrl-evaluate` is asked for: settings of a run or config, as flags change them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from lcrl.commands import command, recipes
from lcrl.data.readers import LAYOUTS
from lcrl.training import evaluator, fields, kinds
from lcrl.training.build import eval_temperature
from lcrl.training.remote import opened
from lcrl.training.saved_policy import anywhere
from lcrl.training.workdir import read_config

LISTS = ("budgets", "pass_at", "targets", "levels")  # flags that hold whole numbers


class Request(NamedTuple):
  """What to evaluate, beside the settings."""

  workdir: Path | None  # None: the model of the config
  step: int | None  # of the checkpoint; None: the newest
  budgets: Sequence[int]  # caps in tokens; (): of each set its own
  ks: Sequence[int]  # of pass@k; (): the number of answers to each prompt
  sets: Sequence[str] | None  # names of sets; None: all
  everywhere: Mapping[str, Any]  # fields of `EvalSet` that take the place of those of all sets
  asked: Mapping[str, Any]  # targets, levels and efforts in place of those of the main set
  seed: int
  recipe: Mapping[str, Any] | None = None  # for test time
  reward: str | None = None  # run folder of a reward model that the recipe reads


def read_flags(given: Any) -> tuple[Any, Request]:
  """The settings of the flags, and what else to evaluate."""
  if (given.workdir is None) == (given.config is None):
    raise ValueError("name either --workdir or --config.")
  if given.workdir is None and given.out is None:
    raise ValueError("name --out: without --workdir there is no folder to write to.")
  workdir = None if given.workdir is None else opened(given.workdir)
  config = given.config.to_dict() if workdir is None else read_config(workdir)
  settings = kinds.acting(config).settings(config)
  if given.model is not None:
    if workdir is not None:
      raise ValueError("--model needs --config; --workdir brings its own model.")
    settings = with_model(settings, given.model)
  if given.task is not None:
    settings = with_task(settings, given.task)
  whole = {name: _whole([*filter(None, getattr(given, name) or ())], name) for name in LISTS}
  numbers = {name: getattr(given, name) for name in ("samples", "prompts") if getattr(given, name)}
  counts = [given.batch, *whole["budgets"]]
  counts += [n for n in (given.samples, given.prompts) if n is not None]
  if min(counts) < 1:
    raise ValueError(f"budgets, samples, prompts and batch must be at least 1, got {min(counts)}.")
  asked = asked_by(given, whole)
  if asked and given.sets is not None and evaluator.MAIN not in given.sets:
    raise ValueError(
      f"--targets, --levels and --efforts are of {evaluator.MAIN}, which --sets leaves out."
    )
  request = Request(
    workdir,
    given.step,
    whole["budgets"],
    whole["pass_at"],
    given.sets,
    numbers,
    asked,
    given.seed,
    *recipes.read(given),
  )
  return here(settings, given, request.budgets), request


def asked_by(given: Any, whole: Mapping[str, Sequence[int]]) -> dict[str, Any]:
  """The budgets that the flags ask for. Efforts take the place of the config's targets and levels,
  and these that of its efforts."""
  asked: dict[str, Any] = {
    n: tuple(whole[n]) for n in ("targets", "levels") if getattr(given, n) is not None
  }
  if given.efforts is not None:
    if not any(given.efforts):
      raise ValueError("--efforts= names none; leave it out for those of the config.")
    efforts = tuple(_numbers([*filter(None, given.efforts)], "efforts"))
    return {"targets": (), "levels": (), **asked, "efforts": efforts}
  return asked | ({"efforts": ()} if asked else {})


def here(settings: Any, given: Any, budgets: Sequence[int]) -> Any:
  """The settings on the devices that are here, with the numbers of the flags."""
  devices = len(jax.devices())
  settings = anywhere(settings, prompts=-(-given.batch // devices) * devices)
  temperature = eval_temperature(settings) if given.temperature is None else given.temperature
  if not 0 <= temperature < math.inf:
    raise ValueError(f"temperature must be a number of at least 0, got {temperature}.")
  longest = max(budgets, default=settings.train.max_tokens)
  return dataclasses.replace(
    settings,
    train=dataclasses.replace(settings.train, max_tokens=longest),
    sampling=dataclasses.replace(
      settings.sampling, temperature=temperature, control=control(settings, given.control)
    ),
    eval=dataclasses.replace(
      settings.eval,
      temperature=temperature,
      prompts=max(settings.eval.prompts, given.prompts or 0),
    ),
  )


def control(settings: Any, calls: Sequence[str] | None) -> Mapping[str, Any] | None:
  """The section sampling.control of the flags, which takes the place of the config's."""
  if not calls:
    return settings.sampling.control
  specs = [command.read_call(call, "control") for call in calls]
  spec = specs[0] if len(specs) == 1 else {"fn": "chained", "controls": specs}
  fields.check_function(fields.CONTROL, spec, "control")
  return spec


def _whole(values: Sequence[Any], flag: str) -> list[int]:
  try:
    return [int(value) for value in values]
  except ValueError:
    raise ValueError(f"{flag} must be whole numbers, got {','.join(map(str, values))}.") from None


def _numbers(values: Sequence[Any], flag: str) -> list[float]:
  try:
    found = [float(value) for value in values]
  except ValueError:
    found = [math.nan]
  if not all(math.isfinite(x) and x > 0 for x in found):
    raise ValueError(f"{flag} must be positive numbers, got {','.join(map(str, values))}.")
  return found


def with_model(settings: Any, folder: str) -> Any:
  """The settings with the model of a Hugging Face folder, and with its tokenizer unless the config
  names one that needs no files."""
  old = settings.built["policy"]
  kept = old if old["fn"] == "pretrained" else {}
  built = {**settings.built, "policy": {**kept, "fn": "pretrained", "path": folder}}
  if built.get("tokenizer", {}).get("fn") == "pretrained":
    del built["tokenizer"]
  return dataclasses.replace(settings, built=built)


def with_task(settings: Any, text: str) -> Any:
  """The settings with the task that the flag --task names in place of their evaluation sets."""
  if Path(text).suffix.removeprefix(".") in LAYOUTS:
    spec: dict[str, Any] = {"fn": "prompts", "path": text}
  else:
    spec = command.read_call(text, "task")
  fields.check_function(fields.EVAL_TASK, spec, "task")
  sets: dict[str, Any] = {"eval_task": spec, "eval_tasks": {}}
  if any(field.name == "eval_task" for field in dataclasses.fields(settings)):
    settings = dataclasses.replace(settings, **sets)
  else:
    settings = dataclasses.replace(settings, built={**settings.built, **sets})
  nothing = dict.fromkeys(evaluator.ASKED, ())
  return dataclasses.replace(settings, eval=dataclasses.replace(settings.eval, **nothing))


def at_strength(settings: Any, along: str, strength: float) -> Any:
  """The settings with a model on the line "A:B" through two Hugging Face folders."""
  first, _, second = along.partition(":")
  if not (first and second):
    raise ValueError(f"along must name two folders, as A:B, got {along!r}.")
  settings = with_model(settings, first)
  policy = settings.built["policy"] | {"fn": "between", "toward": second, "strength": strength}
  return dataclasses.replace(settings, built={**settings.built, "policy": policy})


def read_strengths(given: Any) -> list[float]:
  if given.workdir is not None or given.model is not None:
    raise ValueError("--along needs --config, and neither --workdir nor --model.")
  try:
    strengths = [float(strength) for strength in given.strengths]
  except ValueError:
    raise ValueError(f"strengths must be numbers, got {','.join(given.strengths)}.") from None
  if not strengths or not all(map(math.isfinite, strengths)):
    raise ValueError(f"strengths must be finite numbers, got {strengths}.")
  return sorted(set(strengths))
