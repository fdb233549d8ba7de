"""A method is five stages, one a slot. Only this module knows all five slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from lcrl import advantages, budgets, filters, rewards
from lcrl.losses import policy as losses
from lcrl.losses import weights
from lcrl.named import build, resolve
from lcrl.types import Recipe, Stage

__all__ = ["Recipe", "Stage", "from_config", "init", "needs"]

Weigh = Callable[[jax.Array, jax.Array], jax.Array]
SLOTS = Recipe(budget=budgets, reward=rewards, filter=filters, advantage=advantages, loss=losses)


def from_config(config: Mapping[str, Any]) -> tuple[Recipe[Stage], Weigh]:
  """The stages that the sections budget, reward, filter, advantage and loss of a config name,
  and the weighting that its section weights names.

  Raises:
    ValueError: a section is missing, or names what its slot does not have; it names the field.
  """
  stages = {}
  for slot, module in SLOTS._asdict().items():
    stages[slot] = stage = build(module, _section(config, slot), field=slot)
    if not isinstance(stage, Stage):
      raise ValueError(f"{slot}.fn={config[slot]['fn']!r} is a bare function, not a stage.")
  recipe = Recipe(**stages)
  if not recipe.loss.coupled and jax.tree.leaves(recipe.loss.init()):
    raise ValueError(f"loss.fn={config['loss']['fn']!r} has a state, so it must be coupled.")
  return recipe, resolve(weights, _section(config, "weights"), field="weights")


def init(recipe: Recipe[Stage]) -> Recipe[Any]:
  """The first state of every stage."""
  return Recipe(*(stage.init() for stage in recipe))


def needs(recipe: Recipe[Stage]) -> tuple[str, ...]:
  """What the stages ask of task, sampler and trainer, each once."""
  return tuple(dict.fromkeys(name for stage in recipe for name in stage.needs))


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  if name not in config:
    raise ValueError(f"the config has no section {name!r}.")
  return config[name]
