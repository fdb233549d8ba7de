"""Advantages whose size follows the accuracy of the group."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lcrl.advantages.group import group_normalized_advantage
from lcrl.checks import same_groups
from lcrl.masked import masked_mean
from lcrl.types import Rollouts, Stage

__all__ = ["difficulty_weight", "difficulty_weighted", "difficulty_weighted_advantage"]


def difficulty_weight(
  accuracy: jax.Array,
  *,
  lowest: float = 0.4,
  highest: float = 1.5,
  middle: float = 0.75,
  steepness: float = 10.0,
) -> jax.Array:
  """From `highest` for a hard prompt to `lowest` for an easy one. [...] -> [...].

    lowest + (highest - lowest) * sigmoid(-steepness * (accuracy - middle))

  >>> print(difficulty_weight(jnp.array([0.0, 0.75, 1.0])).round(2))
  [1.5  0.95 0.48]
  """
  return lowest + (highest - lowest) * jax.nn.sigmoid(-steepness * (accuracy - middle))


def difficulty_weighted_advantage(
  rewards: jax.Array,
  correct: jax.Array,
  keep: jax.Array,
  *,
  lowest: float = 0.4,
  highest: float = 1.5,
  middle: float = 0.75,
  steepness: float = 10.0,
  ddof: int = 1,
  eps: float = 1e-6,
) -> jax.Array:
  """GRPO's advantage, larger where the group rarely does what the rollout did.

    A * w(accuracy) if A > 0, otherwise A * w(1 - accuracy);  w = `difficulty_weight`

  Source: GRPO-LEAD, arXiv:2504.09696, and its code, whose numbers are the defaults.
  [..., B, G] each -> [..., B, G].

  >>> right = jnp.array([[True, False, False, False]])
  >>> print(difficulty_weighted_advantage(1.0 * right, right, jnp.ones((1, 4), bool)).round(2))
  [[ 2.24 -0.47 -0.47 -0.47]]
  """
  same_groups(rewards=rewards, correct=correct, keep=keep)
  advantages = group_normalized_advantage(rewards, keep, ddof=ddof, eps=eps)
  accuracy = masked_mean(correct, keep, -1, keepdims=True)
  weight = partial(
    difficulty_weight, lowest=lowest, highest=highest, middle=middle, steepness=steepness
  )
  return advantages * jnp.where(advantages > 0, weight(accuracy), weight(1.0 - accuracy))


def difficulty_weighted(
  *,
  lowest: float = 0.4,
  highest: float = 1.5,
  middle: float = 0.75,
  steepness: float = 10.0,
  ddof: int = 1,
  eps: float = 1e-6,
) -> Stage:
  """The stage of `difficulty_weighted_advantage`: GRPO-LEAD."""
  advantage = partial(
    difficulty_weighted_advantage,
    lowest=lowest,
    highest=highest,
    middle=middle,
    steepness=steepness,
    ddof=ddof,
    eps=eps,
  )

  def apply(state, rewards, keep, r: Rollouts):
    return advantage(rewards, r.correct, keep), state

  return Stage(init=lambda: (), apply=apply, needs=("group",))
