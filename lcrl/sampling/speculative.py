"""How many tokens a draft model should propose before the large model checks them."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.masked import as_float


def rejection_probability(accept: jax.Array) -> jax.Array:
  """That one of the first tokens is rejected: 1 - prod_{j <= i} accept_j. [..., K] -> [..., K].

  Args:
    accept: probability that a draft token is accepted if all before it are.
  """
  return 1 - jnp.cumprod(as_float(accept), axis=-1)


def draft_length(accept: jax.Array, *, threshold: float, max_candidates: int = 20) -> jax.Array:
  """Stops at the first token whose `rejection_probability` is above the threshold.

  That token is still sent to be checked. Source: SpecDec++, arXiv:2405.19715.

  Args:
    accept: [..., K], probability that a draft token is accepted if all before it are.
    threshold: above which drafting stops.
    max_candidates: at which drafting stops in any case.
  Returns: [...] int32, tokens to check.

  >>> print(draft_length(jnp.array([0.9, 0.5, 0.9, 0.9]), threshold=0.3))
  2
  """
  go_on = rejection_probability(accept) <= threshold
  sent = 1 + jnp.cumprod(go_on, axis=-1).sum(axis=-1, dtype=jnp.int32)
  return jnp.minimum(sent, min(max_candidates, accept.shape[-1]))
