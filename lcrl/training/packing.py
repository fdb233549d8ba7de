"""Packed rows: the tokens of several rollouts in one row, so that the model sees no padding.

A plan is made on the device for each step. Its sizes are those of arrays, so the host reads them
and rounds them up to one of few: programs are compiled once for each.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

UNIT = 256  # scored tokens come in multiples of it
PLACE = "packed_place"  # the signal that holds row and start of each rollout, [B, G, 2] int32


class Sizes(NamedTuple):
  """Of one piece of a batch on one device."""

  rows: int  # packed
  tokens: int  # scored


class Packed(NamedTuple):
  """Rows of `width` tokens [rows, width], and what is scored of them [1, tokens]."""

  tokens: jax.Array
  positions: jax.Array  # in the rollout
  segments: jax.Array  # which rollout; a number of its own where there is none
  before: jax.Array  # where among the rows' tokens the one before a sampled token is
  targets: jax.Array  # the sampled token
  kept: jax.Array  # bool, is there one
  fits: jax.Array  # [1] bool, is everything there


def used_lengths(mask: jax.Array) -> jax.Array:
  """Tokens up to the last sampled one: what comes after it is never looked at. [..., T] -> [...].

  >>> print(used_lengths(jnp.array([[False, True, True, False], [False] * 4])))
  [3 0]
  """
  place = jax.lax.broadcasted_iota(jnp.int32, mask.shape, mask.ndim - 1)
  return jnp.max(jnp.where(mask, place + 1, 0), axis=-1)


def first_fit(lengths: jax.Array, width: int) -> tuple[jax.Array, jax.Array]:
  """Sequences, the longest first, each into the first row with room -> (row, start), [n] each.

  Needs at most 11/9 of the rows of the best packing, and a row (Johnson 1973).

  >>> print(*first_fit(jnp.array([2, 5, 3, 4]), 8))
  [1 0 0 1] [4 0 5 0]
  """
  order = jnp.argsort(-lengths)

  def place(free, length):
    row = jnp.argmax(free >= length)
    return free.at[row].add(-length), (row, width - free[row])

  found = jax.lax.scan(place, jnp.full(lengths.shape, width, jnp.int32), lengths[order])[1]
  back = lambda x: jnp.zeros_like(order).at[order].set(x)
  return jax.tree.map(back, found)


def arrange(
  mask: jax.Array, *, width: int, shards: int = 1, pieces: int = 1, parts: int = 1
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """An order of the groups that gives devices and micro-batches alike, and where all will lie.

  Group b belongs to part b % parts, in every order; the groups of a part are dealt to its pieces
  and shards by length, to and fro.

  Args:
    mask: [B, G, T] bool, the sampled tokens.
    width: of a packed row.
    shards: the batch is split into, along B.
    pieces: micro-batches of a part.
    parts: that are trained on one after the other.
  Returns: order [B] int32; row and start of each rollout [B, G, 2] int32, in the old order; and
    [2] int32, the `Sizes` that the largest piece needs.
  """
  lengths, scored = used_lengths(mask), mask[..., 1:].sum((-1, -2))
  groups, bins = mask.shape[0] // parts, shards * pieces

  def deal(totals):
    """[groups of a part] -> their new order."""
    rounds = jnp.argsort(-totals).reshape(-1, bins)
    back = jnp.arange(rounds.shape[0])[:, None] % 2 == 1
    dealt = jnp.where(back, rounds[:, ::-1], rounds)  # [groups of a bin, bins]
    # `split` gives piece p of a shard its every pieces-th group
    return dealt.reshape(-1, shards, pieces).swapaxes(0, 1).reshape(-1)

  order = jax.vmap(deal)(lengths.sum(-1).reshape(groups, parts).T)  # [parts, groups]
  order = (order.T * parts + jnp.arange(parts)[None]).reshape(-1)
  binned = order.reshape(shards, groups // bins, pieces, parts).swapaxes(1, 3)
  binned = binned.reshape(bins * parts, -1)
  fill = jax.vmap(lambda groups: first_fit(lengths[groups].reshape(-1), width))
  row, start = fill(binned)
  place = jnp.stack([row, start], axis=-1).reshape(-1, lengths.shape[1], 2)
  place = jnp.zeros_like(place).at[binned.reshape(-1)].set(place)
  sizes = jnp.stack([1 + jnp.max(row), jnp.max(scored[binned].sum(-1))])
  return order.astype(jnp.int32), place.astype(jnp.int32), sizes.astype(jnp.int32)


def rounded(needed: Sizes) -> Sizes:
  """The next of few sizes: four to each doubling.

  >>> rounded(Sizes(9, 700))
  Sizes(rows=10, tokens=768)
  """

  def up(n: int) -> int:
    step = 1 << max(0, (n - 1).bit_length() - 3)
    return -(-n // step) * step

  return Sizes(up(max(1, needed.rows)), UNIT * up(max(1, -(-needed.tokens // UNIT))))


def pack(
  tokens: jax.Array, mask: jax.Array, place: jax.Array, *, sizes: Sizes, width: int
) -> Packed:
  """Tokens and mask [b, G, T] in packed rows, where `arrange` found their place [b, G, 2]."""
  length = tokens.shape[-1]
  tokens, mask = (x.reshape(-1, length) for x in (tokens, mask))
  row, start = place.reshape(-1, 2, 1).swapaxes(0, 1)
  column, room = jnp.arange(length)[None], sizes.rows * width
  used = column < used_lengths(mask)[:, None]
  at = jnp.where(used, row * width + start + column, room)

  def put(x, empty):
    x, empty = jnp.broadcast_to(x, at.shape), jnp.broadcast_to(empty, (room,))
    return empty.astype(jnp.int32).at[at].set(x, mode="drop").reshape(sizes.rows, width)

  sampled = mask.at[:, 0].set(False).reshape(-1)  # nothing comes before the first token
  scored = jnp.nonzero(sampled, size=sizes.tokens, fill_value=at.size)[0]
  take = lambda x, empty: x.reshape(-1).at[scored].get(mode="fill", fill_value=empty)
  kept, fits = scored < at.size, (jnp.max(row) < sizes.rows) & (sampled.sum() <= sizes.tokens)
  return Packed(
    tokens=put(tokens, jnp.int32(0)),
    positions=put(column, jnp.int32(0)),
    segments=put(jnp.arange(len(tokens))[:, None], -1 - jnp.arange(room)),
    before=jnp.where(kept, take(at, 1) - 1, 0)[None],
    targets=take(tokens, 0)[None],
    kept=kept[None],
    fits=fits[None],
  )


def unpack(scores: jax.Array, mask: jax.Array, fits: jax.Array) -> jax.Array:
  """Scores of the scored tokens [1, tokens] -> [b, G, T], 0 where nothing was sampled.

  All are nan if the sizes were too small, so that no rollout is left out in silence.
  """
  sampled = mask.at[..., 0].set(False)
  rank = jnp.cumsum(sampled.reshape(-1)).reshape(mask.shape) - 1
  values = jnp.where(sampled, scores[0].at[rank].get(mode="clip"), 0)
  return jnp.where(fits[0], values, jnp.nan)
