"""The fields that each section of a config may have, by kind of run: those of a dataclass, or a
function of a module and its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Annotated, Any, Literal, NamedTuple

import optax

from lcrl import advantages, budgets, filters, rewards, tasks, values
from lcrl.data import batches, pair_builders, readers, sources, tokenizers
from lcrl.losses import policy as losses
from lcrl.losses import weights
from lcrl.policies import sources as policies
from lcrl.policies.hf import Source
from lcrl.registry import annotated, check, find, hints_of, is_spec
from lcrl.sampling import choices
from lcrl.tasks.task import Task
from lcrl.training import optimizers
from lcrl.training.distill import teachers
from lcrl.training.distill.table import Teachers, table_of
from lcrl.training.iterative import reference_policy
from lcrl.training.iterative import settings as iterative
from lcrl.training.pairs import references
from lcrl.training.pairs import settings as on_pairs
from lcrl.training.pairs.losses import LOSSES
from lcrl.training.reward_model import settings as reward_model
from lcrl.training.rl import revise, settings
from lcrl.training.sections import EvalSet, Lora, eval_set, task_of
from lcrl.types import Stage
from lcrl.values import Within, hints


class Named(NamedTuple):
  """A section whose `fn` names a function."""

  module: ModuleType
  gives: Any = None  # the type that the function returns
  run: tuple[str, ...] = ()  # arguments that come from the run, not from the config
  more: Mapping[str, Any] = MappingProxyType({})  # fields beside those of the function, and types


Section = type | Named
LONG = {"long": Literal["error", "skip"]}
TASK = Named(tasks, Task, more=LONG | {"test_share": Annotated[float, Within(0, 0.99)]})
EVAL_TASK = Named(tasks, Task, more=LONG | hints(EvalSet))
BATCHES = ("encoded", "window", "pad_id", "seed", "shards", "pieces")
SHARED: dict[str, Section] = {
  "policy": Named(policies, Source),
  "tokenizer": Named(tokenizers),
  "optimizer": Named(optimizers, optax.GradientTransformation),
  "weights": Named(weights, run=("mask", "keep")),
  "lora": Lora,
}
ACTING: dict[str, Section] = SHARED | {"task": TASK, "eval_task": EVAL_TASK}
LEARNING: dict[str, Section] = SHARED | {
  "data": Named(sources, "Split", run=("tokenizer",)),
  "batches": Named(batches, run=BATCHES),
  "reference": Named(references),
}
ON_PAIRS: dict[str, Section] = {**ACTING, **LEARNING, **on_pairs.SECTIONS, "task": EVAL_TASK}
DISTILL: dict[str, Section] = {
  **ACTING,
  "budget": Named(budgets, Stage),
  "loss": Named(losses, Stage),
  "revise": Named(revise, revise.Revision),
  "teachers": Teachers,
  **settings.SECTIONS,
}
SECTIONS: dict[str, dict[str, Section]] = {
  "rl": {
    **DISTILL,
    "reward": Named(rewards, Stage),
    "filter": Named(filters, Stage),
    "advantage": Named(advantages, Stage),
  },
  "distill": DISTILL,
  "iterative": {
    **ACTING,
    **LEARNING,
    "budget": Named(budgets, Stage),
    "reward": Named(rewards, Stage),
    "pairing": Named(pair_builders, run=("samples",)),
    "teacher": Named(readers),
    "reference": Named(reference_policy),
    "refine": iterative.Refine,
    "loss": Named(LOSSES["preference"], Stage),
    **iterative.SECTIONS,
  },
  "preference": {**ON_PAIRS, "loss": Named(LOSSES["preference"], Stage)},
  "sft": {**ON_PAIRS, "loss": Named(LOSSES["sft"], Stage)},
  "reward_model": {
    **LEARNING,
    "loss": Named(LOSSES["reward_model"], Stage),
    **reward_model.SECTIONS,
  },
}
del SECTIONS["iterative"]["data"]
CONTROL = Named(choices)
PHASES = ("budget", "reward", "filter", "advantage", "loss")  # what `then` may replace


def section(run: str, path: tuple[str, ...]) -> Section | None:
  """The section at a dotted path; None if the path is no section, such as that of a field."""
  if path == ("sampling", "control"):
    return CONTROL
  if len(path) == 3 and path[0] == "then":
    path = path[2:]
  if len(path) == 2 and path[0] == "eval_tasks":
    path = ("eval_task",)
  return SECTIONS.get(run, {}).get(path[0]) if len(path) == 1 else None


def check_functions(config: Mapping[str, Any]) -> None:
  """Raises ValueError, with the field, for a section whose fn is unknown or does not take its
  arguments. Builds nothing."""
  run = config.get("run", "rl")
  known = {name: x for name, x in SECTIONS[run].items() if isinstance(x, Named)}
  for name, named in known.items():
    if name != "eval_task" and config.get(name) is not None:
      check_function(named, config[name], name)
  _check_evaluations(config.get("eval_task"), config.get("eval_tasks"))
  if (control := (config.get("sampling") or {}).get("control")) is not None:
    check_function(CONTROL, control, "sampling.control")
  if (given := config.get("teachers")) is not None:
    table = table_of(Teachers(**given))
    for spec, place in zip(table.models, table.places, strict=True):
      if not isinstance(spec, str):
        check_function(Named(teachers, Source), spec, place)
  for i, phase in enumerate(config.get("then") or ()):
    for name in phase.keys() & known.keys() & {*PHASES}:
      check_function(known[name], phase[name], f"then[{i}].{name}")


def _check_evaluations(main: Any, further: Any) -> None:
  """The sections eval_task, which may name no task of its own, and eval_tasks."""
  if main is not None:
    values.check(main, Mapping[str, Any], "eval_task")
    if task_of(main):
      check_function(EVAL_TASK, main, "eval_task")
    else:
      eval_set(main, "eval_task")
  if further is not None:
    for name, spec in values.check(further, Mapping[str, Any], "eval_tasks").items():
      check_function(EVAL_TASK, spec, f"eval_tasks.{name}")


def check_function(named: Named, spec: Any, field: str) -> None:
  """Raises ValueError for a section that does not name a function with arguments that it takes."""
  if isinstance(spec, Mapping):
    for name in spec.keys() & named.more.keys():
      values.check(spec[name], named.more[name], f"{field}.{name}")
    for name in spec.keys() & {*named.run}:
      raise ValueError(f"{field}.{name} comes from the run, not from the config.")
    spec = {name: value for name, value in spec.items() if name not in named.more}
  check(named.module, spec, field=field, gives=named.gives, whole=not named.run)


def hint(config: Mapping[str, Any], path: tuple[str, ...]) -> Any:
  """The type of the field at a dotted path of a config; Any if it is unknown."""
  run = config.get("run", "rl")
  for split in range(len(path) - 1, 0, -1):
    part = section(run, path[:split])
    if isinstance(part, type):
      return hints(part).get(path[split], Any) if len(path) == split + 1 else Any
    if part is not None:
      return _argument(part, _at(config, path[:split]), path[:split], path[split:])
  return settings.Seed if path == ("seed",) else Any


def _argument(named: Named, spec: Any, at: tuple[str, ...], rest: tuple[str, ...]) -> Any:
  """The type of an argument of the function that `spec` names, or of a function nested in it."""
  if rest[0] == "fn" and len(rest) == 1:
    return str
  if rest[0] in named.more:
    return named.more[rest[0]]
  if not is_spec(spec):
    return Any
  function = find(named.module, spec, field=".".join(at), gives=named.gives)
  if len(rest) == 1:
    return hints_of(function).get(rest[0], Any)
  within = Named(named.module, annotated(function, rest[0]))
  return _argument(within, _at(spec, rest[:1]), (*at, rest[0]), rest[1:])


def _at(value: Any, path: tuple[str, ...]) -> Any:
  for key in path:
    if isinstance(value, list | tuple):
      value = value[int(key)] if key.isdigit() and int(key) < len(value) else None
    else:
      value = value.get(key) if isinstance(value, Mapping) else None
  return value
