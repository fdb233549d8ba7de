"""NeMo-RL's terms for length among the right answers of a group, and for prompts with a profile.

Source: NVIDIA NeMo-RL, `nemo_rl/utils/length_penalty.py` and its guide. There rewards are 0 or 1,
so that all right answers are top scorers. No term takes a reward below 0 or touches a wrong answer.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lcrl.by_row import known_rows, lower_rows, of_prompts, unknown
from lcrl.checks import same_groups, same_shape, typed
from lcrl.masked import as_float, masked_mean, masked_quantile, masked_std
from lcrl.rewards.base import shaped, shaped_with_state
from lcrl.rewards.group import mean_right
from lcrl.rewards.parts import relative_shortness
from lcrl.types import Rollouts, Stage

__all__ = [
  "band_factor",
  "length_suite",
  "length_suite_reward",
  "long_outliers",
  "profiled_limit",
  "profiled_penalty",
  "profiled_penalty_reward",
]


def long_outliers(
  lengths: jax.Array, valid: jax.Array, *, threshold: float = 2.5, min_spread: float = 0.015
) -> jax.Array:
  """Which lengths are far above the median, by the median absolute deviation (MAD).

    0.6745 * (length - median) / MAD > threshold, none if MAD < min_spread * median or MAD = 0

  [..., G], [..., G] -> [..., G] bool.

  >>> print(long_outliers(jnp.array([[10, 11, 12, 13, 40]]), jnp.ones((1, 5), bool)))
  [[False False False False  True]]
  """
  same_groups(lengths=lengths, valid=valid)
  median = masked_quantile(lengths, valid, 0.5, keepdims=True)
  gap = as_float(lengths) - median
  mad = masked_quantile(jnp.abs(gap), valid, 0.5, keepdims=True)
  spread = (mad > 0) & (mad >= min_spread * median)
  return valid & spread & (0.6745 * gap > threshold * mad)


def band_factor(lengths: jax.Array, *, low: float, high: float, floor: float) -> jax.Array:
  """1 up to `low` tokens, `floor` from `high` tokens on, linear between. [...] -> [...].

  >>> print(band_factor(jnp.array([5, 15, 30]), low=10.0, high=20.0, floor=0.5))
  [1.   0.75 0.5 ]
  """
  typed(lengths=lengths)
  if not low < high:
    raise ValueError(f"low must be below high, got {low} and {high}.")
  return 1.0 - (1.0 - floor) * jnp.clip((as_float(lengths) - low) / (high - low), 0.0, 1.0)


def length_suite_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  shortest_bonus: float = 0.0,
  longest_penalty: float = 0.0,
  relative: float = 0.0,
  gate: float = 0.0,
  outlier_penalty: float = 0.0,
  outlier_threshold: float = 2.5,
  band: tuple[float, float, float] | None = None,
) -> jax.Array:
  """Terms for length among a group's right answers, if it has two or more, then a band.

    max(0, r + shortest_bonus if shortest - longest_penalty if longest
             + relative * `relative_shortness` if the mean right length > gate
             - outlier_penalty if one of `long_outliers`) * `band_factor`(low, high, floor)

  Shortest and longest are of at least one token, and the first of equals; they may be one rollout.
  The band serves a single right answer, too. [..., G] each -> [..., G].

  >>> right, lengths = jnp.array([[True, True, False]]), jnp.array([[10, 30, 5]])
  >>> valid, knobs = jnp.ones((1, 3), bool), dict(relative=0.5, shortest_bonus=0.25)
  >>> print(length_suite_reward(1.0 * right, right, lengths, valid, **knobs))
  [[1.5  0.75 0.  ]]
  """
  same_groups(rewards=rewards, correct=correct, lengths=lengths, valid=valid)
  right = correct.astype(bool) & valid
  several = jnp.sum(right, -1, keepdims=True) > 1
  some = right & (lengths > 0)
  first = lambda order: jax.nn.one_hot(jnp.argmin(order, -1), order.shape[-1], dtype=bool) & some
  shortest = first(jnp.where(some, as_float(lengths), jnp.inf))
  longest = first(jnp.where(some, -as_float(lengths), jnp.inf))
  compares = jnp.sum(some, -1, keepdims=True) > 1
  opened = masked_mean(lengths, right, -1, keepdims=True) > gate
  outliers = long_outliers(lengths, right, threshold=outlier_threshold)
  terms = shortest_bonus * shortest - longest_penalty * (longest & compares)
  terms += relative * opened * relative_shortness(lengths, right) - outlier_penalty * outliers
  shaped = jnp.maximum(as_float(rewards) + jnp.where(several, terms, 0.0), 0.0)
  if band is not None:
    low, high, floor = band
    shaped = shaped * band_factor(lengths, low=low, high=high, floor=floor)
  return jnp.where(right, shaped, as_float(rewards))


def length_suite(
  *,
  shortest_bonus: float = 0.0,
  longest_penalty: float = 0.0,
  relative: float = 0.0,
  gate: float = 0.0,
  outlier_penalty: float = 0.0,
  outlier_threshold: float = 2.5,
  band: tuple[float, float, float] | None = None,
  part: str = "total",
  base: Stage | None = None,
) -> Stage:
  """`length_suite_reward` of the whole response, or of its `part` "think" or "answer".

  Thinking ends with its end tag; without one all is thinking. Parts are combined by `base`, where
  NeMo-RL adds up their terms before it cuts rewards off at 0.
  """
  if part not in ("total", "think", "answer"):
    raise ValueError(f"part must be total, think or answer, got {part!r}.")
  reward = partial(
    length_suite_reward,
    shortest_bonus=shortest_bonus,
    longest_penalty=longest_penalty,
    relative=relative,
    gate=gate,
    outlier_penalty=outlier_penalty,
    outlier_threshold=outlier_threshold,
    band=band,
  )

  def measured(r: Rollouts):
    if part == "total":
      return r.lengths
    end = r.signals["think_end"]
    thinking = jnp.where(end < 0, r.lengths, end + 1)
    return thinking if part == "think" else r.lengths - thinking

  whole = part == "total"
  return shaped(
    base,
    lambda rewards, r: reward(rewards, r.correct, measured(r), r.valid),
    needs=() if whole else ("think_end",),
    targets=(lambda r: {"length_suite": mean_right(r)}) if whole else None,
  )


def profiled_limit(
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  deviations: float = 1.0,
  min_right: int = 2,
) -> jax.Array:
  """Mean and some standard deviations of right answers' lengths, inf with few right answers.

  A profile is a group of answers to the prompt that another policy gave. [..., G] each -> [...].

  >>> correct, lengths = jnp.array([[True, True, False]]), jnp.array([[10, 20, 90]])
  >>> print(profiled_limit(correct, lengths, jnp.ones((1, 3), bool)).round(1))
  [22.1]
  """
  same_groups(correct=correct, lengths=lengths, valid=valid)
  right = correct.astype(bool) & valid
  limit = masked_mean(lengths, right, -1) + deviations * masked_std(lengths, right, -1, ddof=1)
  return jnp.where(jnp.sum(right, -1) >= max(min_right, 1), limit, jnp.inf)


def profiled_penalty_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  limits: jax.Array,
  *,
  penalty: float = 0.1,
) -> jax.Array:
  """max(0, r - penalty) for a right answer as long as its prompt's limit or longer.

  A reward below 1 has paid for its length already and stays. [...] each -> [...].

  >>> rewards = correct = jnp.ones(3)
  >>> limits = jnp.full(3, 20.0)
  >>> print(profiled_penalty_reward(rewards, correct, jnp.array([10, 20, 30]), limits, penalty=0.5))
  [1.  0.5 0.5]
  """
  same_shape(rewards=rewards, correct=correct, lengths=lengths, limits=limits)
  rewards = as_float(rewards)
  pays = correct.astype(bool) & (rewards >= 1.0) & (as_float(lengths) >= limits)
  return jnp.where(pays, jnp.maximum(rewards - penalty, 0.0), rewards)


def profiled_penalty(
  *,
  rows: int,
  penalty: float = 0.1,
  deviations: float = 1.0,
  min_right: int = 2,
  base: Stage | None = None,
) -> Stage:
  """`profiled_penalty_reward`; the profile is the prompt's first group with `min_right` right ones.

  NeMo-RL reads profiles of a policy from the data. State: [rows] float32, the limits.
  """

  def shape(limits, rewards, r: Rollouts):
    own = of_prompts(limits, r)
    shaped = profiled_penalty_reward(rewards, r.correct, r.lengths, own, penalty=penalty)
    profile = partial(profiled_limit, deviations=deviations, min_right=min_right)
    first = profile(r.correct, r.lengths, r.valid)
    first = jnp.where(jnp.isfinite(own[:, 0]), jnp.inf, first).astype(limits.dtype)
    return shaped, lower_rows(limits, r.prompt_ids, first)

  stage = shaped_with_state(
    base,
    lambda: unknown(rows),
    shape,
    targets=lambda limits, r: {"profiled_penalty": of_prompts(limits, r)},
    numbers=partial(known_rows, "profiled_penalty"),
  )
  return stage._replace(rows=rows)
