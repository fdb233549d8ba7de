"""Losses of single answers marked good or bad."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.checks import one_or_each, positive, same_pairs
from lcrl.losses.preference.sequences import aligned_pairs
from lcrl.masked import AxisName, masked_mean

__all__ = ["kto_baseline", "kto_loss"]

Array = jax.Array


def kto_baseline(
  kl_log_ratios: Array, mask: Array | None = None, *, axis_name: AxisName = None
) -> Array:
  """max(0, mean log-ratio) of prompts with answers to other prompts, no gradient. [N] -> [].

  The mean is over the whole batch: the clamp of parts is not the part of the clamp. Inside
  `jax.shard_map` it is that of all devices along `axis_name`.

  >>> print(kto_baseline(jnp.array([1.0, -4.0])), kto_baseline(jnp.array([3.0, 1.0])))
  0.0 2.0
  """
  (ratios,) = aligned_pairs(kl_log_ratios=kl_log_ratios)
  mask = jnp.ones(ratios.shape, bool) if mask is None else mask
  same_pairs(kl_log_ratios=ratios, mask=mask)
  return jnp.maximum(0.0, masked_mean(jax.lax.stop_gradient(ratios), mask, axis_name=axis_name))


def kto_loss(
  log_ratios: Array,
  baseline: Array | float,
  desirable: Array,
  *,
  beta: float = 0.1,
  desirable_weight: float = 1.0,
  undesirable_weight: float = 1.0,
) -> Array:
  """Prospect theory: good answers shall be likelier than the baseline, bad ones less.

    loss = weight * sigmoid(-+ beta * (r - baseline)), minus for desirable answers

  Keep desirable_weight * good : undesirable_weight * bad within 1 to 4/3. Baseline 0 is APO-zero,
  unpaired. Source: KTO, arXiv:2402.01306.

  Args:
    log_ratios: [N], `sequence_log_ratios`, one an answer.
    baseline: [], `kto_baseline`.
    desirable: [N] bool.
  Returns: [N].

  >>> print(kto_loss(jnp.array([0.0, 0.0]), 0.0, jnp.array([True, False])))
  [0.5 0.5]
  """
  positive(beta=beta)
  r, _ = aligned_pairs(log_ratios=log_ratios, desirable=desirable)
  one_or_each(dict(baseline=jnp.zeros(())), baseline=baseline)
  sign = jnp.where(desirable, 1.0, -1.0)
  weight = jnp.where(desirable, desirable_weight, undesirable_weight)
  return weight * jax.nn.sigmoid(-sign * beta * (r - jax.lax.stop_gradient(baseline)))
