"""The programs of a step on packed rows.

A call arranges the batch on the device, reads the sizes on the host, and runs the program that was
compiled for these sizes.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lcrl.mesh import batch_sharding, on_host, replicate, replicated
from lcrl.policies import Policy
from lcrl.policies.attention import shares_prompts
from lcrl.training.dealing import Dealt, deal, measure_lengths, piece_sizes
from lcrl.training.packing import PLACE, Sizes, arrange, largest_sizes, rounded
from lcrl.types import TokenScores

PyTree = Any


def arranged(batch: PyTree, *, share: bool, **cut) -> tuple[PyTree, jax.Array, jax.Array]:
  """The batch in the order of `arrange(mask, **cut)`, with `Place`s as a signal; order; sizes.

  `share`: the rollouts of a group share their common prefix.
  """
  rows = scored(batch)
  order, place, sizes = arrange(rows.mask, rows.tokens if share else None, **cut)
  return jax.tree.map(lambda x: x[order], placed(batch, place)), order, sizes


def scored(batch: PyTree) -> PyTree:
  """The rows of a batch; rows themselves."""
  return getattr(batch, "scored", batch)


def placed(batch: PyTree, place: Any) -> PyTree:
  """The batch with the `Place`s of its rollouts as a signal."""
  rows = scored(batch)
  new = dataclasses.replace(rows, signals=rows.signals | {PLACE: place})
  if rows is batch:
    return new
  [field] = [f.name for f in dataclasses.fields(batch) if getattr(batch, f.name) is rows]
  return dataclasses.replace(batch, **{field: new})


class _Arranger:
  """Puts groups into an order that gives devices and micro-batches as many tokens.

  `cut`: the arguments of `arrange`.
  """

  def __init__(self, mesh: Mesh, share: bool, cut: dict[str, int]):
    whole, self.cut = replicated(mesh), cut
    self.run = jax.jit(
      partial(arranged, share=share, **cut),
      out_shardings=(batch_sharding(mesh), whole, whole),
    )

  def __call__(self, batch: PyTree) -> tuple[PyTree, jax.Array | None, Sizes]:
    """The batch with `Place`s, its new order, and the sizes of the program that takes it."""
    needed = self.run(batch)
    return *needed[:2], rounded(Sizes(*np.asarray(needed[2]).tolist()), self.largest(batch))

  def like(self, batch: PyTree) -> PyTree:
    """What a call gives for an abstract batch."""
    like = scored(batch).tokens
    place = jax.ShapeDtypeStruct((*like.shape[:2], 4), jnp.int32, sharding=like.sharding)
    return placed(batch, place)

  def largest(self, batch: PyTree) -> Sizes:
    """The largest sizes that can occur."""
    return largest_sizes(scored(batch).tokens.shape, **self.cut)


class _Dealer:
  """Deals rollouts to pieces of a fixed number of tokens; their order stays.

  `cut`: the arguments of `deal`. The host deals, which a small loop over rollouts does faster.
  """

  def __init__(self, mesh: Mesh, share: bool, cut: dict[str, Any]):
    self.mesh, self.cut = mesh, cut
    measure = lambda rows: measure_lengths(rows.tokens, rows.mask, share=share)
    self.measure = jax.jit(lambda batch: measure(scored(batch)), out_shardings=replicated(mesh))
    self.deal = jax.jit(partial(deal, share=share, **cut))

  def __call__(self, batch: PyTree) -> tuple[PyTree, jax.Array | None, Sizes]:
    lengths = jax.device_get(self.measure(batch))
    with on_host():
      dealt, (_, tokens) = jax.device_get(self.deal(lengths))
    return placed(batch, replicate(self.mesh, dealt)), None, self._sizes(int(tokens))

  def like(self, batch: PyTree) -> PyTree:
    shape = *scored(batch).tokens.shape[:2], len(Dealt._fields)
    dealt = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=replicated(self.mesh))
    return placed(batch, dealt)

  def largest(self, batch: PyTree) -> Sizes:
    del batch
    return self._sizes(self.cut["rows"] * self.cut["width"])

  def _sizes(self, tokens: int) -> Sizes:
    return piece_sizes(tokens, rows=self.cut["rows"], width=self.cut["width"])


class _Packed:
  """Turns a jitted program of (x, batch, sizes) into a function of (x, batch).

  `cut`: the arguments of `arrange`, or those of `deal`, which have `rows`.
  """

  def __init__(self, run: Any, mesh: Mesh, policy: Policy, cut: dict[str, int]):
    make = _Dealer if "rows" in cut else _Arranger
    self.run, self.arrange = run, make(mesh, shares_prompts(policy.config.attention), cut)

  def lower(self, x: PyTree, batch: Any):
    """Lowers the program for the largest sizes that can occur, for abstract arrays."""
    return self.run.lower(x, self.arrange.like(batch), sizes=self.arrange.largest(batch))


class Arranged(NamedTuple):
  """An arranged batch, and the sizes of the program that takes it."""

  batch: PyTree
  sizes: Sizes


class PackedUpdate(_Packed):
  """state, batch -> state, metrics. An update does not depend on the order of groups."""

  def ready(self, batch: PyTree) -> Arranged:
    """Arranges the batch and waits for its sizes, so that the later call need not wait."""
    # Reading the sizes waits for the device. Here that is cheap: the device has only this batch to
    # shape, and the update is not queued yet.
    batch, _, sizes = self.arrange(batch)
    return Arranged(batch, sizes)

  def __call__(self, state: PyTree, batch: PyTree):
    batch, sizes = batch if isinstance(batch, Arranged) else self.ready(batch)
    return self.run(state, batch, sizes=sizes)


class PackedScore(_Packed):
  """params, rollouts -> TokenScores in the order of the rollouts."""

  def __call__(self, params: PyTree, rollouts: PyTree) -> TokenScores:
    rollouts, order, sizes = self.arrange(rollouts)
    scores = self.run(params, rollouts, sizes=sizes)
    return scores if order is None else jax.tree.map(lambda x: x[jnp.argsort(order)], scores)
