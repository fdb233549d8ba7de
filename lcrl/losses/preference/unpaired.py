"""Losses of single answers marked good or bad."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.losses.preference.sequences import aligned, check_positive
from lcrl.masked import masked_mean

__all__ = ["kto_baseline", "kto_loss"]

Array = jax.Array


def kto_baseline(kl_log_ratios: Array, mask: Array | None = None) -> Array:
  """max(0, mean log-ratio) of prompts with answers to other prompts, no gradient. [N] -> [].

  The mean is over the whole batch: the clamp of parts is not the part of the clamp.
  """
  (ratios,) = aligned(kl_log_ratios=kl_log_ratios)
  mask = jnp.ones(ratios.shape, bool) if mask is None else mask
  return jnp.maximum(0.0, masked_mean(jax.lax.stop_gradient(ratios), mask))


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
    log_ratios: [...], `sequence_log_ratios`.
    baseline: [], `kto_baseline`.
    desirable: [...] bool.
  Returns: [...].

  >>> print(kto_loss(jnp.array([0.0, 0.0]), 0.0, jnp.array([True, False])))
  [0.5 0.5]
  """
  check_positive(beta=beta)
  r, sign = aligned(log_ratios=log_ratios, desirable=jnp.where(desirable, 1.0, -1.0))
  weight = jnp.where(desirable, desirable_weight, undesirable_weight)
  return weight * jax.nn.sigmoid(-sign * beta * (r - jax.lax.stop_gradient(baseline)))
