"""Estimates of KL(policy || reference) at sampled tokens, to add to a token loss.

With d = log_prob - ref_log_prob: k1 = d, k2 = d^2 / 2, k3 = exp(-d) + d - 1, abs = |d|. On samples
of the policy k1 and k3 are unbiased for the value, yet as a loss the gradients differ: in
expectation that of k2 is the gradient of KL(policy || ref), that of k1 is 0, that of k3 is that of
KL(ref || policy). Source: Schulman, "Approximating KL divergence"; clamps as in verl's
`kl_penalty`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.masked import as_float, exponent_limit

__all__ = ["abs_kl", "absolute", "k1", "k1_kl", "k2", "k2_kl", "k3", "k3_kl", "log_ratio"]

TokenKL = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def log_ratio(log_probs: jax.Array, ref_log_probs: jax.Array, mask: jax.Array) -> jax.Array:
  """log_prob - ref_log_prob, 0 where masked, no gradient to the reference. [..., T] each.

  >>> print(log_ratio(jnp.array([-1.0, -3.0]), jnp.array([-2.0, -1.0]), jnp.array([True, False])))
  [1. 0.]
  """
  same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs, mask=mask)
  ref = jax.lax.stop_gradient(as_float(ref_log_probs))
  return jnp.where(mask, as_float(log_probs), 0.0) - jnp.where(mask, ref, 0.0)


def token_advantages(advantages: jax.Array, mask: jax.Array) -> jax.Array:
  """Advantages [...] as [..., 1], or [..., T] as they are, 0 where masked; without a gradient."""
  shape = getattr(advantages, "shape", advantages)
  if shape not in (mask.shape, mask.shape[:-1]):
    raise ValueError(
      f"advantages must be {mask.shape[:-1]} or {mask.shape} for this mask, got {shape}."
    )
  advantages = jax.lax.stop_gradient(as_float(advantages))
  if shape == mask.shape[:-1]:
    return advantages[..., None]
  return jnp.where(mask, advantages, 0.0)


def k1_kl(log_probs: jax.Array, ref_log_probs: jax.Array, mask: jax.Array) -> jax.Array:
  """log_prob - ref_log_prob, 0 where masked. [..., T] each -> [..., T].

  >>> print(k1_kl(jnp.array([-1.0, -3.0]), jnp.array([-2.0, -1.0]), jnp.array([True, True])))
  [ 1. -2.]
  """
  return log_ratio(log_probs, ref_log_probs, mask)


def k2_kl(log_probs: jax.Array, ref_log_probs: jax.Array, mask: jax.Array) -> jax.Array:
  """(log_prob - ref_log_prob)^2 / 2, 0 where masked. [..., T] each -> [..., T].

  >>> print(k2_kl(jnp.array([-1.0, -3.0]), jnp.array([-2.0, -1.0]), jnp.array([True, True])))
  [0.5 2. ]
  """
  return 0.5 * log_ratio(log_probs, ref_log_probs, mask) ** 2


def abs_kl(log_probs: jax.Array, ref_log_probs: jax.Array, mask: jax.Array) -> jax.Array:
  """|log_prob - ref_log_prob|, 0 where masked. [..., T] each -> [..., T].

  >>> print(abs_kl(jnp.array([-1.0, -3.0]), jnp.array([-2.0, -1.0]), jnp.array([True, True])))
  [1. 2.]
  """
  return jnp.abs(log_ratio(log_probs, ref_log_probs, mask))


def k3_kl(
  log_probs: jax.Array,
  ref_log_probs: jax.Array,
  mask: jax.Array,
  *,
  log_ratio_limit: float = math.inf,
  limit: float = math.inf,
) -> jax.Array:
  """exp(-d) + d - 1: never negative, small variance near 0. [..., T] each -> [..., T].

  verl clamps d at `log_ratio_limit=20` and the result at `limit=10`; the default clamps d only
  where exp(-d) would not be finite (`exponent_limit`), with gradient 0 beyond as in verl.

  >>> ref = jnp.log(jnp.array([0.5, 0.5]))
  >>> print(k3_kl(jnp.log(jnp.array([0.5, 0.25])), ref, jnp.array([True, True])))
  [0.         0.30685282]
  """
  d = log_ratio(log_probs, ref_log_probs, mask)
  d = jnp.clip(d, -min(log_ratio_limit, exponent_limit(d.dtype)), log_ratio_limit)
  return jnp.clip(jnp.exp(-d) + d - 1.0, -limit, limit)


def k1(*, beta: float) -> TokenKL:
  """`beta` times `k1_kl`. As a loss its expected gradient is 0: for use with other losses only.

  >>> print(k1(beta=0.5)(jnp.array([-1.0]), jnp.array([-3.0]), jnp.array([True])))
  [1.]
  """
  return lambda *args: beta * k1_kl(*args)


def k2(*, beta: float) -> TokenKL:
  """`beta` times `k2_kl`, whose expected gradient is that of KL(policy || ref).

  Source: Schulman, "Approximating KL divergence" (2020); the KL term of REINFORCE++,
  arXiv:2501.03262.
  """
  return lambda *args: beta * k2_kl(*args)


def k3(*, beta: float, log_ratio_limit: float = math.inf, limit: float = math.inf) -> TokenKL:
  """`beta` times `k3_kl`, the KL term of GRPO (arXiv:2402.03300)."""
  return lambda *args: beta * k3_kl(*args, log_ratio_limit=log_ratio_limit, limit=limit)


def absolute(*, beta: float) -> TokenKL:
  """`beta` times `abs_kl`.

  >>> print(absolute(beta=0.5)(jnp.array([-1.0]), jnp.array([-3.0]), jnp.array([True])))
  [1.]
  """
  return lambda *args: beta * abs_kl(*args)
