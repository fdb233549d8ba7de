"""What a batch, or the run so far, does to a pair loss: weights, scales and margins of pairs.

All but WPO couple the batch, and all are without gradient. Running moments are explicit state.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.checks import same_pairs, same_shape
from lcrl.losses.preference.sequences import aligned_pairs, mean_weights, sequence_log_probs
from lcrl.masked import AxisName, as_float, finite_exp, masked_mean, masked_std, total
from lcrl.sharding import ranks

__all__ = [
  "Moments",
  "dynamic_beta",
  "lmpo_margins",
  "typical_pairs",
  "updated_moments",
  "wpo_weights",
]

Array = jax.Array


class Moments(NamedTuple):
  """Exponentially averaged moments of a value over the batches so far."""

  mean: Array  # [] float
  std: Array  # [] float


def updated_moments(
  moments: Moments,
  values: Array,
  mask: Array | None = None,
  *,
  decay: float = 0.9,
  axis_name: AxisName = None,
) -> Moments:
  """decay * old + (1 - decay) * (mean, sample deviation) of values [N] where mask [N].

  Kept as is for fewer than two values. Inside `jax.shard_map` they are those of all devices along
  `axis_name`.

  >>> moments = updated_moments(Moments(jnp.zeros(()), jnp.zeros(())), jnp.array([1.0, 3.0]))
  >>> print(f"{moments.mean:.3f} {moments.std:.3f}")
  0.200 0.141
  """
  values = jax.lax.stop_gradient(as_float(values))
  mask = jnp.ones(values.shape, bool) if mask is None else mask
  same_pairs(values=values, mask=mask)
  several = total(jnp.sum(mask), axis_name) > 1
  mix = lambda old, new: jnp.where(several, decay * old + (1 - decay) * new, old)
  mean = masked_mean(values, mask, axis_name=axis_name)
  std = masked_std(values, mask, ddof=1, axis_name=axis_name)
  return Moments(mix(moments.mean, mean), mix(moments.std, std))


def typical_pairs(
  key: Array, margins: Array, moments: Moments, mask: Array | None = None, *, drop: float = 0.2
) -> Array:
  """beta-DPO's filter: floor(N (1 - drop)) pairs, drawn without replacement by how usual they are.

  A pair's weight is exp(-((h - mean) / std)^2 / 2); all are alike while std is 0. Inside
  `jax.shard_map`, gather the batch first.

  Source: arXiv:2407.08639. Args: margins [N], h of the pairs; moments of h; mask [N], the N pairs
  that there are (all if None). Returns: [N] bool.

  >>> margins, moments = jnp.array([0.0, 0.1, 50.0]), Moments(jnp.array(0.0), jnp.array(1.0))
  >>> print(typical_pairs(jax.random.key(0), margins, moments, drop=0.3))
  [ True  True False]
  """
  if not 0 <= drop < 1:
    raise ValueError(f"drop must be in [0, 1), got {drop}.")
  h = jax.lax.stop_gradient(as_float(margins))
  mask = jnp.ones(h.shape, bool) if mask is None else mask
  same_pairs(margins=h, mask=mask)
  std = jnp.where(moments.std > 0, moments.std, jnp.inf)
  log_weights = -(((h - moments.mean) / std) ** 2) / 2
  noisy = log_weights + jax.random.gumbel(key, h.shape, h.dtype)  # top-k of these is the draw
  rank = ranks(jnp.where(mask, -noisy, jnp.inf))
  return mask & (rank < jnp.floor(jnp.sum(mask) * (1 - drop) + 1e-6))


def dynamic_beta(
  margins: Array,
  keep: Array,
  moments: Moments,
  *,
  beta: float = 0.1,
  scale: float = 0.6,
  least: float = 1e-3,
  axis_name: AxisName = None,
) -> Array:
  """beta-DPO's beta for this batch: larger where margins are larger than they used to be.

    max(beta * (1 + scale * (mean of kept h - running mean)), least)

  Use: moments = updated_moments(moments, h); keep = typical_pairs(...); then `dpo_loss` of the kept
  pairs with this beta. Inside `jax.shard_map` the mean is that of all devices along `axis_name`.
  Source: beta-DPO, arXiv:2407.08639.

  Args: margins [N], h of the pairs; keep [N] bool; moments of h, this batch included. Returns: [].

  >>> margins, keep = jnp.array([1.0, 3.0]), jnp.ones(2, bool)
  >>> print(f"{dynamic_beta(margins, keep, Moments(jnp.array(1.0), jnp.array(1.0))):.2f}")
  0.16
  """
  same_pairs(margins=margins, keep=keep)
  h = jax.lax.stop_gradient(as_float(margins))
  return jnp.maximum(
    beta * (1 + scale * (masked_mean(h, keep, axis_name=axis_name) - moments.mean)), least
  )


def wpo_weights(
  chosen_log_probs: Array,
  rejected_log_probs: Array,
  chosen_log_sum_sq: Array,
  rejected_log_sum_sq: Array,
  chosen_mask: Array,
  rejected_mask: Array,
  *,
  most: float | None = 1.0,
) -> Array:
  """How much each pair looks like the policy's own samples; multiplies any pair loss.

    w = w(chosen) * w(rejected), w(y) = exp(mean over tokens (log_prob - log sum p^2))

  Source: WPO, arXiv:2406.11827, which bounds w by 1; TRL does not (`most=None`).

  Args:
    *_log_probs, *_log_sum_sq: [..., T], fields of `TokenScores`.
    *_mask: [..., T] bool.
  Returns: [...], no gradient.

  >>> log_probs, sum_sq = jnp.log(jnp.array([0.25])), jnp.log(jnp.array([0.5]))
  >>> mask = jnp.array([True])
  >>> print(wpo_weights(log_probs, log_probs, sum_sq, sum_sq, mask, mask))
  0.25
  """
  for side, *arrays in (
    ("chosen", chosen_log_probs, chosen_log_sum_sq, chosen_mask),
    ("rejected", rejected_log_probs, rejected_log_sum_sq, rejected_mask),
  ):
    names = (f"{side}_{name}" for name in ("log_probs", "log_sum_sq", "mask"))
    same_shape(**dict(zip(names, arrays, strict=True)))
  log_weight = sequence_log_probs(
    as_float(chosen_log_probs) - chosen_log_sum_sq, mean_weights(chosen_mask)
  ) + sequence_log_probs(
    as_float(rejected_log_probs) - rejected_log_sum_sq, mean_weights(rejected_mask)
  )
  weights = finite_exp(jax.lax.stop_gradient(log_weight))
  return weights if most is None else jnp.minimum(weights, most)


def lmpo_margins(
  chosen_means: Array,
  rejected_means: Array,
  chosen_lengths: Array,
  rejected_lengths: Array,
  moments: Moments,
  mask: Array | None = None,
  *,
  weight: float = 0.2,
  power: int = 5,
  decay: float = 0.9,
  axis_name: AxisName = None,
) -> tuple[Array, Moments]:
  """LMPO's length-aware addition to SimPO's scaled margin: a standardised score of the pair.

    p = exp(mean * (chosen length + rejected length) / (2 * length)) of either side
    m = (1 - p_chosen) (1 - (p_chosen - p_rejected)^power) / 2
    term = weight * (m - running mean) / running deviation

  The loss is `simpo_loss(margin=gamma + term / beta)`. Inside `jax.shard_map` the moments
  are those of all devices along `axis_name`. Source: LMPO, arXiv:2502.14643, from its formula (the
  published code does not run).

  Args: means and lengths [N]; moments of m before this batch; mask [N], the pairs that there are.
  Returns: term [N], moments.

  >>> moments = Moments(jnp.array(0.0), jnp.array(1.0))
  >>> means, lengths = jnp.array([-1.0]), jnp.array([4])
  >>> term, moments = lmpo_margins(means, means, lengths, 2 * lengths, moments)
  >>> print(term.round(3))
  [0.078]
  """
  if mask is not None:
    same_pairs(chosen_means=chosen_means, mask=mask)
  chosen, rejected, chosen_lengths, rejected_lengths = jax.lax.stop_gradient(
    aligned_pairs(
      chosen_means=chosen_means,
      rejected_means=rejected_means,
      chosen_lengths=chosen_lengths,
      rejected_lengths=rejected_lengths,
    )
  )
  half = (chosen_lengths + rejected_lengths) / 2
  p = lambda mean, length: jnp.exp(jnp.minimum(mean * half / jnp.maximum(length, 1), 0.0))
  p_chosen, p_rejected = p(chosen, chosen_lengths), p(rejected, rejected_lengths)
  m = (1 - p_chosen) * (1 - (p_chosen - p_rejected) ** power) / 2
  moments = updated_moments(moments, m, mask, decay=decay, axis_name=axis_name)
  deviation = jnp.where(moments.std > 0, moments.std, jnp.inf)
  return weight * (m - moments.mean) / deviation, moments
