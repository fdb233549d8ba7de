"""Rewards that compare a response's length with the lengths of its group, without a target."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import same_groups
from lcrl.masked import as_float, masked_mean, standardize
from lcrl.rewards.base import shaped
from lcrl.sharding import ranks
from lcrl.types import Rollouts, Stage

__all__ = [
  "easiest_groups",
  "grpo_lambda",
  "grpo_lambda_reward",
  "kimi",
  "kimi_reward",
  "sigmoid_length",
  "sigmoid_length_reward",
]


def sigmoid_length_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  alpha: float = 0.2,
  ddof: int = 0,
  eps: float = 1e-6,
  lone_raw: bool = False,
) -> jax.Array:
  """A right answer pays for its length relative to its group's right answers; a wrong one does not.

    r - alpha * sigmoid((length - mean) / (std + eps)) if right, mean and std over the right ones

  Source: Arora & Zanette 2025, arXiv:2502.04463 (alpha 0.05 to 0.4). LASER's code of it multiplies,
  r * (1 - alpha * sigmoid), which is the same where r = 1, and has ddof 1 and `lone_raw=True`:
  mean 0 and deviation 1 for a group's only right answer, which is then punished hardest.

  Args:
    rewards, lengths: [..., G].
    correct, valid: [..., G] bool.
  Returns: [..., G] float.

  >>> right = jnp.array([[True, True, False]])
  >>> lengths, valid = jnp.array([[10, 20, 30]]), jnp.ones((1, 3), bool)
  >>> print(sigmoid_length_reward(1.0 * right, right, lengths, valid))
  [[0.9462117  0.85378826 0.        ]]
  """
  same_groups(rewards=rewards, correct=correct, lengths=lengths, valid=valid)
  right = correct.astype(bool) & valid
  z = standardize(lengths, right, ddof=ddof, eps=eps, lone_raw=lone_raw)
  return as_float(rewards) - jnp.where(right, alpha * jax.nn.sigmoid(z), 0.0)


def kimi_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  alpha: float | jax.Array = 1.0,
  eps: float = 0.0,
  lone_raw: bool = False,
  spared: jax.Array | None = None,
) -> jax.Array:
  """A bonus from +alpha/2 for the group's shortest response to -alpha/2 for its longest.

    z = 0.5 - (length - shortest) / (longest - shortest + eps), 0 in a group of equal lengths
    r + alpha * z if right, r + alpha * min(0, z) if wrong

  Source: Kimi k1.5, arXiv:2501.12599. LASER's code has alpha 0.4 and eps 1e-6, and in a group of
  one takes 1 for longest and 0 for shortest (`lone_raw=True`): z is about 0.5 - length. Rows that
  are `spared` (in that code, those of bad format) take part in the statistics only.
  [..., G] each -> [..., G].

  >>> right, lengths = jnp.array([[True, True, False]]), jnp.array([[10, 20, 10]])
  >>> print(kimi_reward(1.0 * right, right, lengths, jnp.ones((1, 3), bool)))
  [[1.5 0.5 0. ]]
  """
  same_groups(rewards=rewards, correct=correct, lengths=lengths, valid=valid)
  if spared is not None:
    same_groups(rewards=rewards, spared=spared)
  lengths = as_float(lengths)
  longest = jnp.max(jnp.where(valid, lengths, -jnp.inf), -1, keepdims=True)
  shortest = jnp.min(jnp.where(valid, lengths, jnp.inf), -1, keepdims=True)
  differ = longest > shortest
  if lone_raw:
    lone = jnp.sum(valid, -1, keepdims=True) == 1
    longest, shortest = jnp.where(lone, 1.0, longest), jnp.where(lone, 0.0, shortest)
    differ = differ | lone
  span = jnp.where(differ, longest - shortest + eps, 1.0)
  z = jnp.where(differ & valid, 0.5 - (lengths - shortest) / span, 0.0)
  z = jnp.where(correct.astype(bool), z, jnp.minimum(z, 0.0))
  return as_float(rewards) + alpha * (z if spared is None else jnp.where(spared, 0.0, z))


def easiest_groups(correct: jax.Array, valid: jax.Array, *, share: float) -> jax.Array:
  """The `share` of groups with the highest accuracy, at least one; ties keep the batch's order.

  The order is that of the whole batch: inside `jax.shard_map`, gather it first.
  [B, G], [B, G] -> [B] bool.

  >>> correct = jnp.array([[1, 0], [1, 1], [0, 0]])
  >>> print(easiest_groups(correct, jnp.ones((3, 2), bool), share=0.4))
  [ True  True False]
  """
  if not 0 < share <= 1:
    raise ValueError(f"share must be in (0, 1], got {share}.")
  same_groups(correct=correct, valid=valid)
  accuracy = jnp.where(jnp.any(valid, -1), masked_mean(correct, valid, -1), -1.0)
  rank = ranks(-accuracy)
  groups = jnp.sum(jnp.any(valid, -1))
  return rank < jnp.maximum(1, jnp.ceil(share * groups - 1e-6))


def grpo_lambda_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  share: float = 0.2,
  alpha: float = 0.2,
  ddof: int = 0,
  eps: float = 1e-6,
) -> jax.Array:
  """GRPO-lambda: the sigmoid length reward in the `share` of easiest groups, r in the others.

  Source: Dai et al. 2025, arXiv:2505.18086 (share 0.2), from a secondary description: alpha, ddof,
  the order of ties and rounding up are our choice. [B, G] each -> [B, G].

  >>> rewards, lengths = jnp.array([[1.0, 1.0], [1.0, 0.0]]), jnp.array([[10, 30], [10, 30]])
  >>> right, valid = rewards > 0, jnp.ones((2, 2), bool)
  >>> found = grpo_lambda_reward(rewards, right, lengths, valid, share=0.5)
  >>> print([f"{x:.2f}" for x in found.ravel()])
  ['0.95', '0.85', '1.00', '0.00']
  """
  easy = easiest_groups(correct, valid, share=share)[:, None]
  short = sigmoid_length_reward(rewards, correct, lengths, valid, alpha=alpha, ddof=ddof, eps=eps)
  return jnp.where(easy, short, as_float(rewards))


def sigmoid_length(
  *,
  alpha: float = 0.2,
  ddof: int = 0,
  eps: float = 1e-6,
  lone_raw: bool = False,
  base: Stage | None = None,
) -> Stage:
  """The stage of `sigmoid_length_reward`: efficient reasoning, Arora & Zanette."""
  reward = partial(sigmoid_length_reward, alpha=alpha, ddof=ddof, eps=eps, lone_raw=lone_raw)
  return shaped(
    base,
    lambda rewards, r: reward(rewards, r.correct, r.lengths, r.valid),
    targets=lambda r: {"sigmoid_length": mean_right(r)},
  )


def kimi(
  *, alpha: float = 1.0, eps: float = 0.0, lone_raw: bool = False, base: Stage | None = None
) -> Stage:
  """The stage of `kimi_reward`: Kimi k1.5."""
  reward = partial(kimi_reward, alpha=alpha, eps=eps, lone_raw=lone_raw)

  def middle(r: Rollouts):
    """The length with bonus 0."""
    longest = jnp.max(jnp.where(r.valid, as_float(r.lengths), -jnp.inf), -1)
    shortest = jnp.min(jnp.where(r.valid, as_float(r.lengths), jnp.inf), -1)
    return jnp.where(jnp.any(r.valid, -1), (longest + shortest) / 2, jnp.inf)

  return shaped(
    base,
    lambda rewards, r: reward(rewards, r.correct, r.lengths, r.valid),
    targets=lambda r: {"kimi": middle(r)},
  )


def grpo_lambda(
  *,
  share: float = 0.2,
  alpha: float = 0.2,
  ddof: int = 0,
  eps: float = 1e-6,
  base: Stage | None = None,
) -> Stage:
  """The stage of `grpo_lambda_reward`."""
  reward = partial(grpo_lambda_reward, share=share, alpha=alpha, ddof=ddof, eps=eps)

  def in_easy_groups(r: Rollouts):
    return jnp.where(easiest_groups(r.correct, r.valid, share=share), mean_right(r), jnp.inf)

  return shaped(
    base,
    lambda rewards, r: reward(rewards, r.correct, r.lengths, r.valid),
    targets=lambda r: {"grpo_lambda": in_easy_groups(r)},
  )


def mean_right(r: Rollouts) -> jax.Array:
  """Mean length of the group's right answers, inf if there are none. [B]."""
  right = r.correct & r.valid
  return jnp.where(jnp.any(right, -1), masked_mean(r.lengths, right, -1), jnp.inf)
