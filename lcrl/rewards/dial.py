"""ThinkDial: three levels of effort whose prices for length differ, and a penalty for leaks.

Source: He et al. 2025, arXiv:2508.18773. The prompt shows the level of the budget.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lcrl.checks import same_groups, same_shape
from lcrl.masked import as_float
from lcrl.rewards.base import shaped
from lcrl.rewards.efforts import Term
from lcrl.rewards.group import kimi_reward
from lcrl.sharding import look_up
from lcrl.types import Rollouts, Stage

__all__ = [
  "leak_penalty",
  "leak_penalty_reward",
  "level_shortness",
  "level_shortness_reward",
]


def leak_penalty_reward(rewards: jax.Array, leaks: jax.Array, *, size: float = 0.5) -> jax.Array:
  """r - size where the answer goes on thinking, r + size where it does not.

  Source: R_leak of ThinkDial, -0.5 or +0.5, right or wrong. [...], [...] -> [...].

  >>> print(leak_penalty_reward(jnp.ones(2), jnp.array([True, False])))
  [0.5 1.5]
  """
  same_shape(rewards=rewards, leaks=leaks)
  return as_float(rewards) + jnp.where(leaks.astype(bool), -size, size)


def leak_penalty(*, size: float = 0.5, base: Stage | None = None) -> Stage:
  """`leak_penalty_reward` of the signal `leak` [B, G] bool, words of thinking behind its end.

  A task supplies it: `task.signals=dict(fn="patterns", leak="</think>.*(Wait|However)")`.
  """
  shape = lambda rewards, r: leak_penalty_reward(rewards, r.signals["leak"], size=size)
  return shaped(base, shape, needs=("leak",))


def level_shortness_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  levels: jax.Array,
  valid: jax.Array,
  *,
  weights: Sequence[float],
) -> jax.Array:
  """r + weights[level] * (0.5 - (length - shortest) / (longest - shortest)), the bonus of Kimi.

  A wrong answer gets no bonus for being short. Shortest and longest are those of the group, which
  the paper samples at one level. Source: alpha(m) * R_length of ThinkDial. [..., G] each ->
  [..., G].

  >>> right, lengths = jnp.ones((1, 2), bool), jnp.array([[10, 20]])
  >>> levels = jnp.ones((1, 2), int)
  >>> print(level_shortness_reward(1.0 * right, right, lengths, levels, right, weights=(0.0, 0.5)))
  [[1.25 0.75]]
  """
  same_groups(rewards=rewards, correct=correct, lengths=lengths, levels=levels, valid=valid)
  alpha = look_up(jnp.asarray(weights, jnp.float32), levels)
  return kimi_reward(rewards, correct, lengths, valid, alpha=alpha)


def level_shortness(*, weights: Sequence[float]) -> Term:
  """`level_shortness_reward` with one weight a level, for the argument `term` of `effort`."""

  def apply(state, rewards, r: Rollouts, targets, known):
    del targets, known
    level = r.budget.level
    shaped = level_shortness_reward(rewards, r.correct, r.lengths, level, r.valid, weights=weights)
    return shaped, state

  return Term(lambda: (), apply, len(weights))
