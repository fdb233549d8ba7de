"""The two jitted phases of a step: `shape` turns rollouts into a batch, `update` trains on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lcrl.losses.kl import k3_kl
from lcrl.masked import masked_sum
from lcrl.training import balance
from lcrl.training.metrics import Mean, Metrics, Sum, known
from lcrl.training.packing import Sizes
from lcrl.training.piece_scorer import PieceScorer
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
  """Turns rollouts into the batch of the loss. Runs once a step, on the whole batch.

  The states of the stages advance here, unless rewards or advantages are not finite.
  """
  learn = recipe.budget.learn
  _, budget = recipe.budget.apply(
    learn(states.budget, rollouts) if learn else states.budget,
    rollouts.prompt_ids,
    step=step,
    key=key,
    group_size=rollouts.lengths.shape[1],
  )
  rewards, reward = recipe.reward.apply(states.reward, rollouts)
  keep, filter_ = recipe.filter.apply(states.filter, rewards, rollouts)
  advantages, advantage = recipe.advantage.apply(states.advantage, rewards, keep, rollouts)
  weights = weigh(rollouts.mask, keep)
  targets = recipe.reward.targets(states.reward, rollouts) if recipe.reward.targets else {}
  batch = Batch(rollouts, rewards, keep, advantages, weights, targets=targets)
  new = states._replace(reward=reward, filter=filter_, advantage=advantage)
  finite = _finite(rewards, rollouts.valid) & _finite(advantages, keep)
  # A branch on the host would wait for the device; `where` keeps the step free of such a wait.
  new = jax.tree.map(partial(jnp.where, finite), new, states)
  return batch, new._replace(budget=budget)


def _finite(x: jax.Array, mask: jax.Array) -> jax.Array:
  """Is everything finite where mask is? [B, G] or [B, G, T], [B, G] -> []."""
  mask = mask[..., None] if x.ndim > mask.ndim else mask
  return jnp.all(jnp.isfinite(x) | ~mask)


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
  unstack_for_grad: Callable[[PyTree], PyTree] = lambda params: params,
) -> tuple[TrainState, Metrics]:
  """One step: `updates` optimizer steps on as many disjoint parts of the batch, or one on pairs.

  Each part goes through the model in `micro_batches` pieces, which changes no gradient. With more
  than one part the old log-probs are computed before the first. Where the loss or its gradient is
  not finite, parameters, optimizer and loss keep their states, and the metric `skipped_updates`
  counts it. `sizes`: static sizes of a batch `arranged` for packed rows. `measure`: computes the
  metrics of a part; None: `update_metrics`. `unstack_for_grad`: as in `value_and_grad`.
  """
  measure = measure or update_metrics
  by_pieces: Any = score.value_and_grad if isinstance(score, PieceScorer) else None
  score = score if sizes is None else partial(score, sizes=sizes)
  differentiate: Callable[..., Any] = (
    partial(value_and_grad, score=score, micro_batches=micro_batches)
    if by_pieces is None
    else partial(by_pieces, sizes=sizes)
  )
  optimizer_update = optax.with_extra_args_support(optimizer).update
  rate = getattr(optimizer, "rate", None)

  def update_on(carry, part):
    params, opt_state, loss_state = carry
    loss, new_loss_state, scores, grads = differentiate(
      recipe.loss, loss_state, params=params, batch=part, unstack_for_grad=unstack_for_grad
    )
    changes, new_opt_state = optimizer_update(grads, opt_state, params, step=state.step)
    new = optax.apply_updates(params, changes), new_opt_state, new_loss_state
    finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
    metrics: Metrics = {**measure(loss, grads, scores, part)}
    metrics |= loss_metrics(recipe.loss, loss_state, scores, part)
    metrics |= balance.metrics(scores, part)
    metrics["skipped_updates"] = Sum(1.0 - finite)
    if rate is not None:
      metrics["learning_rate"] = Mean(rate(state.step), 1.0)
    return jax.tree.map(partial(jnp.where, finite), new, carry), metrics

  carry = state.params, state.opt_state, state.recipe.loss
  if updates == 1:
    carry, metrics = update_on(carry, batch)
  else:
    if batch.old_log_probs is None:
      old = score_all(score, state.params, batch.rollouts, pieces=updates * micro_batches)
      batch = dataclasses.replace(batch, old_log_probs=old.log_probs)
    parts = split(batch, updates)
    parts = dataclasses.replace(parts, weights=jax.vmap(weigh)(parts.rollouts.mask, parts.keep))
    carry, metrics = jax.lax.scan(update_on, carry, parts)
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
  """Metrics of the update: loss, gradient norm, entropy, difference of sampler and scorer."""
  mask, drawn = batch.rollouts.mask, batch.rollouts.drawn
  tokens, compared = mask.sum(), drawn.sum()
  gap = jnp.where(drawn, scores.log_probs - batch.rollouts.sampler_log_probs, 0.0)
  nll = Mean(-masked_sum(scores.log_probs, mask), tokens)
  old = scores.log_probs if batch.old_log_probs is None else batch.old_log_probs
  metrics = {
    "loss": Mean(loss, 1.0),
    "grad_norm": Mean(optax.tree.norm(grads), 1.0),
    # Mean |log-prob of the scorer - log-prob of the sampler|.
    "sampler_logp_diff": Mean(jnp.abs(gap).sum(), compared),
    "sampler_kl": Mean(-gap.sum(), compared),  # k1 estimate of KL(sampler || policy)
    "approx_kl": Mean(masked_sum(old - scores.log_probs, mask), tokens),
    "nll": nll,
    # Without scores of entropy, the mean negative log-prob of drawn tokens estimates it.
    "entropy": nll if scores.entropy is None else Mean(masked_sum(scores.entropy, mask), tokens),
  }
  if batch.ref_log_probs is not None:
    kl = k3_kl(scores.log_probs, batch.ref_log_probs, mask, log_ratio_limit=20.0)
    metrics["kl"] = Mean(kl.sum(), tokens)
  return metrics


def loss_metrics(loss: Stage, state: PyTree, scores: Any, batch: Any) -> dict[str, Mean]:
  """Metrics of the loss itself: the shares of tokens that it clips, and numbers of its state."""
  numbers = loss.fractions(state, scores, batch) if loss.fractions else {}
  if loss.numbers:
    numbers |= {f"state/loss/{name}": x for name, x in loss.numbers(state).items()}
  return {name: known(x) for name, x in numbers.items()}
