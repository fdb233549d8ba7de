"""The sections of a config with run="iterative"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from lcrl.data.refined import INSTRUCTION
from lcrl.training import sections
from lcrl.training.pairs import settings as pairs
from lcrl.training.sections import Seed, check_sampling, check_sections, has_fn, section
from lcrl.values import Count, Within, check

# Sections whose fn names what to build.
NAMED = ("task", "budget", "reward", "pairing", "loss", "batches", "policy", "optimizer")
COLUMNS = 4  # of `lcrl.training.iterative.refine`
OPTIONAL = (
  "teacher",
  "learned",
  "weights",
  "reference",
  "lora",
  "tokenizer",
  "eval_task",
  "eval_tasks",
)


@dataclasses.dataclass(frozen=True)
class Round:
  prompts: Count  # that are answered, train.prompts at a time
  group_size: Annotated[int, Within(2)]  # answers to each: a pair takes two
  updates: Count  # steps that learn from them


@dataclasses.dataclass(frozen=True)
class Refine:
  """A second turn, in which the policy refines its answers: `lcrl.training.iterative.refine`."""

  instruction: str = INSTRUCTION  # the request, after the prompt and the first answer


SECTIONS: dict[str, type] = {**pairs.SECTIONS, "eval": sections.Evaluate, "round": Round}


@dataclasses.dataclass(frozen=True)
class Settings(pairs.Settings):
  """A parsed and validated config. The learner reads it as one of a run on pairs."""

  round: Round
  window: int  # positions of a round's rows
  refine: Refine | None = None  # None: one turn

  @property
  def columns(self) -> int:
    """Rows of a prompt in a round, without a teacher's."""
    return self.round.group_size * (COLUMNS if self.refine else 1)


def read(config: Mapping[str, Any]) -> Settings:
  """Raises ValueError for a missing or unknown section, or a value out of range."""
  known = {*NAMED, *OPTIONAL, *SECTIONS, "refine", "seed", "run"}
  config = check_sections(config, known, {*NAMED, "train", "round", "mesh", "seed"})
  parsed: dict[str, Any] = {
    name: section(cls, config.get(name, {}), name) for name, cls in SECTIONS.items()
  }
  check_sampling(parsed["sampling"])
  if parsed["round"].prompts % parsed["train"].prompts:
    raise ValueError(
      f"round.prompts must be a multiple of train.prompts={parsed['train'].prompts}, "
      f"got {parsed['round'].prompts}."
    )
  if parsed["train"].strengths:
    raise ValueError("train.strengths needs run='sft'.")
  refine = section(Refine, config["refine"], "refine") if "refine" in config else None
  if refine and "teacher" in config:
    raise ValueError("refine refines the policy's own answers: no teacher with it.")
  if not refine and has_fn(config["pairing"], "refined_vs_first"):
    raise ValueError('pairing.fn="refined_vs_first" needs a section refine.')
  built = {name: config[name] for name in (*NAMED, *OPTIONAL) if name in config and name != "lora"}
  return Settings(
    run=config["run"],
    seed=check(config["seed"], Seed, "seed"),
    built=built,
    lora=section(sections.Lora, config["lora"], "lora") if "lora" in config else None,
    refine=refine,
    window=parsed["train"].max_prompt_tokens + parsed["train"].max_tokens,
    **parsed | {"eval": pairs.Evaluate(**dataclasses.asdict(parsed["eval"]))},
  )
