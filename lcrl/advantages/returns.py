"""Returns of rewards that come at tokens, each channel with its own discount."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lcrl.advantages.group import group_centered
from lcrl.checks import same_shape, typed
from lcrl.masked import as_float
from lcrl.ngrams import covered, repeated_starts
from lcrl.sharding import left_to_xla
from lcrl.types import Rollouts, Stage

__all__ = [
  "block_progress",
  "compression_reward",
  "dense_repetition_reward",
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

  def run(rewards):
    time_first = jnp.moveaxis(rewards, -1, 0)
    _, sums = jax.lax.scan(step, jnp.zeros_like(time_first[0]), time_first, reverse=True)
    return jnp.moveaxis(sums, 0, -1)

  return left_to_xla(run, rewards, rewards)


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
  typed(rewards=rewards, mask=mask)
  if rewards.shape[:-1] != mask.shape:
    raise ValueError(f"rewards must be {mask.shape} and channels, as mask is, got {rewards.shape}.")
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
  same_shape(rewards=rewards, values=values, mask=mask)
  rewards = jnp.where(mask, as_float(rewards), 0.0)
  values = jnp.where(mask, as_float(values), 0.0)
  following_of = lambda x: jnp.concatenate([x[..., 1:], jnp.zeros_like(x[..., :1])], -1)
  following = left_to_xla(following_of, values, values)
  errors = rewards + gamma * following - values
  return jnp.where(mask, _discounted_sum(errors, gamma * lam), 0.0)


def dense_repetition_reward(
  tokens: jax.Array,
  mask: jax.Array,
  *,
  ngram: int = 40,
  penalty: float = -0.05,
  first_only: bool = False,
) -> jax.Array:
  """`penalty` at every repeated token, to be discounted by itself (`multi_discount_return`).

  With `first_only` an n-gram counts if it begins more than `ngram` after the last repeated one, so
  that a long repeated run is punished once. Right and wrong answers alike.
  Source: Demystifying Long CoT, arXiv:2502.03373. [..., T], [..., T] -> [..., T].

  >>> tokens = jnp.array([5, 5, 5, 5])
  >>> print(dense_repetition_reward(tokens, jnp.ones(4, bool), ngram=2, penalty=-1.0))
  [ 0. -1. -1. -1.]
  """
  same_shape(tokens=tokens, mask=mask)
  starts = repeated_starts(tokens, mask, ngram=ngram)

  def first(starts):
    index = jnp.broadcast_to(jnp.arange(starts.shape[-1]), starts.shape)
    last = jax.lax.cummax(jnp.where(starts, index, -ngram - 1), axis=starts.ndim - 1)
    pad = [(0, 0)] * (starts.ndim - 1) + [(1, 0)]
    previous = jnp.pad(last, pad, constant_values=-ngram - 1)[..., :-1]
    return starts & (index - previous > ngram)

  starts = left_to_xla(first, starts, starts) if first_only else starts
  return as_float(jnp.where(covered(starts, ngram), penalty, 0.0))


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


def compression_reward(
  correct: jax.Array, needed: jax.Array, think_lengths: jax.Array, *, weight: float = 1.0
) -> jax.Array:
  """weight * (1 - needed / thinking) if right, -weight if the answer never appears, 0 if wrong.

  `needed` thinking tokens reach the answer first, 0 if none do. For the advantage of the
  end-of-thinking token alone. Source: LC-R1, arXiv:2506.14755, and its code (1e-4 beside the
  length). [...] each -> [...].

  >>> print(compression_reward(jnp.ones(2), jnp.array([0, 50]), jnp.array([100, 100])).round(3))
  [-1.   0.5]
  """
  same_shape(correct=correct, needed=needed, think_lengths=think_lengths)
  saved = 1.0 - as_float(needed) / (as_float(think_lengths) + 1e-4)
  return jnp.where(correct.astype(bool), weight * jnp.where(needed > 0, saved, -1.0), 0.0)


def thinking_compression(*, weight: float = 1.0, base: Stage | None = None) -> Stage:
  """The advantage of `base` (by default `group_centered`), plus `compression_reward` at the token
  that ends thinking, and only there. [B, G, T].

  Source: LC-R1, arXiv:2506.14755. Signals: `think_end`; `needed`, the thinking tokens that reach
  the answer first, of `think_length` before the crop.
  """

  def channel(r: Rollouts):
    needed, thought = r.signals["needed"], r.signals["think_length"]
    rewards = compression_reward(r.correct, needed, thought, weight=weight)
    ends = r.mask & (r.places == r.signals["think_end"][..., None])
    return jnp.where(ends, rewards[..., None], 0.0)

  return _beside(base, channel, needs=("think_end", "think_length", "needed"))


def block_progress(*, alpha: float = 0.2, base: Stage | None = None) -> Stage:
  """The advantage of `base` (by default `group_centered`) at every token, plus alpha * what the
  token's episode adds to the chance of a right answer. [B, G, T].

  Source: MRT, arXiv:2503.07572, whose bonus is one of each episode; alpha is unverified. The signal
  `progress` is that of `revise.fn="force_answers"` with `dense`.
  """
  return _beside(base, lambda r: alpha * r.signals["progress"], needs=("progress",))


def _beside(base: Stage | None, channel, needs: tuple[str, ...] = ()) -> Stage:
  """The stage whose advantage is that of `base` at every token, plus `channel(rollouts)`."""
  base = group_centered() if base is None else base

  def apply(state, rewards, keep, r: Rollouts):
    advantages, state = base.apply(state, rewards, keep, r)
    advantages = advantages if advantages.ndim == r.mask.ndim else advantages[..., None]
    trains = r.mask & keep[..., None]
    return jnp.where(trains, advantages + channel(r), 0.0), state

  return base._replace(apply=apply, needs=(*base.needs, *needs))
