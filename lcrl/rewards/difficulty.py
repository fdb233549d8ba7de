"""Targets by the difficulty of a prompt, measured by the accuracy of its group.

LASER-D learns one target per accuracy level from a monitor set; DA-DLER has fixed tiers.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.checks import per_row, same_groups, same_shape
from lcrl.masked import as_float, masked_mean
from lcrl.rewards.base import shaped, shaped_with_state
from lcrl.rewards.target import step_bonus_reward, truncated_reward
from lcrl.sharding import look_up
from lcrl.types import Outcome, Rollouts, Stage

__all__ = [
  "accuracy_level",
  "covering_length",
  "expected_right",
  "laser_d",
  "length_coverage",
  "length_thresholds",
  "tiered_limit",
  "tiered_truncation",
]


def accuracy_level(correct: jax.Array, valid: jax.Array, *, strict: bool = False) -> jax.Array:
  """0, 1 or 2: less than a third of the group right, less than two thirds, or at least that.

  `strict` puts a group on the boundary one level lower, as LASER's code does for its monitor set.
  [..., G], [..., G] -> [...] int32.

  >>> correct = jnp.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])
  >>> print(accuracy_level(correct, jnp.ones((3, 3), bool)))
  [1 2 0]
  """
  same_groups(correct=correct, valid=valid)
  right, count = jnp.sum(correct.astype(bool) & valid, -1), jnp.sum(valid, -1)
  reach = jnp.greater if strict else jnp.greater_equal
  return reach(3 * right, count).astype(jnp.int32) + reach(3 * right, 2 * count)


def length_thresholds(lower: int, upper: int, interval: int) -> jax.Array:
  """Candidate targets: lower, lower + interval, ... below upper + interval; the last may exceed
  upper. If 1024 lies within the first interval, the steps begin there, as in LASER's code.

  >>> print(length_thresholds(512, 2048, 1024), length_thresholds(8, 20, 4))
  [ 512 1024 2048] [ 8 12 16 20]
  """
  for name, value in (("lower", lower), ("upper", upper), ("interval", interval)):
    if value < 1 or value != int(value):
      raise ValueError(f"{name} must be a whole number of at least 1, got {value}.")
  if upper <= lower:
    raise ValueError(
      f"upper must be above lower, or there is one target and no choice, got lower={lower} and "
      f"upper={upper}."
    )
  if lower < 1024 <= min(lower + interval, upper):
    return jnp.concatenate([jnp.array([lower]), jnp.arange(1024, upper + interval, interval)])
  return jnp.arange(lower, upper + interval, interval)


def length_coverage(lengths: jax.Array, mask: jax.Array, thresholds: jax.Array) -> jax.Array:
  """Share of the selected responses, right or wrong, within each threshold; 0 where none is.

  [..., N], [..., N], [K] -> [..., K].

  >>> lengths, mask = jnp.array([10, 20, 99]), jnp.array([True, True, False])
  >>> print(length_coverage(lengths, mask, jnp.array([5, 15, 25])))
  [0.  0.5 1. ]
  """
  same_shape(lengths=lengths, mask=mask)
  share = lambda threshold: masked_mean(lengths <= threshold, mask, -1)
  return jax.vmap(share, out_axes=-1)(thresholds)


def expected_right(samples: int, *, round_down: bool = False) -> jax.Array:
  """Right answers expected of `samples` at levels 0, 1, 2: [1, K / 3, 2 K / 3].

  The paper rounds up; all released scripts round down, which asks for more coverage.

  >>> print(expected_right(8), expected_right(8, round_down=True))
  [1 3 6] [1 2 5]
  """
  up = 0 if round_down else 2
  return jnp.array([1, (samples + up) // 3, (2 * samples + up) // 3])


def covering_length(
  coverage: jax.Array, thresholds: jax.Array, expected: jax.Array, fallback: jax.Array
) -> jax.Array:
  """The smallest threshold within which one right answer is expected: coverage * expected >= 1.

  The fallback where no threshold below it does. [..., K], [K], [...], [] -> [...] int32.

  >>> coverage, thresholds = jnp.array([0.1, 0.5, 1.0]), jnp.array([8, 16, 32])
  >>> print(covering_length(coverage, thresholds, jnp.array(2), jnp.array(32)))
  16
  """
  per_row(dict(coverage=coverage), expected=expected)
  # The slack absorbs rounding of shares such as 1 / 5 * 5.
  enough = coverage * as_float(expected)[..., None] >= 1 - 1e-6
  candidates = jnp.where(enough, thresholds, fallback)
  return jnp.minimum(jnp.min(candidates, -1), fallback).astype(jnp.int32)


class LevelTargets(NamedTuple):
  targets: jax.Array  # [3] int32, by accuracy level, low first
  longest: jax.Array  # [] int32, longest response of the last training batch, 0 before it


def laser_d(
  *,
  lower: int,
  upper: int,
  interval: int = 1024,
  initial: int = 8192,
  alpha: float = 0.5,
  explore: float = 0.0,
  round_down: bool = False,
  spare_bad_format: bool = False,
  base: Stage | None = None,
) -> Stage:
  """LASER's bonus with one target per accuracy level, searched anew on each monitor pass.

  Source: LASER-D, arXiv:2505.15612 (lower 1024 to 4096, upper 16384); with `explore=0.5`, LASER-DE.
  The released code has `round_down=True`, and for LASER-DE `spare_bad_format=True`. If no threshold
  covers enough, the target is the longest response of the last training batch.
  """
  thresholds = length_thresholds(lower, upper, interval)

  def init():
    return LevelTargets(jnp.full(3, initial, jnp.int32), jnp.zeros((), jnp.int32))

  if initial < 1:
    raise ValueError(f"initial must be at least 1, got {initial}.")

  def of_groups(state, r: Rollouts):
    targets = look_up(state.targets, accuracy_level(r.correct, r.valid))
    return jnp.broadcast_to(targets[:, None], r.lengths.shape)

  def shape(state, rewards, r: Rollouts):
    targets = of_groups(state, r)
    spared = r.outcome == Outcome.BAD_FORMAT if spare_bad_format else None
    rewards = step_bonus_reward(
      rewards,
      r.correct,
      r.lengths,
      targets,
      alpha=alpha,
      explore=explore,
      spared=spared,
      truncated=r.truncated,
    )
    return rewards, state._replace(longest=_longest(r))

  def observe(state, monitor: Rollouts):
    level = accuracy_level(monitor.correct, monitor.valid, strict=True)
    chosen = (level[None] == jnp.arange(3)[:, None])[..., None] & monitor.valid[None]
    lengths = jnp.broadcast_to(monitor.lengths[None], chosen.shape)
    coverage = length_coverage(lengths.reshape(3, -1), chosen.reshape(3, -1), thresholds)
    expected = expected_right(monitor.lengths.shape[1], round_down=round_down)
    fallback = jnp.where(state.longest > 0, state.longest, _longest(monitor))
    return state._replace(targets=covering_length(coverage, thresholds, expected, fallback))

  def numbers(state):
    levels = {f"laser_d/target_level_{i}": x for i, x in enumerate(state.targets)}
    return levels | {"laser_d/longest": state.longest}

  return shaped_with_state(
    base,
    init,
    shape,
    observe=observe,
    needs=("truncated",),
    targets=lambda state, r: {"laser_d": of_groups(state, r)},
    numbers=numbers,
  )


def _longest(r: Rollouts):
  return jnp.max(jnp.where(r.valid, r.lengths, 0)).astype(jnp.int32)


def tiered_limit(
  correct: jax.Array, valid: jax.Array, *, thresholds: tuple[float, ...], limits: tuple[int, ...]
) -> jax.Array:
  """The length limit of a group by its accuracy: limits from hard to easy, one more than
  thresholds.

  A group at a threshold counts as the easier one (our choice). [..., G], [..., G] -> [...] int32.

  >>> correct = jnp.array([[1, 0], [0, 0]])
  >>> print(tiered_limit(correct, jnp.ones((2, 2), bool), thresholds=(0.5,), limits=(40, 20)))
  [20 40]
  """
  if len(limits) != len(thresholds) + 1:
    raise ValueError(
      f"limits must be one more than thresholds, got {len(limits)} and {len(thresholds)}."
    )
  same_groups(correct=correct, valid=valid)
  accuracy = masked_mean(correct, valid, -1)
  tier = sum((accuracy >= t - 1e-6).astype(jnp.int32) for t in thresholds)
  return look_up(jnp.asarray(limits, jnp.int32), tier)


def tiered_truncation(
  *,
  thresholds: tuple[float, ...] = (0.5,),
  limits: tuple[int, ...] = (4000, 2000),
  base: Stage | None = None,
) -> Stage:
  """The reward counts for responses within their group's `tiered_limit`: DA-DLER, arXiv:2510.15110.

  Responses are sampled up to the longest limit, which decides their accuracy; the limit then cuts
  rewards. A truncated response has not ended.

  >>> tiered_truncation(limits=(400, 200)).needs
  ('truncated',)
  """

  limit_of = partial(tiered_limit, thresholds=thresholds, limits=limits)

  def shape(rewards, r: Rollouts):
    limit = jnp.broadcast_to(limit_of(r.correct, r.valid)[:, None], rewards.shape)
    return truncated_reward(rewards, r.lengths, limit, truncated=r.truncated)

  targets = lambda r: {"tiered_truncation": limit_of(r.correct, r.valid)}
  return shaped(base, shape, needs=("truncated",), targets=targets)
