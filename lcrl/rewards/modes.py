"""Rewards for responses that have a mode of thinking: easy or hard, long, short or none."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import per_row, same_groups, same_shape
from lcrl.masked import as_float, masked_mean
from lcrl.modes import mode_accuracy, mode_is_preferred
from lcrl.rewards.base import shaped, shaped_with_state
from lcrl.rewards.references import Reference
from lcrl.types import Rollouts, Stage

__all__ = [
  "adactrl",
  "adactrl_reward",
  "adapt_think",
  "adapt_think_reward",
  "calibration_score",
  "easy_length_score",
  "mode_accuracy",
  "mode_is_preferred",
  "preferred_mode",
  "preferred_mode_reward",
  "thinkless",
  "thinkless_reward",
]

NO_TAG, EASY, HARD = 0, 1, 2


def easy_length_score(
  correct: jax.Array, lengths: jax.Array, tags: jax.Array, valid: jax.Array
) -> jax.Array:
  """(1 + cos(pi * length / longest of the group)) / 2 if right and tagged easy, 0 otherwise.

  `tags`: 0 none, 1 easy, 2 hard. [..., G] each -> [..., G].

  >>> tags, valid = jnp.array([[1, 2, 1]]), jnp.ones((1, 3), bool)
  >>> print(easy_length_score(jnp.ones((1, 3)), jnp.array([[5, 5, 10]]), tags, valid).round(3))
  [[0.5 0.  0. ]]
  """
  same_groups(correct=correct, lengths=lengths, tags=tags, valid=valid)
  lengths = as_float(lengths)
  longest = jnp.max(jnp.where(valid, lengths, 1.0), -1, keepdims=True, initial=1.0)
  score = 0.5 * (1.0 + jnp.cos(math.pi * lengths / longest))
  return jnp.where(correct.astype(bool) & (tags == EASY), score, 0.0)


def calibration_score(
  correct: jax.Array, tags: jax.Array, valid: jax.Array, *, threshold: float = 0.625
) -> jax.Array:
  """1 if the tag agrees with the group's accuracy, 0 if it does not, -1 without a tag.

  Easy is an accuracy above the threshold. [..., G] each -> [..., G].

  >>> correct, tags = jnp.array([[True, True, True, False]]), jnp.array([[1, 0, -1, 1]])
  >>> print(calibration_score(correct, tags, jnp.ones((1, 4), bool)))
  [[ 1. -1.  0.  1.]]
  """
  same_groups(correct=correct, tags=tags, valid=valid)
  easy = masked_mean(correct, valid, -1, keepdims=True) > threshold
  fits = tags == jnp.where(easy, EASY, HARD)
  return jnp.where(tags == NO_TAG, -1.0, as_float(fits))


def adactrl_reward(
  correct: jax.Array,
  lengths: jax.Array,
  tags: jax.Array,
  valid: jax.Array,
  *,
  threshold: float = 0.625,
  length_weight: float = 0.5,
  calibration_weight: float = 0.5,
) -> jax.Array:
  """1 or -1 for the verdict, plus weighted `easy_length_score` and `calibration_score`.

  Source: AdaCtrl, arXiv:2505.18822, and its code, without the overlong term (`soft_overlong`).
  [..., G] each -> [..., G].

  >>> correct, lengths = jnp.array([[True, True, False]]), jnp.array([[10, 20, 30]])
  >>> tags, valid = jnp.array([[1, 1, 0]]), jnp.ones((1, 3), bool)
  >>> print(adactrl_reward(correct, lengths, tags, valid).round(2))
  [[ 1.88  1.62 -1.5 ]]
  """
  same_groups(correct=correct, lengths=lengths, tags=tags, valid=valid)
  outcome = jnp.where(correct.astype(bool), 1.0, -1.0)
  short = easy_length_score(correct, lengths, tags, valid)
  fit = calibration_score(correct, tags, valid, threshold=threshold)
  return as_float(outcome) + length_weight * short + calibration_weight * fit


def adactrl(
  *, threshold: float = 0.625, length_weight: float = 0.5, calibration_weight: float = 0.5
) -> Stage:
  """`adactrl_reward`; the signal `tag` [B, G] says 0 none, 1 easy, 2 hard."""
  reward = partial(
    adactrl_reward,
    threshold=threshold,
    length_weight=length_weight,
    calibration_weight=calibration_weight,
  )

  def shape(rewards, r: Rollouts):
    return reward(r.correct, r.lengths, r.signals["tag"], r.valid)

  return shaped(None, shape, needs=("tag",))


def preferred_mode_reward(
  correct: jax.Array,
  long: jax.Array,
  valid: jax.Array,
  *,
  threshold: float = 0.3,
  right: float = 1.0,
  wrong: float = -1.0,
  bonus: float = 0.5,
) -> jax.Array:
  """The verdict's value, and a bonus for a right answer in the preferred mode.

  Source: the structure of Adaptive Deep Reasoning, arXiv:2505.20101; every constant is ours and
  unverified. [..., G] each -> [..., G].

  >>> right, long = jnp.array([[1, 1, 1, 0]]), jnp.array([[True, True, False, False]])
  >>> print(preferred_mode_reward(right, long, jnp.ones((1, 4), bool)))
  [[ 1.5  1.5  1.  -1. ]]
  """
  same_groups(correct=correct, long=long, valid=valid)
  preferred = mode_is_preferred(correct, long, valid, threshold=threshold)
  earned = jnp.where(preferred, right + bonus, right)
  return as_float(jnp.where(correct.astype(bool), earned, wrong))


def preferred_mode(
  *, threshold: float = 0.3, right: float = 1.0, wrong: float = -1.0, bonus: float = 0.5
) -> Stage:
  """`preferred_mode_reward` where `budget.level` 1 asks for long thinking and 0 for short."""
  reward = partial(
    preferred_mode_reward, threshold=threshold, right=right, wrong=wrong, bonus=bonus
  )
  return shaped(None, lambda rewards, r: reward(r.correct, r.budget.level == 1, r.valid))


def adapt_think_reward(
  rewards: jax.Array, skips_mode: jax.Array, reference: jax.Array, *, bonus: float = 0.05
) -> jax.Array:
  """r - reference, and a bonus where thinking was skipped: skip where that costs less accuracy.

  It is its own advantage (`advantages.raw`). Source: AdaptThink, arXiv:2505.13417: the reference is
  the start policy's accuracy on the prompt, and delta is 0.05. [..., G], [..., G], [...] ->
  [..., G].

  >>> skips = jnp.array([[True, False]])
  >>> print(adapt_think_reward(jnp.ones((1, 2)), skips, jnp.array([0.5]), bonus=0.25))
  [[0.75 0.5 ]]
  """
  same_groups(rewards=rewards, skips_mode=skips_mode)
  per_row(dict(rewards=rewards), reference=reference)
  return as_float(rewards) - as_float(reference)[..., None] + jnp.where(skips_mode, bonus, 0.0)


def adapt_think(
  *,
  reference: Reference,
  bonus: float = 0.05,
  level: int = 1,
  base: Stage | None = None,
) -> Stage:
  """`adapt_think_reward` where `budget.level` at `level` makes the response skip thinking.

  `reference`: such as `first_accuracy_reference`, of the rollouts that think. A prompt without a
  reference is compared with 0.
  """

  def shape(state, rewards, r: Rollouts):
    known = reference.read(state, r)
    known = jnp.where(jnp.isfinite(known), known, 0.0)
    skips = r.budget.level == level
    return adapt_think_reward(rewards, skips, known, bonus=bonus), reference.update(state, r)

  def numbers(state):
    found = reference.numbers(state).items()
    return {f"adapt_think/{name.removeprefix('effort/')}": x for name, x in found}

  stage = shaped_with_state(base, reference.init, shape, numbers=numbers, needs=reference.needs)
  rows = [n for n in (stage.rows, reference.rows) if n]
  return stage._replace(rows=min(rows, default=0))


def thinkless_reward(
  correct: jax.Array,
  tags: jax.Array,
  *,
  short: float = 1.0,
  think: float = 0.5,
  wrong: float = -1.0,
) -> jax.Array:
  """A right answer pays more in the short mode; a wrong or untagged one is punished.

  `tags`: 0 none, 1 short, 2 thinking. Source: Thinkless, arXiv:2505.13379, constants of its code.
  [...], [...] -> [...].

  >>> print(thinkless_reward(jnp.array([1, 1, 1, 0]), jnp.array([1, 2, 0, 1])))
  [ 1.   0.5 -1.  -1. ]
  """
  same_shape(correct=correct, tags=tags)
  paid = jnp.where(tags == 1, short, jnp.where(tags == 2, think, wrong))
  return as_float(jnp.where(correct.astype(bool), paid, wrong))


def thinkless(*, short: float = 1.0, think: float = 0.5, wrong: float = -1.0) -> Stage:
  """`thinkless_reward`; the signal `tag` [B, G] says 0 none, 1 short, 2 thinking."""
  reward = partial(thinkless_reward, short=short, think=think, wrong=wrong)
  return shaped(None, lambda rewards, r: reward(r.correct, r.signals["tag"]), needs=("tag",))
