"""Rewards whose reference length, or price, is a statistic of the group."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import same_groups
from lcrl.masked import as_float, masked_mean
from lcrl.rewards.base import shaped
from lcrl.rewards.target import exact_length_reward
from lcrl.types import Rollouts, Stage

__all__ = [
  "alp",
  "alp_reward",
  "conciser",
  "conciser_reward",
  "gr3",
  "gr3_calibrated",
  "gr3_reward",
  "lcr1",
  "lcr1_reward",
  "o1_pruner",
  "o1_pruner_reward",
  "sampled_optimal_length",
  "shorter_better",
  "shorter_better_reward",
  "solve_rate",
]


def sampled_optimal_length(correct: jax.Array, lengths: jax.Array, valid: jax.Array) -> jax.Array:
  """Length of the shortest right answer; the mean length of the group if none is right.

  [..., G] each -> [...].

  >>> correct, lengths = jnp.array([[True, True, False], [False] * 3]), jnp.array([[9, 6, 3]] * 2)
  >>> print(sampled_optimal_length(correct, lengths, jnp.ones((2, 3), bool)))
  [6. 6.]
  """
  same_groups(correct=correct, lengths=lengths, valid=valid)
  right = correct.astype(bool) & valid
  shortest = jnp.min(jnp.where(right, as_float(lengths), jnp.inf), -1)
  return jnp.where(jnp.any(right, -1), shortest, masked_mean(lengths, valid, -1))


def shorter_better_reward(
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  alpha: float = 2.0,
  beta: float = 1e-3,
  apply_to_incorrect: bool = True,
) -> jax.Array:
  """alpha * correct - beta * |length - sampled optimal length|.

  Source: ShorterBetter, arXiv:2504.21370. A wrong answer pays for the distance too, so it gains by
  a length near the optimum; `apply_to_incorrect=False` leaves it at 0. [..., G] each -> [..., G].

  >>> right, lengths = jnp.array([[1, 1, 0]]), jnp.array([[400, 900, 300]])
  >>> print(shorter_better_reward(right, lengths, jnp.ones((1, 3), bool)))
  [[ 2.   1.5 -0.1]]
  """
  same_groups(correct=correct, lengths=lengths, valid=valid)
  optimal = sampled_optimal_length(correct, lengths, valid)[..., None]
  target = jnp.broadcast_to(optimal, lengths.shape)
  rewards = exact_length_reward(alpha * as_float(correct), lengths, target, alpha=beta)
  return jnp.where(correct.astype(bool) | apply_to_incorrect, rewards, 0.0)


def shorter_better(
  *, alpha: float = 2.0, beta: float = 1e-3, apply_to_incorrect: bool = True
) -> Stage:
  """The stage of `shorter_better_reward`."""
  reward = partial(
    shorter_better_reward, alpha=alpha, beta=beta, apply_to_incorrect=apply_to_incorrect
  )
  return shaped(
    None,
    lambda rewards, r: reward(r.correct, r.lengths, r.valid),
    targets=lambda r: {"shorter_better": sampled_optimal_length(r.correct, r.lengths, r.valid)},
  )


def solve_rate(correct: jax.Array, valid: jax.Array) -> jax.Array:
  """Share of right answers in the group, at least 1 / G. [..., G], [..., G] -> [...].

  >>> correct = jnp.array([[True, True, False, False], [False] * 4])
  >>> print(solve_rate(correct, jnp.ones((2, 4), bool)))
  [0.5  0.25]
  """
  same_groups(correct=correct, valid=valid)
  count = jnp.maximum(jnp.sum(valid, -1), 1)
  return jnp.maximum(masked_mean(correct, valid, -1), 1.0 / as_float(count))


def alp_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  beta: float = 1e-7,
  apply_to_incorrect: bool = True,
) -> jax.Array:
  """A price for each token that grows with the group's accuracy.

    r - beta * length * max(share right, 1 / G)

  Source: ALP, arXiv:2506.05256, from secondary notes; that its N counts tokens is our reading.
  Wrong answers pay too unless `apply_to_incorrect=False`. [..., G] each -> [..., G].

  >>> right = jnp.array([[1, 0]])
  >>> print(alp_reward(right, right, jnp.array([[8, 16]]), jnp.ones((1, 2), bool), beta=1 / 64))
  [[ 0.9375 -0.125 ]]
  """
  same_groups(rewards=rewards, correct=correct, lengths=lengths, valid=valid)
  price = beta * as_float(lengths) * solve_rate(correct, valid)[..., None]
  return as_float(rewards) - jnp.where(correct.astype(bool) | apply_to_incorrect, price, 0.0)


def alp(*, beta: float = 1e-7, apply_to_incorrect: bool = True, base: Stage | None = None) -> Stage:
  """The stage of `alp_reward`."""
  reward = partial(alp_reward, beta=beta, apply_to_incorrect=apply_to_incorrect)
  return shaped(base, lambda rewards, r: reward(rewards, r.correct, r.lengths, r.valid))


def lcr1_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  alpha: float = 1.0,
  eps: float = 0.0,
  apply_to_incorrect: bool = False,
) -> jax.Array:
  """r + alpha * (1 - length / longest right answer) if right; r if wrong, or if none is right.

  Source: LC-R1, arXiv:2506.14755. The released code adds eps 1e-4 to the longest and has
  `apply_to_incorrect=True`: a short wrong answer gains. [..., G] each -> [..., G].

  >>> right, lengths = jnp.array([[1, 1, 0]]), jnp.array([[100, 200, 50]])
  >>> print(lcr1_reward(right, right, lengths, jnp.ones((1, 3), bool)))
  [[1.5 1.  0. ]]
  """
  same_groups(rewards=rewards, correct=correct, lengths=lengths, valid=valid)
  lengths, right = as_float(lengths), correct.astype(bool) & valid
  longest = jnp.max(jnp.where(right, lengths, 0.0), -1, keepdims=True)
  score = 1.0 - lengths / jnp.maximum(longest + eps, 1e-30)
  counts = jnp.any(right, -1, keepdims=True) & (right | apply_to_incorrect)
  return as_float(rewards) + alpha * jnp.where(counts & (longest > 0), score, 0.0)


def lcr1(
  *,
  alpha: float = 1.0,
  eps: float = 0.0,
  apply_to_incorrect: bool = False,
  base: Stage | None = None,
) -> Stage:
  """`lcr1_reward`; its advantage is `group_centered`."""
  reward = partial(lcr1_reward, alpha=alpha, eps=eps, apply_to_incorrect=apply_to_incorrect)

  def longest(r: Rollouts):
    right = r.correct & r.valid
    return jnp.where(jnp.any(right, -1), jnp.max(jnp.where(right, r.lengths, 0), -1), jnp.inf)

  return shaped(
    base,
    lambda rewards, r: reward(rewards, r.correct, r.lengths, r.valid),
    targets=lambda r: {"lcr1": longest(r)},
  )


def conciser_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  max_length: float,
) -> jax.Array:
  """r + 1 - length / max_length in a group that is all right, r in the others.

  Source: ConciseR's second stage, arXiv:2505.21178; no code was released and the scale is
  unverified. Standardised, it does not matter there. [..., G] each -> [..., G].

  >>> right, lengths = jnp.array([[1, 1], [1, 0]]), jnp.array([[25, 50], [25, 50]])
  >>> print(conciser_reward(right, right, lengths, jnp.ones((2, 2), bool), max_length=100))
  [[1.75 1.5 ]
   [1.   0.  ]]
  """
  same_groups(rewards=rewards, correct=correct, lengths=lengths, valid=valid)
  all_right = jnp.all(correct.astype(bool) | ~valid, -1, keepdims=True)
  return as_float(rewards) + jnp.where(all_right, 1.0 - as_float(lengths) / max_length, 0.0)


def conciser(*, max_length: float, base: Stage | None = None) -> Stage:
  """`conciser_reward`, for a filter that keeps all-right groups."""
  reward = partial(conciser_reward, max_length=max_length)
  return shaped(base, lambda rewards, r: reward(rewards, r.correct, r.lengths, r.valid))


def gr3_reward(
  rewards: jax.Array, lengths: jax.Array, valid: jax.Array, *, alpha: float = 0.33
) -> jax.Array:
  """r / (1 + alpha * length / mean length of the group), for rewards of at least 0.

  Source: GR3, arXiv:2603.10535, as restated by QGLAS. A wrong answer stays at 0, and the unit of
  length does not matter. [..., G] each -> [..., G].

  >>> rewards, lengths = jnp.array([[1, 0]]), jnp.array([[5, 15]])
  >>> print(gr3_reward(rewards, lengths, jnp.ones((1, 2), bool), alpha=2.0))
  [[0.5 0. ]]
  """
  same_groups(rewards=rewards, lengths=lengths, valid=valid)
  mean = masked_mean(lengths, valid, -1, keepdims=True)
  return as_float(rewards) / (1.0 + alpha * as_float(lengths) / jnp.where(mean > 0, mean, 1.0))


def gr3_calibrated(
  rewards: jax.Array, lengths: jax.Array, valid: jax.Array, *, alpha: float = 0.33
) -> jax.Array:
  """Selects groups whose best reward at mean length is not below the mean shaped reward.

    max r / (1 + alpha) >= mean of `gr3_reward`

  GR3 takes the largest alpha that selects 99.9 % of the groups. [..., G] each -> [...] bool.

  >>> rewards, lengths = jnp.ones((1, 2)), jnp.array([[10, 30]])
  >>> print(gr3_calibrated(rewards, lengths, jnp.ones((1, 2), bool)))
  [False]
  """
  same_groups(rewards=rewards, lengths=lengths, valid=valid)
  best = jnp.max(jnp.where(valid, as_float(rewards), -jnp.inf), -1)
  mean = masked_mean(gr3_reward(rewards, lengths, valid, alpha=alpha), valid, -1)
  return best / (1.0 + alpha) >= mean - 1e-6 * jnp.abs(mean)  # equal up to rounding


def gr3(*, alpha: float = 0.33, base: Stage | None = None) -> Stage:
  """The stage of `gr3_reward`."""
  return shaped(
    base,
    lambda rewards, r: gr3_reward(rewards, r.lengths, r.valid, alpha=alpha),
    targets=lambda r: {"gr3": masked_mean(r.lengths, r.valid, -1)},
  )


def o1_pruner_reward(
  correct: jax.Array,
  lengths: jax.Array,
  ref_correct: jax.Array,
  ref_lengths: jax.Array,
  *,
  accuracy_weight: float = 2.0,
  low: float = -math.inf,
  high: float = math.inf,
) -> jax.Array:
  """Shorter and righter than K samples of the reference model for the same prompt.

    clip((mean ref length - length) / length + accuracy_weight * (correct - mean ref correct))

  Source: O1-Pruner, arXiv:2501.12570 (weight 2 or 5). The mean counts wrong samples. The released
  code clips to [-2, 4] and then standardises over the whole data set. Its loss is
  `clipped_surrogate_loss` with `sequence_ratio`. [..., G] twice, [..., K] twice -> [..., G].

  >>> right, lengths = jnp.array([[1, 0]]), jnp.array([[100, 200]])
  >>> print(o1_pruner_reward(right, lengths, right, lengths))
  [[ 1.5  -1.25]]
  """
  same_groups(correct=correct, lengths=lengths)
  same_groups(ref_correct=ref_correct, ref_lengths=ref_lengths)
  mean = jnp.mean(as_float(ref_lengths), -1, keepdims=True)
  accuracy = jnp.mean(as_float(ref_correct), -1, keepdims=True)
  shorter = mean / as_float(lengths) - 1.0
  return jnp.clip(shorter + accuracy_weight * (as_float(correct) - accuracy), low, high)


def o1_pruner(
  *, accuracy_weight: float = 2.0, low: float = -math.inf, high: float = math.inf
) -> Stage:
  """`o1_pruner_reward` with the group as its own reference samples; its advantage is `raw`.

  The paper samples the references once, from the model before training; here they come from the
  current policy. Padding rows take no part.
  """

  def shape(rewards, r: Rollouts):
    correct, lengths = (masked_mean(x, r.valid, -1, keepdims=True) for x in (r.correct, r.lengths))
    return reward(r.correct, jnp.maximum(r.lengths, 1), correct, lengths)

  reward = partial(o1_pruner_reward, accuracy_weight=accuracy_weight, low=low, high=high)
  return shaped(None, shape, targets=lambda r: {"o1_pruner": masked_mean(r.lengths, r.valid, -1)})
