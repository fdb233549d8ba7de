"""Tokens that repeat what the response said before."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.masked import as_float, masked_mean
from lcrl.rewards.base import shaped
from lcrl.types import Stage

__all__ = [
  "dense_repetition_reward",
  "distinct_ngrams_reward",
  "repeated_starts",
  "repeated_tokens",
  "repetition_penalty",
  "repetition_reward",
]


def repeated_starts(tokens: jax.Array, mask: jax.Array, *, ngram: int) -> jax.Array:
  """Where an n-gram begins that occurred before in the response.

  [..., T], [..., T] -> [..., T] bool. Sorts the n-grams: O(T log T).

  >>> print(repeated_starts(jnp.array([1, 2, 1, 2, 3]), jnp.ones(5, bool), ngram=2))
  [False False  True False False]
  """
  if ngram < 1:
    raise ValueError(f"ngram must be at least 1, got {ngram}.")
  if tokens.ndim > 1:
    return jax.vmap(lambda t, m: repeated_starts(t, m, ngram=ngram))(tokens, mask)
  starts = tokens.shape[0] - ngram + 1
  if starts < 1:
    return jnp.zeros(tokens.shape, bool)
  windows = jnp.stack([tokens[i : starts + i] for i in range(ngram)])
  whole = _whole_starts(mask, ngram)[:starts]
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
  return _covered(repeated_starts(tokens, mask, ngram=ngram), ngram)


def _whole_starts(mask, ngram):
  """Where an n-gram begins that lies within the mask. [..., T] -> [..., T]."""
  pad = [(0, 0)] * (mask.ndim - 1) + [(0, ngram - 1)]
  ends = jnp.pad(mask, pad)
  return jnp.all(jnp.stack([ends[..., i : i + mask.shape[-1]] for i in range(ngram)]), 0)


def _covered(starts, ngram):
  """The tokens of the n-grams that begin at `starts`. [..., T] -> [..., T]."""
  reached = jnp.cumsum(starts, -1)
  before = jnp.pad(reached, [(0, 0)] * (starts.ndim - 1) + [(ngram, 0)])
  return reached > before[..., : starts.shape[-1]]


def repetition_reward(
  tokens: jax.Array, mask: jax.Array, *, ngram: int = 3, max_penalty: float = -1.0
) -> jax.Array:
  """`max_penalty` times the share of repeated tokens; 0 for a response shorter than an n-gram.

  Source: HAPO's repository, after arXiv:2502.03373. [..., T], [..., T] -> [...].
  """
  return max_penalty * masked_mean(repeated_tokens(tokens, mask, ngram=ngram), mask, -1)


def distinct_ngrams_reward(
  tokens: jax.Array, mask: jax.Array, *, ngram: int = 3, max_penalty: float = -1.0
) -> jax.Array:
  """`max_penalty` times (1 - distinct / all) n-grams; 0 for a response shorter than an n-gram.

  Source: TRL's repetition reward, on token ids; after arXiv:2502.03373, whose code has it for words
  of wrong answers. [..., T], [..., T] -> [...].

  >>> print(distinct_ngrams_reward(jnp.array([5, 5, 5, 5, 5]), jnp.ones(5, bool), ngram=2))
  -0.75
  """
  repeated = repeated_starts(tokens, mask, ngram=ngram)
  return max_penalty * masked_mean(repeated, _whole_starts(mask, ngram), -1)


def dense_repetition_reward(
  tokens: jax.Array,
  mask: jax.Array,
  *,
  ngram: int = 40,
  penalty: float = -0.05,
  first_only: bool = False,
) -> jax.Array:
  """`penalty` at every repeated token, to be discounted by itself (`multi_discount_return`).

  With `first_only` an n-gram counts if it begins more than `ngram` after the last repeated one, so
  that a long repeated run is punished once. Right and wrong answers alike.
  Source: Demystifying Long CoT, arXiv:2502.03373. [..., T], [..., T] -> [..., T].

  >>> tokens = jnp.array([5, 5, 5, 5])
  >>> print(dense_repetition_reward(tokens, jnp.ones(4, bool), ngram=2, penalty=-1.0))
  [ 0. -1. -1. -1.]
  """
  starts = repeated_starts(tokens, mask, ngram=ngram)
  if first_only:
    place = jnp.broadcast_to(jnp.arange(starts.shape[-1]), starts.shape)
    last = jax.lax.cummax(jnp.where(starts, place, -ngram - 1), axis=starts.ndim - 1)
    pad = [(0, 0)] * (starts.ndim - 1) + [(1, 0)]
    previous = jnp.pad(last, pad, constant_values=-ngram - 1)[..., :-1]
    starts = starts & (place - previous > ngram)
  return as_float(jnp.where(_covered(starts, ngram), penalty, 0.0))


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
