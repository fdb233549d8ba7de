"""Attention sinks: a logit of each head in the softmax of attention, beside those of keys.

A sink has no value, so that a head may attend to nothing: probabilities of keys sum to less than 1.

    p_s = exp(z_s) / (exp(sink) + sum over keys t of exp(z_t))
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def softmax(logits: jax.Array, sinks: jax.Array | None) -> jax.Array:
  """Probabilities of keys [..., S]; `sinks`, None or [..., 1], broadcast against the logits."""
  probs = jax.nn.softmax(logits, axis=-1)
  if sinks is None:
    return probs
  norm = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  return probs * jax.nn.sigmoid(norm - jnp.broadcast_to(sinks, norm.shape))
