"""The packed rows of pieces, from rollouts that stay where the batch has them.

A batch is [B, G, T], sharded along B. A piece is a number of packed rows on each device, which
`dealing.deal` filled with rollouts of any group and any device. Here are its rows, and the ways of
the scores of its tokens back to their rollouts, and of gradients from there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lcrl.mesh import BATCH, batch_shards
from lcrl.training.dealing import Dealt
from lcrl.training.packing import PLACE, Packed, Sizes, replayed, used_lengths
from lcrl.types import TokenScores

PyTree = Any
Axes = tuple[str, ...] | None  # of the mesh that split a batch; None: one device has all of it
AXES: Axes = BATCH[0]


class Runs(NamedTuple):
  """The stems and branches in the rows of a device, by their first column, [S, K] each.

  Columns count from the device's first row on.
  """

  column: jax.Array  # the largest int32 where there is no run
  stem: jax.Array  # column of the stem; of the branch if there is none
  length: jax.Array
  first: jax.Array  # token of the rollout that stands in `column`
  rollout: jax.Array
  branch: jax.Array  # 0 for a stem, 1 + g for the branch of rollout g


class Source(NamedTuple):
  """The scored tokens of a piece, [S, tokens] each."""

  rollout: jax.Array  # a number past the last where there is none
  token: jax.Array


def find_runs(dealt: Dealt, used: jax.Array, device: jax.Array, *, width: int, group: int) -> Runs:
  """The runs of one device, from the [N] rollouts of a batch whose groups have `group`."""
  number = jnp.arange(used.size)
  here = (dealt.device == device) & (used > 0)
  begin = dealt.row * width
  stem, zero = begin + dealt.stem, jnp.zeros_like(used)
  # Every rollout of a row lists their common stem; the lists agree, so any of them will do.
  runs = Runs(
    column=jnp.stack([stem, begin + dealt.start]),
    stem=jnp.stack([stem, stem]),
    length=jnp.where(here, jnp.stack([dealt.shared, used - dealt.shared]), 0),
    first=jnp.stack([zero, dealt.shared]),
    rollout=jnp.stack([number, number]),
    branch=jnp.stack([zero, 1 + number % group]),
  )
  runs = jax.tree.map(jnp.ravel, runs)
  column = jnp.where(runs.length > 0, runs.column, jnp.iinfo(jnp.int32).max)
  order = jnp.argsort(column)
  return jax.tree.map(lambda x: x[order], runs._replace(column=column))


def fill(
  runs: Runs,
  tokens: jax.Array,
  mask: jax.Array,
  chosen: jax.Array | None,
  piece: jax.Array,
  *,
  sizes: Sizes,
  width: int,
) -> tuple[Packed, Source]:
  """The rows of one piece of a device, from its runs [1, K] and all rollouts [N, T]."""
  runs, room = jax.tree.map(lambda x: x[0], runs), sizes.rows * width
  begin = piece * room
  column = begin + jnp.arange(room)
  at = jnp.maximum(jnp.searchsorted(runs.column, column, side="right") - 1, 0)
  run = jax.tree.map(lambda x: x[at], runs)
  offset = column - run.column
  inside = (offset >= 0) & (offset < run.length)
  token = jnp.where(inside, run.first + offset, 0)
  kept = inside & (token > 0) & mask[run.rollout, token]  # none in a stem, which ends before
  before = jnp.where(offset > 0, column - 1, run.stem + run.first - 1) - begin
  scored = jnp.nonzero(kept, size=sizes.tokens, fill_value=room)[0]
  take = lambda x, empty: x.at[scored].get(mode="fill", fill_value=empty)[None]
  rows = lambda x, empty: jnp.where(inside, x, empty).reshape(sizes.rows, width)
  value = tokens[run.rollout, token]
  if chosen is not None:
    chosen = jnp.where(inside[:, None, None], chosen[run.rollout, token], -1)
    chosen = chosen.reshape(sizes.rows, width, *chosen.shape[1:])
  packed = Packed(
    tokens=rows(value, 0),
    positions=rows(token, 0),
    segments=rows(run.stem - begin, -1 - jnp.arange(room)),
    branches=rows(run.branch, 0),
    before=take(before, 0),
    targets=take(value, 0),
    kept=(scored < room)[None],
    fits=(kept.sum() <= sizes.tokens)[None],
    chosen=chosen,
  )
  return packed, Source(take(run.rollout, len(tokens)), take(token, 0))


def put(home: jax.Array, scores: jax.Array, source: Source, *, axes: Axes) -> jax.Array:
  """Writes scores [1, tokens] of this device's piece to the rollouts [n, T] of all devices."""
  scores, *at = _everywhere((scores, *source), axes)
  return home.at[_here(at[0], len(home), axes), at[1]].set(scores, mode="drop")


def take(home: jax.Array, source: Source, *, axes: Axes) -> jax.Array:
  """The values of this device's piece [1, tokens] from the rollouts [n, T] of all devices."""
  rollout, token = _everywhere(source, axes)
  at = _here(rollout, len(home), axes), token
  values = home.at[at].get(mode="fill", fill_value=0)
  if axes is not None:
    values = jax.lax.psum_scatter(values, axes, scatter_dimension=0, tiled=True)
  return values[None]


def _everywhere(arrays: PyTree, axes: Axes) -> PyTree:
  """[1, tokens] of each device -> [S * tokens]."""
  if axes is not None:
    arrays = jax.lax.all_gather(arrays, axes, axis=0, tiled=True)
  return jax.tree.map(jnp.ravel, arrays)


def _here(rollout: jax.Array, count: int, axes: Axes) -> jax.Array:
  """Indices among the `count` rollouts of this device; `count` where it does not hold them."""
  if axes is not None:
    rollout = rollout - jax.lax.axis_index(axes) * count
  return jnp.where((rollout >= 0) & (rollout < count), rollout, count)


class Pieces:
  """A batch in pieces. Its scores are [n, T] arrays, one row a rollout, n a multiple of S."""

  def __init__(self, rollouts: Any, *, sizes: Sizes, width: int, mesh: Mesh | None):
    *self._groups, length = rollouts.tokens.shape
    self._count = self._groups[0] * self._groups[1]
    self._mesh = mesh if mesh is not None and mesh.size > 1 else None
    shards = 1 if self._mesh is None else batch_shards(self._mesh)
    self._shape = self._count + -self._count % shards, length
    whole, axes = P(), None if self._mesh is None else AXES

    # Every device holds all tokens: 5 bytes each, and no exchange of tokens for a piece.
    flat = lambda x: self._constrained(x.reshape(self._count, -1), whole)
    self._tokens, self._mask = flat(rollouts.tokens), flat(rollouts.mask)
    told = replayed(rollouts)  # layers * k bytes more
    if told is not None:
      told = self._constrained(told.reshape(self._count, length, *told.shape[3:]), whole)
    self._chosen = told
    dealt = Dealt(*flat(rollouts.signals[PLACE]).T)
    runs = partial(find_runs, dealt, used_lengths(self._mask), width=width, group=self._groups[1])
    self._runs = self._constrained(jax.vmap(runs)(jnp.arange(shards)), BATCH)
    self.count = 1 + jnp.max(dealt.row) // sizes.rows

    specs = (BATCH, *(whole,) * 4)
    self._fill = self._local(partial(fill, sizes=sizes, width=width), specs)
    self._put, self._take = (self._local(partial(f, axes=axes), BATCH) for f in (put, take))

  def _constrained(self, x: PyTree, spec: P) -> PyTree:
    at = None if self._mesh is None else NamedSharding(self._mesh, spec)
    return x if at is None else jax.lax.with_sharding_constraint(x, at)

  def _local(self, f: Callable, specs: PyTree) -> Callable:
    """A function of what each device holds."""
    if self._mesh is None:
      return f
    return jax.shard_map(f, mesh=self._mesh, in_specs=specs, out_specs=BATCH, check_vma=False)

  def rows(self, piece: jax.Array) -> tuple[Packed, Source]:
    """The packed rows of a piece, [S * rows, width], and where their scored tokens come from."""
    return self._fill(self._runs, self._tokens, self._mask, self._chosen, piece)

  def empty(self, like: TokenScores) -> TokenScores:
    """Scores [n, T] of no piece yet. `like`: scores of a piece."""
    return jax.tree.map(lambda x: self._constrained(jnp.zeros(self._shape, x.dtype), BATCH), like)

  def put(self, home: TokenScores, scores: TokenScores, source: Source) -> TokenScores:
    """Writes the scores [S, tokens] of a piece into [n, T]."""
    return jax.tree.map(lambda x, new: self._put(x, new, source), home, scores)

  def take(self, home: TokenScores, source: Source) -> TokenScores:
    """What [n, T] has at the tokens of a piece. -> [S, tokens]."""
    return jax.tree.map(lambda x: self._take(x, source), home)

  def whole(self, home: TokenScores) -> TokenScores:
    """[n, T] -> [B, G, T]."""
    return jax.tree.map(lambda x: x[: self._count].reshape(*self._groups, -1), home)
