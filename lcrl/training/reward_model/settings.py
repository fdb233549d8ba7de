"""The sections of a config with run="reward_model"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lcrl import values
from lcrl.training.pairs.losses import named_loss
from lcrl.training.pairs.settings import NAMED, check
from lcrl.training.reward_model.head import Embedding
from lcrl.training.sections import (
  AUTO,
  Checkpoint,
  Lora,
  Mesh,
  Pack,
  Seed,
  Steps,
  check_sections,
  section,
)
from lcrl.values import Count, Whole

OPTIONAL = ("lora", "tokenizer")


@dataclasses.dataclass(frozen=True)
class Train:
  steps: Steps  # of training
  micro_batches: Count = 1  # pieces of a batch that go through the model one after the other
  pack: Pack = AUTO  # tokens of a packed row, of several answers; None: a row an answer


@dataclasses.dataclass(frozen=True)
class Evaluate:
  every: Whole = 0  # steps; 0: before the first and after the last only
  pairs: Count = 256  # held out, at most; of single answers as many


SECTIONS = {
  "head": Embedding,
  "train": Train,
  "eval": Evaluate,
  "checkpoint": Checkpoint,
  "mesh": Mesh,
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """A parsed and validated config. `built` holds the sections with an `fn`."""

  run: str
  seed: int
  built: dict[str, Any]
  lora: Lora | None
  head: Embedding
  train: Train
  eval: Evaluate
  checkpoint: Checkpoint
  mesh: Mesh
  eval_task: None = None  # `built` has no task either: the model answers nothing


def read(config: Mapping[str, Any]) -> Settings:
  """Raises ValueError for a missing or unknown section, or a value out of range."""
  known = {*NAMED, *OPTIONAL, *SECTIONS, "seed", "run"}
  config = check_sections(config, known, {*NAMED, "train", "mesh", "seed"})
  sections: dict[str, Any] = {
    name: section(cls, config.get(name, {}), name) for name, cls in SECTIONS.items()
  }
  settings = Settings(
    run=config["run"],
    seed=values.check(config["seed"], Seed, "seed"),
    built={name: config[name] for name in (*NAMED, "tokenizer") if name in config},
    lora=section(Lora, config["lora"], "lora") if "lora" in config else None,
    **sections,
  )
  check(settings)
  if "head" in config and form_of(settings) is None:
    raise ValueError(
      f"nothing reads the section head: loss.fn={config['loss']['fn']!r} trains one reward an "
      "answer, without embeddings."
    )
  return settings


def form_of(s: Settings) -> Embedding | None:
  """The head of a preference model; None if the loss trains one reward an answer."""
  return s.head if "embeddings" in named_loss(s.run, s.built)[0].needs else None
