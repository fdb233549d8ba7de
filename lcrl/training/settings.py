"""The sections of a config that the loop itself reads. Unknown fields are errors that name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from lcrl.policies.cache import OF_A_BYTE
from lcrl.policies.decoding import ATTEND
from lcrl.training.corrected import corrected

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
  pack: int | None = None  # tokens of a packed row, of several rollouts; None: a row a rollout
  head_remat: bool = True  # False: 2 bytes a token and vocabulary entry stay, a product less
  updates: int = 1  # optimizer steps a batch, each on its own part of it
  max_rounds: int = 1  # of sampling, to replace groups that the filter drops
  window: int = 0  # steps whose pass rates say how many prompts a round takes; 0: `prompts` always
  steps_ahead: int = 0  # 1: what a step trains on was sampled during the step before


@dataclasses.dataclass(frozen=True)
class Sampling:
  temperature: float = 1.0
  control: Mapping[str, Any] | None = None  # what else shapes sampling (`lcrl.sampling.choices`)
  slots: int | None = None  # rows that decode at once; None: all
  dtype: str | None = None  # of the sampler's copy of the parameters; None: the policy's
  cache_dtype: str | None = None  # of its keys and values, in `policies.cache.OF_A_BYTE`; None: own
  decoding: str | None = None  # in `lcrl.policies.decoding.ATTEND`; None: the fastest here
  devices: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True)
class Sampler(Sampling):
  """With train.steps_ahead, some devices may sample while the others train."""

  devices: int = 0  # type: ignore[misc]  # that sample and do not train; 0: all do both


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
  samples: int = 4  # rollouts a step that samples.jsonl shows, in whole groups


SECTIONS = {
  "train": Train,
  "sampling": Sampler,
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
  eval_task: dict[str, Any] | None  # None: the training task
  revise: dict[str, Any] | None  # what the host does to rollouts; None: nothing
  learned: dict[str, Any]  # signal -> the reward model that gives it
  train: Train
  sampling: Sampler
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
    "learned",
    "then",
    "run",
    "verify",
    "eval",
    "monitor",
    "checkpoint",
    "log",
  }
  known = {*SLOTS, *BUILT, *SECTIONS, "seed", "run", "eval_task", "revise", "learned", "then"}
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
    slots={name: config[name] for name in (*SLOTS, "then") if name in config},
    built={name: config[name] for name in BUILT if name in config},
    eval_task=config.get("eval_task"),
    revise=config.get("revise"),
    learned=config.get("learned", {}),
    **{name: section(cls, config.get(name, {}), name) for name, cls in SECTIONS.items()},
  )
  _check(settings)
  if settings.train.steps_ahead:
    return dataclasses.replace(settings, slots=corrected(settings.slots))
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
  for name in ("window", "steps_ahead", "head_remat"):
    del values[f"train.{name}"]
  values |= {"checkpoint.every": s.checkpoint.every, "verify.workers": s.verify.workers}
  values |= {"eval.prompts": s.eval.prompts, "eval.samples": s.eval.samples}
  for name, value in values.items():
    if value is not None and value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}.")
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
    if phase.get("at", 0) >= s.train.steps:
      raise ValueError(
        f"then[{i}].at must be below train.steps={s.train.steps}, got {phase['at']}."
      )
  longest = s.train.max_prompt_tokens + s.train.max_tokens
  if s.train.pack is not None and s.train.pack < longest:
    raise ValueError(
      "train.pack must hold a whole rollout, train.max_prompt_tokens + train.max_tokens = "
      f"{longest} tokens, got {s.train.pack}."
    )
  if s.sampling.temperature <= 0:
    raise ValueError(f"sampling.temperature must be above 0, got {s.sampling.temperature}.")
  known: dict[str, Any] = {"cache_dtype": OF_A_BYTE, "decoding": ATTEND}
  for name, values in known.items():
    value = getattr(s.sampling, name)
    if value is not None and value not in values:
      raise ValueError(f"sampling.{name}={value!r} is not one of {', '.join(values)}.")
