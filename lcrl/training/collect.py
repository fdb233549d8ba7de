"""The first phase of a step: rollouts of enough groups that train.

Choosing groups reads rollouts and pure scores; it changes no state. That happens in `shape`, once,
on the final batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.filters import oversampling_factor, prompts_to_sample
from lcrl.masked import masked_sum
from lcrl.mesh import batch_sharding, batch_shards, replicated
from lcrl.tasks.task import Prompt
from lcrl.training.metrics import Mean, Metrics, merge
from lcrl.training.rounds import Rounds
from lcrl.types import Budget, Recipe, Rollouts, Stage

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Collected:
  """The rollouts of one step, and what the run reports of how they came about."""

  rollouts: Rollouts
  position: int  # in the data stream, after them
  rounds: int
  passed: tuple[int, int]  # groups sampled, and those of them that train
  metrics: Metrics  # of all that was sampled, where groups were chosen among it


class Collector:
  """Plays prompts until `prompts` groups train or `max_rounds` is reached.

  Args:
    stream: position -> Prompt.
    rounds: plays prompts.
    recipe: its budget is asked; its reward and filter say which groups would train.
    prompts: B, groups per step.
    group_size: G.
    max_rounds: 1: every group goes into the batch, those that the filter drops with keep False.
      More: groups that the filter drops whole are replaced by others, as DAPO's dynamic sampling
      (arXiv:2503.14476) does; if the rounds run out, dropped ones fill the batch and do not train.
    predict: a round takes more prompts than the batch, as many as past steps say that it needs
      (DOT, arXiv:2601.03969), rounded up to half batches so that few shapes are compiled.
    multiple: every data shard of a round has a multiple of so many prompts.
    seed: of the run.
  """

  def __init__(
    self,
    stream: Callable[[int], Prompt],
    rounds: Rounds,
    recipe: Recipe[Stage],
    *,
    prompts: int,
    group_size: int,
    max_rounds: int = 1,
    predict: bool = False,
    multiple: int = 1,
    seed: int = 0,
  ):
    self._stream, self._rounds, self._recipe = stream, rounds, recipe
    self._prompts, self._group_size, self._max_rounds = prompts, group_size, max_rounds
    self._predict, self._multiple, self._seed = predict, multiple, seed
    self._look = jax.jit(self._would_train, out_shardings=replicated(rounds.mesh))
    self._take = jax.jit(take, out_shardings=batch_sharding(rounds.mesh))

  def __call__(
    self,
    params: PyTree,
    states: Recipe[PyTree],
    step: int,
    position: int,
    passed: Sequence[tuple[int, int]] = (),
  ) -> Collected:
    """`passed`: groups sampled and those of them that train, of past steps."""
    key, count = step_key(self._seed, step), self._count(passed)
    pool: list[Rollouts] = []
    trains: list[bool] = []
    metrics: Metrics = {}
    for _ in range(self._max_rounds):
      index = np.arange(position, position + count, dtype=np.int32)
      prompts = [self._stream(i) for i in index.tolist()]
      budget = ask_budget(
        self._recipe, states, prompts, step=step, key=key, group_size=self._group_size
      )
      rollouts = self._rounds.play(params, prompts, index, budget, key)
      position += count
      pool.append(rollouts)
      if self._max_rounds == 1 and not self._predict:
        return Collected(rollouts, position, 1, (count, count), metrics)
      keep, sampled = jax.tree.map(np.asarray, self._look(states, rollouts))
      trains += keep.tolist()
      metrics = merge(metrics, sampled)
      if sum(trains) >= self._prompts:
        break
    first = np.argsort(~np.array(trains), stable=True)[: self._prompts]  # those that train
    found = len(trains), sum(trains)
    return Collected(self._take(pool, first), position, len(pool), found, metrics)

  def _count(self, passed: Sequence[tuple[int, int]]) -> int:
    """Prompts of a round."""
    if not self._predict:
      return self._prompts
    wanted = prompts_to_sample(self._prompts, oversampling_factor(passed, window=len(passed)))
    multiple = batch_shards(self._rounds.mesh) * self._multiple
    unit = -(-self._prompts // (2 * multiple)) * multiple
    return -(-wanted // unit) * unit

  def _would_train(self, states, rollouts: Rollouts) -> tuple[jax.Array, Metrics]:
    """Which groups [B] the filter leaves anything of, and what all of them were like."""
    rewards, _ = self._recipe.reward.apply(states.reward, rollouts)
    keep, _ = self._recipe.filter.apply(states.filter, rewards, rollouts)
    count = rollouts.valid.sum()
    return keep.any(axis=-1), {
      "sampled/accuracy": Mean(masked_sum(rollouts.correct, rollouts.valid), count),
      "sampled/length": Mean(masked_sum(rollouts.lengths, rollouts.valid), count),
    }


def take(pool: list[Rollouts], groups: jax.Array) -> Rollouts:
  """The given groups of all rollouts in the pool, one after the other."""
  widest = max(r.tokens.shape[-1] for r in pool)
  return jax.tree.map(lambda *xs: jnp.concatenate(xs)[groups], *(pad_rows(r, widest) for r in pool))


def step_key(seed: int | jax.Array, step: int | jax.Array) -> jax.Array:
  """The key that all randomness of a step derives from."""
  return jax.random.fold_in(jax.random.key(seed), step)


def ask_budget(
  recipe: Recipe[Stage],
  states: Recipe[PyTree],
  prompts: Sequence[Prompt],
  *,
  step: int,
  key: jax.Array,
  group_size: int,
) -> Budget:
  """Budgets of the prompts, numpy [B, G], alike on every process. The stage's state stays."""
  ids = np.array([p.id for p in prompts], np.int32)
  state = jax.tree.map(np.asarray, states.budget)
  budget, _ = recipe.budget.apply(
    state, jnp.asarray(ids), step=jnp.int32(step), key=key, group_size=group_size
  )
  budget = jax.tree.map(np.asarray, budget)
  for name, least in (("cap", budget.cap.min()), ("target", budget.target.min())):
    if least < 1:
      raise ValueError(f"the budget stage gave a {name} of {least} tokens; it must be at least 1.")
  return budget


def check_budgets(
  stage: Stage, *, steps: int, prompts: int, group_size: int, most: int, seed: int
) -> None:
  """Raises ValueError for a cap that some step of the run will ask for and no response may have.

  Schedules and sections that come later are known before the first step; random draws are tried.
  """

  @jax.jit
  def caps():
    def one(state, step):
      budget, state = stage.apply(
        state, jnp.arange(prompts), step=step, key=step_key(seed, step), group_size=group_size
      )
      return state, budget.cap.max()

    return jax.lax.scan(one, stage.init(), jnp.arange(steps, dtype=jnp.int32))[1]

  longest = np.asarray(caps())
  if (over := longest > most).any():
    step = int(over.argmax())
    raise ValueError(
      f"budget: the cap after {step} steps is {longest[step]}; train.max_tokens={most} allows less."
    )


def pad_rows(rollouts: Rollouts, length: int) -> Rollouts:
  """Rollouts with rows of `length` positions; every [B, G, T] field is padded with zeros."""
  short = rollouts.tokens.shape[-1]

  def pad(x):
    return jnp.pad(x, ((0, 0), (0, 0), (0, length - short))) if x.ndim == 3 else x

  return rollouts if short == length else jax.tree.map(pad, rollouts)
