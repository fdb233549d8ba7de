"""Rewards that a trained model gives: the score of an answer, or how often it is preferred.

A reward model's score is a signal [B, G] under its name in the section `learned`; the embeddings of
a preference model are the signal `preference` [B, G, 2K]. `base=None` pays the model alone.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import per_row, same_groups, same_shape
from lcrl.masked import as_float, masked_mean, masked_sum
from lcrl.preferences import group_preferences
from lcrl.rewards.base import correctness, shaped
from lcrl.sharding import left_to_xla
from lcrl.types import Rollouts, Stage

__all__ = [
  "density_ratio",
  "density_ratio_reward",
  "learned",
  "learned_reward",
  "preferred",
  "win_rate_reward",
]


def learned_reward(
  rewards: jax.Array,
  scores: jax.Array,
  *,
  weight: float = 1.0,
  centre: float = 0.0,
  low: float = -math.inf,
  high: float = math.inf,
) -> jax.Array:
  """r + weight * clip(score - centre, low, high).

  A model of pairs leaves a constant in its scores free, and rewards their tails least reliably:
  `centre` and the limits make sums with other rewards comparable. [...], [...] -> [...].

  >>> print(learned_reward(jnp.array([1.0, 0.0]), jnp.array([3.0, 9.0]), weight=0.5, high=4.0))
  [2.5 2. ]
  """
  same_shape(rewards=rewards, scores=scores)
  if not low < high:
    raise ValueError(f"low must be below high, got {low} and {high}.")
  return as_float(rewards) + weight * jnp.clip(as_float(scores) - centre, low, high)


def learned(
  *,
  name: str,
  weight: float = 1.0,
  centre: float = 0.0,
  low: float = -math.inf,
  high: float = math.inf,
  only_correct: bool = False,
  base: Stage | None = None,
) -> Stage:
  """`learned_reward` of the signal `name`, the score of a trained reward model, or of rules that a
  model finds kept (AutoRule, arXiv:2506.15651).

  Args:
    name: the model's name in the section `learned`.
    weight: of the score in the sum with `base`.
    centre: the score that adds nothing.
    low: least score above `centre` that counts.
    high: most score above `centre` that counts.
    only_correct: a wrong answer is paid `base` alone, so the score ranks right answers.
    base: the reward to add to; None: 0, the model is paid alone.
  """
  reward = partial(learned_reward, weight=weight, centre=centre, low=low, high=high)

  def shape(rewards, r: Rollouts):
    paid = reward(rewards, r.signals[name])
    return jnp.where(r.correct, paid, rewards) if only_correct else paid

  return shaped(correctness(right=0.0) if base is None else base, shape, needs=(name,))


def win_rate_reward(
  rewards: jax.Array, preferences: jax.Array, valid: jax.Array, *, weight: float = 1.0
) -> jax.Array:
  """r + weight * chance to be preferred to an answer drawn from the group, oneself included.

  Source: the win rate of SPPO, arXiv:2405.00675, under any model of pairs: preferences may form a
  cycle, and then no score of single answers gives them. [..., G], [..., G, G], [..., G] ->
  [..., G].

  >>> beats = jnp.array([[0.5, 1.0], [0.0, 0.5]])
  >>> print(win_rate_reward(jnp.zeros((1, 2)), beats[None], jnp.ones((1, 2), bool)))
  [[0.75 0.25]]
  """
  same_groups(rewards=rewards, valid=valid)
  per_row(dict(preferences=preferences), rewards=rewards)
  beside = lambda valid: jnp.broadcast_to(valid[..., None, :], preferences.shape)
  others = left_to_xla(beside, preferences, valid)
  return as_float(rewards) + weight * masked_mean(preferences, others, -1)


def preferred(*, weight: float = 1.0, base: Stage | None = None) -> Stage:
  """`win_rate_reward` of a preference model of pairs, `preference` in the section `learned`;
  `base=None` pays it alone."""

  def shape(rewards, r: Rollouts):
    chances = group_preferences(r.signals["preference"])
    return win_rate_reward(rewards, chances, r.valid, weight=weight)

  base = correctness(right=0.0) if base is None else base
  return shaped(base, shape, needs=("group", "preference"))


def density_ratio_reward(
  rewards: jax.Array,
  strong_log_probs: jax.Array,
  weak_log_probs: jax.Array,
  mask: jax.Array,
  *,
  weight: float = 1.0,
  per_token: bool = False,
) -> jax.Array:
  """r + weight * log of how much likelier a strong model finds the answer than a weak one.

  The sum over tokens grows with length; `per_token` takes their mean. Source: CDR, customized
  density ratios, from the abstract, which leaves both open. [...], [..., T] three times -> [...].

  >>> strong, weak, mask = jnp.array([-1.0, -2.0]), jnp.array([-2.0, -5.0]), jnp.ones(2, bool)
  >>> print(density_ratio_reward(jnp.array(0.0), strong, weak, mask, per_token=True))
  2.0
  """
  per_row(
    dict(strong_log_probs=strong_log_probs, weak_log_probs=weak_log_probs, mask=mask),
    rewards=rewards,
  )
  gap = as_float(strong_log_probs) - as_float(weak_log_probs)
  return as_float(rewards) + weight * (masked_mean if per_token else masked_sum)(gap, mask, -1)


def density_ratio(
  *, weight: float = 1.0, per_token: bool = False, base: Stage | None = None
) -> Stage:
  """`density_ratio_reward` of two models in the section `learned`, `strong` and `weak`:
  `dict(policy="models/...")`, whose signals are log-probs [B, G, T]. `base=None` pays it alone."""
  reward = partial(density_ratio_reward, weight=weight, per_token=per_token)
  shape = lambda rewards, r: reward(rewards, r.signals["strong"], r.signals["weak"], r.mask)
  base = correctness(right=0.0) if base is None else base
  return shaped(base, shape, needs=("strong", "weak"))
