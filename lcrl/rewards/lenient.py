"""Length terms that leave tokens free: Short-RL's up to a slack, Leash's up to a target.

Both know when to press: Short-RL while the policy is about as right as it ever was, Leash while it
is longer than its target.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import one_or_each, positive, same_groups, same_shape
from lcrl.masked import as_float, masked_mean
from lcrl.rewards.base import shaped_with_state
from lcrl.rewards.constraint import dual_price
from lcrl.rewards.history import shortest_right_length
from lcrl.types import Rollouts, Stage

__all__ = ["leash", "leash_reward", "short_rl", "short_rl_reward"]


def short_rl_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  best_accuracy: jax.Array,
  valid: jax.Array,
  *,
  slack: float = 100.0,
  tolerance: float = 0.05,
) -> jax.Array:
  """Right answers earn by their shortness among the group's right ones, if the batch is accurate.

    r + 1/2                                     if right and length <= shortest + slack
    r + 1/2 - (length - shortest) / (longest - shortest)   if right and longer
    r                                           if wrong, or all if accuracy < best - tolerance

  Accuracy is that of the whole batch; shortest and longest are right answers. Inside
  `jax.shard_map`, gather the batch first. Source: Short-RL, arXiv:2505.12284, as its code has it
  (slack 100 for mathematics, 200 for logic; the code adds 1e-5 to the last denominator).

  Args:
    rewards, lengths: [..., G].
    correct, valid: [..., G] bool.
    best_accuracy: [], of earlier batches.
    slack: tokens.
    tolerance: of accuracy.
  Returns: [..., G] float.

  >>> right, lengths = jnp.array([[True, True, True, False]]), jnp.array([[10, 12, 30, 5]])
  >>> valid, best = jnp.ones((1, 4), bool), jnp.array(0.75)
  >>> print(short_rl_reward(1.0 * right, right, lengths, best, valid, slack=4))
  [[1.5 1.5 0.5 0. ]]
  """
  same_groups(rewards=rewards, correct=correct, lengths=lengths, valid=valid)
  one_or_each({"the run": jnp.zeros(())}, best_accuracy=best_accuracy)
  if isinstance(slack, int | float) and slack < 0:
    raise ValueError(f"slack must be at least 0, got {slack}.")
  right = correct.astype(bool) & valid
  shortest = jnp.min(jnp.where(right, as_float(lengths), jnp.inf), -1, keepdims=True)
  longest = jnp.max(jnp.where(right, as_float(lengths), -jnp.inf), -1, keepdims=True)
  excess = jnp.where(right, as_float(lengths) - shortest, 0.0)
  late = excess > slack
  bonus = 0.5 - jnp.where(late, excess / jnp.where(late, longest - shortest, 1.0), 0.0)
  open_ = masked_mean(right, valid) >= best_accuracy - tolerance
  return as_float(rewards) + jnp.where(right & open_, bonus, 0.0)


def short_rl(*, slack: float = 100.0, tolerance: float = 0.05, base: Stage | None = None) -> Stage:
  """`short_rl_reward`. State: the best accuracy of a batch so far.

  Args:
    slack: tokens beyond the group's shortest right answer that cost nothing.
    tolerance: how far below the best accuracy a batch may be for the term to count.
    base: the reward to add to; None: correctness.
  """

  def shape(best, rewards, r: Rollouts):
    reward = partial(short_rl_reward, slack=slack, tolerance=tolerance)
    new = jnp.maximum(best, masked_mean(r.correct, r.valid)).astype(best.dtype)
    return reward(rewards, r.correct, r.lengths, best, r.valid), new

  def targets(best, r: Rollouts):
    none = jnp.full(r.correct.shape[:1], jnp.inf)
    return {"short_rl": shortest_right_length(none, r.correct, r.lengths, r.valid) + slack}

  return shaped_with_state(
    base,
    lambda: jnp.zeros((), jnp.float32),
    shape,
    targets=targets,
    numbers=lambda best: {"short_rl/best_accuracy": best},
  )


def leash_reward(
  rewards: jax.Array, lengths: jax.Array, price: jax.Array, *, target: float
) -> jax.Array:
  """clip(r - price * max(0, length / target - 1), -1, 1): only tokens beyond the target cost.

  Right or wrong; with r = -1 for a wrong answer the clip leaves nothing to pay. Source: Leash,
  arXiv:2512.21540, as its code has it. [...], [...], [] -> [...].

  >>> rewards, lengths = jnp.array([1.0, 1.0, -1.0]), jnp.array([50, 150, 150])
  >>> print(leash_reward(rewards, lengths, jnp.array(0.5), target=100))
  [ 1.    0.75 -1.  ]
  """
  same_shape(rewards=rewards, lengths=lengths)
  one_or_each({"the run": jnp.zeros(())}, price=price)
  excess = jnp.maximum(as_float(lengths) / target - 1.0, 0.0)
  return jnp.clip(as_float(rewards) - price * excess, -1.0, 1.0)


def leash(
  *,
  target: float,
  start: float = 0.2,
  step_size: float = 0.05,
  max_price: float = 1.0,
  base: Stage | None = None,
) -> Stage:
  """`leash_reward` at a `dual_price`, which climbs while the mean length is above the target and
  falls while it is below.

  A batch pays the price from before its update. State: the price.

  Args:
    target: tokens, on average.
    start: price of a target's length beyond the target, at first. Start, step and range are those
      of a port to SkyRL; a draft of the authors' code has 0.01, 0.02 and 2.
    step_size: of the price, for a mean length of twice the target.
    max_price: the price stays from 0 to here.
    base: the reward to pay from, within -1 to 1; None: correctness.
  """
  positive(target=target)

  def shape(price, rewards, r: Rollouts):
    mean = masked_mean(r.lengths, r.valid)
    options = dict(target=target, scale=target, step_size=step_size, max_price=max_price)
    new = dual_price(price, mean, **options).astype(price.dtype)
    return leash_reward(rewards, r.lengths, price, target=target), new

  return shaped_with_state(
    base,
    lambda: jnp.asarray(start, jnp.float32),
    shape,
    targets=lambda price, r: {"leash": jnp.full(r.lengths.shape, target)},
    numbers=lambda price: {"leash/price": price},
  )
