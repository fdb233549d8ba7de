"""Mirostat: keeps the surprise of the sampled text near a target (arXiv:2007.14966).

Surprise is -log2 of a token's probability. A row has one number, `mu`, which starts at twice the
target and falls when tokens surprise more than wanted.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.checks import positive
from lcrl.masked import as_float
from lcrl.sampling.controls import Control


def surprise(logits: jax.Array, token: jax.Array) -> jax.Array:
  """-log2 softmax(logits)[token]. [..., V], [...] -> [...].

  >>> print(surprise(jnp.log(jnp.array([0.25, 0.5, 0.25])), jnp.array(0)))
  2.0
  """
  log_probs = jax.nn.log_softmax(as_float(logits))
  return -jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0] / jnp.log(2.0)


def zipf_exponent(probs: jax.Array, *, m: int = 100) -> jax.Array:
  """Least-squares exponent of Zipf's law over the m + 1 largest probabilities.

    s = sum_i ln(p_i / p_(i+1)) ln((i+1) / i) / sum_i ln^2((i+1) / i),  i = 1..m

  Args:
    probs: [..., V] in descending order; V at most m + 1 uses them all.
    m: terms of the sums.
  Returns: [...].
  """
  m = min(m, probs.shape[-1] - 1)
  log_probs = jnp.log(jnp.maximum(as_float(probs[..., : m + 1]), jnp.finfo(jnp.float32).tiny))
  i = jnp.arange(1, m + 1, dtype=log_probs.dtype)
  step = jnp.log((i + 1) / i)
  return ((log_probs[..., :-1] - log_probs[..., 1:]) @ step) / (step @ step)


def mirostat_k(exponent: jax.Array, mu: jax.Array, *, vocab_size: int) -> jax.Array:
  """How many tokens the first version counts, before it adds one. [...], [...] -> [...] int32.

    k = round((e 2^mu / (1 - n^-e))^(1/s)),  e = s - 1 and n the vocabulary's size

  Deviation: |e| is at least 1e-4, where the authors' code divides by almost 0 (the limit for e -> 0
  is 2^mu / ln n).
  """
  e = exponent - 1
  e = jnp.where(jnp.abs(e) < 1e-4, jnp.where(e < 0, -1e-4, 1e-4), e)
  k = (e * 2.0**mu / -jnp.expm1(-e * jnp.log(float(vocab_size)))) ** (1 / exponent)
  return jnp.clip(jnp.round(k), 0, vocab_size).astype(jnp.int32)


def keep_ranks(logits: jax.Array, k: jax.Array) -> jax.Array:
  """The k largest logits, of equal ones those with lower ids; the others become -inf.

  >>> print(keep_ranks(jnp.array([1.0, 3.0, 2.0, 2.0]), jnp.array(2)))
  [-inf   3.   2. -inf]
  """
  rank = jnp.argsort(jnp.argsort(logits, axis=-1, descending=True), axis=-1)
  return jnp.where(rank < k[..., None], logits, -jnp.inf)


def keep_below_surprise(logits: jax.Array, mu: jax.Array) -> jax.Array:
  """Tokens whose surprise is at most mu, and the likeliest in any case. [..., V], [...].

  >>> print(keep_below_surprise(jnp.log(jnp.array([0.25, 0.5, 0.25])), jnp.array(1.5)).round(3))
  [  -inf -0.693   -inf]
  """
  bits = -jax.nn.log_softmax(as_float(logits)) / jnp.log(2.0)
  keep = (bits <= mu[..., None]) | (bits == bits.min(axis=-1, keepdims=True))
  return jnp.where(keep, logits, -jnp.inf)


def mirostat_update(mu: jax.Array, observed: jax.Array, *, tau: float, eta: float) -> jax.Array:
  """mu - eta (observed - tau)."""
  return mu - eta * (observed - tau)


def mirostat_v1(tau: float, *, eta: float = 1.0, m: int = 100) -> Control:
  """Keeps k + 1 tokens, with k from Zipf's law and mu; the extra one is the authors' code's.

  >>> control = mirostat_v1(tau=3.0)
  >>> print(control.init(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)))
  [6.]
  """

  def shape(mu, logits):
    probs = -jnp.sort(-jax.nn.softmax(logits, axis=-1), axis=-1)
    k = mirostat_k(zipf_exponent(probs, m=m), mu, vocab_size=logits.shape[-1])
    return keep_ranks(logits, k + 1)

  return _mirostat(shape, tau, eta)


def mirostat_v2(tau: float, *, eta: float = 0.1) -> Control:
  """Keeps the tokens that surprise by at most mu.

  >>> control = mirostat_v2(tau=3.0)
  >>> print(control.init(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)))
  [6.]
  """
  return _mirostat(lambda mu, logits: keep_below_surprise(logits, mu), tau, eta)


def _mirostat(shape, tau: float, eta: float) -> Control:
  """The surprise that counts is under the policy's own distribution, not the truncated one."""
  positive(tau=tau, eta=eta)

  def init(tokens, lengths):
    return jnp.full(lengths.shape, 2 * tau, jnp.float32)

  def take(mu, logits, sampled):
    new = mirostat_update(mu, surprise(logits, sampled), tau=tau, eta=eta).astype(mu.dtype)
    return new, sampled, jnp.zeros(sampled.shape, bool)

  return Control(init, shape, take)
