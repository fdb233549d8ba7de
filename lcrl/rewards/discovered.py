"""LAPO: lengths that right answers have by themselves, which then become the plan.

Source: Wu et al. 2025, arXiv:2507.15758, and its code. The prompt's target is that of
`lcrl.budgets.right_median`.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import positive, same_groups, same_shape
from lcrl.masked import as_float, masked_quantile
from lcrl.rewards.base import shaped
from lcrl.types import Rollouts, Stage

__all__ = [
  "bell_length",
  "bell_length_reward",
  "right_range",
  "right_range_reward",
]


def right_range_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  weight: float = 0.7,
  low: float = 0.3,
  high: float = 0.7,
  width: float = 100.0,
  lone: bool = True,
) -> jax.Array:
  """A bonus for a right answer whose length is usual among the group's right answers.

    r + weight * max(0, 1 - tokens outside the range / width) if right

  The range is from the quantile `low` to the quantile `high` of their lengths. Source: LAPO's first
  stage. The released code gives no bonus where the range is one length (`lone=False`), such as to
  the only right answer of a group. [..., G] each -> [..., G].

  >>> right, lengths = jnp.ones((1, 3), bool), jnp.array([[100, 200, 350]])
  >>> knobs = dict(weight=1.0, low=0.5, high=1.0)
  >>> print(right_range_reward(jnp.zeros((1, 3)), right, lengths, right, **knobs))
  [[0. 1. 1.]]
  """
  same_groups(rewards=rewards, correct=correct, lengths=lengths, valid=valid)
  positive(width=width)
  right, lengths = correct.astype(bool) & valid, as_float(lengths)
  least, most = (masked_quantile(lengths, right, q, keepdims=True) for q in (low, high))
  outside = jnp.maximum(jnp.maximum(least - lengths, lengths - most), 0.0)
  bonus = weight * jnp.maximum(1.0 - outside / width, 0.0)
  return as_float(rewards) + jnp.where(right & (lone | (least < most)), bonus, 0.0)


def right_range(
  *,
  weight: float = 0.7,
  low: float = 0.3,
  high: float = 0.7,
  width: float = 100.0,
  lone: bool = True,
  base: Stage | None = None,
) -> Stage:
  """`right_range_reward`: LAPO's first stage."""
  reward = partial(right_range_reward, weight=weight, low=low, high=high, width=width, lone=lone)
  return shaped(base, lambda rewards, r: reward(rewards, r.correct, r.lengths, r.valid))


def bell_length_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  targets: jax.Array,
  *,
  weight: float = 0.8,
  sigma: float = 120.0,
) -> jax.Array:
  """A bonus for a right answer near its target.

    r + weight * exp(-(length - target)^2 / (2 sigma^2)) if right

  Source: LAPO's second stage; the constants are those of the code. [...] each -> [...].

  >>> lengths, targets = jnp.array([100, 120]), jnp.full(2, 100)
  >>> print(bell_length_reward(jnp.ones(2), jnp.ones(2), lengths, targets, weight=1.0, sigma=10.0))
  [2.        1.1353353]
  """
  same_shape(rewards=rewards, correct=correct, lengths=lengths, targets=targets)
  positive(sigma=sigma)
  z = (as_float(lengths) - as_float(targets)) / sigma
  return as_float(rewards) + jnp.where(correct.astype(bool), weight * jnp.exp(-0.5 * z**2), 0.0)


def bell_length(*, weight: float = 0.8, sigma: float = 120.0, base: Stage | None = None) -> Stage:
  """`bell_length_reward` around `budget.target`: LAPO's second stage.

  At level 2, where the target is a fallback, around the median of the group's right answers, as in
  the released code.
  """

  def targets(r: Rollouts) -> dict[str, jax.Array]:
    right = r.correct & r.valid
    median = masked_quantile(r.lengths, right, 0.5, empty=jnp.inf, keepdims=True)
    return {"bell_length": jnp.where(r.budget.level == 2, median, as_float(r.budget.target))}

  def shape(rewards, r: Rollouts):
    target = targets(r)["bell_length"]
    return bell_length_reward(rewards, r.correct, r.lengths, target, weight=weight, sigma=sigma)

  return shaped(base, shape, targets=targets)
