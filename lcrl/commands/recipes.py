"""The flags --recipe and --reward of `lcrl-evaluate`: what they name, and what it spent."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from lcrl.commands import command
from lcrl.evaluation import setup, tables, test_time
from lcrl.evaluation.answers.rows import with_ends
from lcrl.evaluation.intervals import mean_estimate
from lcrl.evaluation.test_time.run import answer_with
from lcrl.registry import build, check
from lcrl.training.remote import opened
from lcrl.training.reward_model.learned import provider


def read(given: Any) -> tuple[dict[str, Any] | None, str | None]:
  """The recipe of the flags and the folder of its reward model, None where there is none."""
  if given.recipe is None:
    if given.reward is not None:
      raise ValueError("nothing reads --reward without --recipe.")
    return None, None
  recipe = command.read_call(given.recipe, "recipe")
  check(test_time, recipe, field="recipe")
  return recipe, given.reward


def answering(
  recipe: Mapping[str, Any] | None, reward: str | None, model: Any, tokenizer: Any
) -> Callable[..., dict[str, Any]] | None:
  """`answer_with` of a recipe, and of the reward model in a run folder if there is one."""
  if recipe is None:
    return None
  built = build(test_time, recipe, field="recipe")
  if reward is None:
    return partial(answer_with, recipe=built)
  # Unpacked, since notes make rows longer than packed ones.
  names = {field.name for field in dataclasses.fields(model.settings.train)}
  whole = dict.fromkeys(names & {"pack", "micro_tokens"})
  train = dataclasses.replace(model.settings.train, **whole)
  model = dataclasses.replace(model, settings=dataclasses.replace(model.settings, train=train))
  read = provider("reward", opened(reward), model, tokenizer).read
  return partial(answer_with, recipe=built, reward=lambda *at: read(*at)["reward"])


def spent(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Sequential and total tokens of a recipe, with intervals, from the arrays of `answer_with`."""
  if "sequential" not in parts[0]:
    return {}
  mean = lambda name: mean_estimate(np.concatenate([part[name] for part in parts], 1))
  sequential = with_ends("sequential_tokens", mean("sequential"))
  return sequential | with_ends("total_tokens", mean("lengths"))


def lines(record: Mapping[str, Any]) -> list[str]:
  """What a recipe spent: a sentence, and a table of sequential and total tokens."""
  if "recipe" not in record:
    return []
  names = ("sequential_tokens", "total_tokens")
  body = [[cap, *(f"{point[n]:.1f}" for n in names)] for cap, point in record["budgets"].items()]
  cells = tables.to_markdown((["budget of a call", "sequential tokens", "total tokens"], body))
  return [f"Recipe: {setup.listed(record['recipe'])}. Tokens above are all that it sampled.", cells]
