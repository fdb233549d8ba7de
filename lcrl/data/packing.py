"""Sequences laid end to end in rows, and what a model says of them taken apart again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.types import Packed

__all__ = ["first_fit", "pack", "unpack"]


def first_fit(lengths: Sequence[int] | np.ndarray, capacity: int) -> list[list[int]]:
  """Bins of indices, each of at most `capacity`: the longest first, each into the first that fits.

  >>> first_fit([3, 9, 4, 6], 10)
  [[1], [3, 2], [0]]
  """
  bins: list[list[int]] = []
  room: list[int] = []
  for i in np.argsort(-np.asarray(lengths), kind="stable").tolist():
    if lengths[i] > capacity:
      raise ValueError(f"a sequence of {lengths[i]} tokens does not fit rows of {capacity}.")
    place = next((b for b, free in enumerate(room) if lengths[i] <= free), len(bins))
    if place == len(bins):
      bins.append([])
      room.append(capacity)
    bins[place].append(i)
    room[place] -= lengths[i]
  return bins


def pack(
  tokens: Any,
  mask: Any,
  totals: np.ndarray,
  *,
  row_tokens: int,
  pad_id: int,
  pieces: int = 1,
  multiple: int = 1,
) -> Packed:
  """Padded rows as packed ones.

  Args:
    tokens, mask: [B, G, T], right-padded.
    totals: [B, G] int, tokens of each row; 0: the row is left out.
    row_tokens: L.
    pad_id: fills the rest.
    pieces: micro-batches, packed apart.
    multiple: the rows of each piece are rounded up to a multiple of it.
  Returns: numpy, R = pieces * the rows of the fullest piece, rounded up.
  """
  bins = []  # of each piece: rows of (pair, side)
  for piece in range(pieces):
    cells = [(b, g) for b in range(piece, len(tokens), pieces) for g in range(tokens.shape[1])]
    cells = [cell for cell in cells if totals[cell]]
    fit = first_fit([totals[cell] for cell in cells], row_tokens)
    bins.append([[cells[i] for i in row] for row in fit])
  rows = pieces * round_up(max(map(len, bins)), multiple)

  def blank(shape: tuple[int, ...], value=0, dtype=np.int32) -> Any:
    return np.full(shape, value, dtype)

  out = Packed(
    tokens=blank((rows, row_tokens), pad_id),
    mask=blank((rows, row_tokens), False, bool),
    positions=blank((rows, row_tokens)),
    segments=blank((rows, row_tokens)),
    row=blank(totals.shape),
    start=blank(totals.shape),
  )
  for piece, laid in enumerate(bins):
    for r, cells in enumerate(laid):
      at = 0
      for segment, cell in enumerate(cells, start=1):
        length = totals[cell]
        here = r * pieces + piece, slice(at, at + length)
        for field, value in (
          (out.tokens, tokens[cell][:length]),
          (out.mask, mask[cell][:length]),
          (out.positions, np.arange(length)),
          (out.segments, segment),
        ):
          field[here] = value
        out.row[cell], out.start[cell] = r, at
        at += length
  return out


def round_up(number: int, multiple: int) -> int:
  """The least multiple of `multiple` that is positive and at least `number`."""
  return max(1, -(-number // multiple)) * multiple


def unpack(values: jax.Array, packed: Packed, mask: jax.Array) -> jax.Array:
  """What stands in packed rows, where it belongs in padded ones.

  Args:
    values: [R, L], of one micro-batch.
    packed: its places.
    mask: [B, G, T] bool, of the padded rows.
  Returns: [B, G, T], 0 where masked.
  """
  place = packed.start[..., None] + jnp.arange(mask.shape[-1])[None, None]
  found = values[packed.row[..., None], jnp.minimum(place, values.shape[-1] - 1)]
  return jnp.where(mask, found, 0)
