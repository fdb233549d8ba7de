"""The sections of a config with run="iterative"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lcrl.training import settings
from lcrl.training.pairs import settings as pairs
from lcrl.training.settings import section

# Sections whose fn names what to build.
NAMED = ("task", "budget", "reward", "pairing", "loss", "batches", "policy", "optimizer")
OPTIONAL = ("teacher", "learned", "weights", "reference", "lora", "tokenizer", "eval_task")


@dataclasses.dataclass(frozen=True)
class Round:
  prompts: int  # that are answered, train.prompts at a time
  group_size: int  # answers to each
  updates: int  # steps that learn from them


SECTIONS: dict[str, type] = {**pairs.SECTIONS, "eval": settings.Evaluate, "round": Round}


@dataclasses.dataclass(frozen=True)
class Settings(pairs.Settings):
  """A whole config, read; to the model it is one of a run on pairs."""

  round: Round
  window: int  # positions of a round's rows


def read(config: Mapping[str, Any]) -> Settings:
  """Raises ValueError for a missing or unknown section, or a value out of range."""
  known = {*NAMED, *OPTIONAL, *SECTIONS, "seed", "run"}
  if unknown := config.keys() - known:
    raise ValueError(f"unknown config section {sorted(unknown)}; there are {sorted(known)}.")
  if missing := {*NAMED, "train", "round", "mesh", "seed"} - config.keys():
    raise ValueError(f"the config has no section {sorted(missing)}.")
  found: dict[str, Any] = {
    name: section(cls, config.get(name, {}), name) for name, cls in SECTIONS.items()
  }
  for name in ("train", "round", "eval", "checkpoint"):
    for field, value in dataclasses.asdict(found[name]).items():
      if value is not None and value < 1 and (name, field) not in pairs.MAY_BE_ZERO:
        raise ValueError(f"{name}.{field} must be at least 1, got {value}.")
  settings.check_eval_temperature(found["eval"].temperature)
  if found["round"].group_size < 2:
    raise ValueError("round.group_size must be at least 2: a pair takes two answers, got 1.")
  if found["round"].prompts % found["train"].prompts:
    raise ValueError(
      f"round.prompts must be a multiple of train.prompts={found['train'].prompts}, "
      f"got {found['round'].prompts}."
    )
  built = {name: config[name] for name in (*NAMED, *OPTIONAL) if name in config and name != "lora"}
  return Settings(
    run=config["run"],
    seed=int(config["seed"]),
    built=built,
    lora=section(pairs.Lora, config["lora"], "lora") if "lora" in config else None,
    window=found["train"].max_prompt_tokens + found["train"].max_tokens,
    **found | {"eval": pairs.Evaluate(**dataclasses.asdict(found["eval"]))},
  )
