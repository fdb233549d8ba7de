"""Config sections that several kinds of run share. An unknown field is an error that names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from lcrl.mesh import AXES
from lcrl.policies.cache import ONE_BYTE_DTYPES
from lcrl.policies.decoding import KERNELS
from lcrl.values import Count, Whole, Within, check, hints, nearest

T = TypeVar("T")

Seed = Annotated[int, Within(0, 2**32 - 1)]
Steps = Annotated[int, Within(1, 10_000_000)]
Axis = Annotated[int, Within(-1)]
AUTO: Literal["auto"] = "auto"  # `lcrl.training.automatic` chooses by the devices of the run
Pack = Count | Literal["auto"] | None
HeadRemat = bool | Literal["auto"]
FLOATS = ("bfloat16", "float16", "float32", "float64")


Gib = Annotated[float, Within(1e-6)]


@dataclasses.dataclass(frozen=True)
class Sampling:
  temperature: float = 1.0  # 1: as the policy says
  control: Mapping[str, Any] | None = None  # what else shapes sampling (`lcrl.sampling.choices`)
  stop_texts: tuple[str, ...] = ()  # end an answer, wherever tokens have their borders; they stay
  stop_tokens: tuple[int | str, ...] = ()  # end an answer, besides those of the tokenizer
  count_forced: bool = False  # lengths count the tokens that a control forces
  slots: Count | None = None  # rows that decode at once on a data shard; None: all
  cache_gib: Gib | None = None  # of a device, for keys of slots; None: for slots of full length
  dtype: str | None = None  # of the sampler's copy of the parameters; None: the policy's
  cache_dtype: str | None = None  # of keys and values, in `cache.ONE_BYTE_DTYPES`; None: own
  decoding: str | None = None  # in `lcrl.policies.decoding.KERNELS`; None: the fastest here


@dataclasses.dataclass(frozen=True)
class Verify:
  workers: Annotated[int, Within(1, 1024)] = 2  # processes that judge answers
  deadline: Annotated[float, Within(1e-3, 86_400)] = 10.0  # seconds an answer
  memory: Annotated[int, Within(1, 1 << 62)] = 2 << 30  # bytes a worker


Temperature = Annotated[float, Within(0)]
Coefficient = Annotated[float, Within(0)]
Effort = Annotated[float, Within(1e-6)]


@dataclasses.dataclass(frozen=True)
class Evaluate:
  every: Whole = 0  # steps; 0: before the first and after the last only
  prompts: Count = 128  # of eval_task, from the first on
  samples: Count = 1  # answers to each
  temperature: Temperature | None = None  # 0: the most likely token; None: that of `sampling`
  targets: tuple[Count, ...] = ()  # tokens that prompts of eval_task ask for; (): the cap
  levels: tuple[Whole, ...] = ()  # templates that they show, one for each target if both are given
  efforts: tuple[Effort, ...] = ()  # that they ask for, of a budget with efforts


@dataclasses.dataclass(frozen=True)
class EvalSet:
  """The fields of `eval_task`, and of each section of `eval_tasks`, beside those of the task."""

  same: bool = False  # its prompts may be training prompts; without fn: it takes those of `task`
  prompts: Count | None = None  # from the first on; None: eval.prompts
  samples: Count | None = None  # answers to each; None: eval.samples
  max_tokens: Count | None = None  # of an answer; None: train.max_tokens
  targets: tuple[Count, ...] | None = None  # None: eval.targets in eval_task, () elsewhere
  levels: tuple[Whole, ...] | None = None  # None: eval.levels in eval_task, () elsewhere
  efforts: tuple[Effort, ...] | None = None  # None: eval.efforts in eval_task, () elsewhere


Logger = Literal["tensorboard", "wandb", "trackio"]
Target = Literal["query", "key", "value", "out", "gate", "up", "down"]


@dataclasses.dataclass(frozen=True)
class Lora:
  """Adapters instead of the whole model: `lcrl.policies.lora`."""

  rank: Count  # of the two factors of a matrix's change
  alpha: float  # the change is scaled by alpha / rank
  targets: tuple[Target, ...] = ("query", "key", "value", "out", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  every: Count = 50  # steps
  keep: Count = 2  # the newest so many


@dataclasses.dataclass(frozen=True)
class Mesh:
  data: Axis = 1  # devices along which rows are split
  fsdp: Axis = -1  # along which rows and parameters are split; -1: what the other axes leave
  tensor: Axis = 1  # along which matrices of a layer are split
  sequence: Axis = 1  # that share the tokens of each packed row, and parameters as fsdp does
  devices: Whole = 0  # of those here, the first so many; 0: all

  @property
  def axes(self) -> dict[str, int]:
    """What `make_mesh` takes."""
    return {name: getattr(self, name) for name in AXES}


@dataclasses.dataclass(frozen=True)
class Log:
  samples: Whole = 4  # rollouts a step that samples.jsonl shows, in whole groups
  to: tuple[Logger, ...] = ("tensorboard",)  # beside metrics.jsonl; wandb and trackio if installed
  project: str = "lcrl"  # at a tracker
  name: str | None = None  # of the run at a tracker; None: that of the workdir

  @property
  def trackers(self) -> list[str]:
    """Those of `to` that are trackers of experiments (`lcrl.training.trackers`)."""
    return [name for name in self.to if name != "tensorboard"]


def has_fn(spec: Any, function: str) -> bool:
  """Whether a section's `fn` names this function.

  >>> has_fn({"fn": "fixed", "target": 8}, "fixed"), has_fn(8, "fixed")
  (True, False)
  """
  return isinstance(spec, Mapping) and spec.get("fn") == function


def check_sections(
  config: Mapping[str, Any], known: set[str], required: set[str]
) -> dict[str, Any]:
  """The sections that are present; None leaves one out.

  Raises:
    ValueError: nothing reads a section, or one is missing.
  """
  if unknown := sorted(map(str, config.keys() - known)):
    raise ValueError(
      f"unknown config section {unknown}; there are {sorted(known)}"
      f"{nearest(unknown[0], known) or '.'}"
    )
  present = {name: section for name, section in config.items() if section is not None}
  if missing := required - present.keys():
    raise ValueError(f"the config has no section {sorted(missing)}.")
  return present


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


def eval_set(spec: Mapping[str, Any], name: str) -> EvalSet:
  """The fields of an evaluation section that are not the task's."""
  return section(EvalSet, {k: v for k, v in spec.items() if k in hints(EvalSet)}, name)


def task_of(spec: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of a section that are the task's own."""
  others = {"long", "test_share", *hints(EvalSet)}
  return {name: value for name, value in spec.items() if name not in others}


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
