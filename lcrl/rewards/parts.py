"""Rewards that treat the lengths of thinking and answer separately."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import same_groups
from lcrl.masked import as_float, centre, masked_quantile
from lcrl.rewards.base import shaped
from lcrl.types import Rollouts, Stage

__all__ = ["grlc", "grlc_reward", "relative_shortness"]


def relative_shortness(lengths: jax.Array, valid: jax.Array) -> jax.Array:
  """1 for the group's shortest, 0 for its longest, minus the group's mean; 0 if all are equal.

  [..., G], [..., G] -> [..., G].

  >>> print(relative_shortness(jnp.array([[10, 20, 15]]), jnp.ones((1, 3), bool)))
  [[ 0.5 -0.5  0. ]]
  """
  same_groups(lengths=lengths, valid=valid)
  lengths = as_float(lengths)
  longest = jnp.max(jnp.where(valid, lengths, -jnp.inf), -1, keepdims=True)
  shortest = jnp.min(jnp.where(valid, lengths, jnp.inf), -1, keepdims=True)
  span = jnp.where(longest > shortest, longest - shortest, 1.0)
  return centre(jnp.where(valid, 1.0 - (lengths - shortest) / span, 0.0), valid)


def grlc_reward(
  rewards: jax.Array,
  think_lengths: jax.Array,
  answer_lengths: jax.Array,
  valid: jax.Array,
  *,
  think_weight: float = 0.5,
  answer_weight: float = 0.5,
  bonus: float = 0.5,
  quantile: float = 0.8,
) -> jax.Array:
  """Each part earns by its shortness within the group; the shortest of good responses earn a bonus.

    r + think_weight * s(think) + answer_weight * s(answer),   s = `relative_shortness`
    + bonus for the shortest thinking, + bonus for the shortest answer, each if r >= quantile of r

  Source: GRLC of Nemotron 3 Nano, as restated by QGLAS. Ties go to the first rollout, and it is
  paid even if all tie (ours). Wrong answers take part. [..., G] each -> [..., G].

  >>> think = answer = jnp.array([[1, 3]])
  >>> print(grlc_reward(jnp.array([[1.0, 0.0]]), think, answer, jnp.ones((1, 2), bool)))
  [[ 2.5 -0.5]]
  """
  same_groups(
    rewards=rewards, think_lengths=think_lengths, answer_lengths=answer_lengths, valid=valid
  )
  rewards = as_float(rewards)
  good = rewards >= masked_quantile(rewards, valid, quantile, keepdims=True)
  for lengths, weight in ((think_lengths, think_weight), (answer_lengths, answer_weight)):
    shortest = jnp.argmin(jnp.where(valid, as_float(lengths), jnp.inf), -1)
    first = jax.nn.one_hot(shortest, rewards.shape[-1], dtype=bool)
    rewards = rewards + weight * relative_shortness(lengths, valid)
    rewards = rewards + jnp.where(first & good, bonus, 0.0)
  return rewards


def grlc(
  *,
  think_weight: float = 0.5,
  answer_weight: float = 0.5,
  bonus: float = 0.5,
  quantile: float = 0.8,
  base: Stage | None = None,
) -> Stage:
  """`grlc_reward`; the end-of-thinking tag counts as thinking, and without one all is thinking."""
  reward = partial(
    grlc_reward,
    think_weight=think_weight,
    answer_weight=answer_weight,
    bonus=bonus,
    quantile=quantile,
  )

  def shape(rewards, r: Rollouts):
    end = r.signals["think_end"]
    thinking = jnp.where(end < 0, r.lengths, end + 1)
    return reward(rewards, thinking, r.lengths - thinking, r.valid)

  return shaped(base, shape, needs=("think_end",))
