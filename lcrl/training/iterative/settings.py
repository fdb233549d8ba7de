"""The sections of a config with run="iterative"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lcrl.training import settings
from lcrl.training.pairs import settings as pairs
from lcrl.training.settings import section

ROUND = ("task", "budget", "reward", "pairing")  # what a round does
NAMED = (*ROUND, "loss", "batches", "policy", "optimizer")  # sections whose fn names what to build
OPTIONAL = ("weights", "reference", "lora", "tokenizer", "eval_task")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(pairs.Train):
  """As in a run on pairs; `prompts` is what a round answers."""

  group_size: int  # answers to each prompt
  updates: int  # steps a round


SECTIONS: dict[str, type] = {**pairs.SECTIONS, "train": Train, "eval": settings.Evaluate}


@dataclasses.dataclass(frozen=True)
class Settings:
  """A whole config, read."""

  train: Train
  round: dict[str, Any]  # the sections of ROUND
  pairs: pairs.Settings  # the same run as one on pairs: its model, updates and evaluations


def read(config: Mapping[str, Any]) -> Settings:
  """Raises ValueError for a missing or unknown section, or a value out of range."""
  known = {*NAMED, *OPTIONAL, *SECTIONS, "seed", "run"}
  if unknown := config.keys() - known:
    raise ValueError(f"unknown config section {sorted(unknown)}; there are {sorted(known)}.")
  if missing := {*NAMED, "train", "mesh", "seed"} - config.keys():
    raise ValueError(f"the config has no section {sorted(missing)}.")
  found: dict[str, Any] = {
    name: section(cls, config.get(name, {}), name) for name, cls in SECTIONS.items()
  }
  for name in ("train", "eval", "checkpoint"):
    for field, value in dataclasses.asdict(found[name]).items():
      if value is not None and value < 1 and (name, field) != ("eval", "every"):
        raise ValueError(f"{name}.{field} must be at least 1, got {value}.")
  if found["train"].group_size < 2:
    raise ValueError("train.group_size must be at least 2: a pair takes two answers, got 1.")
  built = {name: config[name] for name in (*NAMED, *OPTIONAL) if name in config and name != "lora"}
  return Settings(
    train=found["train"],
    round={name: config[name] for name in ROUND},
    pairs=pairs.Settings(
      run="preference",
      seed=int(config["seed"]),
      built=built,
      lora=section(pairs.Lora, config["lora"], "lora") if "lora" in config else None,
      **found | {"eval": pairs.Evaluate(**dataclasses.asdict(found["eval"]))},
    ),
  )
