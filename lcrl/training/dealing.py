"""Which device, row and columns each rollout takes, where a device takes a fixed number of tokens.

A piece is what one device puts through the model at once: a fixed number of packed rows. Rollouts
are packed into rows, the longest groups first, and rows are dealt to the devices in turn, by their
longest rollout. So all devices work on rollouts of about the same length at a time, and a group may
lie in several rows, pieces and devices; each row that holds a part of it repeats its stem.

A stem ends before the first sampled token of its group. So each scored token has a column of its
own, and a piece never scores more tokens than it holds.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.sharding import ranks
from lcrl.training.packing import UNIT, Sizes, first_fit, shared_lengths, used_lengths


class Lengths(NamedTuple):
  """What the dealing depends on."""

  used: jax.Array  # [B, G], tokens up to the last sampled one
  scored: jax.Array  # [B, G], sampled tokens that have one before them
  shared: jax.Array  # [B], tokens of the stem


class Dealt(NamedTuple):
  """`packing.Place` of a rollout on a device. Row r belongs to piece r // rows of a piece."""

  device: jax.Array
  row: jax.Array
  stem: jax.Array
  start: jax.Array
  shared: jax.Array


def measure_lengths(tokens: jax.Array, mask: jax.Array, *, share: bool) -> Lengths:
  """Lengths of rollouts [B, G, T]. `share`: the rollouts of a group can share a stem.

  >>> tokens, mask = jnp.array([[[5, 6, 7], [5, 6, 7]]]), jnp.array([[[False, True, True]] * 2])
  >>> print(*measure_lengths(tokens, mask, share=True))
  [[3 3]] [[2 2]] [1]
  """
  used = used_lengths(mask)
  first = jnp.where(used > 0, jnp.argmax(mask, -1), mask.shape[-1]).min(1)
  shared = jnp.minimum(shared_lengths(tokens, used), first) if share else jnp.zeros_like(first)
  return Lengths(used, mask[..., 1:].sum(-1), shared)


def deal(
  lengths: Lengths, *, width: int, rows: int, shards: int, parts: int = 1, share: bool = True
) -> tuple[jax.Array, jax.Array]:
  """Deals rollouts to devices.

  Args:
    lengths: of the batch.
    width: tokens of a row.
    rows: rows of a piece.
    shards: number of devices along B.
    parts: parts of the batch, each with an update of its own; group b belongs to part b % parts.
    share: as in `measure_lengths`.
  Returns: `Dealt` [B, G, 5] int32; and [2] int32, the most pieces of a device, and the most scored
    tokens of a piece.

  >>> lengths = Lengths(jnp.array([[8, 3], [5, 5]]), jnp.array([[7, 2], [4, 4]]), jnp.array([1, 1]))
  >>> dealt, most = deal(lengths, width=8, rows=1, shards=2)
  >>> print(*dealt[..., 0], *dealt[..., 1], most)
  [0 1] [1 0] [0 0] [0 1] [2 7]
  """
  cut = lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)
  group = lengths.used.shape[1]

  def one(used, scored, shared):
    """[b, G], [b, G], [b] of a part."""
    count = used.size
    if share:
      place = first_fit(used, shared, width)
    else:
      alone = first_fit(used.reshape(-1, 1), jnp.zeros_like(used.reshape(-1)), width)
      place = jax.tree.map(lambda x: x.reshape(used.shape), alone)
    longest = jnp.zeros(count, jnp.int32).at[place.row].max(used)
    row, device = jnp.divmod(ranks(-longest)[place.row], shards)
    dealt = jnp.stack(Dealt(device, row, *place[1:]), axis=-1)
    piece = row // rows
    loads = jnp.zeros((shards, -(-count // rows)), jnp.int32).at[device, piece].add(scored)
    return dealt, jnp.stack([1 + jnp.max(piece), jnp.max(loads)])

  dealt, most = jax.vmap(one)(*map(cut, lengths))
  dealt = jnp.swapaxes(dealt, 0, 1).reshape(-1, group, len(Dealt._fields))
  return dealt.astype(jnp.int32), most.max(0).astype(jnp.int32)


def piece_sizes(scored: int, *, rows: int, width: int) -> Sizes:
  """Sizes of a piece with so many scored tokens: a quarter of its tokens, a half, three, or all.

  >>> piece_sizes(5000, rows=2, width=8192)
  Sizes(rows=2, tokens=8192)
  """
  room = rows * width
  quarter = -(-max(1, scored) * 4 // room)
  return Sizes(rows, UNIT * -(-room * min(quarter, 4) // (4 * UNIT)))
