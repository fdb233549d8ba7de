"""The sections of a config that the loop itself reads. Unknown fields are errors that name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

SLOTS = ("budget", "reward", "filter", "advantage", "loss", "weights")
BUILT = ("policy", "tokenizer", "task", "optimizer")  # sections whose fn names what to build


@dataclasses.dataclass(frozen=True)
class Train:
  steps: int
  prompts: int  # B, groups a step
  group_size: int  # G
  max_tokens: int  # of a response, at most
  max_prompt_tokens: int = 1024
  micro_batches: int = 1  # pieces that go through the model one after the other
  updates: int = 1  # optimizer steps a batch, each on its own part of it
  max_rounds: int = 1  # of sampling, to replace groups that the filter drops


@dataclasses.dataclass(frozen=True)
class Sampling:
  temperature: float = 1.0
  slots: int | None = None  # rows that decode at once; None: all
  dtype: str | None = None  # of the sampler's copy of the parameters; None: the policy's


@dataclasses.dataclass(frozen=True)
class Verify:
  workers: int = 2
  deadline: float = 10.0  # seconds an answer
  memory: int = 2 << 30  # bytes a worker


@dataclasses.dataclass(frozen=True)
class Evaluate:
  every: int = 0  # steps; 0: before the first and after the last only
  prompts: int = 128
  samples: int = 1


@dataclasses.dataclass(frozen=True)
class Monitor:
  every: int = 0  # steps; 0: never
  prompts: int = 64


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  every: int = 50  # steps
  keep: int = 2


@dataclasses.dataclass(frozen=True)
class Mesh:
  data: int = 1
  fsdp: int = -1
  tensor: int = 1
  sequence: int = 1


@dataclasses.dataclass(frozen=True)
class Log:
  samples: int = 4  # rollouts a step that samples.jsonl shows


SECTIONS = {
  "train": Train,
  "sampling": Sampling,
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
  slots: dict[str, Any]
  built: dict[str, Any]
  eval_task: dict[str, Any] | None  # None: the training task
  revise: dict[str, Any] | None  # what the host does to rollouts; None: nothing
  train: Train
  sampling: Sampling
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
    "revise",
    "run",
    "verify",
    "eval",
    "monitor",
    "checkpoint",
    "log",
  }
  known = {*SLOTS, *BUILT, *SECTIONS, "seed", "run", "eval_task", "revise"}
  if unknown := config.keys() - known:
    raise ValueError(f"unknown config section {sorted(unknown)}; there are {sorted(known)}.")
  if missing := known - optional - config.keys():
    raise ValueError(f"the config has no section {sorted(missing)}.")
  run = config.get("run", "rl")
  if run != "rl":
    raise ValueError(f"run={run!r} is not one of rl.")
  settings = Settings(
    run=run,
    seed=int(config["seed"]),
    slots={name: config[name] for name in SLOTS},
    built={name: config[name] for name in BUILT if name in config},
    eval_task=config.get("eval_task"),
    revise=config.get("revise"),
    **{name: section(cls, config.get(name, {}), name) for name, cls in SECTIONS.items()},
  )
  _check(settings)
  return settings


def section(cls: type[T], values: Mapping[str, Any], name: str) -> T:
  """`cls(**values)`, with errors that name the field of the config."""
  fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
  if unknown := values.keys() - fields.keys():
    raise ValueError(f"unknown config field {name}.{sorted(unknown)[0]}; there are {[*fields]}.")
  for field in fields.values():
    if field.default is dataclasses.MISSING and field.name not in values:
      raise ValueError(f"the config lacks {name}.{field.name}.")
  return cls(**values)


def _check(s: Settings) -> None:
  values = {f"train.{name}": value for name, value in dataclasses.asdict(s.train).items()}
  values |= {"checkpoint.every": s.checkpoint.every, "verify.workers": s.verify.workers}
  values |= {"eval.prompts": s.eval.prompts, "eval.samples": s.eval.samples}
  for name, value in values.items():
    if value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}.")
  if s.sampling.temperature <= 0:
    raise ValueError(f"sampling.temperature must be above 0, got {s.sampling.temperature}.")
