"""Budgets of a step's prompts, and a check of all budgets of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from lcrl.mesh import on_host
from lcrl.tasks.task import Prompt, Task, plain
from lcrl.training.keys import step_key
from lcrl.types import Budget, Recipe, Stage

PyTree = Any


def ask_budget(
  recipe: Recipe[Stage],
  states: Recipe[PyTree],
  prompts: Sequence[Prompt],
  *,
  step: int,
  key: jax.Array,
  group_size: int,
) -> Budget:
  """Budgets of the prompts, numpy [B, G], equal on every process. Keeps the state of the stage."""
  ids = np.array([p.id for p in prompts], np.int32)
  state = jax.tree.map(np.asarray, states.budget)
  # On the CPU: the devices may be busy, and the prompts cannot be rendered without their budget.
  with on_host():
    budget, _ = recipe.budget.apply(
      state, jnp.asarray(ids), step=jnp.int32(step), key=key, group_size=group_size
    )
    budget = jax.tree.map(np.asarray, budget)
  for name, least in (("cap", budget.cap.min()), ("target", budget.target.min())):
    if least < 1:
      raise ValueError(f"the budget stage gave a {name} of {least} tokens; it must be at least 1.")
  return budget


def check_levels(task: Task, stage: Stage) -> None:
  """Raises ValueError for a level of the budget that task.render has no template for; and warns of
  levels whose prompts are the same, between which a policy cannot tell."""
  if stage.levels < 2 or task.render is plain:
    return
  seen: dict[str, int] = {}
  for level in range(stage.levels):
    try:
      shown = repr(task.render(task.prompts[0], level + 1, level))
    except ValueError as why:
      raise ValueError(f"task.render: {why} The budget has {stage.levels} levels.") from why
    if (same := seen.setdefault(shown, level)) != level:
      logging.warning(
        "task.render shows levels %d and %d of the budget alike: no policy can tell them apart.",
        same,
        level,
      )


def check_budgets(
  stage: Stage,
  *,
  steps: int,
  prompts: int,
  group_size: int,
  most: int,
  seed: int,
  forced: Callable[[int, int], int] = lambda target, level: 0,
) -> None:
  """Raises ValueError if the cap of some step of the run is out of range.

  Runs the budget stage for all steps, with its schedules, later sections and random draws.
  `forced`: target, level -> forced tokens at the start of a response that count towards its cap.
  """

  @jax.jit
  def caps():
    def budget_of(state, step):
      budget, state = stage.apply(
        state, jnp.arange(prompts), step=step, key=step_key(seed, step), group_size=group_size
      )
      flat = jax.tree.map(jnp.ravel, budget)
      tightest = jax.tree.map(lambda x: x[flat.cap.argmin()], flat)
      return state, (budget.cap.max(), budget.target.min(), tightest)

    return jax.lax.scan(budget_of, stage.init(), jnp.arange(steps, dtype=jnp.int32))[1]

  with on_host():
    longest, target, tightest = jax.tree.map(np.asarray, caps())
  for name, values in (("cap", tightest.cap), ("target", target)):
    if (under := values < 1).any():
      step = int(under.argmax())
      raise ValueError(
        f"budget: the {name} after {step} steps is {values[step]} tokens; it must be at least 1."
      )
  at = int(tightest.cap.argmin())
  prefix = forced(int(tightest.target[at]), int(tightest.level[at]))
  if prefix >= tightest.cap[at]:
    raise ValueError(
      f"budget: the cap after {at} steps is {tightest.cap[at]} tokens, and task.render forces a "
      f"response to begin with {prefix} that count."
    )
  if (over := longest > most).any():
    step = int(over.argmax())
    raise ValueError(
      f"budget: the cap after {step} steps is {longest[step]}; train.max_tokens={most} allows less."
    )
