"""Slot 3: which rollouts train. A filter never keeps a row that only pads the batch.

Two rules that look alike differ where it matters. `mixed_correctness` drops groups that are all
right or all wrong. `nonconstant_reward` drops groups of equal reward, and so keeps an all-right
group whose lengths differ: methods that mean to shorten those need it. With a continuous length
reward it drops almost nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.masked import as_float
from lcrl.types import Stage

__all__ = [
  "keep_all",
  "mixed_correctness",
  "nonconstant_groups",
  "nonconstant_reward",
  "untruncated",
]


def nonconstant_groups(metric: jax.Array, valid: jax.Array) -> jax.Array:
  """The rollouts of groups whose metric varies; a group of one rollout is kept, as in verl.

  Tests max > min: the floating-point deviation of equal values need not be 0.
  Source: DAPO's dynamic sampling, arXiv:2503.14476.

  Args:
    metric: [..., G].
    valid: [..., G] bool.
  Returns: [..., G] bool.

  >>> metric = jnp.array([[1.0, 0.0], [1.0, 1.0]])
  >>> print(nonconstant_groups(metric, jnp.ones((2, 2), bool)))
  [[ True  True]
   [False False]]
  """
  metric = as_float(metric)
  high = jnp.max(jnp.where(valid, metric, -jnp.inf), -1, keepdims=True)
  low = jnp.min(jnp.where(valid, metric, jnp.inf), -1, keepdims=True)
  return valid & ((high > low) | (jnp.sum(valid, -1, keepdims=True) == 1))


def _stage(keep) -> Stage:
  return Stage(init=lambda: (), apply=lambda state, rewards, r: (keep(rewards, r), state))


def keep_all() -> Stage:
  """Every valid rollout trains."""
  return _stage(lambda rewards, r: r.valid)


def mixed_correctness() -> Stage:
  """Drops groups whose verdicts all agree: nothing can be learnt there from correctness."""
  return _stage(lambda rewards, r: nonconstant_groups(r.correct, r.valid))


def nonconstant_reward() -> Stage:
  """Drops groups whose shaped rewards are all equal: their advantage would be 0 anyway."""
  return _stage(lambda rewards, r: nonconstant_groups(rewards, r.valid))


def untruncated(*, base: Stage | None = None) -> Stage:
  """Of what `base` keeps (all by default), drops rollouts cut at their cap: DAPO's overlong filter.

  DAPO lets them take part in the group's mean: give the advantage `over_valid=True` for that.
  """
  base = keep_all() if base is None else base

  def apply(state, rewards, r):
    keep, state = base.apply(state, rewards, r)
    return keep & ~r.truncated, state

  return base._replace(apply=apply)
