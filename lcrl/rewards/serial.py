"""The reward of a serial group: one thinking, broken off at several places and answered at each."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.checks import same_groups
from lcrl.masked import as_float
from lcrl.rewards.base import shaped
from lcrl.sharding import left_to_xla
from lcrl.types import Rollouts, Stage

__all__ = ["serial_decay", "serial_decay_reward"]


def serial_decay_reward(
  rewards: jax.Array,
  correct: jax.Array,
  exit_at: jax.Array,
  valid: jax.Array,
  *,
  decay: float = 0.5,
) -> jax.Array:
  """r * decay^(right answers of the group that were given earlier), 0 if wrong.

  The first right answer keeps its reward. Of equal places the earlier rollout comes first. Source:
  S-GRPO, arXiv:2505.07686: 1 / 2^(N - 1) for the N-th right answer.

  Args:
    rewards: [..., G].
    correct, valid: [..., G] bool.
    exit_at: [..., G] int, tokens of thinking before the answer.
  Returns: [..., G] float.

  >>> right, exit_at = jnp.array([[True, False, True, True]]), jnp.array([[90, 10, 30, 60]])
  >>> print(serial_decay_reward(1.0 * right, right, exit_at, jnp.ones((1, 4), bool)))
  [[0.25 0.   1.   0.5 ]]
  """
  same_groups(rewards=rewards, correct=correct, exit_at=exit_at, valid=valid)
  right = correct.astype(bool) & valid
  earlier = left_to_xla(_right_before, right, right, exit_at)
  return jnp.where(right, as_float(rewards) * decay ** as_float(earlier), 0.0)


def _right_before(right, exit_at):
  """The right answers of the group that were given before each one; -1 before the first."""
  order = jnp.argsort(exit_at, -1, stable=True)
  counted = jnp.cumsum(jnp.take_along_axis(right, order, -1), -1)
  return jnp.take_along_axis(counted, jnp.argsort(order, -1), -1) - 1


def serial_decay(*, decay: float = 0.5, base: Stage | None = None) -> Stage:
  """`serial_decay_reward` by the signal `exit_at` of `revise.fn="serial_exits"`.

  Args:
    decay: what remains of the reward with each right answer that was given earlier.
    base: the reward of a right answer; None: correctness.
  """

  def shape(rewards, r: Rollouts):
    return serial_decay_reward(rewards, r.correct, r.signals["exit_at"], r.valid, decay=decay)

  return shaped(base, shape, needs=("exit_at", "group"))
