"""Scores and gradients of a batch whose devices take a fixed number of tokens at a time.

Rollouts stay where the batch has them, [B, G, T] sharded along B. The model sees pieces: packed
rows, which `dealing.deal` filled with the rollouts of any group and any device. The scores of a
piece go back to their rollouts, so the loss always sees whole groups and the whole batch, whatever
the pieces are. Its gradient with respect to the scores is then pulled back piece by piece.

- A loss whose gradient at a rollout depends on the scores of that rollout alone (`Stage.rowwise`)
  is differentiated as soon as the piece is scored: one pass forward, one back.
- Any other loss is differentiated once all pieces are scored, which takes another pass forward.

The number of pieces differs from batch to batch, but is no size of an array: a program has a loop
over as many pieces as the batch has, and serves all batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lcrl.mesh import BATCH, batch_shards
from lcrl.training.dealing import Dealt
from lcrl.training.packing import PLACE, Packed, Sizes, used_lengths
from lcrl.training.scorer import add_gradients, no_gradients, stacked
from lcrl.types import Stage, TokenScores

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
  runs: Runs, tokens: jax.Array, mask: jax.Array, piece: jax.Array, *, sizes: Sizes, width: int
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
  kept = inside & (run.branch > 0) & (token > 0) & mask[run.rollout, token]
  before = jnp.where(offset > 0, column - 1, run.stem + run.first - 1) - begin
  scored = jnp.nonzero(kept, size=sizes.tokens, fill_value=room)[0]
  take = lambda x, empty: x.at[scored].get(mode="fill", fill_value=empty)[None]
  rows = lambda x, empty: jnp.where(inside, x, empty).reshape(sizes.rows, width)
  value = tokens[run.rollout, token]
  packed = Packed(
    tokens=rows(value, 0),
    positions=rows(token, 0),
    segments=rows(run.stem - begin, -1 - jnp.arange(room)),
    branches=rows(run.branch, 0),
    before=take(before, 0),
    targets=take(value, 0),
    kept=(scored < room)[None],
    fits=(kept.sum() <= sizes.tokens)[None],
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
    *self.groups, length = rollouts.tokens.shape
    self.axes = AXES if mesh is not None and mesh.size > 1 else None
    self.mesh = mesh
    shards = 1 if mesh is None else batch_shards(mesh)
    self.rollouts = self.groups[0] * self.groups[1]
    self.pad = -self.rollouts % shards
    dealt = Dealt(*jnp.moveaxis(rollouts.signals[PLACE].reshape(self.rollouts, -1), -1, 0))
    everywhere = partial(self._sharded, P())
    self._tokens, self._mask = (
      everywhere(x.reshape(self.rollouts, length)) for x in (rollouts.tokens, rollouts.mask)
    )
    find = partial(find_runs, everywhere(dealt), everywhere(used_lengths(self._mask)))
    find = jax.vmap(partial(find, width=width, group=self.groups[1]))
    self._runs = self._sharded(BATCH, find(jnp.arange(shards)))
    self._fill = self._local(
      partial(fill, sizes=sizes, width=width), in_specs=(BATCH, P(), P(), P()), out_specs=BATCH
    )
    self._put = self._local(partial(put, axes=self.axes), in_specs=BATCH, out_specs=BATCH)
    self._take = self._local(partial(take, axes=self.axes), in_specs=BATCH, out_specs=BATCH)
    self.count = 1 + jnp.max(dealt.row) // sizes.rows

  def _sharded(self, spec: P, tree: PyTree) -> PyTree:
    if self.axes is None:
      return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(self.mesh, spec))

  def _local(self, f: Callable, **specs) -> Callable:
    if self.axes is None:
      return f
    return jax.shard_map(f, mesh=self.mesh, check_vma=False, **specs)

  def rows(self, piece: jax.Array) -> tuple[Packed, Source]:
    """The packed rows of a piece, [S * rows, width], and where their scored tokens come from."""
    return self._fill(self._runs, self._tokens, self._mask, piece)

  def empty(self, like: TokenScores) -> TokenScores:
    """Scores of no piece yet. `like`: scores of a piece."""
    shape = self.rollouts + self.pad, self._tokens.shape[1]
    return jax.tree.map(lambda x: self._sharded(BATCH, jnp.zeros(shape, x.dtype)), like)

  def put(self, home: TokenScores, scores: TokenScores, source: Source) -> TokenScores:
    """Writes the scores of a piece [S, tokens]."""
    return jax.tree.map(lambda x, new: self._put(x, new, source), home, scores)

  def take(self, scores: TokenScores, source: Source) -> TokenScores:
    """What scores [B, G, T] of the batch have at the tokens of a piece. -> [S, tokens]."""
    flat = lambda x: jnp.pad(x.reshape(self.rollouts, -1), ((0, self.pad), (0, 0)))
    return jax.tree.map(lambda x: self._take(flat(x), source), scores)

  def whole(self, home: TokenScores) -> TokenScores:
    """The scores of the batch, [B, G, T]."""
    return jax.tree.map(lambda x: x[: self.rollouts].reshape(*self.groups, -1), home)


@dataclasses.dataclass(frozen=True)
class PieceScorer:
  """Scores rollouts whose signal `PLACE` is `Dealt`, [B, G, 5], and differentiates losses of them.

  `sizes` are those of a piece, as `dealing.piece_sizes` gives them.
  """

  score_rows: Callable[[PyTree, Packed], TokenScores]  # `scorer.make_row_scorer`
  width: int  # tokens of a row
  mesh: Mesh | None = None

  def __call__(self, params: PyTree, rollouts: Any, *, sizes: Sizes) -> TokenScores:
    """-> scores [B, G, T], 0 where nothing was sampled."""
    pieces = Pieces(rollouts, sizes=sizes, width=self.width, mesh=self.mesh)
    return pieces.whole(self._scores(params, pieces))

  def value_and_grad(
    self,
    loss: Stage,
    state: PyTree,
    params: PyTree,
    batch: Any,
    *,
    sizes: Sizes,
    unstack_for_grad: Callable[[PyTree], PyTree] = lambda params: params,
  ) -> tuple[jax.Array, PyTree, TokenScores, PyTree]:
    """As `scorer.value_and_grad`."""
    pieces = Pieces(batch.scored, sizes=sizes, width=self.width, mesh=self.mesh)
    apart = unstack_for_grad(params)
    objective = lambda scores: loss.apply(state, scores, batch)
    slope = jax.grad(lambda scores: objective(scores)[0])
    if loss.rowwise and not loss.coupled:
      home, slope_at = self._empty(params, pieces), lambda home: slope(pieces.whole(home))
    else:
      home = self._scores(apart, pieces)
      of_all = slope(pieces.whole(home))
      slope_at = lambda home: of_all

    def add_piece(piece, carry):
      home, grads = carry
      rows, source = pieces.rows(piece)
      scores, pull_back = jax.vjp(lambda params: self._score_rows(params, rows), apart)
      home = pieces.put(home, scores, source)
      cotangents = pieces.take(slope_at(home), source)
      return home, add_gradients(grads, *pull_back(cotangents))

    carry = home, no_gradients(apart)
    home, grads = jax.lax.fori_loop(0, pieces.count, add_piece, carry)
    scores = pieces.whole(home)
    value, state = objective(scores)
    return value, state, jax.lax.stop_gradient(scores), stacked(grads, params)

  def _score_rows(self, params: PyTree, rows: Packed) -> TokenScores:
    """nan if the sizes were too small: no token may be left out silently."""
    scores = self.score_rows(params, rows)
    return jax.tree.map(lambda x: jnp.where(rows.fits[:, None], x, jnp.nan), scores)

  def _empty(self, params: PyTree, pieces: Pieces) -> TokenScores:
    one = lambda params: self._score_rows(params, pieces.rows(jnp.int32(0))[0])
    return pieces.empty(jax.eval_shape(one, params))

  def _scores(self, params: PyTree, pieces: Pieces) -> TokenScores:
    def add_piece(piece, home):
      rows, source = pieces.rows(piece)
      return pieces.put(home, self._score_rows(params, rows), source)

    return jax.lax.fori_loop(0, pieces.count, add_piece, self._empty(params, pieces))
