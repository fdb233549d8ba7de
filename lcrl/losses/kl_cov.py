"""KL-Cov: no clipping; the few tokens that lower entropy most are held near the old policy."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.losses.kl import log_ratio, token_advantages
from lcrl.masked import as_float, finite_exp, masked_mean
from lcrl.sharding import left_to_xla, ranks
from lcrl.types import Stage

__all__ = ["high_covariance", "kl_cov", "kl_cov_loss"]


def high_covariance(
  log_probs: jax.Array, advantages: jax.Array, mask: jax.Array, *, share: float
) -> jax.Array:
  """The `share` of tokens, at least one, where advantage and log-prob are highest together.

    cov = (A - mean A) * (log_prob - mean log_prob), means over all tokens of the batch

  Inside `jax.shard_map`, gather the batch first: the order is that of all its tokens.
  [..., T] each -> [..., T] bool.

  >>> log_probs, mask = jnp.array([-1.0, -2.0, -9.0]), jnp.array([True, True, False])
  >>> print(high_covariance(log_probs, jnp.array([1.0, 0.5, 0.0]), mask, share=0.1))
  [ True False False]
  """
  same_shape(log_probs=log_probs, advantages=advantages, mask=mask)
  centred = lambda x: as_float(x) - masked_mean(x, mask)
  cov = jnp.where(mask, centred(advantages) * centred(log_probs), -jnp.inf)
  rank = left_to_xla(lambda x: ranks(-x.reshape(-1)).reshape(x.shape), cov, cov)
  # The slack keeps a whole number of tokens, 2 of 1000, from becoming 1 by rounding.
  count = jnp.floor(as_float(jnp.sum(mask)) * share * (1 + 1e-6))
  return mask & (rank < jnp.maximum(count, 1))


def kl_cov_loss(
  log_probs: jax.Array,
  old_log_probs: jax.Array,
  advantages: jax.Array,
  mask: jax.Array,
  *,
  share: float = 0.002,
  beta: float = 1.0,
) -> jax.Array:
  """-ratio * A, plus beta * |log_prob - old_log_prob| at the tokens of `high_covariance`.

  Source: Cui et al. 2025, arXiv:2505.22617, as in verl and DOT (arXiv:2601.03969); weights
  `sequence_mean`. It couples the batch: here the tokens are chosen from all of it, in verl from the
  micro-batch. Inside `jax.shard_map`, gather the batch first.
  [..., T], [..., T], [...] or [..., T], [..., T] -> [..., T].

  >>> log_probs, advantages = jnp.log(jnp.array([[0.5], [0.1]])), jnp.array([1.0, -1.0])
  >>> print(kl_cov_loss(log_probs, log_probs, advantages, jnp.ones((2, 1), bool), share=0.5))
  [[-1.]
   [ 1.]]
  """
  same_shape(log_probs=log_probs, old_log_probs=old_log_probs, mask=mask)
  advantages = jnp.where(mask, token_advantages(advantages, mask), 0.0)
  differences = log_ratio(log_probs, old_log_probs, mask)
  held = high_covariance(jax.lax.stop_gradient(log_probs), advantages, mask, share=share)
  return jnp.where(held, beta * jnp.abs(differences), 0.0) - finite_exp(differences) * advantages


def kl_cov(*, share: float = 0.002, beta: float = 1.0) -> Stage:
  """The stage of `kl_cov_loss`."""

  def apply(state, scores, batch):
    mask, log_probs = batch.rollouts.mask & batch.keep[..., None], scores.log_probs
    old = jax.lax.stop_gradient(log_probs) if batch.old_log_probs is None else batch.old_log_probs
    losses = kl_cov_loss(log_probs, old, batch.advantages, mask, share=share, beta=beta)
    return jnp.sum(batch.weights * losses), state

  return Stage(init=lambda: (), apply=apply, coupled=True)
