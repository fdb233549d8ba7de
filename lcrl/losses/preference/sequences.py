"""From tokens to sequences: a weight for every token decides what a pair compares.

A weighting takes the mask of one side (and, if it needs it, of the other side of the pair) and
returns weights [..., T]; `sequence_log_probs` and `sequence_log_ratios` sum with them. Any goes
with any loss: DPO over `sum_weights` is DPO, over `mean_weights` LN-DPO, over
`desensitized_weights` LD-DPO, over `sampled_weights` SamPO.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from lcrl.checks import per_row, same_pairs, same_shape, typed
from lcrl.masked import AxisName, as_float, total
from lcrl.sharding import left_to_xla, ranks, running_sum

__all__ = [
  "batch_mean_weights",
  "common_length_weights",
  "desensitized_weights",
  "mean_weights",
  "sampled_weights",
  "sequence_log_probs",
  "sequence_log_ratios",
  "sum_weights",
]

Array = jax.Array


def aligned(**arrays: Array) -> list[Array]:
  """The arrays in float32 or wider; a ValueError that names them unless they share a shape."""
  same_shape(**arrays)
  return [as_float(x) for x in arrays.values()]


def aligned_pairs(**arrays: Array) -> list[Array]:
  """`aligned`, of one value a pair: [B], or [] for one pair."""
  same_pairs(**arrays)
  return [as_float(x) for x in arrays.values()]


def sequence_log_probs(log_probs: Array, weights: Array) -> Array:
  """Weighted sum over tokens; what has weight 0 is not looked at. [..., T] each -> [...].

  >>> print(sequence_log_probs(jnp.array([-1.0, -2.0, jnp.nan]), jnp.array([1.0, 0.5, 0.0])))
  -2.0
  """
  log_probs, weights = aligned(log_probs=log_probs, weights=weights)
  return jnp.sum(weights * jnp.where(weights != 0, log_probs, 0.0), axis=-1)


def sequence_log_ratios(
  log_probs: Array, ref_log_probs: Array, weights: Array, ref_weights: Array | None = None
) -> Array:
  """log policy / reference of whole sequences; no gradient for the reference.

  Args:
    log_probs, ref_log_probs: [..., T], of the sequence's tokens.
    weights: [..., T], 0 where masked.
    ref_weights: [..., T], the reference's own; `weights` if None, and then tokens are subtracted
      before they are summed, which keeps small ratios of long sequences exact.
  Returns: [...].

  >>> print(sequence_log_ratios(jnp.array([-1.0, -2.0]), jnp.array([-2.0, -2.0]), jnp.ones(2)))
  1.0
  """
  log_probs, ref_log_probs = aligned(log_probs=log_probs, ref_log_probs=ref_log_probs)
  ref_log_probs = jax.lax.stop_gradient(ref_log_probs)
  if ref_weights is None:
    return sequence_log_probs(log_probs - ref_log_probs, weights)
  aligned(ref_log_probs=ref_log_probs, ref_weights=ref_weights)
  return sequence_log_probs(log_probs, weights) - sequence_log_probs(ref_log_probs, ref_weights)


def sum_weights(mask: Array, other_mask: Array | None = None) -> Array:
  """1 for every token. [..., T] -> [..., T].

  >>> print(sum_weights(jnp.array([True, True, False])))
  [1. 1. 0.]
  """
  typed(mask=mask)
  del other_mask
  return as_float(mask)


def mean_weights(mask: Array, other_mask: Array | None = None) -> Array:
  """1 / length: the mean over tokens, 0 for an empty side. [..., T] -> [..., T].

  >>> print(mean_weights(jnp.array([True, True, False])))
  [0.5 0.5 0. ]
  """
  typed(mask=mask)
  del other_mask
  return as_float(mask) / jnp.maximum(_lengths(mask), 1)


def batch_mean_weights(
  mask: Array, other_mask: Array | None = None, *, axis_name: AxisName = None
) -> Array:
  """Number of sequences / tokens of the batch: the mean of the sums is the mean over all tokens.

  Inside `jax.shard_map` both are counted over all devices along `axis_name`.

  >>> print(batch_mean_weights(jnp.array([[True, True], [True, False]])))
  [[0.6666667 0.6666667]
   [0.6666667 0.       ]]
  """
  typed(mask=mask)
  del other_mask
  tokens = as_float(mask)
  rows = total(jnp.asarray(math.prod(mask.shape[:-1]), tokens.dtype), axis_name)
  return tokens * (rows / jnp.maximum(total(jnp.sum(tokens), axis_name), 1))


def desensitized_weights(mask: Array, other_mask: Array, *, alpha: float = 0.5) -> Array:
  """LD-DPO: 1 up to the shorter side's length, alpha for what the longer side has beyond it.

  alpha = 1 is the plain sum, alpha = 0 cuts both sides at the same length. Positions count tokens
  of the mask, so prompts and padding do not matter. TRL from 0.29 gives the reference the same
  weights; before, and in LLaMA-Factory, it kept `sum_weights` (`ref_weights` above).

  Source: LD-DPO, Liu et al. 2024, arXiv:2409.06411, read from those codes.

  >>> mask, other = jnp.ones(4, bool), jnp.array([True, True, False, False])
  >>> print(desensitized_weights(mask, other, alpha=0.3))
  [1.  1.  0.3 0.3]
  """
  if not 0 <= alpha <= 1:
    raise ValueError(f"alpha must be in 0..1, got {alpha}.")
  _two_sides(mask, other_mask)
  shared = jnp.minimum(_lengths(mask), _lengths(other_mask))
  beyond = running_sum(mask) > shared
  return as_float(mask) * jnp.where(beyond, alpha, 1.0)


def sampled_weights(keys: Array, mask: Array, other_mask: Array) -> Array:
  """SamPO: 1 for as many tokens as the shorter side has, drawn without replacement; else 0.

  Give policy and reference the same weights. (The released code draws twice, and its ratios do not
  vanish where the two agree.)

  Source: SamPO, Lu et al. 2024, arXiv:2406.10957.

  Args:
    keys: [...] random keys, one a pair, so that a draw does not depend on the rest of the batch.
    mask, other_mask: [..., T], [..., T'] bool.
  Returns: [..., T].

  >>> mask, other = jnp.array([True, True, True, True]), jnp.array([True, True, False, False])
  >>> print(sampled_weights(jax.random.key(0), mask, other).sum())
  2.0
  """
  _two_sides(mask, other_mask)
  per_row(dict(mask=mask), keys=keys)
  draw = lambda key: jax.random.uniform(key, mask.shape[-1:])
  noise_of = lambda keys: jax.vmap(draw)(keys.reshape(-1)).reshape(mask.shape)
  noise = left_to_xla(noise_of, mask, keys)
  rank = ranks(jnp.where(mask, noise, jnp.inf))
  return as_float(mask & (rank < _lengths(other_mask)))


def common_length_weights(mask: Array, other_mask: Array) -> Array:
  """SamPO without a draw: each side's mean, times the mean length of the two.

  Source: an inactive variant in SamPO's code.

  >>> mask, other = jnp.ones(3, bool), jnp.array([True, False, False])
  >>> print(common_length_weights(mask, other), common_length_weights(other, mask))
  [0.6666667 0.6666667 0.6666667] [2. 0. 0.]
  """
  _two_sides(mask, other_mask)
  return mean_weights(mask) * (_lengths(mask) + _lengths(other_mask)) / 2


def _two_sides(mask: Array, other_mask: Array) -> None:
  typed(mask=mask, other_mask=other_mask)
  if mask.shape[:-1] != other_mask.shape[:-1]:
    raise ValueError(
      "mask and other_mask must have the same pairs, got "
      f"{mask.shape[:-1]} and {other_mask.shape[:-1]}."
    )


def _lengths(mask: Array) -> Array:
  return jnp.sum(mask, axis=-1, keepdims=True)
