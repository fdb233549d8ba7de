"""Speculative decoding: how long to draft, and how often a draft token is accepted.

A small model proposes tokens from `draft` [..., V], the large one wants them from `target`.
"""

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


def best_acceptance(target: jax.Array, draft: jax.Array, *, drafts: int) -> jax.Array:
  """The most that any scheme accepts with n independent drafts. [..., V], [..., V] -> [...].

    1 + min over sets H of tokens of P(H) - Q(H)^n

  Source: arXiv:2502.18779. The best H has the tokens of largest draft / target, so V + 1 sets do.
  """
  target, draft = as_float(target), as_float(draft)
  ratio = jnp.where(target > 0, draft / jnp.where(target > 0, target, 1), jnp.inf)
  order = jnp.argsort(ratio, axis=-1, descending=True)
  p, q = (jnp.cumsum(jnp.take_along_axis(x, order, axis=-1), axis=-1) for x in (target, draft))
  return 1 + jnp.minimum((p - q**drafts).min(axis=-1), 0)


def recursive_acceptance(target: jax.Array, draft: jax.Array, *, drafts: int) -> jax.Array:
  """What recursive rejection accepts. [..., V], [..., V] -> [...].

  A draft token is taken with min(1, p / q); else p becomes the normalised positive part of p - q
  and the next independent draft is tried.
  """
  left, draft = as_float(target), as_float(draft)
  rejected = jnp.ones(left.shape[:-1], left.dtype)
  for _ in range(drafts):
    accepted = jnp.minimum(left, draft).sum(axis=-1)
    rejected *= 1 - accepted
    rest = jnp.maximum(left - draft, 0)
    total = rest.sum(axis=-1, keepdims=True)
    left = jnp.where(total > 0, rest / jnp.where(total > 0, total, 1), draft)
  return 1 - rejected


def greedy_acceptance(target: jax.Array, draft: jax.Array, *, drafts: int) -> jax.Array:
  """With the n - 1 likeliest tokens of the draft and one sampled from the rest. -> [...]."""
  target, draft = as_float(target), as_float(draft)
  rank = jnp.argsort(jnp.argsort(draft, axis=-1, descending=True), axis=-1)
  rest = jnp.where(rank < drafts - 1, 0, draft)
  total = rest.sum(axis=-1, keepdims=True)
  rest = rest / jnp.where(total > 0, total, 1)
  return jnp.where(rank < drafts - 1, target, jnp.minimum(target, rest)).sum(axis=-1)
