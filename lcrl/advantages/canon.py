"""CANON: a rollout compared with the half of its group that it does not belong to.

Source: Conditional Advantage Estimation, arXiv:2509.23962, and its code, without the code's
offset beta. No division by the deviation; the weights are `fixed_length`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lcrl.checks import same_groups
from lcrl.masked import as_float, masked_mean
from lcrl.sharding import ranks
from lcrl.types import Rollouts, Stage

__all__ = [
  "accuracy_mix",
  "canon_advantage",
  "canon_entropy",
  "canon_length",
  "cosine_restarts",
  "cosine_restarts_weight",
]

Mix = Callable[[jax.Array, jax.Array], jax.Array]  # step, mean reward of the batch -> mu


def canon_advantage(
  rewards: jax.Array,
  metric: jax.Array,
  keep: jax.Array,
  *,
  mu: jax.Array | float = 0.5,
  high_weight: float = 1.0,
  low_weight: float = 1.0,
  lone_raw: bool = False,
) -> jax.Array:
  """Compares with the mean of the other half, and with that of the own half, by a metric's order.

    A = mu * (w_own * r - w_other * mean of the other half) + (1 - mu) * (r - mean of the own half)

  The low half holds the floor(G / 2) lowest, ties in order of sampling. A `high_weight` below 1
  makes long right answers worth less, also where all are right. At mu 0.5 and weights 1 it is
  `group_centered_advantage` for even groups. A rollout alone gets 0, or counts as high, with means
  of 0 (`lone_raw=True`).

  Args:
    rewards: [..., B, G].
    metric: [..., B, G], length or mean token entropy.
    keep: [..., B, G] bool.
    mu: how much the other half counts.
  Returns: [..., B, G] float, 0 where not kept.

  >>> rewards, lengths = jnp.array([[1.0, 0.0, 1.0, 1.0]]), jnp.array([[5, 9, 3, 12]])
  >>> print(canon_advantage(rewards, lengths, jnp.ones((1, 4), bool), mu=1.0))
  [[ 0.5 -1.   0.5  0. ]]
  """
  same_groups(rewards=rewards, metric=metric, keep=keep)
  rewards = as_float(rewards)
  count = jnp.sum(keep, -1, keepdims=True)
  high = ranks(jnp.where(keep, as_float(metric), jnp.inf)) >= count // 2
  lone = count == 1
  half_mean = lambda half: jnp.where(
    lone, 0.0, masked_mean(rewards, keep & half, -1, keepdims=True)
  )
  above, below = half_mean(high), half_mean(~high)
  inter = jnp.where(
    high, high_weight * rewards - low_weight * below, low_weight * rewards - high_weight * above
  )
  intra = rewards - jnp.where(high, above, below)
  return jnp.where(keep & (lone_raw | ~lone), mu * inter + (1 - mu) * intra, 0.0)


def cosine_restarts_weight(
  step: jax.Array, *, low: float, high: float, warmup: int, period: float
) -> jax.Array:
  """Linear to `high` over `warmup` steps, then a half cosine to `low` in every period.

  CANON: 30, 40; 0.6 and 0 "first intra", 1.0 and 0.4 "first inter". [...] int -> [...] float.

  >>> weight = cosine_restarts_weight(jnp.array([0, 1, 2]), low=0.0, high=1.0, warmup=2, period=9)
  >>> print(weight)
  [0.5 1.  1. ]
  """
  rising = high * (as_float(step) + 1.0) / max(warmup, 1)
  phase = math.pi * as_float((step - warmup) % period) / period
  return jnp.where(step < warmup, rising, low + 0.5 * (high - low) * (1.0 + jnp.cos(phase)))


def accuracy_mix(*, inter_first: bool = False) -> Mix:
  """mu = mean reward of the batch: first within the halves, later between; or the other way.

  Source: CANON, arXiv:2509.23962, and its code.
  """
  return lambda step, mean: 1.0 - mean if inter_first else mean


def cosine_restarts(
  *, low: float, high: float, warmup: int, period: float, inter_first: bool = False
) -> Mix:
  """mu = 1 - `cosine_restarts_weight`, or, with `inter_first`, that weight itself.

  The paper's code: low 0 and high 0.6, or with `inter_first` low 0.4 and high 1.

  >>> mix = cosine_restarts(low=0.0, high=0.6, warmup=0, period=10.0)
  >>> print(f"{mix(jnp.array(0), jnp.array(0.5)):.2f}")
  0.40
  """

  def mix(step, mean):
    weight = cosine_restarts_weight(step, low=low, high=high, warmup=warmup, period=period)
    return weight if inter_first else 1.0 - weight

  return mix


def canon_length(
  *, mu: float | Mix = 0.5, alpha: float = 1.0, over_valid: bool = False, lone_raw: bool = False
) -> Stage:
  """`canon_advantage` by length; alpha below 1 favours short answers. State: the step."""
  return _stage(
    lambda r: as_float(r.lengths), (), mu, over_valid, high_weight=alpha, lone_raw=lone_raw
  )


def canon_entropy(
  *, mu: float | Mix = 0.5, alpha: float = 1.0, over_valid: bool = False, lone_raw: bool = False
) -> Stage:
  """`canon_advantage` by mean token entropy; alpha, as in the code, weighs the low half."""
  metric = lambda r: masked_mean(r.signals["entropy"], r.mask, -1)
  return _stage(metric, ("entropy",), mu, over_valid, low_weight=alpha, lone_raw=lone_raw)


def _stage(metric, needs, mu, over_valid, **knobs) -> Stage:
  def apply(step, rewards, keep, r: Rollouts):
    among = r.valid if over_valid else keep
    share = mu(step, masked_mean(rewards, among)) if callable(mu) else mu
    advantages = canon_advantage(rewards, metric(r), among, mu=share, **knobs)
    return jnp.where(keep, advantages, 0.0), step + 1

  return Stage(
    lambda: jnp.zeros((), jnp.int32),
    apply,
    needs=("group", *needs),
    numbers=lambda step: {"canon/step": step},
  )
