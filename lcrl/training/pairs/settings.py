"""The sections of a config with run="preference" or "sft"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lcrl.training.pairs.losses import named_loss
from lcrl.training.settings import (
  Checkpoint,
  Log,
  Mesh,
  Sampling,
  Verify,
  check_eval_temperature,
  section,
)

NAMED = ("loss", "data", "batches", "policy", "optimizer")  # sections whose fn names what to build
MAY_BE_ZERO = (("eval", "every"), ("eval", "temperature"))
OPTIONAL = ("weights", "reference", "lora", "tokenizer", "task", "eval_task")


@dataclasses.dataclass(frozen=True)
class Train:
  steps: int
  max_tokens: int  # of the policy's own answers in evaluations, at most
  max_prompt_tokens: int = 1024  # of their prompts
  prompts: int = 32  # that are answered at a time
  micro_batches: int = 1  # pieces of a batch that go through the model one after the other
  pack: int | None = None  # tokens of a packed row, of several answers; None: a row an answer


@dataclasses.dataclass(frozen=True)
class Evaluate:
  every: int = 0  # steps; 0: before the first and after the last only
  pairs: int = 256  # held out, at most
  prompts: int = 64  # that the policy answers itself, and of a task
  samples: int = 1  # answers to each
  temperature: float | None = None  # 0: the most likely token; None: that of `sampling`


@dataclasses.dataclass(frozen=True)
class Lora:
  """Adapters instead of the whole model: `lcrl.policies.lora`."""

  rank: int
  alpha: float
  targets: tuple[str, ...] = ("query", "key", "value", "out", "gate", "up", "down")


SECTIONS = {
  "train": Train,
  "sampling": Sampling,
  "verify": Verify,
  "eval": Evaluate,
  "checkpoint": Checkpoint,
  "mesh": Mesh,
  "log": Log,
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """A whole config, read. `built` holds the sections whose fn names what to build."""

  run: str
  seed: int
  built: dict[str, Any]
  lora: Lora | None
  train: Train
  sampling: Sampling
  verify: Verify
  eval: Evaluate
  checkpoint: Checkpoint
  mesh: Mesh
  log: Log

  @property
  def eval_task(self) -> dict[str, Any] | None:
    """As `playing.judging` asks for it."""
    return self.built.get("eval_task")


def read(config: Mapping[str, Any]) -> Settings:
  """Raises ValueError for a missing, unknown or unread section, or a value out of range."""
  known = {*NAMED, *OPTIONAL, *SECTIONS, "seed", "run"}
  if unknown := config.keys() - known:
    raise ValueError(f"unknown config section {sorted(unknown)}; there are {sorted(known)}.")
  if missing := {*NAMED, "train", "mesh", "seed"} - config.keys():
    raise ValueError(f"the config has no section {sorted(missing)}.")
  if "task" not in config and (idle := {"verify", "eval_task"} & config.keys()):
    raise ValueError(f"nothing reads the section {sorted(idle)[0]}: the config has no task.")
  settings = Settings(
    run=config["run"],
    seed=int(config["seed"]),
    built={name: config[name] for name in (*NAMED, *OPTIONAL) if name in config and name != "lora"},
    lora=section(Lora, config["lora"], "lora") if "lora" in config else None,
    **{name: section(cls, config.get(name, {}), name) for name, cls in SECTIONS.items()},
  )
  _check(settings)
  return settings


def _check(s: Settings) -> None:
  check(s)
  check_eval_temperature(s.eval.temperature)
  if s.sampling.temperature <= 0:
    raise ValueError(f"sampling.temperature must be above 0, got {s.sampling.temperature}.")


def check(s: Any) -> None:
  """What every run that learns from a data set of answers asks of its config."""
  named_loss(s.run, s.built)
  for name in ("train", "eval", "checkpoint"):
    for field, value in dataclasses.asdict(getattr(s, name)).items():
      if value is not None and value < 1 and (name, field) not in MAY_BE_ZERO:
        raise ValueError(f"{name}.{field} must be at least 1, got {value}.")
  for name, field in (("data", "rows"), ("data", "window"), ("batches", "size")):
    if field not in s.built[name]:
      raise ValueError(f"the config lacks {name}.{field}.")
  window = s.built["data"]["window"]
  if s.train.pack is not None and s.train.pack < window:
    raise ValueError(
      f"train.pack must hold a whole answer, data.window = {window}, got {s.train.pack}."
    )
