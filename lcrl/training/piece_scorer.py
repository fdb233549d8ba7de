"""Scores and gradients of a batch whose devices take a fixed number of tokens at a time.

The scores of a piece go back to their rollouts, so a loss always sees whole groups and the whole
batch, whatever the pieces are. Its gradient with respect to the scores is pulled back piece by
piece.

- A loss whose gradient at a rollout depends on the scores of that rollout alone (`Stage.rowwise`)
  is differentiated as soon as the piece is scored: one pass forward, one back.
- Any other loss is differentiated once all pieces are scored, which takes another pass forward.

The number of pieces differs from batch to batch, but is no size of an array: a program has a loop
over as many pieces as the batch has, and serves all batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lcrl.training.packing import Packed, Sizes
from lcrl.training.pieces import Pieces
from lcrl.training.scorer import add_gradients, no_gradients, stacked
from lcrl.types import Stage, TokenScores

PyTree = Any


@dataclasses.dataclass(frozen=True)
class PieceScorer:
  """Scores rollouts whose signal `PLACE` is `Dealt`, [B, G, 5], and differentiates losses of them.

  `sizes` are those of a piece, as `dealing.piece_sizes` gives them.
  """

  score_rows: Callable[[PyTree, Packed], TokenScores]  # of `make_scorer(rows=True)`
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

    def objective(home):
      scores = pieces.whole(home)
      value, new_state = loss.apply(state, scores, batch)
      return value, (new_state, scores)

    slope = lambda home: jax.grad(objective, has_aux=True)(home)[0]
    if loss.rowwise and not loss.coupled:
      home, slope_at = self._empty(apart, pieces), slope
    else:
      home = self._scores(apart, pieces)
      of_all = slope(home)
      slope_at = lambda _: of_all

    def add_piece(piece, carry):
      home, grads = carry
      rows, source = pieces.rows(piece)
      scores, pull_back = jax.vjp(lambda params: self._score_rows(params, rows), apart)
      home = pieces.put(home, scores, source)
      return home, add_gradients(grads, *pull_back(pieces.take(slope_at(home), source)))

    carry = home, no_gradients(apart)
    home, grads = jax.lax.fori_loop(0, pieces.count, add_piece, carry)
    value, (state, scores) = objective(home)
    return value, state, jax.lax.stop_gradient(scores), stacked(grads, params)

  def on(self, policy_params: Callable[[PyTree], PyTree]) -> PieceScorer:
    """The scorer of parameters from which `policy_params` makes those of the policy."""
    score_rows = lambda params, rows: self.score_rows(policy_params(params), rows)
    return dataclasses.replace(self, score_rows=score_rows)

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
