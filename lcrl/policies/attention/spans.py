"""The interval of keys that a query sees, and of queries that a key is seen by."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

Window = int | jax.Array | None


class Spans(NamedTuple):
  """Where the segment of each token begins and ends, [..., S] int32 each."""

  first: jax.Array
  last: jax.Array


def segment_spans(segments: jax.Array) -> Spans:
  """Spans of segments whose tokens are neighbours. [..., S] int -> [..., S] each.

  >>> print(*segment_spans(jnp.array([7, 7, 3, 3, 3])))
  [0 0 2 2 2] [1 1 4 4 4]
  """
  length = segments.shape[-1]
  place = jax.lax.broadcasted_iota(jnp.int32, segments.shape, segments.ndim - 1)
  new = segments != jnp.roll(segments, 1, axis=-1)
  begins = jnp.where(new, place, 0)
  ends = jnp.where(jnp.roll(new, -1, axis=-1), place, length - 1)
  ends = ends.at[..., -1].set(length - 1)
  along = segments.ndim - 1
  return Spans(jax.lax.cummax(begins, axis=along), jax.lax.cummin(ends, axis=along, reverse=True))


def first_key(place: jax.Array, spans: Spans | None, window: Window) -> jax.Array:
  """The first key that the query at `place` sees; the last is its own. [..., T] -> [..., T]."""
  first = jnp.zeros_like(place) if spans is None else spans.first
  return first if window is None else jnp.maximum(first, place - window + 1)


def last_query(place: jax.Array, spans: Spans | None, window: Window) -> jax.Array:
  """The last query that sees the key at `place`; the first is its own. [..., S] -> [..., S]."""
  end = jnp.full_like(place, place.shape[-1] - 1) if spans is None else spans.last
  # place + window may not fit into int32 where a window means "all"
  return end if window is None else jnp.minimum(end - place, window - 1) + place
