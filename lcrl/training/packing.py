"""Packed rows: the tokens of several rollouts in one row, so that the model sees no padding.

The rollouts of a group have a common prefix. It stands in the row once, as a stem, and the rest of
each rollout is a branch of the stem. With G rollouts of a prompt the model
reads the prompt once instead of G times, and gradients are the same. Two rollouts of a group,
"p q r a b" and "p q r c", and one of another group, "s t u v", in a row of 12:

    column     0  1  2 | 3  4 | 5 | 6  7  8  9 |10 11
    token      p  q  r | a  b | c | s  t  u  v | .  .
    segment    0  0  0   0  0   0   6  6  6  6 -11 -12   first column of the stem; < 0 where empty
    branch     0  0  0   1  1   2   0  0  0  0   0  0    0 in a stem, 1 + g behind it
    position   0  1  2   3  4   3   0  1  2  3   0  0    in the rollout
               stem      g=0   g=1  a rollout alone is all stem

The `Place` of "p q r c" is row 0, stem 0, start 5, shared 3.

The device plans the rows of each step. The plan decides the sizes of arrays, which must be static.
So the host reads them and rounds them up to one of a few sizes; each size compiles one program.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcrl.policies.experts import CHOSEN

UNIT = 256  # scored tokens come in multiples of it, which mesh.sequence divides
PLACE = "packed_place"  # the signal that holds a `Place`, [B, G, 4] int32


class Sizes(NamedTuple):
  """The sizes of one piece of a batch on one device."""

  rows: int  # packed
  tokens: int  # scored


class Place(NamedTuple):
  """Where a rollout lies: token t at column `stem` + t, in a branch at `start` + t - shared."""

  row: jax.Array
  stem: jax.Array
  start: jax.Array
  shared: jax.Array  # tokens of the stem


class Packed(NamedTuple):
  """Rows of `width` tokens [rows, width], and their scored tokens [1, tokens]."""

  tokens: jax.Array
  positions: jax.Array  # in the rollout
  segments: jax.Array  # the stem and its branches; a different number in empty columns
  branches: jax.Array  # 0 in a stem, 1 + g in the branch of rollout g
  before: jax.Array  # index among the rows' tokens of the token before a sampled one
  targets: jax.Array  # the sampled token
  kept: jax.Array  # bool, False where `targets` is padding
  fits: jax.Array  # [1] bool, False if the sizes were too small
  # [rows, width, layers, k] int, experts that tokens chose when they were sampled; below 0: none
  chosen: jax.Array | None = None


def used_lengths(mask: jax.Array) -> jax.Array:
  """Tokens up to the last sampled one; later ones affect nothing. [..., T] -> [...].

  >>> print(used_lengths(jnp.array([[False, True, True, False], [False] * 4])))
  [3 0]
  """
  index = jax.lax.broadcasted_iota(jnp.int32, mask.shape, mask.ndim - 1)
  return jnp.max(jnp.where(mask, index + 1, 0), axis=-1)


def shared_lengths(tokens: jax.Array, used: jax.Array) -> jax.Array:
  """Length of the common prefix of a group's rollouts that use tokens. [B, G, T], [B, G] -> [B].

  >>> print(shared_lengths(jnp.array([[[5, 6, 7], [5, 6, 8], [9, 9, 9]]]), jnp.array([[3, 3, 0]])))
  [2]
  """
  longest = jnp.argmax(used, axis=1)[:, None, None]
  same = tokens == jnp.take_along_axis(tokens, longest, axis=1)
  index = jax.lax.broadcasted_iota(jnp.int32, tokens.shape, tokens.ndim - 1)
  differs = ~same | (index >= used[..., None])
  first = jnp.where(differs, index, tokens.shape[-1]).min(-1)
  return jnp.where(used > 0, first, used.max(1, keepdims=True)).min(1)


def first_fit(used: jax.Array, shared: jax.Array, width: int) -> Place:
  """Packs groups, the longest first. used [B, G], shared [B] -> `Place` of [B, G] each.

  A rollout follows those of its group if the row has room. Else it gets a new stem in the first row
  with room.

  >>> place = first_fit(jnp.array([[4, 5], [3, 3]]), jnp.array([3, 0]), 8)
  >>> print(*place.row, *place.stem, *place.start)
  [0 0] [1 1] [0 0] [0 3] [5 3] [0 3]
  """
  groups = jnp.argsort(-(used - shared[:, None]).sum(1) - shared)
  order = jnp.argsort(-used, axis=1)[groups]
  flat = (groups[:, None] * used.shape[1] + order).reshape(-1)
  stems = jnp.broadcast_to(shared[:, None], used.shape)
  new = jnp.zeros(used.shape, bool).at[:, 0].set(True).reshape(-1)

  def put(carry, one):
    free, row, stem = carry
    branch, shared, new = one
    stays = ~new & (shared > 0) & (free[row] >= branch)
    row = jnp.where(stays, row, jnp.argmax(free >= shared + branch))
    begin = width - free[row]
    stem = jnp.where(stays, stem, begin)
    start = jnp.where(stays, begin, begin + shared)
    free = free.at[row].set(width - start - branch)
    return (free, row, stem), Place(row, stem, start, shared)

  zero = jnp.zeros((), jnp.int32)
  free = jnp.full(flat.shape, width, jnp.int32)
  branches = jnp.maximum(used - stems, 0).reshape(-1)
  inputs = (branches[flat], stems.reshape(-1)[flat], new)
  places = jax.lax.scan(put, (free, zero, zero), inputs)[1]
  back = lambda x: jnp.zeros_like(x).at[flat].set(x).reshape(used.shape)
  return jax.tree.map(back, places)


def arrange(
  mask: jax.Array,
  tokens: jax.Array | None = None,
  *,
  width: int,
  shards: int = 1,
  pieces: int = 1,
  parts: int = 1,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """An order of the groups that gives all devices and micro-batches about as many tokens, and the
  `Place` of each rollout.

  Group b belongs to part b % parts, in every order; the groups of a part are dealt to its pieces
  and shards by length, to and fro.

  Args:
    mask: [B, G, T] bool, the sampled tokens.
    tokens: [B, G, T]; the rollouts of a group share their prefix. None: they share nothing.
    width: tokens of a packed row.
    shards: number of devices along B.
    pieces: micro-batches of a part.
    parts: parts of the batch, each with an update of its own.
  Returns: order [B] int32; the `Place` of each rollout [B, G, 4] int32, in the old order; and
    [2] int32, the `Sizes` that the largest piece needs.
  """
  used, scored = used_lengths(mask), mask[..., 1:].sum((-1, -2))
  shared = jnp.zeros_like(used[:, 0]) if tokens is None else shared_lengths(tokens, used)
  lengths = shared + jnp.maximum(used - shared[:, None], 0).sum(-1)
  groups, bins = mask.shape[0] // parts, shards * pieces

  def deal(totals):
    """[groups of a part] -> their new order."""
    rounds = jnp.argsort(-totals).reshape(-1, bins)
    back = jnp.arange(rounds.shape[0])[:, None] % 2 == 1
    dealt = jnp.where(back, rounds[:, ::-1], rounds)  # [groups of a bin, bins]
    # `split` gives piece p of a shard its every pieces-th group
    return dealt.reshape(-1, shards, pieces).swapaxes(0, 1).reshape(-1)

  order = jax.vmap(deal)(lengths.reshape(groups, parts).T)  # [parts, groups]
  order = (order.T * parts + jnp.arange(parts)[None]).reshape(-1)
  binned = order.reshape(shards, groups // bins, pieces, parts).swapaxes(1, 3)
  binned = binned.reshape(bins * parts, -1)

  def fill(groups):
    if tokens is None:  # each rollout by itself
      alone = used[groups].reshape(-1, 1)
      return first_fit(alone, jnp.zeros_like(alone[:, 0]), width)
    return first_fit(used[groups], shared[groups], width)

  place = jnp.stack(jax.vmap(fill)(binned), axis=-1).reshape(-1, used.shape[1], 4)
  sizes = jnp.stack([1 + jnp.max(place[..., 0]), jnp.max(scored[binned].sum(-1))])
  place = jnp.zeros_like(place).at[binned.reshape(-1)].set(place)
  return order.astype(jnp.int32), place.astype(jnp.int32), sizes.astype(jnp.int32)


def rounded(needed: Sizes, largest: Sizes | None = None) -> Sizes:
  """Rounds up to one of four sizes for each doubling.

  `largest`: the largest sizes that can occur. Steps are then no smaller than the power of two below
  a 64th of them, so that a run whose responses become ever shorter compiles few programs.

  >>> rounded(Sizes(9, 700)), rounded(Sizes(9, 700), largest=Sizes(1024, 1 << 20))
  (Sizes(rows=10, tokens=768), Sizes(rows=16, tokens=16384))
  """

  def up(n: int, most: int) -> int:
    step = 1 << max(0, (n - 1).bit_length() - 3, (most // 64).bit_length() - 1)
    return -(-n // step) * step

  rows, tokens = largest or (0, 0)
  tokens = UNIT * up(max(1, -(-needed.tokens // UNIT)), tokens // UNIT)
  return Sizes(up(max(1, needed.rows), rows), tokens)


def largest_sizes(
  shape: tuple[int, ...], *, width: int, shards: int = 1, pieces: int = 1, parts: int = 1
) -> Sizes:
  """The largest sizes that a batch of this shape [B, G, T] can need. Arguments: `arrange`.

  >>> largest_sizes((4, 2, 10), width=20)
  Sizes(rows=4, tokens=256)
  """
  prompts, group, length = shape
  rows = prompts * group // (shards * pieces * parts)
  return rounded(Sizes(-(-rows // (width // length)), rows * (length - 1)))


def replayed(rollouts: Any) -> jax.Array | None:
  """Experts that each token of rows chose when they were sampled, [B, G, T, layers, k]; None where
  rollouts do not tell."""
  signal = rollouts.signals.get(CHOSEN)  # of the token before each token
  return signal if signal is None else jnp.roll(signal, -1, axis=2).at[:, :, -1].set(-1)


def pack(
  tokens: jax.Array,
  mask: jax.Array,
  place: jax.Array,
  chosen: jax.Array | None = None,
  *,
  sizes: Sizes,
  width: int,
) -> Packed:
  """Packs tokens, mask [b, G, T] and experts [b, G, T, ...] by their `Place` [b, G, 4] from
  `arrange`."""
  group, length = tokens.shape[1:]
  tokens, mask = (x.reshape(-1, length) for x in (tokens, mask))
  row, stem, start, shared = place.reshape(-1, 4, 1).swapaxes(0, 1)
  column, room = jnp.arange(length)[None], sizes.rows * width
  inside = column < shared
  at = row * width + column + jnp.where(inside, stem, start - shared)
  at = jnp.where(column < used_lengths(mask)[:, None], at, room)
  branch = jnp.where(inside, 0, 1 + jnp.arange(len(tokens))[:, None] % group)

  def scatter(x, empty):
    return empty.at[at].set(x, mode="drop").reshape(sizes.rows, width, *empty.shape[1:])

  def put(x, empty):
    x, empty = jnp.broadcast_to(x, at.shape), jnp.broadcast_to(empty, (room,))
    return scatter(x, empty.astype(jnp.int32))

  if chosen is not None:
    chosen = chosen.reshape(-1, *chosen.shape[2:])
    chosen = scatter(chosen, jnp.full((room, *chosen.shape[2:]), -1, chosen.dtype))

  sampled = mask.at[:, 0].set(False).reshape(-1)  # nothing comes before the first token
  scored = jnp.nonzero(sampled, size=sizes.tokens, fill_value=at.size)[0]
  take = lambda x: x.reshape(-1).at[scored].get(mode="fill", fill_value=0)
  kept, fits = scored < at.size, (jnp.max(row) < sizes.rows) & (sampled.sum() <= sizes.tokens)
  return Packed(
    tokens=put(tokens, jnp.int32(0)),
    positions=put(column, jnp.int32(0)),
    segments=put(row * width + stem, -1 - jnp.arange(room)),
    branches=put(branch, jnp.int32(0)),
    before=take(jnp.roll(at, 1, axis=1))[None],
    targets=take(tokens)[None],
    kept=kept[None],
    fits=fits[None],
    chosen=chosen,
  )


def unpack(scores: jax.Array, mask: jax.Array, fits: jax.Array) -> jax.Array:
  """Scores of the scored tokens [1, tokens] -> [b, G, T], 0 where nothing was sampled.

  All are nan if the sizes were too small: no rollout may be left out silently.
  """
  sampled = mask.at[..., 0].set(False)
  rank = jnp.cumsum(sampled.reshape(-1)).reshape(mask.shape) - 1
  values = jnp.where(sampled, scores[0].at[rank].get(mode="clip"), 0)
  return jnp.where(fits[0], values, jnp.nan)
