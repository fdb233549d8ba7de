"""Rewards that compare a response's length with its own target, `rollouts.budget.target`."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.masked import as_float
from lcrl.rewards.base import budget_target, compared, ended_length, shaped
from lcrl.types import Stage

__all__ = [
  "exact_length",
  "exact_length_reward",
  "max_length",
  "max_length_reward",
  "step_bonus",
  "step_bonus_reward",
  "truncated_reward",
  "truncation",
]


def exact_length_reward(
  rewards: jax.Array,
  lengths: jax.Array,
  targets: jax.Array,
  *,
  alpha: float = 3e-4,
  truncated: jax.Array | None = None,
) -> jax.Array:
  """A price for each token of distance from the target: r - alpha * |target - length|.

  Source: L1, Aggarwal & Welleck 2025, arXiv:2503.04697 (LCPO-Exact).

  Args:
    rewards: [...], usually 0 or 1, the verifier's verdict.
    lengths: [...] int, sampled tokens, end token included.
    targets: [...] int, tokens that the prompt asks for.
    alpha: reward lost per token of error.
    truncated: [...] bool, cut at the cap: counts as one token longer.
  Returns: [...] float.

  >>> targets = jnp.array([100, 100])
  >>> print(exact_length_reward(jnp.ones(2), jnp.array([90, 100]), targets, alpha=0.01))
  [0.9 1. ]
  """
  same_shape(rewards=rewards, lengths=lengths, targets=targets)
  if truncated is not None:
    same_shape(lengths=lengths, truncated=truncated)
    lengths = lengths + truncated
  return as_float(rewards) - alpha * jnp.abs(as_float(targets) - as_float(lengths))


def max_length_reward(
  correct: jax.Array,
  lengths: jax.Array,
  targets: jax.Array,
  *,
  alpha: float = 0.01,
  delta: float = 0.5,
  truncated: jax.Array | None = None,
) -> jax.Array:
  """A right answer earns more the further it stays below the target, a wrong one nothing.

    r = correct * clip(alpha * (target - length) + delta, 0, 1)

  Source: L1, arXiv:2503.04697 (LCPO-Max); LASER's table prints the opposite sign of the difference.
  A `truncated` answer, cut at the cap, counts as beyond its target (`ended_length`).
  [...] each -> [...].

  >>> lengths, targets = jnp.array([60, 100, 200]), jnp.array([100, 100, 100])
  >>> print(max_length_reward(jnp.ones(3), lengths, targets))
  [0.9 0.5 0. ]
  """
  same_shape(correct=correct, lengths=lengths, targets=targets)
  slack = as_float(targets) - as_float(ended_length(lengths, targets, truncated))
  return as_float(correct) * jnp.clip(alpha * slack + delta, 0.0, 1.0)


def step_bonus_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  targets: jax.Array,
  *,
  alpha: float = 0.5,
  late: float = 0.0,
  explore: float = 0.0,
  spared: jax.Array | None = None,
  truncated: jax.Array | None = None,
) -> jax.Array:
  """A bonus for a right answer that ends by the target.

    r + alpha   if right and length <= target
    r - late    if right and length > target
    r + explore if wrong and length > target

  Source: LASER, Liu et al. 2025, arXiv:2505.15612 (alpha 0.5). Its code's `penalty` is alpha 0 and
  late 0.5, its `hybrid` both. `explore=0.5` is LASER-DE: wrong answers are encouraged to think on.
  `spared` rows keep their reward (LASER-DE's code: those of bad format). A `truncated` answer, cut
  at the cap, has not ended by the target (`ended_length`). [...] each -> [...].

  >>> lengths, targets = jnp.array([8, 10, 11]), jnp.array([10, 10, 10])
  >>> print(step_bonus_reward(jnp.ones(3), jnp.ones(3, bool), lengths, targets))
  [1.5 1.5 1. ]
  """
  same_shape(rewards=rewards, correct=correct, lengths=lengths, targets=targets)
  if spared is not None:
    same_shape(rewards=rewards, spared=spared)
  correct, in_time = correct.astype(bool), ended_length(lengths, targets, truncated) <= targets
  longer = lengths > targets  # as sampled: being cut earns a wrong answer nothing
  term = jnp.where(correct, jnp.where(in_time, alpha, -late), jnp.where(longer, explore, 0.0))
  return as_float(rewards) + (term if spared is None else jnp.where(spared, 0.0, term))


def truncated_reward(
  rewards: jax.Array,
  lengths: jax.Array,
  limits: jax.Array,
  *,
  late: float = 0.0,
  late_scale: float = 0.0,
  truncated: jax.Array | None = None,
) -> jax.Array:
  """The reward of a response that ends by the limit; late + late_scale * r for a longer one.

  Source: DLER, arXiv:2510.15110, ThinkPrune, and SIRI, arXiv:2509.25176 (lengths up to the end of
  the answer). DLER's public code has late_scale 0.1 where the paper gives 0. A
  `truncated` response, cut at the cap, has not ended (`ended_length`). [...] each -> [...].

  >>> print(truncated_reward(jnp.ones(2), jnp.array([10, 11]), jnp.array([10, 10])))
  [1. 0.]
  """
  same_shape(rewards=rewards, lengths=lengths, limits=limits)
  rewards = as_float(rewards)
  in_time = ended_length(lengths, limits, truncated) <= limits
  return jnp.where(in_time, rewards, late + late_scale * rewards)


def exact_length(*, alpha: float = 3e-4, base: Stage | None = None) -> Stage:
  """The stage of `exact_length_reward`: L1-Exact."""
  return shaped(
    base,
    lambda rewards, r: exact_length_reward(
      rewards, r.lengths, r.budget.target, alpha=alpha, truncated=r.truncated
    ),
    needs=("truncated",),
    targets=budget_target("exact_length"),
  )


def max_length(*, alpha: float = 0.01, delta: float = 0.5) -> Stage:
  """The stage of `max_length_reward`: L1-Max."""

  def apply(state, r):
    reward = partial(max_length_reward, alpha=alpha, delta=delta)
    return reward(r.correct, r.lengths, r.budget.target, truncated=r.truncated), state

  targets = lambda state, r: compared(budget_target("max_length")(r), r)
  return Stage(init=lambda: (), apply=apply, needs=("truncated",), targets=targets)


def step_bonus(
  *, alpha: float = 0.5, late: float = 0.0, explore: float = 0.0, base: Stage | None = None
) -> Stage:
  """The stage of `step_bonus_reward`: LASER."""
  reward = partial(step_bonus_reward, alpha=alpha, late=late, explore=explore)
  return shaped(
    base,
    lambda rewards, r: reward(
      rewards, r.correct, r.lengths, r.budget.target, truncated=r.truncated
    ),
    needs=("truncated",),
    targets=budget_target("step_bonus"),
  )


def truncation(*, late: float = 0.0, late_scale: float = 0.0, base: Stage | None = None) -> Stage:
  """`truncated_reward` against `budget.target` (DLER, ThinkPrune)."""
  reward = partial(truncated_reward, late=late, late_scale=late_scale)
  return shaped(
    base,
    lambda rewards, r: reward(rewards, r.lengths, r.budget.target, truncated=r.truncated),
    needs=("truncated",),
    targets=budget_target("truncation"),
  )
