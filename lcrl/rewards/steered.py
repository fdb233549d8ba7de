"""Rewards whose pressure on length follows the accuracy: a price, or budgets that come and go."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.by_row import known_rows, lower_rows, of_prompts, of_rows, unknown
from lcrl.checks import one_or_each, per_row, positive, same_groups, same_shape
from lcrl.masked import as_float, masked_mean, masked_quantile
from lcrl.rewards.base import shaped_with_state
from lcrl.rewards.constraint import priced_reward
from lcrl.types import Rollouts, Stage

__all__ = [
  "a_dlp",
  "aalc",
  "aalc_reward",
  "accuracy_price",
  "right_length_quantile",
  "toggle",
  "toggle_reward",
]


def accuracy_price(
  price: jax.Array, accuracy: jax.Array, *, reference: float, step_size: float = 1e-3
) -> jax.Array:
  """max(0, price + step_size * (accuracy - reference)): tokens cost more while answers stay right.

  Source: A-DLP, arXiv:2505.18298. [], [] -> [].

  >>> print(accuracy_price(jnp.array(0.25), jnp.array(0.5), reference=0.75, step_size=0.5))
  0.125
  """
  one_or_each({"the run": jnp.zeros(())}, price=price, accuracy=accuracy)
  return jnp.maximum(as_float(price) + step_size * (as_float(accuracy) - reference), 0.0)


def a_dlp(
  *,
  reference: float,
  start: float = 1e-3,
  step_size: float = 1e-3,
  base: Stage | None = None,
) -> Stage:
  """A-DLP: r - price * length, right or wrong, at the price that `accuracy_price` leads.

  `reference` is the accuracy of the policy before training. A batch pays the price from before its
  update, as in the released code. State: the price.
  """

  def shape(price, rewards, r: Rollouts):
    accuracy = masked_mean(r.correct, r.valid)
    new = accuracy_price(price, accuracy, reference=reference, step_size=step_size)
    return priced_reward(rewards, r.lengths, price, scale=1.0), new.astype(price.dtype)

  return shaped_with_state(
    base,
    lambda: jnp.asarray(start, jnp.float32),
    shape,
    numbers=lambda price: {"a_dlp/price": price},
  )


def aalc_reward(
  rewards: jax.Array,
  lengths: jax.Array,
  progress: jax.Array,
  *,
  max_length: float,
  alpha: float = 1e-6,
  beta: float = 128.0,
  gamma: float = 0.9,
) -> jax.Array:
  """Brevity pays once the accuracy is near its target, and the verdict then pays a little less.

    (gamma + (1 - gamma) * (1 - p)) * r + alpha * (1 - min(p^beta, length / max_length, 1))

  p = `progress` is accuracy / target, at most 1. Until p^beta reaches length / max_length, a token
  less changes nothing. Right and wrong answers alike. Source: AALC, arXiv:2506.20160, constants of
  its code. [...], [...], [] -> [...].

  >>> lengths = jnp.array([25, 75])
  >>> print(aalc_reward(jnp.ones(2), lengths, jnp.array(0.5), max_length=100, alpha=1.0, beta=1.0))
  [1.7  1.45]
  """
  same_shape(rewards=rewards, lengths=lengths)
  one_or_each({"the run": jnp.zeros(())}, progress=progress)
  positive(max_length=max_length)
  p = jnp.clip(as_float(progress), 0.0, 1.0)
  spared = 1.0 - jnp.minimum(p**beta, jnp.minimum(as_float(lengths) / max_length, 1.0))
  return (gamma + (1.0 - gamma) * (1.0 - p)) * as_float(rewards) + alpha * spared


class Validation(NamedTuple):
  accuracy: jax.Array  # [] float32, as last observed; -1 before that
  best: jax.Array  # [] float32
  gap: jax.Array  # [] float32, of the target above the best accuracy


def aalc(
  *,
  max_length: float,
  alpha: float = 1e-6,
  beta: float = 128.0,
  gamma: float = 0.9,
  decay: float = 0.9,
  base: Stage | None = None,
) -> Stage:
  """AALC: `aalc_reward` of the accuracy on the monitor set, over a target that comes down to it.

    target = best accuracy so far + gap;  gap <- decay * gap each step, at most 1 - best accuracy

  The released code has this schedule in comments and runs with target 1, `decay=1`. State:
  accuracy, best and gap; before the first observation r stays.
  """
  if not 0 < decay <= 1:
    raise ValueError(f"decay must be in (0, 1], got {decay}.")
  target_of = lambda state: state.best + state.gap

  def shape(state: Validation, rewards, r: Rollouts):
    progress = state.accuracy / jnp.maximum(target_of(state), 1e-6)
    shaped = aalc_reward(
      rewards, r.lengths, progress, max_length=max_length, alpha=alpha, beta=beta, gamma=gamma
    )
    rewards = jnp.where(state.accuracy >= 0, shaped, as_float(rewards))
    return rewards, state._replace(gap=state.gap * decay)

  def observe(state: Validation, monitor: Rollouts):
    accuracy = masked_mean(monitor.correct, monitor.valid).astype(state.accuracy.dtype)
    best = jnp.maximum(state.best, accuracy)
    return Validation(accuracy, best, jnp.minimum(state.gap, 1.0 - best))

  return shaped_with_state(
    base,
    lambda: Validation(*(jnp.asarray(x, jnp.float32) for x in (-1.0, 0.0, 1.0))),
    shape,
    observe=observe,
    numbers=lambda s: {"aalc/accuracy": s.accuracy, "aalc/target": target_of(s)},
  )


def right_length_quantile(
  correct: jax.Array, lengths: jax.Array, valid: jax.Array, *, quantile: float
) -> jax.Array:
  """Quantile of the lengths of a group's right answers, inf if there are none.

  Linear between lengths. [..., G] each -> [...].

  >>> right = jnp.array([[True, True, False], [False, False, False]])
  >>> lengths, valid = jnp.array([[10, 20, 90], [1, 2, 3]]), jnp.ones((2, 3), bool)
  >>> print(right_length_quantile(right, lengths, valid, quantile=0.5))
  [15. inf]
  """
  same_groups(correct=correct, lengths=lengths, valid=valid)
  right = correct.astype(bool) & valid
  return masked_quantile(lengths, right, quantile, empty=jnp.inf)


def toggle_reward(
  rewards: jax.Array,
  lengths: jax.Array,
  budgets: jax.Array,
  valid: jax.Array,
  *,
  threshold: float,
) -> jax.Array:
  """The reward counts within the prompt's budget alone, once the group's mean is at `threshold`.

    r * 1{mean r < threshold or length <= budget}

  Source: the phase with budgets of Toggle, Kimi K2.5, arXiv:2602.02276, section 4.4.2.
  [..., G], [..., G], [...], [..., G] -> [..., G].

  >>> rewards, lengths = jnp.array([[1.0, 1.0, 0.0]]), jnp.array([[10, 20, 10]])
  >>> valid = jnp.ones((1, 3), bool)
  >>> print(toggle_reward(rewards, lengths, jnp.array([15]), valid, threshold=0.5))
  [[1. 0. 0.]]
  """
  same_groups(rewards=rewards, lengths=lengths, valid=valid)
  per_row(dict(lengths=lengths), budgets=budgets)
  free = masked_mean(rewards, valid, -1, keepdims=True) < threshold
  return as_float(rewards) * (free | (as_float(lengths) <= budgets[..., None]))


class ToggleState(NamedTuple):
  budgets: jax.Array  # [rows] float32, inf before the prompt's first right answer
  step: jax.Array  # [] int32


def toggle(
  *,
  rows: int,
  threshold: float,
  quantile: float,
  period: int,
  base: Stage | None = None,
) -> Stage:
  """Toggle: `period` steps with `toggle_reward`, then `period` steps with the plain reward.

  A prompt's budget is `right_length_quantile` of the first group of its that has a right answer,
  and stays. The report takes it from rollouts drawn before training. It gives no numbers for
  `threshold`, `quantile` and `period`.
  """
  if period < 1:
    raise ValueError(f"period must be at least 1, got {period}.")
  limited = lambda state: state.step // period % 2 == 0

  def shape(state, rewards, r: Rollouts):
    budgets = of_rows(state.budgets, r.prompt_ids)
    within = toggle_reward(rewards, r.lengths, budgets, r.valid, threshold=threshold)
    first = right_length_quantile(r.correct, r.lengths, r.valid, quantile=quantile)
    first = jnp.where(jnp.isfinite(budgets), jnp.inf, first).astype(jnp.float32)
    new = lower_rows(state.budgets, r.prompt_ids, first)
    return jnp.where(limited(state), within, as_float(rewards)), ToggleState(new, state.step + 1)

  def targets(state, r: Rollouts):
    return {"toggle": jnp.where(limited(state), of_prompts(state.budgets, r), jnp.inf)}

  def numbers(state):
    return known_rows("toggle", state.budgets) | {"toggle/limited": limited(state)}

  stage = shaped_with_state(
    base,
    lambda: ToggleState(unknown(rows), jnp.zeros((), jnp.int32)),
    shape,
    targets=targets,
    numbers=numbers,
  )
  return stage._replace(rows=rows)
