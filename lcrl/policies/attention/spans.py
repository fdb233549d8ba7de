"""Which keys a query sees, and which queries see a key, as intervals of positions in a row.

A segment is a sequence, or several that begin alike: a stem, then a branch for each. A token of a
branch sees the stem and the tokens before it in its own branch. A row of one segment with two
branches, and what its token t sees:

    position   0   1   2   3   4   5   6   7
    segment  | stem      | branch 1  | branch 2
    t = 7      x   x   x               x   x        stem = 0, fork = 3, first = 6
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

Window = int | jax.Array | None


class Spans(NamedTuple):
  """Of the token at each position, [..., S] int32 each.

  As a query it sees the keys from `first` to itself, and those from `stem` up to `fork` (without
  it); None: no segment has branches. As a key it is seen by no query after `last`.
  """

  first: jax.Array
  last: jax.Array
  stem: jax.Array | None = None
  fork: jax.Array | None = None


class Visible(NamedTuple):
  """Where a query stands among the keys and which it sees, [..., T] each, as in `Spans`."""

  position: jax.Array
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
  position = jax.lax.broadcasted_iota(jnp.int32, segments.shape, along)
  before = lambda x: jnp.roll(x, 1, axis=along)
  since = lambda event: jax.lax.cummax(jnp.where(event, position, 0), axis=along)
  until = lambda event: jax.lax.cummin(
    jnp.where(jnp.roll(event, -1, axis=along), position, length - 1), axis=along, reverse=True
  )
  opens = (segments != before(segments)) | (position == 0)
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


def at(spans: Spans, index: jax.Array) -> Spans:
  """The spans of the tokens at these positions, [..., T]."""
  take = lambda x: jnp.take_along_axis(
    x, jnp.broadcast_to(index, (*x.shape[:-1], index.shape[-1])), -1
  )
  return jax.tree.map(take, spans)


def visible_keys(position: jax.Array, spans: Spans | None, window: Window) -> Visible:
  """What the queries at `position` see of the last `window` tokens, themselves included. `spans`
  are those of the queries."""
  first, _, stem, fork = spans or (jnp.zeros_like(position), None, None, None)
  if window is None:
    return Visible(position, first, stem, fork)
  if stem is not None and fork is not None:  # the branch continues the stem
    stem = jnp.maximum(stem, fork + (position - first) - window + 1)
  return Visible(position, jnp.maximum(first, position - window + 1), stem, fork)


def last_query(position: jax.Array, spans: Spans | None, window: Window) -> jax.Array:
  """No query after it sees the key at `position`; the first that does is its own."""
  end = jnp.full_like(position, position.shape[-1] - 1) if spans is None else spans.last
  if window is None or (spans is not None and spans.stem is not None):
    return end
  # position + window may not fit into int32 where a window means "all"
  return jnp.minimum(end - position, window - 1) + position
