"""Returns of rewards that come at tokens, each channel with its own discount."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lcrl.masked import as_float

__all__ = ["generalized_advantage", "multi_discount_return"]


def _discounted_sum(rewards: jax.Array, discount: float) -> jax.Array:
  """sum over u >= t of discount^(u - t) * rewards[u]. [..., T] -> [..., T]."""

  def step(carry, reward):
    carry = reward + discount * carry
    return carry, carry

  time_first = jnp.moveaxis(rewards, -1, 0)
  _, sums = jax.lax.scan(step, jnp.zeros_like(time_first[0]), time_first, reverse=True)
  return jnp.moveaxis(sums, 0, -1)


def multi_discount_return(
  rewards: jax.Array, mask: jax.Array, *, gammas: Sequence[float]
) -> jax.Array:
  """Sum over channels k of the returns to go discounted by gammas[k], 0 where masked.

  So that a penalty for repetition (0.99) stays near its tokens while correctness (1) reaches all.
  The advantage is this minus a value. Masked positions count as time.
  Source: Demystifying Long CoT, arXiv:2502.03373. [..., T, K], [..., T] -> [..., T].

  >>> rewards = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
  >>> print(multi_discount_return(rewards, jnp.ones(3, bool), gammas=(1.0, 0.5)))
  [1.5 2.  1. ]
  """
  if rewards.shape[-1] != len(gammas):
    raise ValueError(f"gammas must be one a channel, got {len(gammas)} for {rewards.shape}.")
  rewards = jnp.where(mask[..., None], as_float(rewards), 0.0)
  returns = sum(_discounted_sum(rewards[..., k], gamma) for k, gamma in enumerate(gammas))
  return jnp.where(mask, returns, 0.0)


def generalized_advantage(
  rewards: jax.Array, values: jax.Array, mask: jax.Array, *, gamma: float = 1.0, lam: float = 1.0
) -> jax.Array:
  """sum over u >= t of (gamma * lam)^(u - t) * (r[u] + gamma * v[u + 1] - v[u]), 0 where masked.

  Source: GAE, arXiv:1506.02438. With the values added it is the return. [..., T] each -> [..., T].

  >>> print(generalized_advantage(jnp.array([0.0, 1.0]), jnp.array([0.5, 0.5]), jnp.ones(2, bool)))
  [0.5 0.5]
  """
  rewards = jnp.where(mask, as_float(rewards), 0.0)
  values = jnp.where(mask, as_float(values), 0.0)
  following = jnp.concatenate([values[..., 1:], jnp.zeros_like(values[..., :1])], -1)
  surprise = rewards + gamma * following - values
  return jnp.where(mask, _discounted_sum(surprise, gamma * lam), 0.0)
