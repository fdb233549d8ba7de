"""Scores of the rows under the policy, and exact gradients of any loss of those scores.

A loss is a function of the [B, G, T] scores. One that adds over pieces of the batch is
differentiated piece by piece. One that couples the batch (`Stage.coupled`) is differentiated with
respect to the scores of the whole batch, and those cotangents are pulled back piece by piece.
Either way the number of pieces never changes the gradient, only the memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lcrl.losses.log_probs import score_tokens, score_tokens_sharded
from lcrl.mesh import BATCH
from lcrl.policies.attention import sequence, shares_prompts
from lcrl.policies.modules import at_least_float32
from lcrl.training import packing
from lcrl.training.balance import BALANCE
from lcrl.training.float16 import scaled
from lcrl.training.packing import Packed, Sizes
from lcrl.types import Batch, PairBatch, Stage, TokenScores

PyTree = Any
Score = Callable[..., TokenScores]  # params, rollouts or pairs
# Tokens and vocabulary entries of a tile of logits, where they differ from those of `score_tokens`.
# On CPUs a tile of 4 MiB stays in the cache, and the allocator keeps it from step to step.
TILES = {"cpu": {"token_chunk": 512, "vocab_chunk": 2048}}


def make_scorer(
  policy,
  *,
  needs: tuple[str, ...] = (),
  temperature: float = 1.0,
  mesh: Mesh | None = None,
  pack: int | None = None,
  rows: bool = False,
  **chunks,
) -> Score:
  """score(params, rollouts) -> TokenScores, [B, G, T] each, without ever holding [B, G, T, V].

  Args:
    policy: a `policies.Policy`.
    needs: score fields besides log_probs: "entropy", "log_sum_sq", "logits_at"; and "balance" of a
      policy with experts.
    temperature: that of the sampler, so that both describe the same distribution.
    mesh: the devices of rows and parameters; each scores its own rows with its columns of the head.
    pack: width of packed rows; score then takes `sizes`, and rollouts in the order of `arrange`.
    rows: score then takes `Packed` rows, and gives the scores of their scored tokens.
    **chunks: token_chunk, vocab_chunk of `score_tokens`; the backend decides those left out.
  """
  if BALANCE in needs and not policy.config.experts:
    raise ValueError(f"needs={needs}: the policy has no experts to balance.")
  platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
  scorer = _Scorer(
    policy,
    fields=tuple(dict.fromkeys(("log_probs", *(name for name in needs if name != BALANCE)))),
    balanced=BALANCE in needs,
    mesh=mesh if mesh is not None and mesh.size > 1 else None,
    batch_axes=BATCH[0] if pack is None else sequence.CUT[0],
    options={"temperature": temperature, **TILES.get(platform, {}), **chunks},
  )
  of_rollouts = scorer.padded if pack is None else partial(scorer.packed, pack)
  chosen: Score = scorer.rows if rows else of_rollouts
  return scaled(chosen) if policy.config.dtype == "float16" else chosen


@dataclasses.dataclass(frozen=True)
class _Scorer:
  """The scorers of a policy: of padded rollouts, of packed ones, and of rows that are packed."""

  policy: Any
  fields: tuple[str, ...]  # of the scores
  balanced: bool  # the load balance of experts is one of them
  mesh: Mesh | None  # None: one device
  batch_axes: Any  # of the mesh, over which rows are cut
  options: dict[str, Any]  # of `score_tokens`

  def padded(self, params, rollouts) -> TokenScores:
    def routed():
      used, mask = packing.used_lengths(rollouts.mask)[..., None], rollouts.mask
      index = jax.lax.broadcasted_iota(jnp.int32, mask.shape, mask.ndim - 1)
      return {"counted": index < used, "chosen": packing.replayed(rollouts)}

    hidden, balance = self._states(params, routed, rollouts.tokens)
    after = jnp.roll(rollouts.mask, -1, axis=-1).at[..., -1].set(False)
    scores = self._scores(params, hidden, balance, jnp.roll(rollouts.tokens, -1, axis=-1), after)
    return jax.tree.map(lambda x: jnp.roll(x, 1, axis=-1), scores)  # t scores tokens[t]

  def packed(self, width: int, params, rollouts, *, sizes: Sizes) -> TokenScores:
    rows: Packed = self._local(partial(packing.pack, sizes=sizes, width=width))(
      rollouts.tokens, rollouts.mask, rollouts.signals[packing.PLACE], packing.replayed(rollouts)
    )
    back = lambda x: self._local(packing.unpack)(x, rollouts.mask, rows.fits)
    return jax.tree.map(back, self.rows(params, rows))

  def rows(self, params, rows: Packed) -> TokenScores:
    branches = rows.branches if shares_prompts(self.policy.config.attention) else None
    routed = lambda: {"counted": rows.segments >= 0, "chosen": rows.chosen}
    hidden, balance = self._states(
      params, routed, rows.tokens, rows.positions, rows.segments, branches
    )
    if self.mesh is None or self.mesh.shape[sequence.AXIS] == 1:
      pick = lambda x, before: x.reshape(-1, *x.shape[2:])[before[0]][None]
      picked = lambda x: x if x is None else self._local(pick)(x, rows.before)
      return self._scores(params, picked(hidden), picked(balance), rows.targets, rows.kept)
    hidden, *shares = over_sequence(self.mesh, hidden, rows.before, rows.targets, rows.kept)
    if balance is not None:
      balance = over_sequence(self.mesh, balance, rows.before)[0]
    scores = self._scores(params, hidden, balance, *shares)
    return jax.tree.map(lambda x: x.reshape(rows.targets.shape), scores)

  def _states(self, params, routed: Callable[[], dict[str, Any]], *rows):
    """The states and balance of the tokens of rows; `routed` gives what only a router reads."""

    def states(params, *rows):
      if self.balanced:
        return self.policy.hidden_and_balance(params, *rows, **routed())
      return self.policy.hidden(params, *rows), None

    return (states if self.mesh is None else on_mesh(states, self.mesh))(params, *rows)

  def _scores(self, params, hidden, balance, targets, kept) -> TokenScores:
    c, columns, score = self.policy.config, 1, score_tokens
    if self.mesh is not None:
      columns = self.mesh.shape["tensor"]
      score = partial(score_tokens_sharded, mesh=self.mesh, batch_axes=self.batch_axes)
    scores = score(
      hidden,
      jnp.pad(self.policy.head(params), ((0, 0), (0, -c.vocab_size % columns))),
      targets,
      kept,
      vocab_size=c.vocab_size,
      needs=self.fields,
      soft_cap=c.logit_softcap,
      **self.options,
    )
    if balance is None:
      return scores
    return dataclasses.replace(scores, balance=jnp.where(kept, balance, 0))

  def _local(self, f: Callable) -> Callable:
    """`f` of each device's own rows, among which packing permutes tokens. Left to itself, XLA would
    gather the rows of all devices for such an indexing."""
    if self.mesh is None:
      return f
    return jax.shard_map(f, mesh=self.mesh, in_specs=BATCH, out_specs=BATCH, check_vma=False)


def over_sequence(mesh: Mesh, hidden, before, *per_token):
  """The states before the scored tokens, and what is known of these, each device of the sequence
  axis with an equal share of them.

  Args:
    mesh: with a sequence axis of n devices.
    hidden: [rows * n, W / n, ...], dealt.
    before: [shards, tokens], indices among the tokens of a shard's rows in order.
    per_token: [shards, tokens] each.
  Returns: [shards * n, tokens / n, ...], and [shards * n, tokens / n] each.
  """
  parts = mesh.shape[sequence.AXIS]

  def pick(hidden, before, *per_token):
    own, *rest = (sequence.share(x, parts) for x in (before, *per_token))
    rows = sequence.gather(hidden, parts)
    return rows.reshape(-1, *rows.shape[2:])[own[0]][None], *rest

  specs = sequence.CUT, *(BATCH,) * (1 + len(per_token))
  run = jax.shard_map(pick, mesh=mesh, in_specs=specs, out_specs=sequence.CUT, check_vma=False)
  return run(hidden, before, *per_token)


def on_mesh(f: Callable, mesh: Mesh) -> Callable:
  """Runs `f` under the abstract mesh, by which attention kernels split rows and heads."""

  def run(*args):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return f(*args)

  return run


def split(batch: PyTree, pieces: int) -> PyTree:
  """[B, ...] -> [pieces, B / pieces, ...]; piece p takes every pieces-th row.

  So each device of a batch sharded along B holds a part of every piece, and no row moves.
  """

  def cut(x):
    if x.shape[0] % pieces:
      raise ValueError(f"micro_batches must divide the batch, got {pieces} for {x.shape[0]}.")
    return jnp.swapaxes(x.reshape(x.shape[0] // pieces, pieces, *x.shape[1:]), 0, 1)

  return jax.tree.map(cut, batch)


def join(pieces: PyTree) -> PyTree:
  """The inverse of `split`."""
  return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), pieces)


def value_and_grad(
  loss: Stage,
  state: PyTree,
  score: Score,
  params: PyTree,
  batch: Batch | PairBatch,
  *,
  micro_batches: int,
  unstack_for_grad: Callable[[PyTree], PyTree] = lambda params: params,
) -> tuple[jax.Array, PyTree, TokenScores, PyTree]:
  """-> (loss [], new loss state, scores of the whole batch, gradient like params).

  `unstack_for_grad`: that of `Policy`. It splits and casts the layers once for all pieces; their
  gradients are stacked once.
  """
  if micro_batches == 1:

    def objective(params):
      scores = score(params, batch.scored)
      value, new_state = loss.apply(state, scores, batch)
      return value, (new_state, scores)

    (value, (state, scores)), grads = jax.value_and_grad(objective, has_aux=True)(params)
    return value, state, jax.lax.stop_gradient(scores), grads
  differentiate = _coupled if loss.coupled else _additive
  value, state, scores, grads = differentiate(
    loss, state, score, unstack_for_grad(params), batch, split(batch, micro_batches)
  )
  return value, state, scores, stacked(grads, params)


def _additive(loss, state, score, params, batch, pieces):
  def add_piece(carry, piece):
    def objective(params):
      scores = score(params, piece.scored)
      return loss.apply(state, scores, piece)[0], scores

    (value, scores), grads = jax.value_and_grad(objective, has_aux=True)(params)
    return add_gradients(carry, (value, grads)), scores

  zero = jnp.zeros((), batch.weights.dtype), no_gradients(params)
  (value, grads), scores = jax.lax.scan(add_piece, zero, pieces)
  return value, state, join(scores), grads


def _coupled(loss, state, score, params, batch, pieces):
  scores = join(jax.lax.map(lambda piece: score(params, piece.scored), pieces))
  (value, state), cotangents = jax.value_and_grad(
    lambda scores: loss.apply(state, scores, batch), has_aux=True
  )(scores)

  def add_piece(grads, xs):
    piece, cotangent = xs
    _, pull_back = jax.vjp(lambda params: score(params, piece.scored), params)
    return add_gradients(grads, *pull_back(cotangent)), None

  cut = split(cotangents, jax.tree.leaves(pieces)[0].shape[0])
  grads, _ = jax.lax.scan(add_piece, no_gradients(params), (pieces, cut))
  return value, state, scores, grads


def no_gradients(params: PyTree) -> PyTree:
  """The zeros to which gradients are added, in float32 or wider."""
  return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=at_least_float32(x.dtype)), params)


def add_gradients(sums: PyTree, more: PyTree) -> PyTree:
  """Sums in their own dtype."""
  return jax.tree.map(lambda x, y: x + y.astype(x.dtype), sums, more)


def stacked(grads: PyTree, params: PyTree) -> PyTree:
  """Gradients like `params`, whose layers may be unstacked."""
  if isinstance(grads, dict) and isinstance(grads.get("layers"), tuple):
    layers = jax.tree.map(lambda *layers: jnp.stack(layers), *grads["layers"])
    grads = {**grads, "layers": layers}
  return jax.tree.map(lambda x, like: x.astype(like.dtype), grads, params)
