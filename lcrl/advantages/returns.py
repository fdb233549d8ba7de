"""Returns of rewards that come at tokens, each channel with its own discount."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lcrl.advantages.group import group_centered
from lcrl.masked import as_float
from lcrl.rewards.parts import compression_reward
from lcrl.rewards.repetition import dense_repetition_reward
from lcrl.types import Rollouts, Stage

__all__ = [
  "generalized_advantage",
  "multi_discount",
  "multi_discount_return",
  "thinking_compression",
]


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


def multi_discount(
  *,
  ngram: int = 40,
  penalty: float = -0.05,
  gamma: float = 0.99,
  first_only: bool = False,
  base: Stage | None = None,
) -> Stage:
  """The advantage of `base` at all tokens (its discount is 1), plus the return to go, discounted by
  gamma, of `dense_repetition_reward`. [B, G, T].

  Source: `multi_discount_return`. The paper subtracts a critic's value where this has the group's
  mean (`group_centered`, by default) for the verdict and nothing for repetition.
  """

  def channel(r: Rollouts):
    rewards = dense_repetition_reward(
      r.tokens, r.mask, ngram=ngram, penalty=penalty, first_only=first_only
    )
    return multi_discount_return(rewards[..., None], r.mask, gammas=(gamma,))

  return _beside(base, channel)


def thinking_compression(*, weight: float = 1.0, base: Stage | None = None) -> Stage:
  """The advantage of `base` (by default `group_centered`), plus `compression_reward` at the token
  that ends thinking, and only there. [B, G, T].

  Source: LC-R1, arXiv:2506.14755. Signals: `think_end`; `needed`, the thinking tokens that reach
  the answer first, of `think_length` before the crop.
  """

  def channel(r: Rollouts):
    needed, thought = r.signals["needed"], r.signals["think_length"]
    rewards = compression_reward(r.correct, needed, thought, weight=weight)
    position = jnp.cumsum(r.mask, -1) - 1
    ends = r.mask & (position == r.signals["think_end"][..., None])
    return jnp.where(ends, rewards[..., None], 0.0)

  return _beside(base, channel, needs=("think_end", "think_length", "needed"))


def _beside(base: Stage | None, channel, needs: tuple[str, ...] = ()) -> Stage:
  """The stage whose advantage is that of `base` at every token, plus `channel(rollouts)`."""
  base = group_centered() if base is None else base

  def apply(state, rewards, keep, r: Rollouts):
    advantages, state = base.apply(state, rewards, keep, r)
    advantages = advantages if advantages.ndim == r.mask.ndim else advantages[..., None]
    trains = r.mask & keep[..., None]
    return jnp.where(trains, advantages + channel(r), 0.0), state

  return base._replace(apply=apply, needs=(*base.needs, *needs))
