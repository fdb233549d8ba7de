"""The sections of a config with run="rl"."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from lcrl.losses import policy as losses
from lcrl.registry import resolve
from lcrl.training.distill.table import Teachers, table_of
from lcrl.training.sections import (
  AUTO,
  Checkpoint,
  Coefficient,
  Evaluate,
  HeadRemat,
  Log,
  Lora,
  Mesh,
  Pack,
  Sampling,
  Seed,
  Steps,
  Verify,
  check_sampling,
  check_sections,
  has_fn,
  section,
)
from lcrl.values import Count, Whole, Within, check

Window = Annotated[int, Within(0, 10_000)]
SLOTS = ("budget", "reward", "filter", "advantage", "loss", "weights")
BUILT = ("policy", "tokenizer", "task", "optimizer")  # sections whose fn names what to build


@dataclasses.dataclass(frozen=True)
class Train:
  steps: Steps  # of training
  prompts: Count  # B, groups a step
  group_size: Count  # G
  max_tokens: Count  # of a response, at most
  max_prompt_tokens: Count = 1024  # of a prompt and its forced prefix, at most
  micro_batches: Count = 1  # pieces that go through the model one after the other
  pack: Pack = AUTO  # tokens of a packed row, of several rollouts; None: a row a rollout
  micro_tokens: Count | None = None  # on a device at a time, in packed rows; None: micro_batches
  head_remat: HeadRemat = AUTO  # False: 2 bytes a token and vocabulary entry stay, a product less
  balance: Coefficient = 0.0  # of the load-balance loss of a policy with experts
  updates: Count = 1  # optimizer steps a batch, each on its own part of it
  max_rounds: Count = 1  # of sampling, to replace groups that the filter drops
  window: Window = 0  # steps whose pass rates say how many prompts a round takes; 0: `prompts`
  steps_ahead: int = 0  # 1: what a step trains on was sampled during the step before


@dataclasses.dataclass(frozen=True)
class RlSampling(Sampling):
  """With train.steps_ahead, some devices may sample while the others train."""

  devices: Whole = 0  # that sample and do not train; 0: all do both
  replay: bool = False  # the update takes the experts that the sampler chose (R3)


@dataclasses.dataclass(frozen=True)
class Monitor:
  every: Whole = 0  # steps; 0: never
  prompts: Count = 64  # that stages observe, from the first on


SECTIONS = {
  "train": Train,
  "sampling": RlSampling,
  "verify": Verify,
  "eval": Evaluate,
  "monitor": Monitor,
  "checkpoint": Checkpoint,
  "mesh": Mesh,
  "log": Log,
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """A whole config, read. `slots` and `built` are as they stand in it."""

  run: str
  seed: int
  slots: dict[str, Any]  # and "then", what takes their place later
  built: dict[str, Any]
  eval_task: dict[str, Any] | None  # None: the share of `task` that is held out
  eval_tasks: dict[str, Any]  # name -> a further set of prompts
  revise: dict[str, Any] | None  # what the host does to rollouts; None: nothing
  learned: dict[str, Any]  # signal -> the reward model that gives it
  teachers: Teachers | None  # of the loss's term `distill`
  lora: Lora | None  # None: all parameters are trained
  train: Train
  sampling: RlSampling
  verify: Verify
  eval: Evaluate
  monitor: Monitor
  checkpoint: Checkpoint
  mesh: Mesh
  log: Log


def read(config: Mapping[str, Any]) -> Settings:
  """Raises ValueError for a missing or unknown section, field, or a value out of range."""
  optional = {
    "tokenizer",
    "eval_task",
    "eval_tasks",
    "revise",
    "learned",
    "teachers",
    "lora",
    "then",
    "run",
    "verify",
    "eval",
    "monitor",
    "checkpoint",
    "log",
  }
  known = {
    *SLOTS,
    *BUILT,
    *SECTIONS,
    "seed",
    "run",
    "eval_task",
    "eval_tasks",
    "revise",
    "learned",
    "teachers",
    "lora",
    "then",
  }
  config = check_sections(config, known, known - optional)
  run = config.get("run", "rl")
  if run != "rl":
    raise ValueError(f"run={run!r} is not one of rl.")
  settings = Settings(
    run=run,
    seed=check(config["seed"], Seed, "seed"),
    slots={name: config[name] for name in (*SLOTS, "then") if name in config},
    built={name: config[name] for name in BUILT if name in config},
    eval_task=config.get("eval_task"),
    eval_tasks=config.get("eval_tasks") or {},
    revise=config.get("revise"),
    lora=section(Lora, config["lora"], "lora") if "lora" in config else None,
    teachers=section(Teachers, config["teachers"], "teachers") if "teachers" in config else None,
    learned=check(config.get("learned", {}), Mapping[str, Mapping[str, Any]], "learned"),
    **{name: section(cls, config.get(name, {}), name) for name, cls in SECTIONS.items()},
  )
  _check(settings)
  if settings.train.steps_ahead:
    return dataclasses.replace(settings, slots=corrected(settings.slots))
  return settings


def _check(s: Settings) -> None:
  check(s.slots.get("then"), Sequence[Any] | None, "then")
  if s.teachers is not None:
    table_of(s.teachers)
  if s.train.steps_ahead not in (0, 1):
    raise ValueError(f"train.steps_ahead must be 0 or 1, got {s.train.steps_ahead}.")
  if s.sampling.devices < 0 or (s.sampling.devices and not s.train.steps_ahead):
    raise ValueError(
      f"sampling.devices must be 0 unless train.steps_ahead=1, got {s.sampling.devices}: without "
      "it nobody trains while they sample."
    )
  if s.sampling.devices and s.learned:
    raise ValueError("learned rewards use every device: sampling.devices must be 0 with them.")
  for i, phase in enumerate(s.slots.get("then") or ()):
    check(phase, Mapping[str, Any], f"then[{i}]")
    at = check(phase.get("at", 0), int, f"then[{i}].at")
    if at >= s.train.steps:
      raise ValueError(f"then[{i}].at must be below train.steps={s.train.steps}, got {at}.")
  longest = s.train.max_prompt_tokens + s.train.max_tokens
  if isinstance(s.train.pack, int) and s.train.pack < longest:
    raise ValueError(
      "train.pack must hold a whole rollout, train.max_prompt_tokens + train.max_tokens = "
      f"{longest} tokens, got {s.train.pack}."
    )
  _check_micro_tokens(s.train, longest)
  if has_fn(s.slots["budget"], "first_only") and not has_fn(s.revise, "serial_exits"):
    raise ValueError('budget.fn="first_only" needs revise.fn="serial_exits".')
  check_sampling(s.sampling)


def _check_micro_tokens(train: Train, longest: int) -> None:
  """Raises ValueError unless pieces of train.micro_tokens are whole packed rows."""
  size = train.micro_tokens
  if size is None:
    return
  if train.micro_batches > 1:
    raise ValueError(
      f"train.micro_tokens={size} cuts a batch by tokens: train.micro_batches must be 1 with it, "
      f"got {train.micro_batches}."
    )
  if size < longest:
    raise ValueError(
      "train.micro_tokens must hold a whole rollout, train.max_prompt_tokens + train.max_tokens = "
      f"{longest} tokens, got {size}."
    )
  if train.pack is None:
    raise ValueError(
      f"train.micro_tokens={size} counts tokens of packed rows: set train.pack, to at least "
      f"{longest} tokens."
    )
  if isinstance(train.pack, int) and size % train.pack:
    raise ValueError(
      f"train.micro_tokens must be a multiple of train.pack={train.pack}, got {size}."
    )


CORRECTION = {"fn": "truncated", "high": 2.0}


def corrected(slots: Mapping[str, Any]) -> dict[str, Any]:
  """The sections of a recipe with a correction in every loss: its own, else weights cut at 2.

  >>> corrected({"loss": {"fn": "cispo", "upper": 3.0}})["loss"]["correction"]
  {'fn': 'truncated', 'high': 2.0}

  Raises:
    ValueError: a loss takes none.
  """
  found = {**slots, "loss": _corrected(slots["loss"], "loss")}
  if slots.get("then"):
    found["then"] = [
      {**phase, "loss": _corrected(phase["loss"], f"then[{i}].loss")} if "loss" in phase else phase
      for i, phase in enumerate(slots["then"])
    ]
  return found


def _corrected(loss: Mapping[str, Any], field: str) -> dict[str, Any]:
  takes = inspect.signature(resolve(losses, loss, field=field).func).parameters  # type: ignore[attr-defined]
  if "base" in takes and "base" in loss:
    return {**loss, "base": _corrected(loss["base"], f"{field}.base")}
  if "correction" not in takes:
    raise ValueError(
      f"train.steps_ahead=1 trains on rollouts of an older policy, and {field}.fn={loss['fn']!r} "
      "takes no correction for that."
    )
  return {**loss, "correction": loss.get("correction") or CORRECTION}
