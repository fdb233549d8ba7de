"""The two jitted phases of a step: `shape` turns rollouts into a batch, `update` trains on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lcrl.masked import masked_sum
from lcrl.training.metrics import Mean
from lcrl.training.packing import Sizes
from lcrl.training.scorer import Score, join, split, value_and_grad
from lcrl.types import Batch, Recipe, Rollouts, Stage, TokenScores, TrainState

PyTree = Any
Weigh = Callable[[jax.Array, jax.Array], jax.Array]


def shape(
  recipe: Recipe[Stage],
  states: Recipe[PyTree],
  rollouts: Rollouts,
  *,
  weigh: Weigh,
  step: jax.Array,
  key: jax.Array,
) -> tuple[Batch, Recipe[PyTree]]:
  """Rollouts -> what the loss trains on. Once a step, on the whole batch; states advance here."""
  _, budget = recipe.budget.apply(
    states.budget,
    rollouts.prompt_ids,
    step=step,
    key=key,
    group_size=rollouts.lengths.shape[1],
  )
  rewards, reward = recipe.reward.apply(states.reward, rollouts)
  keep, filter_ = recipe.filter.apply(states.filter, rewards, rollouts)
  advantages, advantage = recipe.advantage.apply(states.advantage, rewards, keep, rollouts)
  batch = Batch(rollouts, rewards, keep, advantages, weights=weigh(rollouts.mask, keep))
  new = states._replace(budget=budget, reward=reward, filter=filter_, advantage=advantage)
  return batch, new


def update(
  state: TrainState,
  batch: Any,
  *,
  score: Score,
  recipe: Any,
  weigh: Weigh,
  optimizer: optax.GradientTransformation,
  micro_batches: int = 1,
  updates: int = 1,
  sizes: Sizes | None = None,
  measure: Callable[..., dict[str, Mean]] | None = None,
  apart: Callable[[PyTree], PyTree] = lambda params: params,
) -> tuple[TrainState, dict[str, Mean]]:
  """One step: `updates` optimizer steps on as many disjoint parts of the batch, or one on pairs.

  Each part goes through the model in `micro_batches` pieces, which changes no gradient. With more
  than one part the old log-probs are computed before the first. `sizes`: of a batch `arranged` for
  packed rows. `measure`: what to say of it; `update_metrics`. `apart`: as in `value_and_grad`.
  """
  measure = measure or update_metrics
  score = score if sizes is None else partial(score, sizes=sizes)

  def one(carry, part):
    params, opt_state, loss_state = carry
    loss, loss_state, scores, grads = value_and_grad(
      recipe.loss, loss_state, score, params, part, micro_batches=micro_batches, apart=apart
    )
    changes, opt_state = optimizer.update(grads, opt_state, params)
    carry = optax.apply_updates(params, changes), opt_state, loss_state
    return carry, measure(loss, grads, scores, part)

  carry = state.params, state.opt_state, state.recipe.loss
  if updates == 1:
    carry, metrics = one(carry, batch)
  else:
    if batch.old_log_probs is None:
      old = score_all(score, state.params, batch.rollouts, pieces=updates * micro_batches)
      batch = dataclasses.replace(batch, old_log_probs=old.log_probs)
    parts = split(batch, updates)
    parts = dataclasses.replace(parts, weights=jax.vmap(weigh)(parts.rollouts.mask, parts.keep))
    carry, metrics = jax.lax.scan(one, carry, parts)
    metrics = jax.tree.map(lambda x: x.sum(axis=0), metrics)

  params, opt_state, loss_state = carry
  new = dataclasses.replace(
    state,
    step=state.step + 1,
    params=params,
    opt_state=opt_state,
    recipe=state.recipe._replace(loss=loss_state),
  )
  return new, metrics


def score_all(
  score: Score,
  params: PyTree,
  rollouts: Rollouts,
  *,
  pieces: int = 1,
  sizes: Sizes | None = None,
) -> TokenScores:
  """Scores of the rows under `params`, without a gradient, in `pieces`. `sizes`: as in `update`."""
  score = score if sizes is None else partial(score, sizes=sizes)
  scores = jax.lax.map(lambda piece: score(params, piece), split(rollouts, pieces))
  return jax.lax.stop_gradient(join(scores))


def update_metrics(loss, grads, scores, batch: Batch) -> dict[str, Mean]:
  """What only the update knows: loss, gradient, entropy, how far sampler and scorer differ."""
  mask, drawn = batch.rollouts.mask, batch.rollouts.drawn
  tokens, compared = mask.sum(), drawn.sum()
  gap = jnp.where(drawn, scores.log_probs - batch.rollouts.sampler_log_probs, 0.0)
  metrics = {
    "loss": Mean(loss, 1.0),
    "grad_norm": Mean(optax.tree.norm(grads), 1.0),
    "sampler_gap": Mean(jnp.abs(gap).sum(), compared),  # mean |log-prob of scorer - of sampler|
    "sampler_kl": Mean(-gap.sum(), compared),  # k1 estimate of KL(sampler || policy)
    "surprise": Mean(-masked_sum(scores.log_probs, mask), tokens),
  }
  if scores.entropy is not None:
    metrics["entropy"] = Mean(masked_sum(scores.entropy, mask), tokens)
  return metrics
