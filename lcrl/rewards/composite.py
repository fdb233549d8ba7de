"""Rewards composed of other rewards: soft factors, rules, progress between episodes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.checks import per_row, same_shape, typed
from lcrl.masked import as_float
from lcrl.rewards.base import shaped
from lcrl.sharding import running_sum
from lcrl.types import Rollouts, Stage

__all__ = [
  "cumulative_regret",
  "mrt",
  "multiplicative_reward",
  "progress",
  "progress_reward",
  "regret_area",
  "rule_fraction",
  "rule_fraction_reward",
]


def multiplicative_reward(rewards: jax.Array, factors: jax.Array) -> jax.Array:
  """r times soft factors in [0, 1]: a wrong answer stays at 0, and no factor makes up for another.

  Source: the lesson of CaRL, arXiv:2504.17838. [...], [..., K] -> [...].

  >>> print(multiplicative_reward(jnp.array(1.0), jnp.array([0.5, 0.5])))
  0.25
  """
  per_row(dict(factors=factors), rewards=rewards)
  return as_float(rewards) * jnp.prod(as_float(factors), -1)


def rule_fraction_reward(
  rewards: jax.Array, satisfied: jax.Array, *, weight: float = 1.0
) -> jax.Array:
  """r + weight * share of the rules that are satisfied.

  Source: AutoRule, arXiv:2506.15651, where a model verifies rules; whether its learned reward is
  rescaled is unverified. [...], [..., K] bool or 0/1 -> [...].

  >>> print(rule_fraction_reward(jnp.array(0.5), jnp.array([1, 0])))
  1.0
  """
  per_row(dict(satisfied=satisfied), rewards=rewards)
  return as_float(rewards) + weight * jnp.mean(as_float(satisfied), -1)


def rule_fraction(
  *, rules: tuple[str, ...], weight: float = 1.0, base: Stage | None = None
) -> Stage:
  """`rule_fraction_reward` of the named signals, flags [B, G] each, not a model's rules."""

  def shape(rewards, r: Rollouts):
    satisfied = jnp.stack([r.signals[name] for name in rules], -1)
    return rule_fraction_reward(rewards, satisfied, weight=weight)

  return shaped(base, shape, needs=tuple(rules))


def progress(values: jax.Array) -> jax.Array:
  """The gain of each episode in the chance that a forced answer is right.

  `values` before the first episode and after each. [..., K + 1] -> [..., K].

  >>> print(progress(jnp.array([0.0, 0.5, 0.25])))
  [ 0.5  -0.25]
  """
  _several(values)
  return jnp.diff(as_float(values), axis=-1)


def progress_reward(rewards: jax.Array, values: jax.Array, *, alpha: float = 0.2) -> jax.Array:
  """r + alpha * sum of `progress`, which is alpha * (last value - first).

  One number does not tell which episode helped: pay `progress` per episode, or for one
  sampled prefix. Source: MRT, arXiv:2503.07572; the bonus is in no released code, alpha unverified.
  [...], [..., K + 1] -> [...].

  >>> print(progress_reward(jnp.array(1.0), jnp.array([0.0, 0.5, 0.25]), alpha=1.0))
  1.25
  """
  per_row(dict(values=values), rewards=rewards)
  return as_float(rewards) + alpha * jnp.sum(progress(values), -1)


def _several(values: jax.Array) -> None:
  typed(values=values)
  if not values.shape or values.shape[-1] < 1:
    raise ValueError(f"values must be [..., K + 1], got {values.shape}.")


def mrt(*, alpha: float = 0.2, base: Stage | None = None) -> Stage:
  """`progress_reward` of one sampled prefix; the signals `value_before` and `value_after`, [B, G],
  are the shares of forced answers that are right at the start and at the end of its episode."""

  def shape(rewards, r: Rollouts):
    values = jnp.stack([r.signals["value_before"], r.signals["value_after"]], -1)
    return progress_reward(rewards, values, alpha=alpha)

  return shaped(base, shape, needs=("value_before", "value_after"))


def cumulative_regret(values: jax.Array, *, oracle: float = 1.0) -> jax.Array:
  """Sum over the episodes so far of oracle - value after the episode. [..., K + 1] -> [..., K].

  Source: MRT, arXiv:2503.07572.

  >>> print(cumulative_regret(jnp.array([0.0, 0.5, 1.0])))
  [0.5 0.5]
  """
  _several(values)
  return running_sum(oracle - as_float(values)[..., 1:])


def regret_area(
  values: jax.Array, ends: jax.Array, *, oracle: float = 1.0
) -> tuple[jax.Array, jax.Array]:
  """Area between the oracle and the value over tokens, and its share of oracle * tokens.

  The value after an episode is held over the episode's own tokens, which end at `ends` (ours).
  [..., K], [..., K] -> [...], [...].

  >>> area, share = regret_area(jnp.array([0.0, 1.0]), jnp.array([10, 40]))
  >>> print(area, share)
  10.0 0.25
  """
  same_shape(values=values, ends=ends)
  ends = as_float(ends)
  tokens = jnp.diff(ends, axis=-1, prepend=jnp.zeros_like(ends[..., :1]))
  area = jnp.sum((oracle - as_float(values)) * tokens, -1)
  return area, area / (oracle * ends[..., -1])
