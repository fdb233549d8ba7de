"""Importance weights for rollouts whose sampler's probabilities differ from the trainer's.

They multiply the token loss, a KL term and an entropy bonus included, and carry no gradient: an
estimate of KL(policy || reference) at the sampler's tokens is as far off as the surrogate is. (verl
and TRL add the KL term afterwards, unweighted; TRL's `use_bias_correction_kl` weights it by the
policy's own ratio.) With w the ratio
old_prob / sampler_prob, either of a token or of the whole response (the product of its tokens'
ratios, not their mean), the weight is min(w, high) or, rejecting, w inside [low, high] and 0
outside.

Source: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training";
verl `rollout_corr_helper.py` and TRL `vllm_importance_sampling_*` (whose default rejects
responses).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.losses.kl import log_ratio
from lcrl.masked import AxisName, finite_exp, masked_mean, masked_sum

__all__ = [
  "importance_ratio",
  "mean_one",
  "rejected",
  "rejected_importance",
  "truncated",
  "truncated_importance",
]

Correction = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def importance_ratio(
  old_log_probs: jax.Array,
  sampler_log_probs: jax.Array,
  mask: jax.Array,
  *,
  per_sequence: bool = False,
  log_limit: float = 20.0,
) -> jax.Array:
  """w = exp(old_log_prob - sampler_log_prob), summed over the response if `per_sequence`.

  The exponent is clamped to +-log_limit, as in verl. [..., T] each -> [..., T], 0 where masked.

  >>> old, sampler = jnp.array([-1.0, -1.0]), jnp.array([-1.5, -1.0])
  >>> print(importance_ratio(old, sampler, jnp.array([True, True])).round(3))
  [1.649 1.   ]
  """
  same_shape(old_log_probs=old_log_probs, sampler_log_probs=sampler_log_probs, mask=mask)
  logs = jax.lax.stop_gradient(log_ratio(old_log_probs, sampler_log_probs, mask))
  if per_sequence:
    logs = masked_sum(logs, mask, -1, keepdims=True)
  return jnp.where(mask, finite_exp(jnp.clip(logs, -log_limit, log_limit)), 0.0)


def truncated_importance(
  old_log_probs: jax.Array,
  sampler_log_probs: jax.Array,
  mask: jax.Array,
  *,
  high: float = 2.0,
  per_sequence: bool = False,
  log_limit: float = 20.0,
) -> jax.Array:
  """min(w, high). [..., T] each -> [..., T], 0 where masked.

  >>> old, sampler = jnp.log(jnp.array([0.9, 0.5])), jnp.log(jnp.array([0.3, 0.5]))
  >>> print(truncated_importance(old, sampler, jnp.array([True, True])))
  [2. 1.]
  """
  ratios = importance_ratio(
    old_log_probs, sampler_log_probs, mask, per_sequence=per_sequence, log_limit=log_limit
  )
  return jnp.minimum(ratios, high)


def rejected_importance(
  old_log_probs: jax.Array,
  sampler_log_probs: jax.Array,
  mask: jax.Array,
  *,
  low: float = 0.0,
  high: float = 3.0,
  per_sequence: bool = False,
  log_limit: float = 20.0,
) -> jax.Array:
  """w where low <= w <= high, 0 elsewhere. [..., T] each -> [..., T], 0 where masked.

  >>> old, sampler = jnp.array([-1.0, -1.0]), jnp.array([-3.0, -1.0])
  >>> print(rejected_importance(old, sampler, jnp.array([True, True])))
  [0. 1.]
  """
  ratios = importance_ratio(
    old_log_probs, sampler_log_probs, mask, per_sequence=per_sequence, log_limit=log_limit
  )
  return jnp.where((ratios >= low) & (ratios <= high), ratios, 0.0)


def mean_one(
  weights: jax.Array,
  mask: jax.Array,
  *,
  per_sequence: bool = False,
  axis_name: AxisName = None,
) -> jax.Array:
  """Weights divided by their mean over tokens, or over responses. [..., T] each -> [..., T].

  It couples the batch: taken over a piece of it, it changes the gradient. Inside `jax.shard_map`
  the mean is that of all devices along `axis_name`.

  >>> print(mean_one(jnp.array([[1.0, 3.0]]), jnp.ones((1, 2), bool)))
  [[0.5 1.5]]
  """
  same_shape(weights=weights, mask=mask)
  if per_sequence:
    mean = masked_mean(masked_mean(weights, mask, -1), jnp.any(mask, -1), axis_name=axis_name)
  else:
    mean = masked_mean(weights, mask, axis_name=axis_name)
  return weights / jnp.where(mean > 0, mean, 1.0)


def truncated(*, high: float = 2.0, per_sequence: bool = False) -> Correction:
  """`truncated_importance`, for the argument `correction` of a loss."""
  return lambda *arrays: truncated_importance(*arrays, high=high, per_sequence=per_sequence)


def rejected(*, low: float = 0.0, high: float = 3.0, per_sequence: bool = True) -> Correction:
  """`rejected_importance`, for the argument `correction` of a loss.

  >>> correct = rejected(high=2.0, per_sequence=False)
  >>> print(correct(jnp.array([-1.0, -1.0]), jnp.array([-3.0, -1.0]), jnp.array([True, True])))
  [0. 1.]
  """
  return lambda *arrays: rejected_importance(*arrays, low=low, high=high, per_sequence=per_sequence)
