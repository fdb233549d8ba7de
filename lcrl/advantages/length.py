"""Advantages that length or the budget enters after the comparison with the group."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from lcrl.advantages.group import group_normalized_advantage
from lcrl.checks import same_groups
from lcrl.masked import as_float, masked_mean, masked_quantile, masked_std
from lcrl.sharding import left_to_xla
from lcrl.types import Rollouts, Stage

__all__ = [
  "budget_subgroup",
  "budget_subgroup_advantage",
  "qglas",
  "qglas_advantage",
  "qglas_weight",
  "shortness_of_positive",
]


def budget_subgroup_advantage(
  rewards: jax.Array,
  budgets: jax.Array,
  keep: jax.Array,
  *,
  max_length: float = 4096.0,
  beta: float = 4.0,
  intra_weight: float = 1.0,
  eps: float = 1e-6,
  pi: float = math.pi,
) -> jax.Array:
  """The group's standardised reward, plus how its budget's subgroup did against that budget's best.

    A = (r - mean) / (std + eps)
        + intra_weight * (mean r of the same budget - beta cos(pi budget / (2 max_length)))

  Source: HBPO, arXiv:2507.15844 (Algorithm 1). The released code adds the second term twice
  (`intra_weight=2`) with pi=3.1416. It is not centred: a group that is all wrong is pushed down.
  [..., B, G] each -> [..., B, G].

  >>> rewards, budgets = jnp.array([[1.0, 0.0]]), jnp.array([[512, 2048]])
  >>> keep = jnp.ones((1, 2), bool)
  >>> print(budget_subgroup_advantage(rewards, budgets, keep, beta=1.0).round(3))
  [[ 0.726 -1.414]]
  """
  same_groups(rewards=rewards, budgets=budgets, keep=keep)
  subgroup = left_to_xla(_same_budget_mean, keep, rewards, budgets, keep)
  best = beta * jnp.cos(pi * as_float(budgets) / (2 * max_length))
  inter = group_normalized_advantage(rewards, keep, eps=eps, lone_raw=False)
  return jnp.where(keep, inter + intra_weight * (subgroup - best), 0.0)


def _same_budget_mean(rewards, budgets, keep):
  """The mean reward of the kept rollouts of the group with the same budget."""
  same = (budgets[..., :, None] == budgets[..., None, :]) & keep[..., None, :]
  return masked_mean(jnp.where(keep, rewards, 0.0)[..., None, :], same, -1)


def budget_subgroup(
  *,
  max_length: float = 4096.0,
  beta: float = 4.0,
  intra_weight: float = 1.0,
  eps: float = 1e-6,
) -> Stage:
  """`budget_subgroup_advantage` by `budget.target` (HBPO)."""

  def apply(state, rewards, keep, r: Rollouts):
    knobs = dict(max_length=max_length, beta=beta, intra_weight=intra_weight, eps=eps)
    return budget_subgroup_advantage(rewards, r.budget.target, keep, **knobs), state

  return Stage(init=lambda: (), apply=apply, needs=("group",))


def shortness_of_positive(
  lengths: jax.Array, positive: jax.Array, *, cap: float = 0.5, eps: float = 1e-8
) -> jax.Array:
  """How far below the mean length of the selected, from 0 to 1 at `cap`; 0 for the others.

    clip((mean - length) / (mean + eps), 0, cap) / cap

  [..., B, G] each -> [..., B, G].

  >>> lengths, positive = jnp.array([[20, 60, 1]]), jnp.array([[True, True, False]])
  >>> print(shortness_of_positive(lengths, positive, cap=1.0))
  [[0.5 0.  0. ]]
  """
  same_groups(lengths=lengths, positive=positive)
  mean = masked_mean(lengths, positive, -1, keepdims=True)
  below = jnp.clip((mean - as_float(lengths)) / (mean + eps), 0.0, cap) / cap
  return jnp.where(positive, below, 0.0)


def qglas_weight(
  rewards: jax.Array,
  positive: jax.Array,
  keep: jax.Array,
  *,
  beta_min: float = 0.3,
  beta_max: float = 0.6,
  ddof: int = 0,
  eps: float = 1e-8,
) -> jax.Array:
  """How much length may count in a group: more, the less its good rollouts differ in quality.

    (spread / std) * (beta_min + (beta_max - beta_min) * (1 - clip(spread of positive / spread)))

  The spread is max - 25th percentile, that of the positive max - min. 0 for equal rewards.
  [..., B, G] each -> [..., B].

  >>> rewards = jnp.array([[0.0, 0.0, 1.0, 1.0]])
  >>> print(qglas_weight(rewards, rewards > 0, jnp.ones((1, 4), bool)).round(3))
  [1.2]
  """
  same_groups(rewards=rewards, positive=positive, keep=keep)
  rewards = as_float(rewards)
  best = jnp.max(jnp.where(keep, rewards, -jnp.inf), -1)
  lowest = jnp.min(jnp.where(positive, rewards, jnp.inf), -1)
  some = jnp.any(positive, -1)
  std = masked_std(rewards, keep, -1, ddof=ddof)
  spread = jnp.where(some, best, 0.0) - jnp.where(some, masked_quantile(rewards, keep, 0.25), 0.0)
  tie = jnp.where(some, best - lowest, 0.0) / (spread + eps)
  beta = beta_min + (beta_max - beta_min) * (1.0 - jnp.clip(tie, 0.0, 1.0))
  return jnp.where(some & (std > 0), spread / jnp.where(std > 0, std, 1.0) * beta, 0.0)


def qglas_advantage(
  rewards: jax.Array,
  lengths: jax.Array,
  keep: jax.Array,
  *,
  beta_min: float = 0.3,
  beta_max: float = 0.6,
  cap: float = 0.5,
  ddof: int = 0,
  eps: float = 1e-8,
) -> jax.Array:
  """Quality alone sets the sign; a positive advantage grows if the rollout is short among these.

    A = (r - mean) / std;   A + `qglas_weight` * `shortness_of_positive`, positive: A > 0

  Source: QGLAS, "Quality Determines Direction, Length Shapes Magnitude", 2026; its ddof is not
  given. [..., B, G] each -> [..., B, G].

  >>> rewards, lengths = jnp.array([[1.0, 1.0, 0.0, 0.0]]), jnp.array([[300, 100, 50, 900]])
  >>> print(qglas_advantage(rewards, lengths, jnp.ones((1, 4), bool)))
  [[ 1.   2.2 -1.  -1. ]]
  """
  same_groups(rewards=rewards, lengths=lengths, keep=keep)
  base = group_normalized_advantage(rewards, keep, ddof=ddof, eps=0.0, lone_raw=False)
  positive = base > 0
  weight = qglas_weight(
    rewards, positive, keep, beta_min=beta_min, beta_max=beta_max, ddof=ddof, eps=eps
  )
  return base + weight[..., None] * shortness_of_positive(lengths, positive, cap=cap, eps=eps)


def qglas(
  *,
  beta_min: float = 0.3,
  beta_max: float = 0.6,
  cap: float = 0.5,
  ddof: int = 0,
  eps: float = 1e-8,
) -> Stage:
  """`qglas_advantage` of what the filter kept."""

  advantage = partial(
    qglas_advantage, beta_min=beta_min, beta_max=beta_max, cap=cap, ddof=ddof, eps=eps
  )

  def apply(state, rewards, keep, r: Rollouts):
    return advantage(rewards, r.lengths, keep), state

  return Stage(init=lambda: (), apply=apply, needs=("group",))
