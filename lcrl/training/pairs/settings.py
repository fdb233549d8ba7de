"""The sections of a config with run="preference" or "sft"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lcrl import values
from lcrl.training.pairs.losses import named_loss
from lcrl.training.sections import (
  AUTO,
  Checkpoint,
  Coefficient,
  Effort,
  Log,
  Lora,
  Mesh,
  Pack,
  Sampling,
  Seed,
  Steps,
  Temperature,
  Verify,
  check_sampling,
  check_sections,
  section,
)
from lcrl.values import Count, Whole

FIELDS = (
  ("data", "rows", Mapping[str, Any]),
  ("data", "window", Count),
  ("batches", "size", Count),
)
NAMED = ("loss", "data", "batches", "policy", "optimizer")  # sections whose fn names what to build
OPTIONAL = ("weights", "reference", "lora", "tokenizer", "task", "eval_task", "eval_tasks")


@dataclasses.dataclass(frozen=True)
class Train:
  steps: Steps  # of training
  max_tokens: Count  # of the policy's own answers in evaluations, at most
  max_prompt_tokens: Count = 1024  # of their prompts
  prompts: Count = 32  # that are answered at a time
  micro_batches: Count = 1  # pieces of a batch that go through the model one after the other
  pack: Pack = AUTO  # tokens of a packed row, of several answers; None: a row an answer
  balance: Coefficient = 0.0  # of the load-balance loss of a policy with experts
  strengths: bool = False  # adapters act on an answer as much as its score says (CoT-Valve)


@dataclasses.dataclass(frozen=True)
class Evaluate:
  every: Whole = 0  # steps; 0: before the first and after the last only
  pairs: Count = 256  # held out, at most
  prompts: Count = 64  # that the policy answers itself, and of a task
  samples: Count = 1  # answers to each
  temperature: Temperature | None = None  # 0: the most likely token; None: that of `sampling`
  targets: tuple[Count, ...] = ()  # tokens that prompts of the task ask for; (): the cap
  levels: tuple[Whole, ...] = ()  # templates that they show, one for each target if both are given
  efforts: tuple[Effort, ...] = ()  # that they ask for, of a budget with efforts


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
    """The section, if any, as evaluations ask for it."""
    return self.built.get("eval_task")

  @property
  def eval_tasks(self) -> dict[str, Any]:
    return self.built.get("eval_tasks") or {}


def read(config: Mapping[str, Any]) -> Settings:
  """Raises ValueError for a missing, unknown or unread section, or a value out of range."""
  known = {*NAMED, *OPTIONAL, *SECTIONS, "seed", "run"}
  config = check_sections(config, known, {*NAMED, "train", "mesh", "seed"})
  if "task" not in config and (idle := {"verify", "eval_task", "eval_tasks"} & config.keys()):
    raise ValueError(f"nothing reads the section {sorted(idle)[0]}: the config has no task.")
  settings = Settings(
    run=config["run"],
    seed=values.check(config["seed"], Seed, "seed"),
    built={name: config[name] for name in (*NAMED, *OPTIONAL) if name in config and name != "lora"},
    lora=section(Lora, config["lora"], "lora") if "lora" in config else None,
    **{name: section(cls, config.get(name, {}), name) for name, cls in SECTIONS.items()},
  )
  _check(settings)
  return settings


def _check(s: Settings) -> None:
  check(s)
  if s.train.strengths:
    _check_strengths(s)
  check_sampling(s.sampling)


def _check_strengths(s: Settings) -> None:
  for fits, needs in (
    (s.run == "sft", "run='sft'"),
    (s.lora is not None, "a section lora"),
    (s.train.pack is None, "train.pack=None"),
  ):
    if not fits:
      raise ValueError(f"train.strengths needs {needs}.")


def check(s: Any) -> None:
  """What every run that learns from a data set of answers asks of its config."""
  named_loss(s.run, s.built)
  for name, field, hint in FIELDS:
    spec = values.check(s.built[name], Mapping[str, Any], name)
    if field not in spec:
      raise ValueError(f"the config lacks {name}.{field}.")
    values.check(spec[field], hint, f"{name}.{field}")
  window = s.built["data"]["window"]
  if isinstance(s.train.pack, int) and s.train.pack < window:
    raise ValueError(
      f"train.pack must hold a whole answer, data.window = {window}, got {s.train.pack}."
    )
