"""What a query sees, and by which queries a key is seen, as intervals.

A segment is a sequence, or several that begin alike: a stem, then a branch for each, and a token of
a branch sees the stem and what precedes it in its own branch.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

Window = int | jax.Array | None


class Spans(NamedTuple):
  """Of the token at each place, [..., S] int32 each.

  As a query it sees the keys from `first` to itself, and those from `stem` up to `fork` (without
  it); None: no segment has branches. As a key it is seen by no query after `last`.
  """

  first: jax.Array
  last: jax.Array
  stem: jax.Array | None = None
  fork: jax.Array | None = None


class Seen(NamedTuple):
  """The keys that a query sees, [..., T] each, as in `Spans`."""

  first: jax.Array
  stem: jax.Array | None = None
  fork: jax.Array | None = None


def segment_spans(segments: jax.Array, branches: jax.Array | None = None) -> Spans:
  """Spans of segments whose tokens are neighbours, as are those of a branch. [..., S] int, each.

  `branches`: 0 in a stem, above that the number of the branch; None: there are none.

  >>> print(*segment_spans(jnp.array([7, 7, 3, 3, 3]))[:2])
  [0 0 2 2 2] [1 1 4 4 4]
  >>> print(*segment_spans(jnp.array([7, 7, 7, 7, 3]), jnp.array([0, 1, 2, 2, 0])))
  [0 1 2 2 4] [3 1 3 3 4] [0 0 0 0 4] [0 1 1 1 4]
  """
  along, length = segments.ndim - 1, segments.shape[-1]
  place = jax.lax.broadcasted_iota(jnp.int32, segments.shape, along)
  before = lambda x: jnp.roll(x, 1, axis=along)
  since = lambda event: jax.lax.cummax(jnp.where(event, place, 0), axis=along)
  until = lambda event: jax.lax.cummin(
    jnp.where(jnp.roll(event, -1, axis=along), place, length - 1), axis=along, reverse=True
  )
  opens = (segments != before(segments)) | (place == 0)
  if branches is None:
    return Spans(since(opens), until(opens))
  turns = opens | (branches != before(branches))
  inside = branches > 0
  forks = turns & inside & (opens | (before(branches) == 0))
  first = since(turns)
  return Spans(
    first,
    jnp.where(inside, until(turns), until(opens)),
    jnp.where(inside, since(opens), first),
    jnp.where(inside, since(forks), first),
  )


def seen_keys(place: jax.Array, spans: Spans | None, window: Window) -> Seen:
  """What the query at `place` sees of the last `window` tokens, itself included."""
  first, _, stem, fork = spans or (jnp.zeros_like(place), None, None, None)
  if window is None:
    return Seen(first, stem, fork)
  if stem is not None and fork is not None:  # the branch continues the stem
    stem = jnp.maximum(stem, fork + (place - first) - window + 1)
  return Seen(jnp.maximum(first, place - window + 1), stem, fork)


def last_query(place: jax.Array, spans: Spans | None, window: Window) -> jax.Array:
  """No query after it sees the key at `place`; the first that does is its own."""
  end = jnp.full_like(place, place.shape[-1] - 1) if spans is None else spans.last
  if window is None or (spans is not None and spans.stem is not None):
    return end
  # place + window may not fit into int32 where a window means "all"
  return jnp.minimum(end - place, window - 1) + place
