"""The phases shape and update of a step, as the host runs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from lcrl import recipes
from lcrl.mesh import replicate, replicated, shard_batch
from lcrl.training.keys import step_key
from lcrl.training.metrics import Metrics, known
from lcrl.training.rl.collect import Collected
from lcrl.training.rl.learner import Learner
from lcrl.training.rl.pipeline import RolloutPipeline
from lcrl.training.rl.step_metrics import BatchStats, batch_stats
from lcrl.types import Batch, Recipe, TrainState

PyTree = Any


class Shaped(NamedTuple):
  """A batch ready to train on, with its statistics and the advanced states."""

  batch: Batch
  packed: Any  # the batch as the update takes it
  states: Recipe[PyTree]  # of the stages, advanced
  stats: BatchStats  # still on the devices
  metrics: Metrics  # of the states that shaped the batch, likewise

  @property
  def host_stats(self) -> BatchStats:
    """`stats` as numpy arrays; the first read waits for the batch."""
    return jax.tree.map(np.asarray, self.stats)

  @property
  def tokens(self) -> float:
    """Sampled tokens of the batch."""
    stats = self.host_stats
    return float(stats["lengths"][stats["valid"]].sum())


def make_shape(
  learner: Learner, pipeline: RolloutPipeline
) -> Callable[[TrainState, Collected], Shaped]:
  """(state, rollouts) -> rewards, filter, advantages and weights. Does not change the state."""

  def stats(batch: Batch, states: Recipe[PyTree]) -> tuple[dict[str, jax.Array], Metrics]:
    numbers = recipes.numbers(learner.recipe, states)
    terms_of = learner.recipe.reward.terms
    terms = terms_of(states.reward, batch.rollouts) if terms_of else {}
    return batch_stats(batch, terms), {name: known(x) for name, x in numbers.items()}

  stats_of = jax.jit(stats, out_shardings=replicated(learner.mesh))

  def shape(state: TrainState, collected: Collected) -> Shaped:
    rollouts = shard_batch(learner.mesh, collected.rollouts)
    rollouts = pipeline.add_signals(learner.acting(state.params), rollouts)
    signals = dict(rollouts.signals)
    old = signals.pop("old_log_probs", None)
    rollouts = dataclasses.replace(rollouts, signals=signals)
    key = step_key(learner.settings.seed, int(state.step))
    batch, states = learner.shape(state.recipe, rollouts, step=state.step, key=key)
    ref = signals.get("ref_log_probs")
    if ref is None and pipeline.reference is not None:
      ref = pipeline.reference(rollouts)
    batch = dataclasses.replace(batch, old_log_probs=old, ref_log_probs=ref)
    return Shaped(batch, learner.ready(batch), states, *stats_of(batch, state.recipe))

  return shape


def update(
  learner: Learner, state: TrainState, shaped: Shaped, collected: Collected
) -> tuple[TrainState, Metrics]:
  """One update of the state, which it donates; advances the position in the data and the counters.

  It waits for the batch, but not for the update: parameters and metrics are still on the devices.
  """
  # Copies, since donation frees the arrays of the state; a numpy view would read freed memory.
  before = {
    name: jax.tree.map(np.array, getattr(state, name))
    for name in ("position", "counters", "passed")
  }
  state = dataclasses.replace(state, recipe=shaped.states, pending=None)
  state, metrics = learner.update(state, shaped.packed)
  tokens = shaped.tokens
  # Transfers run in order. These go first; queued behind the next rollouts, they would make a
  # checkpoint of this state wait for those.
  advanced = replicate(learner.mesh, _advanced(before, collected, tokens))
  return dataclasses.replace(state, **advanced), metrics | shaped.metrics


def _advanced(before: dict[str, Any], collected: Collected, tokens: float) -> dict[str, Any]:
  """The fields of a state that the host updates: position, counters, groups of past steps."""
  counters, passed = before["counters"], before["passed"]
  prompts = np.int32(collected.position - before["position"])
  counters = {
    "prompts": counters["prompts"] + prompts,
    "tokens": counters["tokens"] + np.float32(tokens),
  }
  fields: dict[str, Any] = {"position": np.int32(collected.position), "counters": counters}
  if passed is not None:
    fields["passed"] = np.concatenate([passed[1:], np.array([collected.passed], np.int32)])
  return fields
