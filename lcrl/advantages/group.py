"""A reward compared with its group's, or with the batch's: GRPO, Dr. GRPO, RLOO, REINFORCE++."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lcrl.checks import per_row, same_groups, same_shape
from lcrl.masked import AxisName, as_float, centre, masked_std, masked_sum, standardize, total
from lcrl.sharding import running_sum
from lcrl.types import Stage

__all__ = [
  "batch_scaled",
  "batch_scaled_advantage",
  "discounted_return",
  "group_centered",
  "group_centered_advantage",
  "group_normalized",
  "group_normalized_advantage",
  "leave_one_out",
  "leave_one_out_advantage",
  "raw",
  "reinforce",
  "reinforce_baseline",
  "whitened",
]


def group_normalized_advantage(
  rewards: jax.Array,
  keep: jax.Array,
  *,
  ddof: int = 1,
  eps: float = 1e-6,
  var_eps: float = 0.0,
  min_std: float = 0.0,
  lone_raw: bool = False,
) -> jax.Array:
  """GRPO: the reward's distance from the group's mean, in the group's standard deviations.

    A = (r - mean) / (max(sqrt(var + var_eps), min_std) + eps)

  Source: DeepSeekMath, arXiv:2402.03300, which gives no eps and no ddof. Released code differs:
  ddof=1 with eps 1e-6 (verl), 1e-4 (TRL); ddof=0 in most JAX code, larger by sqrt(G / (G - 1)).

  Args:
    rewards: [..., B, G].
    keep: [..., B, G] bool, the rollouts that train.
    lone_raw: a rollout alone in its group keeps its reward, as in verl; otherwise it gets 0.
  Returns: [..., B, G] float, 0 where not kept and in groups of equal rewards.

  >>> keep = jnp.array([[True, True, True, False]])
  >>> print(group_normalized_advantage(jnp.array([[1.0, 0.0, 0.5, 9.0]]), keep, eps=0.0))
  [[ 1. -1.  0.  0.]]
  """
  same_groups(rewards=rewards, keep=keep)
  return standardize(
    rewards, keep, ddof=ddof, eps=eps, var_eps=var_eps, min_std=min_std, lone_raw=lone_raw
  )


def group_centered_advantage(
  rewards: jax.Array, keep: jax.Array, *, lone_raw: bool = False
) -> jax.Array:
  """Dr. GRPO: A = r - mean of the group. [..., B, G] each -> [..., B, G].

  Dividing by the deviation would weigh easy and hard groups more than mixed ones. Its weights are
  `fixed_length`. Source: arXiv:2503.20783.

  >>> print(group_centered_advantage(jnp.array([[1.0, 0.0, 0.5]]), jnp.ones((1, 3), bool)))
  [[ 0.5 -0.5  0. ]]
  """
  same_groups(rewards=rewards, keep=keep)
  return centre(rewards, keep, lone_raw=lone_raw)


def leave_one_out_advantage(
  rewards: jax.Array, keep: jax.Array, *, lone_raw: bool = False
) -> jax.Array:
  """RLOO: A = r - mean of the others = G / (G - 1) * (r - mean). [..., B, G] each -> [..., B, G].

  Source: Back to Basics, arXiv:2402.14740.

  >>> print(leave_one_out_advantage(jnp.array([[1.0, 0.0, 0.5]]), jnp.ones((1, 3), bool)))
  [[ 0.75 -0.75  0.  ]]
  """
  same_groups(rewards=rewards, keep=keep)
  count = as_float(jnp.sum(keep, -1, keepdims=True))
  scale = jnp.where(count > 1, count / jnp.maximum(count - 1, 1), 1.0)
  return scale * group_centered_advantage(rewards, keep, lone_raw=lone_raw)


def batch_scaled_advantage(
  rewards: jax.Array,
  keep: jax.Array,
  *,
  ddof: int = 1,
  eps: float = 1e-4,
  axis_name: AxisName = None,
) -> jax.Array:
  """A = (r - mean of the group) / (std of all rewards of the batch + eps).

  Source: TRL `scale_rewards="batch"`: a group whose rewards hardly differ is not blown up.
  Inside `jax.shard_map` the deviation is that of all devices along `axis_name`; groups are whole.
  [..., B, G] each -> [..., B, G].

  >>> rewards, keep = jnp.array([[1.0, 0.0], [3.0, 2.0]]), jnp.ones((2, 2), bool)
  >>> print(batch_scaled_advantage(4 * rewards, keep, ddof=0, eps=0.0).round(2))
  [[ 0.45 -0.45]
   [ 0.45 -0.45]]
  """
  centered = group_centered_advantage(rewards, keep, lone_raw=False)
  return centered / (masked_std(rewards, keep, ddof=ddof, axis_name=axis_name) + eps)


def whitened(
  values: jax.Array,
  counts: jax.Array,
  *,
  ddof: int = 1,
  eps: float = 1e-8,
  axis_name: AxisName = None,
) -> jax.Array:
  """Values to mean 0 and variance 1 over the whole batch, each counted `counts` times.

    A = (a - mean) / sqrt(var + eps);  0 where the count is 0

  With lengths as counts this is whitening over tokens: long rollouts dominate mean and variance,
  and a group's advantages no longer add to 0. Source: REINFORCE++, arXiv:2501.03262, as in verl.
  Inside `jax.shard_map` the batch is that of all devices along `axis_name`. [...], [...] -> [...].

  >>> print(whitened(jnp.array([1.0, 3.0, 9.0]), jnp.array([1, 1, 0]), ddof=0, eps=0.0))
  [-1.  1.  0.]
  """
  same_shape(values=values, counts=counts)
  counts, mask = as_float(counts), counts > 0
  size = jnp.maximum(total(jnp.sum(counts), axis_name), 1.0)
  # Shifted, so that equal values come out as exactly 0: their mean may round to another number.
  most = jnp.max(jnp.where(mask, as_float(values), -jnp.inf), initial=-1e30)
  values = as_float(values) - (most if axis_name is None else jax.lax.pmax(most, axis_name))
  mean = masked_sum(values * counts, mask, axis_name=axis_name) / size
  centered = jnp.where(mask, values - mean, 0.0)
  var = total(jnp.sum(centered**2 * counts), axis_name) / jnp.maximum(size - ddof, 1.0)
  return centered * jax.lax.rsqrt(jnp.where(var + eps > 0, var + eps, 1.0))


def discounted_return(rewards: jax.Array, mask: jax.Array, *, gamma: float = 1.0) -> jax.Array:
  """Return of each sampled token when the reward comes with the last: gamma^(tokens to come) * r.

  [...], [..., T] -> [..., T], 0 where masked.

  >>> mask = jnp.array([False, True, True, False])
  >>> print(discounted_return(jnp.array(2.0), mask, gamma=0.5))
  [0. 1. 2. 0.]
  """
  per_row(dict(mask=mask), rewards=rewards)
  to_come = jnp.sum(mask, -1, keepdims=True) - running_sum(mask)
  return jnp.where(mask, as_float(rewards)[..., None] * gamma ** as_float(to_come), 0.0)


def group_stage(advantage: Callable[..., jax.Array], over_valid: bool, **knobs) -> Stage:
  def apply(state, rewards, keep, rollouts):
    among = rollouts.valid if over_valid else keep
    return jnp.where(keep, advantage(rewards, among, **knobs), 0.0), state

  return Stage(init=lambda: (), apply=apply, needs=("group",))


def group_normalized(
  *,
  ddof: int = 1,
  eps: float = 1e-6,
  var_eps: float = 0.0,
  min_std: float = 0.0,
  lone_raw: bool = False,
  over_valid: bool = False,
) -> Stage:
  """`group_normalized_advantage` of what the filter kept; with `over_valid`, of the whole group,
  so that a rollout whose loss is masked (DAPO's overlong filter) still sets the group's mean."""
  return group_stage(
    group_normalized_advantage,
    over_valid,
    ddof=ddof,
    eps=eps,
    var_eps=var_eps,
    min_std=min_std,
    lone_raw=lone_raw,
  )


def group_centered(*, lone_raw: bool = False, over_valid: bool = False) -> Stage:
  """`group_centered_advantage` of what the filter kept, or of the whole group (`over_valid`)."""
  return group_stage(group_centered_advantage, over_valid, lone_raw=lone_raw)


def leave_one_out(*, lone_raw: bool = False, over_valid: bool = False) -> Stage:
  """`leave_one_out_advantage` of what the filter kept, or of the whole group (`over_valid`)."""
  return group_stage(leave_one_out_advantage, over_valid, lone_raw=lone_raw)


def batch_scaled(*, ddof: int = 1, eps: float = 1e-4, over_valid: bool = False) -> Stage:
  """`batch_scaled_advantage` of what the filter kept, or of the whole group (`over_valid`).

  >>> batch_scaled(over_valid=True).needs
  ('group',)
  """
  return group_stage(batch_scaled_advantage, over_valid, ddof=ddof, eps=eps)


def raw() -> Stage:
  """The reward as it is, for rewards that have been compared already (`lagrangian`; O1-Pruner,
  arXiv:2501.12570)."""

  def apply(state, rewards, keep, rollouts):
    return jnp.where(keep, as_float(rewards), 0.0), state

  return Stage(init=lambda: (), apply=apply)


def reinforce_baseline(*, per_token: bool = True, ddof: int = 1, eps: float = 1e-8) -> Stage:
  """REINFORCE++-baseline, DLER's: centred in the group, then whitened over the batch's tokens,
  or with each rollout counted once (`per_token=False`). Sources: arXiv:2501.03262; DLER,
  arXiv:2510.15110.
  """

  def apply(state, rewards, keep, rollouts):
    centered = group_centered_advantage(rewards, keep, lone_raw=False)
    counts = jnp.where(keep, rollouts.lengths if per_token else 1, 0)
    return whitened(centered, counts, ddof=ddof, eps=eps), state

  return Stage(init=lambda: (), apply=apply, needs=("group",))


def reinforce(*, gamma: float = 1.0, ddof: int = 1, eps: float = 1e-8) -> Stage:
  """REINFORCE++: returns to go, whitened over the batch's tokens; no group. [B, G, T].

  Source: arXiv:2501.03262, as in verl and OpenRLHF.
  """

  def apply(state, rewards, keep, rollouts):
    mask = rollouts.mask & keep[..., None]
    returns = discounted_return(rewards, mask, gamma=gamma)
    return whitened(returns, mask, ddof=ddof, eps=eps), state

  return Stage(init=lambda: (), apply=apply)
