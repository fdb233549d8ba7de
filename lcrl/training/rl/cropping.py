"""Which tokens of a response are kept when a revision cuts it. Arrays in, arrays out."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from lcrl.checks import same_groups
from lcrl.masked import as_float, masked_mean, masked_std
from lcrl.types import EndReason, Rollouts

__all__ = ["cropped", "outlier_kept_length"]


def outlier_kept_length(
  rewards: jax.Array,
  lengths: jax.Array,
  valid: jax.Array,
  *,
  alpha: float = 3.0,
  success: float = 1.0,
  margin: float = 32,
) -> jax.Array:
  """Tokens that each rollout keeps: outliers of solved groups are cut at mean + alpha * std.

  A group counts as solved if at least the share `success` has reward 1. Only a rollout that exceeds
  the cutoff by `margin` tokens is cut (below 1: by that share of its length, at least 16). Cut ones
  are verified again: most lose their answer and become the group's only wrong ones.
  Source: DOT, arXiv:2601.03969, and its code. No value exceeds (G - 1) / sqrt(G) sample deviations:
  alpha 3 needs groups of 11. [..., G] each -> [..., G] int32.

  >>> lengths = jnp.array([[100, 120, 90, 110, 300, 105]])
  >>> print(outlier_kept_length(jnp.ones((1, 6)), lengths, jnp.ones((1, 6), bool), alpha=1.0))
  [[100 120  90 110 217 105]]
  """
  same_groups(rewards=rewards, lengths=lengths, valid=valid)
  solved = jnp.abs(as_float(rewards) - 1.0) < 1e-6
  eligible = masked_mean(solved, valid, -1, keepdims=True) >= success - 1e-6
  std = masked_std(lengths, valid, -1, ddof=1, keepdims=True)
  cutoff = jnp.floor(masked_mean(lengths, valid, -1, keepdims=True) + alpha * std)
  least = jnp.maximum(jnp.floor(as_float(lengths) * margin), 16) if 0 < margin < 1 else margin
  excess = as_float(lengths) - cutoff
  cut = valid & eligible & (excess > 0) & (excess >= least)
  return jnp.where(cut, cutoff, as_float(lengths)).astype(jnp.int32)


def cropped(r: Rollouts, kept_lengths: jax.Array) -> Rollouts:
  """Keeps the first `kept_lengths` tokens that count of each rollout, and its old verdict."""
  counted = r.counted & (jnp.cumsum(r.counted, -1) <= kept_lengths[..., None])
  mask = r.mask & counted
  lengths = jnp.sum(counted, -1, dtype=r.lengths.dtype)
  cut = lengths < r.lengths
  before = jnp.cumsum(counted, -1) < lengths[..., None]  # the last token that is kept
  return dataclasses.replace(
    r,
    mask=mask,
    sampler_log_probs=jnp.where(mask, r.sampler_log_probs, 0.0),
    lengths=lengths,
    truncated=r.truncated | cut,
    forced=None if r.forced is None else r.forced & (counted | before | ~cut[..., None]),
    end=jnp.where(cut, EndReason.REVISION, r.end_reasons).astype(jnp.int8),
  )
