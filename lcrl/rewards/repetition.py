"""Penalties for tokens that repeat earlier ones of the response."""

from __future__ import annotations

import jax

from lcrl.masked import masked_mean
from lcrl.ngrams import repeated_starts, repeated_tokens, whole_starts
from lcrl.rewards.base import shaped
from lcrl.types import Stage

__all__ = [
  "distinct_ngrams_reward",
  "repeated_starts",
  "repeated_tokens",
  "repetition_penalty",
  "repetition_reward",
]


def repetition_reward(
  tokens: jax.Array, mask: jax.Array, *, ngram: int = 3, max_penalty: float = -1.0
) -> jax.Array:
  """`max_penalty` times the share of repeated tokens; 0 for a response shorter than an n-gram.

  Source: HAPO's repository, after arXiv:2502.03373. [..., T], [..., T] -> [...].

  >>> found = repetition_reward(jnp.array([[7, 7, 7, 7]]), jnp.ones((1, 4), bool), ngram=2)
  >>> print(f"{found[0]:.2f}")
  -0.75
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
  return max_penalty * masked_mean(repeated, whole_starts(mask, ngram), -1)


def repetition_penalty(
  *, ngram: int = 3, max_penalty: float = -1.0, base: Stage | None = None
) -> Stage:
  """Adds `repetition_reward` to the base's reward.

  >>> repetition_penalty(ngram=3).needs
  ()
  """
  return shaped(
    base,
    lambda rewards, r: (
      rewards + repetition_reward(r.tokens, r.mask, ngram=ngram, max_penalty=max_penalty)
    ),
  )
