"""Tokens that repeat what the response said before."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.masked import masked_mean
from lcrl.rewards.base import shaped
from lcrl.types import Stage

__all__ = ["repeated_tokens", "repetition_penalty", "repetition_reward"]


def repeated_tokens(tokens: jax.Array, mask: jax.Array, *, ngram: int) -> jax.Array:
  """Tokens covered by an n-gram of the response that occurred before in it.

  [..., T], [..., T] -> [..., T] bool. Sorts the n-grams: O(T log T).

  >>> print(repeated_tokens(jnp.array([1, 2, 1, 2, 3]), jnp.ones(5, bool), ngram=2))
  [False False  True  True False]
  """
  if ngram < 1:
    raise ValueError(f"ngram must be at least 1, got {ngram}.")
  if tokens.ndim > 1:
    return jax.vmap(lambda t, m: repeated_tokens(t, m, ngram=ngram))(tokens, mask)
  starts = tokens.shape[0] - ngram + 1
  if starts < 1:
    return jnp.zeros(tokens.shape, bool)
  windows = jnp.stack([tokens[i : starts + i] for i in range(ngram)])
  whole = jnp.all(jnp.stack([mask[i : starts + i] for i in range(ngram)]), 0)
  order = jnp.lexsort((*windows, ~whole))  # stable: equal n-grams stay in order of occurrence
  ordered = windows[:, order]
  same = jnp.all(ordered[:, 1:] == ordered[:, :-1], 0) & whole[order][1:]
  seen = jnp.zeros(starts, bool).at[order[1:]].set(same)
  covered = [jnp.pad(seen, (i, ngram - 1 - i)) for i in range(ngram)]
  return jnp.any(jnp.stack(covered), 0)


def repetition_reward(
  tokens: jax.Array, mask: jax.Array, *, ngram: int = 3, max_penalty: float = -1.0
) -> jax.Array:
  """`max_penalty` times the share of repeated tokens; 0 for a response shorter than an n-gram.

  Source: HAPO's repository, after arXiv:2502.03373. [..., T], [..., T] -> [...].
  """
  return max_penalty * masked_mean(repeated_tokens(tokens, mask, ngram=ngram), mask, -1)


def repetition_penalty(
  *, ngram: int = 3, max_penalty: float = -1.0, base: Stage | None = None
) -> Stage:
  """Adds `repetition_reward` to the base's reward."""
  return shaped(
    base,
    lambda rewards, r: (
      rewards + repetition_reward(r.tokens, r.mask, ngram=ngram, max_penalty=max_penalty)
    ),
  )
