"""N-grams that a response said before: what rewards and advantages of repetition read."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.sharding import left_to_xla

__all__ = [
  "repeated_starts",
  "repeated_tokens",
]


def __dir__() -> list[str]:
  return __all__


def repeated_starts(tokens: jax.Array, mask: jax.Array, *, ngram: int) -> jax.Array:
  """Where an n-gram begins that occurred before in the response.

  [..., T], [..., T] -> [..., T] bool. Sorts the n-grams: O(T log T).

  >>> print(repeated_starts(jnp.array([1, 2, 1, 2, 3]), jnp.ones(5, bool), ngram=2))
  [False False  True False False]
  """
  if ngram < 1:
    raise ValueError(f"ngram must be at least 1, got {ngram}.")
  same_shape(tokens=tokens, mask=mask)
  starts_of_row = functools.partial(_repeated_starts, ngram=ngram)
  for _ in range(tokens.ndim - 1):
    starts_of_row = jax.vmap(starts_of_row)
  return left_to_xla(starts_of_row, mask, tokens, mask)


def _repeated_starts(tokens, mask, ngram):
  starts = tokens.shape[0] - ngram + 1
  if starts < 1:
    return jnp.zeros(tokens.shape, bool)
  windows = jnp.stack([tokens[i : starts + i] for i in range(ngram)])
  whole = whole_starts(mask, ngram)[:starts]
  order = jnp.lexsort((*windows, ~whole))  # stable: equal n-grams stay in order of occurrence
  ordered = windows[:, order]
  same = jnp.all(ordered[:, 1:] == ordered[:, :-1], 0) & whole[order][1:]
  return jnp.zeros(tokens.shape, bool).at[order[1:]].set(same)


def repeated_tokens(tokens: jax.Array, mask: jax.Array, *, ngram: int) -> jax.Array:
  """Tokens covered by an n-gram of the response that occurred before in it.

  [..., T], [..., T] -> [..., T] bool.

  >>> print(repeated_tokens(jnp.array([1, 2, 1, 2, 3]), jnp.ones(5, bool), ngram=2))
  [False False  True  True False]
  """
  return covered(repeated_starts(tokens, mask, ngram=ngram), ngram)


def whole_starts(mask, ngram):
  """Where an n-gram begins that lies within the mask. [..., T] -> [..., T]."""

  def starts(mask):
    ends = jnp.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, ngram - 1)])
    return jnp.all(jnp.stack([ends[..., i : i + mask.shape[-1]] for i in range(ngram)]), 0)

  return left_to_xla(starts, mask, mask)


def covered(starts, ngram):
  """The tokens of the n-grams that begin at `starts`. [..., T] -> [..., T]."""

  def tokens(starts):
    reached = jnp.cumsum(starts, -1)
    before = jnp.pad(reached, [(0, 0)] * (starts.ndim - 1) + [(ngram, 0)])
    return reached > before[..., : starts.shape[-1]]

  return left_to_xla(tokens, starts, starts)
