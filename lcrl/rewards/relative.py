"""Prices for length whose size follows from the lengths and verdicts of the group."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import same_groups
from lcrl.masked import as_float, masked_mean, masked_var, standardize
from lcrl.rewards.base import shaped
from lcrl.rewards.group import mean_right
from lcrl.sharding import left_to_xla
from lcrl.types import Stage

__all__ = [
  "grpo_lead",
  "grpo_lead_reward",
  "linear_penalty",
  "linear_penalty_reward",
  "smart_thinker",
  "smart_thinker_length",
  "smart_thinker_reward",
]


def smart_thinker_length(correct: jax.Array, lengths: jax.Array, valid: jax.Array) -> jax.Array:
  """The length at which accuracy peaks if lengths of the group and of its right answers are normal.

    (var_r mean - var mean_r) / (var_r - var), between the shortest and the longest of the group;
    var_r and mean_r are those of the right answers

  The shortest if all are right or right lengths spread more than all; the longest if none is right.
  At equal variances there is no peak: the longest if right answers are shorter than the mean, as
  the code has it, otherwise the shortest. Source: SmartThinker, arXiv:2603.08000, and its code.
  [..., G] each -> [...].

  >>> correct, lengths = jnp.array([[True, True, False]]), jnp.array([[10, 20, 60]])
  >>> print(smart_thinker_length(correct, lengths, jnp.ones((1, 3), bool)).round(2))
  [14.15]
  """
  same_groups(correct=correct, lengths=lengths, valid=valid)
  lengths, right = as_float(lengths), correct.astype(bool) & valid
  longest = jnp.max(jnp.where(valid, lengths, -jnp.inf), -1)
  shortest = jnp.min(jnp.where(valid, lengths, jnp.inf), -1)
  mean, mean_right = (masked_mean(lengths, who, -1) for who in (valid, right))
  var, var_right = (masked_var(lengths, who, -1) for who in (valid, right))
  gap = var - var_right
  equal = jnp.abs(gap) < 1e-6
  peak = (var * mean_right - var_right * mean) / jnp.where(equal, 1.0, gap)
  peak = jnp.where(gap < 0, shortest, jnp.clip(peak, shortest, longest))
  peak = jnp.where(equal, jnp.where(mean_right < mean, longest, shortest), peak)
  peak = jnp.where(jnp.all(right | ~valid, -1), shortest, peak)
  peak = jnp.where(jnp.any(right, -1), peak, longest)
  return jnp.where(jnp.any(valid, -1), peak, 0.0)


def smart_thinker_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  eps: float = 1e-6,
) -> jax.Array:
  """Right answers pay for tokens beyond `smart_thinker_length`, the longest down to the mean.

    r - price * excess if right;  price = share wrong / (largest excess - mean excess + eps)

  The mean counts wrong answers with excess 0. With r = correct, no right answer falls below the
  group's mean reward, so that none is pushed down. Source: as `smart_thinker_length`.
  [..., G] each -> [..., G].

  >>> right, lengths = jnp.array([[True, True, False]]), jnp.array([[10, 20, 60]])
  >>> print(smart_thinker_reward(1.0 * right, right, lengths, jnp.ones((1, 3), bool)).round(3))
  [[1.  0.5 0. ]]
  """
  same_groups(rewards=rewards, correct=correct, lengths=lengths, valid=valid)
  right = correct.astype(bool) & valid
  target = smart_thinker_length(correct, lengths, valid)[..., None]
  excess = jnp.where(right, jnp.maximum(as_float(lengths) - target, 0.0), 0.0)
  room = jnp.max(excess, -1, keepdims=True) - masked_mean(excess, valid, -1, keepdims=True)
  price = (1.0 - masked_mean(right, valid, -1, keepdims=True)) / (room + eps)
  return as_float(rewards) - price * excess


def smart_thinker(*, eps: float = 1e-6, base: Stage | None = None) -> Stage:
  """The stage of `smart_thinker_reward`."""
  return shaped(
    base,
    lambda rewards, r: smart_thinker_reward(rewards, r.correct, r.lengths, r.valid, eps=eps),
    targets=lambda r: {"smart_thinker": smart_thinker_length(r.correct, r.lengths, r.valid)},
  )


def linear_penalty_reward(
  rewards: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  weight: float = 0.25,
  scale: float | None = None,
  gated: bool = False,
) -> jax.Array:
  """A price for each token in proportion to the group's mean reward.

    r - weight * mean r * length / longest of the group;  with `scale`, length / scale
    gated: the price times r, so that a wrong answer pays nothing

  Source: prime-rl's linear length penalty (weight 0.25). An earlier version divides by the run's
  longest sequence (`scale`) and has the gate. Its terms for context and turns are equal for all
  responses to one prompt here, and drop out of the advantage. [..., G] each -> [..., G].

  >>> rewards, lengths = jnp.array([[1.0, 0.0]]), jnp.array([[4, 8]])
  >>> print(linear_penalty_reward(rewards, lengths, jnp.ones((1, 2), bool), weight=0.5))
  [[ 0.875 -0.25 ]]
  """
  same_groups(rewards=rewards, lengths=lengths, valid=valid)
  rewards, lengths = as_float(rewards), as_float(lengths)
  longest = jnp.max(jnp.where(valid, lengths, 1.0), -1, keepdims=True)
  share = lengths / (longest if scale is None else scale)
  price = weight * masked_mean(rewards, valid, -1, keepdims=True) * share
  return rewards - price * (rewards if gated else 1.0)


def linear_penalty(
  *,
  weight: float = 0.25,
  scale: float | None = None,
  gated: bool = False,
  base: Stage | None = None,
) -> Stage:
  """The stage of `linear_penalty_reward`."""
  reward = partial(linear_penalty_reward, weight=weight, scale=scale, gated=gated)
  return shaped(base, lambda rewards, r: reward(rewards, r.lengths, r.valid))


def grpo_lead_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  alpha: float = 0.05,
  spare_up_to: float = 0.0,
  ddof: int = 1,
  eps: float = 1e-6,
) -> jax.Array:
  """A right answer's reward falls with its length among the right answers.

    r * exp(-alpha * z) if right;  z = (length - mean) / (std + eps), mean and std of right answers

  Source: GRPO-LEAD, arXiv:2504.09696, with reward -1 for wrong answers. The released code changes
  nothing in a group whose three shortest responses have at most 4,000 tokens on average
  (`spare_up_to=4000`). [..., G] each -> [..., G].

  >>> right, lengths = jnp.array([[True, True, False]]), jnp.array([[10, 20, 30]])
  >>> print(grpo_lead_reward(100.0 * right, right, lengths, jnp.ones((1, 3), bool)).round())
  [[104.  97.   0.]]
  """
  same_groups(rewards=rewards, correct=correct, lengths=lengths, valid=valid)
  right = correct.astype(bool) & valid
  factor = jnp.exp(-alpha * standardize(lengths, right, ddof=ddof, eps=eps))
  if spare_up_to:
    three = lambda x: jnp.sum(jnp.sort(x, -1)[..., :3], -1, keepdims=True)
    counted = jnp.where(valid, as_float(lengths), jnp.inf)
    shortest = left_to_xla(three, jnp.any(valid, -1, keepdims=True), counted)
    few = valid.shape[-1] < 3  # as good as infinite ones, in the code
    spared = shortest / 3 <= (-1.0 if few else spare_up_to)
    factor = jnp.where(spared, 1.0, factor)
  return jnp.where(right, as_float(rewards) * factor, as_float(rewards))


def grpo_lead(
  *,
  alpha: float = 0.05,
  spare_up_to: float = 0.0,
  ddof: int = 1,
  eps: float = 1e-6,
  base: Stage | None = None,
) -> Stage:
  """The stage of `grpo_lead_reward`; its advantage is `difficulty_weighted`."""
  reward = partial(grpo_lead_reward, alpha=alpha, spare_up_to=spare_up_to, ddof=ddof, eps=eps)

  return shaped(
    base,
    lambda rewards, r: reward(rewards, r.correct, r.lengths, r.valid),
    targets=lambda r: {"grpo_lead": mean_right(r)},
  )
