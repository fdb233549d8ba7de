"""Group tree optimisation: a draft model for speculative decoding learns from its decoding trees.

Source: GTO, arXiv:2509.22134, from secondary notes. The loss is `clipped_surrogate_loss` on the
branch that the current tree expects to be longest, with the frozen draft's log-probs as the old
ones, weights `sequence_mean`, and `sequence_ratio` or `branch_ratio`; which of the two, its clip
and its weight beside the token loss are unverified.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.losses.kl import log_ratio
from lcrl.masked import as_float, finite_exp, standardize
from lcrl.sharding import running_product

__all__ = ["branch_ratio", "expected_accepted_length", "tree_advantage", "tree_reward"]


def expected_accepted_length(probs: jax.Array, mask: jax.Array) -> jax.Array:
  """Tokens of a branch that the target model is expected to accept: sum_j prod_{k <= j} p_k.

  [..., T], [..., T] -> [...].

  >>> print(expected_accepted_length(jnp.array([0.5, 0.5, 9.0]), jnp.array([True, True, False])))
  0.75
  """
  same_shape(probs=probs, mask=mask)
  accepted = running_product(jnp.where(mask, as_float(probs), 1.0))
  return jnp.sum(jnp.where(mask, accepted, 0.0), -1)


def tree_reward(lengths: jax.Array, present: jax.Array, *, eta: float = 1.0) -> jax.Array:
  """log(sum over branches of exp(eta * expected length)) / eta, a soft maximum.

  It grows with the number of branches: compare trees of equal size. [..., N], [..., N] -> [...].

  >>> print(f"{tree_reward(jnp.array([2.0, 2.0]), jnp.array([True, True])):.3f}")
  2.693
  """
  same_shape(lengths=lengths, present=present)
  return jax.nn.logsumexp(jnp.where(present, eta * as_float(lengths), -jnp.inf), -1) / eta


def tree_advantage(
  rewards: jax.Array, ref_rewards: jax.Array, *, ddof: int = 1, eps: float = 1e-6
) -> jax.Array:
  """Standardised gain over the frozen draft's tree, among adjacent positions of a sequence.

  [..., M], [..., M] -> [..., M]; 0 where all gain the same.

  >>> print(tree_advantage(jnp.array([2.0, 1.0, 0.0]), jnp.zeros(3), eps=0.0))
  [ 1.  0. -1.]
  """
  same_shape(rewards=rewards, ref_rewards=ref_rewards)
  gains = as_float(rewards) - as_float(ref_rewards)
  return standardize(gains, jnp.ones(gains.shape, bool), ddof=ddof, eps=eps)


def branch_ratio(log_probs: jax.Array, old_log_probs: jax.Array, mask: jax.Array) -> jax.Array:
  """The probability ratio of a whole branch, at each of its tokens; 1 where masked.

  [..., T] each -> [..., T].

  >>> new, old = jnp.log(jnp.array([0.5, 0.5, 0.1])), jnp.log(jnp.array([0.25, 0.5, 0.9]))
  >>> print(branch_ratio(new, old, jnp.array([True, True, False])).round(3))
  [2. 2. 1.]
  """
  same_shape(log_probs=log_probs, old_log_probs=old_log_probs, mask=mask)
  total = jnp.sum(log_ratio(log_probs, old_log_probs, mask), -1, keepdims=True)
  return jnp.where(mask, finite_exp(total), 1.0)
