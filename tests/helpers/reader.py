"""A tiny causal model, steps of lcrl on it, and the same losses as a user writes them: from bare
functions.

Steps train on made-up rollouts. `native` is what a run does: `shape`, `update`, `score_tokens`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lcrl import advantages, budgets, filters, losses, recipes, rewards
from lcrl.losses import policy, weights
from lcrl.training.step import shape, update
from lcrl.types import Recipe, Rollouts, Stage, TokenScores, TrainState
from tests.rollouts import random_rollouts

VOCAB, WIDTH, STEPS = 16, 8, 3
# Adam would divide rounding by rounding where a gradient is next to nothing.
OPTIMIZER = optax.sgd(2.0, momentum=0.9)


def init(seed: int = 0) -> dict[str, jax.Array]:
  shapes = {
    "embed": (VOCAB, WIDTH),
    "mix": (WIDTH, WIDTH),
    "bias": (WIDTH,),
    "head": (WIDTH, VOCAB),
  }
  keys = jax.random.split(jax.random.key(seed), len(shapes))
  return {
    name: 0.5 * jax.random.normal(key, shapes[name]) for name, key in zip(shapes, keys, strict=True)
  }


def mean_so_far(x: jax.Array) -> jax.Array:
  """[..., T, D] -> the mean of each place and all before it."""
  return jnp.cumsum(x, -2) / jnp.arange(1.0, x.shape[-2] + 1)[(None,) * (x.ndim - 2)][..., None]


def hidden(params, tokens: jax.Array, embed: Callable = lambda table, ids: table[ids]) -> jax.Array:
  x = mean_so_far(embed(params["embed"], tokens)) @ params["mix"]
  return jnp.tanh(x + jnp.broadcast_to(params["bias"], x.shape))


def log_probs_of(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  """[..., T, V] -> [..., T], each token's given those before it; 0 for the first."""
  hit = jax.nn.one_hot(tokens[..., 1:], logits.shape[-1], dtype=bool)
  picked = jnp.sum(jnp.where(hit, jax.nn.log_softmax(logits[..., :-1, :]), 0.0), -1)
  return jnp.pad(picked, [(0, 0)] * (tokens.ndim - 1) + [(1, 0)])


def rollouts(step: int) -> Rollouts:
  r = random_rollouts(step, vocab=VOCAB)
  return dataclasses.replace(r, budget=jax.tree.map(lambda x: jnp.full_like(x, 4), r.budget))


class Method(NamedTuple):
  """The same method twice."""

  recipe: Recipe[Stage]
  weigh: Callable
  loss: Callable  # (log_probs [B, G, T], rollouts, axis_name) -> []


def _recipe(reward: Stage, advantage: Stage, loss: Stage) -> Recipe[Stage]:
  return Recipe(budgets.fixed(target=4), reward, filters.keep_all(), advantage, loss)


def _exact(log_probs, r: Rollouts, axis_name=None):
  value = rewards.exact_length_reward(
    r.correct, r.lengths, r.budget.target, alpha=0.1, truncated=r.truncated
  )
  advantage = advantages.group_normalized_advantage(value, r.valid)
  weight = losses.token_mean(r.mask, r.valid, axis_name=axis_name)
  surrogate = losses.clipped_surrogate_loss(
    log_probs, r.sampler_log_probs, advantage, r.mask, clip_high=0.28
  )
  return jnp.sum(weight * surrogate)


def _cispo(log_probs, r: Rollouts, axis_name=None):
  value = rewards.kimi_reward(r.correct, r.correct, r.lengths, r.valid, alpha=0.5)
  advantage = advantages.batch_scaled_advantage(value, r.valid, axis_name=axis_name)
  weight = losses.sequence_mean(r.mask, r.valid, axis_name=axis_name)
  return jnp.sum(weight * losses.cispo_loss(log_probs, r.sampler_log_probs, advantage, r.mask))


def _sorting(log_probs, r: Rollouts):
  """Orders the groups and the tokens of the whole batch, so it has no `axis_name`."""
  value = rewards.grpo_lambda_reward(r.correct, r.correct, r.lengths, r.valid, share=0.5)
  advantage = advantages.group_centered_advantage(value, r.valid)
  weight = losses.fixed_length(r.mask, r.valid, length=9)
  surrogate = losses.kl_cov_loss(
    log_probs, r.sampler_log_probs, advantage, r.mask, share=0.1, beta=0.3
  )
  return jnp.sum(weight * surrogate)


METHODS = {
  "exact_length": Method(
    _recipe(
      rewards.exact_length(alpha=0.1),
      advantages.group_normalized(),
      policy.clipped_surrogate(clip_low=0.2, clip_high=0.28),
    ),
    weights.token_mean,
    _exact,
  ),
  "cispo": Method(
    _recipe(rewards.kimi(alpha=0.5), advantages.batch_scaled(), policy.cispo()),
    weights.sequence_mean,
    _cispo,
  ),
  "sorting": Method(
    _recipe(
      rewards.grpo_lambda(share=0.5),
      advantages.group_centered(),
      policy.kl_cov(share=0.1, beta=0.3),
    ),
    functools.partial(weights.fixed_length, length=9),
    _sorting,
  ),
}


def scored(x: jax.Array, head: jax.Array, r: Rollouts) -> TokenScores:
  """Hidden states [B, G, T, D] -> scores [B, G, T]."""
  scores = losses.score_tokens(x[..., :-1, :], head, r.tokens[..., 1:], r.mask[..., 1:])
  return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (1, 0))), scores)


def score(params, r: Rollouts) -> TokenScores:
  return scored(hidden(params, r.tokens), params["head"], r)


@functools.cache
def native(name: str) -> list:
  """Parameters after each step of lcrl."""
  recipe, weigh, _ = METHODS[name]
  params = init()
  state = TrainState(
    step=jnp.int32(0),
    params=params,
    opt_state=OPTIMIZER.init(params),
    recipe=recipes.init(recipe),
    position=jnp.int32(0),
    counters={},
  )

  @jax.jit
  def take(state, r):
    batch, states = shape(
      recipe, state.recipe, r, weigh=weigh, step=state.step, key=jax.random.key(0)
    )
    batch = dataclasses.replace(batch, old_log_probs=r.sampler_log_probs)
    state = dataclasses.replace(state, recipe=states)
    return update(state, batch, score=score, recipe=recipe, weigh=weigh, optimizer=OPTIMIZER)[0]

  found = []
  for step in range(STEPS):
    state = take(state, rollouts(step))
    found.append(state.params)
  return found


def same_steps(name: str, found: list) -> None:
  """Each step ends at the parameters of lcrl's step, and has moved them."""
  start = init()
  for number, (got, want) in enumerate(zip(found, native(name), strict=True)):
    for leaf in start:
      np.testing.assert_allclose(
        np.asarray(got[leaf]), want[leaf], rtol=2e-5, atol=2e-6, err_msg=f"{leaf}, step {number}"
      )
      assert np.abs(want[leaf] - start[leaf]).max() > 2e-3
