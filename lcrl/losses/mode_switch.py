"""Learning which mode to open with, from the logits of the two opening tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.masked import as_float

__all__ = ["mode_switch_hinge_loss", "mode_switch_logistic_loss"]


def mode_switch_hinge_loss(
  preferred_logits: jax.Array, other_logits: jax.Array, *, margin: float = 1.0
) -> jax.Array:
  """max(0, margin - (preferred - other)): nothing to learn once the margin is there.

  At the first response position, without an instruction to use either mode. Source: the structure
  of Adaptive Deep Reasoning, arXiv:2505.20101; the formula is ours, unverified.
  [...], [...] -> [...].

  >>> print(mode_switch_hinge_loss(jnp.array(1.0), jnp.array(2.0)))
  2.0
  """
  return jnp.maximum(0.0, margin - (as_float(preferred_logits) - as_float(other_logits)))


def mode_switch_logistic_loss(preferred_logits: jax.Array, other_logits: jax.Array) -> jax.Array:
  """log(1 + exp(other - preferred)): the hinge's smooth alternative. [...], [...] -> [...]."""
  return jax.nn.softplus(as_float(other_logits) - as_float(preferred_logits))
