"""Rewards with a budget that differs between the rollouts of a group, or adapts during training."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.checks import one_or_each, same_shape, typed
from lcrl.masked import as_float, masked_mean
from lcrl.rewards.base import budget_target, compared, ended_length, shaped
from lcrl.types import Rollouts, Stage

__all__ = ["acoer", "acoer_reward", "acoer_score", "hbpo", "hbpo_peak", "hbpo_reward"]


def hbpo_peak(
  budgets: jax.Array, *, max_length: float = 4096.0, beta: float = 4.0, pi: float = math.pi
) -> jax.Array:
  """The reward of a right answer within the budget: beta * cos(pi * budget / (2 * max_length)).

  [...] -> [...]. Source: HBPO, arXiv:2507.15844.

  >>> print(hbpo_peak(jnp.array([0, 2048])).round(2))
  [4.   2.83]
  """
  typed(budgets=budgets)
  return beta * jnp.cos(pi * as_float(budgets) / (2 * max_length))


def hbpo_reward(
  correct: jax.Array,
  lengths: jax.Array,
  budgets: jax.Array,
  *,
  max_length: float = 4096.0,
  beta: float = 4.0,
  alpha: float = 1 / 4096,
  plateau: bool = True,
  pi: float = math.pi,
  truncated: jax.Array | None = None,
) -> jax.Array:
  """A right answer earns most within its own budget, and less with each token beyond it.

    beta cos(pi budget / (2 max_length))                              if length <= budget
    beta cos(pi length / (2 max_length)) - alpha |length - budget|    if longer
    0                                           if wrong, or longer than max_length

  Source: HBPO, arXiv:2507.15844. The released code has pi=3.1416 and takes the smaller of the two
  lines everywhere (`plateau=False`), so that an answer far below the budget earns less. Its -1 for
  a malformed answer is left out. A `truncated` answer, cut at the cap, has not ended within
  its budget (`ended_length`). [...] each -> [...].

  >>> lengths, budgets = jnp.array([2, 8, 9]), jnp.full(3, 4)
  >>> print(hbpo_reward(jnp.ones(3), lengths, budgets, max_length=8, alpha=0.25).round(3))
  [ 2.828 -1.     0.   ]
  """
  same_shape(correct=correct, lengths=lengths, budgets=budgets)
  lengths = ended_length(lengths, budgets, truncated)
  top = hbpo_peak(budgets, max_length=max_length, beta=beta, pi=pi)
  fall = hbpo_peak(lengths, max_length=max_length, beta=beta, pi=pi)
  fall = fall - alpha * jnp.abs(as_float(lengths) - as_float(budgets))
  within = top if plateau else jnp.minimum(fall, top)
  earned = jnp.where(lengths <= budgets, within, fall)
  return jnp.where(correct.astype(bool) & (lengths <= max_length), earned, 0.0)


def hbpo(
  *,
  max_length: float = 4096.0,
  beta: float = 4.0,
  alpha: float = 1 / 4096,
  plateau: bool = True,
) -> Stage:
  """`hbpo_reward` by `budget.target`; goes with `subgroups` and `budget_subgroup`."""
  reward = partial(hbpo_reward, max_length=max_length, beta=beta, alpha=alpha, plateau=plateau)
  return shaped(
    None,
    lambda rewards, r: reward(r.correct, r.lengths, r.budget.target, truncated=r.truncated),
    needs=("truncated",),
    targets=budget_target("hbpo"),
  )


def acoer_score(
  lengths: jax.Array, budgets: jax.Array, *, k: float = 5.0, limit: float = 1.15
) -> jax.Array:
  """log(1 + k (1 - x)) / log(1 + k) of x = min(length / budget, limit): 1 at 0, 0 at the budget.

  The limit is ours: the logarithm ends at x = 1 + 1 / k. [...], [...] -> [...].

  >>> print(acoer_score(jnp.array([0, 10]), jnp.array([10, 10])).round(3))
  [1. 0.]
  """
  same_shape(lengths=lengths, budgets=budgets)
  if not limit < 1 + 1 / k:
    raise ValueError(f"limit must be below 1 + 1 / k = {1 + 1 / k}, got {limit}.")
  x = jnp.minimum(as_float(lengths) / as_float(budgets), limit)
  return jnp.log1p(k * (1.0 - x)) / math.log1p(k)


def acoer_reward(
  correct: jax.Array,
  lengths: jax.Array,
  budgets: jax.Array,
  *,
  alpha: jax.Array | float,
  k: float = 5.0,
  limit: float = 1.15,
  truncated: jax.Array | None = None,
) -> jax.Array:
  """1 + alpha * `acoer_score` if right, 0 if wrong.

  Source: Acoer, arXiv:2606.22716, from secondary notes, unverified; the format reward of a wrong
  answer is left out. A `truncated` answer, cut at the cap, counts as beyond its budget
  (`ended_length`). [...] each, alpha a number -> [...].

  >>> correct, lengths, budgets = jnp.array([1, 1, 0]), jnp.array([0, 10, 0]), jnp.full(3, 10)
  >>> print(acoer_reward(correct, lengths, budgets, alpha=1.0).round(3))
  [2. 1. 0.]
  """
  same_shape(correct=correct, lengths=lengths, budgets=budgets)
  one_or_each({"the batch": jnp.zeros(())}, alpha=alpha)
  lengths = ended_length(lengths, budgets, truncated)
  return as_float(correct) * (1.0 + alpha * acoer_score(lengths, budgets, k=k, limit=limit))


class AcoerState(NamedTuple):
  step: jax.Array  # [] int32
  length: jax.Array  # [] float32, average length of right answers, 0 before the first
  weight: jax.Array  # [] float32
  accuracy: jax.Array  # [] float32, mean over this interval so far
  last: jax.Array  # [] float32, accuracy of the last interval


def acoer(
  *,
  alpha: float = 0.5,
  shortest: float = 1.0,
  share: float = 0.85,
  decay: float = 0.99,
  interval: int = 100,
  tolerance: float = 0.02,
  k: float = 5.0,
  limit: float = 1.15,
) -> Stage:
  """`acoer_reward` with a budget of max(shortest, share * average length of right answers).

  After each `interval` the weight, `alpha` at first, grows by 2 %, or falls by 5 % if accuracy fell
  by more than `tolerance`. `decay` and the comparison of whole intervals are ours.
  """

  def init():
    return AcoerState(jnp.zeros((), jnp.int32), *jnp.array([0.0, alpha, 0.0, 0.0], jnp.float32))

  def updated(state: AcoerState, r: Rollouts) -> tuple[jax.Array, jax.Array]:
    """The average length with this batch, and its budgets [B, G]."""
    right = r.correct & r.valid
    mean, some = masked_mean(r.lengths, right), jnp.any(right)
    average = jnp.where(state.length > 0, decay * state.length + (1 - decay) * mean, mean)
    average = jnp.where(some, average, state.length)
    return average, jnp.full(r.lengths.shape, jnp.maximum(shortest, share * average))

  def apply(state: AcoerState, r: Rollouts):
    average, budgets = updated(state, r)
    rewards = acoer_reward(
      r.correct, r.lengths, budgets, alpha=state.weight, k=k, limit=limit, truncated=r.truncated
    )

    phase = state.step % interval
    right = masked_mean(r.correct & r.valid, r.valid)
    accuracy = state.accuracy + (right - state.accuracy) / (phase + 1.0)
    ended = phase == interval - 1
    factor = jnp.where(accuracy < state.last - tolerance, 0.95, 1.02)
    new = AcoerState(
      state.step + 1,
      average,
      jnp.where(ended, factor, 1.0) * state.weight,
      jnp.where(ended, 0.0, accuracy),
      jnp.where(ended, accuracy, state.last),
    )
    return rewards, jax.tree.map(lambda x, old: x.astype(old.dtype), new, state)

  return Stage(
    init=init,
    apply=apply,
    needs=("truncated",),
    targets=lambda state, r: compared({"acoer": updated(state, r)[1]}, r),
    numbers=lambda state: {"acoer/length": state.length, "acoer/weight": state.weight},
  )
