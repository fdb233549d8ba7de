"""The sections of a config that the loop itself reads. Unknown fields are errors that name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

from lcrl.mesh import AXES
from lcrl.policies.cache import ONE_BYTE_DTYPES
from lcrl.policies.decoding import KERNELS
from lcrl.training.rl.corrected import corrected
from lcrl.values import Count, Whole, Within, check, hints, nearest

T = TypeVar("T")

Seed = Annotated[int, Within(0, 2**32 - 1)]
Steps = Annotated[int, Within(1, 10_000_000)]
Window = Annotated[int, Within(0, 10_000)]
Axis = Annotated[int, Within(-1)]
FLOATS = ("bfloat16", "float16", "float32", "float64")
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
  pack: Count | None = None  # tokens of a packed row, of several rollouts; None: a row a rollout
  head_remat: bool = True  # False: 2 bytes a token and vocabulary entry stay, a product less
  updates: Count = 1  # optimizer steps a batch, each on its own part of it
  max_rounds: Count = 1  # of sampling, to replace groups that the filter drops
  window: Window = 0  # steps whose pass rates say how many prompts a round takes; 0: `prompts`
  steps_ahead: int = 0  # 1: what a step trains on was sampled during the step before


@dataclasses.dataclass(frozen=True)
class Sampling:
  temperature: float = 1.0  # 1: as the policy says
  control: Mapping[str, Any] | None = None  # what else shapes sampling (`lcrl.sampling.choices`)
  slots: Count | None = None  # rows that decode at once; None: all
  dtype: str | None = None  # of the sampler's copy of the parameters; None: the policy's
  cache_dtype: str | None = None  # of keys and values, in `cache.ONE_BYTE_DTYPES`; None: own
  decoding: str | None = None  # in `lcrl.policies.decoding.KERNELS`; None: the fastest here
  devices: ClassVar[int] = 0


@dataclasses.dataclass(frozen=True)
class Sampler(Sampling):
  """With train.steps_ahead, some devices may sample while the others train."""

  devices: Whole = 0  # type: ignore[misc]  # that sample and do not train; 0: all do both


@dataclasses.dataclass(frozen=True)
class Verify:
  workers: Annotated[int, Within(1, 1024)] = 2  # processes that judge answers
  deadline: Annotated[float, Within(1e-3, 86_400)] = 10.0  # seconds an answer
  memory: Annotated[int, Within(1, 1 << 62)] = 2 << 30  # bytes a worker


Temperature = Annotated[float, Within(0)]


@dataclasses.dataclass(frozen=True)
class Evaluate:
  every: Whole = 0  # steps; 0: before the first and after the last only
  prompts: Count = 128  # of eval_task, from the first on
  samples: Count = 1  # answers to each
  temperature: Temperature | None = None  # 0: the most likely token; None: that of `sampling`


@dataclasses.dataclass(frozen=True)
class Monitor:
  every: Whole = 0  # steps; 0: never
  prompts: Count = 64  # that stages observe, from the first on


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  every: Count = 50  # steps
  keep: Count = 2  # the newest so many


@dataclasses.dataclass(frozen=True)
class Mesh:
  data: Axis = 1  # devices along which rows are split
  fsdp: Axis = -1  # along which rows and parameters are split; -1: what the other axes leave
  tensor: Axis = 1  # along which matrices of a layer are split
  sequence: Axis = 1
  devices: Whole = 0  # of those here, the first so many; 0: all

  @property
  def axes(self) -> dict[str, int]:
    """What `make_mesh` takes."""
    return {name: getattr(self, name) for name in AXES}


@dataclasses.dataclass(frozen=True)
class Log:
  samples: Whole = 4  # rollouts a step that samples.jsonl shows, in whole groups


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
    revise=config.get("revise"),
    learned=check(config.get("learned", {}), Mapping[str, Mapping[str, Any]], "learned"),
    **{name: section(cls, config.get(name, {}), name) for name, cls in SECTIONS.items()},
  )
  _check(settings)
  if settings.train.steps_ahead:
    return dataclasses.replace(settings, slots=corrected(settings.slots))
  return settings


def check_sections(
  config: Mapping[str, Any], known: set[str], required: set[str]
) -> dict[str, Any]:
  """The sections that are there: None leaves one out.

  Raises:
    ValueError: nothing reads a section, or one is missing.
  """
  if unknown := sorted(map(str, config.keys() - known)):
    raise ValueError(
      f"unknown config section {unknown}; there are {sorted(known)}"
      f"{nearest(unknown[0], known) or '.'}"
    )
  found = {name: section for name, section in config.items() if section is not None}
  if missing := required - found.keys():
    raise ValueError(f"the config has no section {sorted(missing)}.")
  return found


def section(cls: type[T], values: Mapping[str, Any], name: str) -> T:
  """`cls(**values)`, with errors that name the field of the config."""
  fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
  if not isinstance(values, Mapping):
    raise ValueError(f"{name} must be a section with fields {[*fields]}, got {values!r:.80}.")
  if unknown := sorted(map(str, values.keys() - fields.keys())):
    raise ValueError(
      f"unknown config field {name}.{unknown[0]}; there are {[*fields]}"
      f"{nearest(unknown[0], fields) or '.'}"
    )
  for field in fields.values():
    if field.default is dataclasses.MISSING and field.name not in values:
      raise ValueError(f"the config lacks {name}.{field.name}.")
  types = hints(cls)  # type: ignore[arg-type]
  for field_name, value in values.items():
    check(value, types[field_name], f"{name}.{field_name}")
  return cls(**values)


def _check(s: Settings) -> None:
  check(s.slots.get("then"), Sequence[Any] | None, "then")
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
  if s.train.pack is not None and s.train.pack < longest:
    raise ValueError(
      "train.pack must hold a whole rollout, train.max_prompt_tokens + train.max_tokens = "
      f"{longest} tokens, got {s.train.pack}."
    )
  check_sampling(s.sampling)


def check_sampling(s: Sampling) -> None:
  if s.temperature <= 0:
    raise ValueError(f"sampling.temperature must be above 0, got {s.temperature}.")
  known: dict[str, Any] = {"cache_dtype": ONE_BYTE_DTYPES, "decoding": KERNELS, "dtype": FLOATS}
  for name, values in known.items():
    value = getattr(s, name)
    if value is not None and value not in values:
      raise ValueError(
        f"sampling.{name}={value!r} is not one of {', '.join(values)}"
        f"{nearest(value, values) or '.'}"
      )
