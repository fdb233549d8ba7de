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

from lcrl.mesh import batch_sharding, replicated
from lcrl.policies import Policy
from lcrl.policies.attention import shares_prompts
from lcrl.training.packing import PLACE, Sizes, arrange, rounded
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


class _Packed:
  """Turns a jitted program of (x, batch, sizes) into a function of (x, batch)."""

  def __init__(self, run: Any, mesh: Mesh, policy: Policy, cut: dict[str, int]):
    whole, share = replicated(mesh), shares_prompts(policy.config.attention)
    self.run, self.cut = run, cut
    self.arrange = jax.jit(
      partial(arranged, share=share, **cut),
      out_shardings=(batch_sharding(mesh), whole, whole),
    )

  def lower(self, x: PyTree, batch: Any):
    """Lowers the program for the largest sizes that can occur, for abstract arrays."""
    like = scored(batch).tokens
    *groups, length = like.shape
    place = jax.ShapeDtypeStruct((*groups, 4), jnp.int32, sharding=like.sharding)
    rows = groups[0] * groups[1] // (self.cut["shards"] * self.cut["pieces"])
    rows //= self.cut.get("parts", 1)
    largest = Sizes(-(-rows // (self.cut["width"] // length)), rows * (length - 1))
    return self.run.lower(x, placed(batch, place), sizes=rounded(largest))


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
    return Arranged(batch, rounded(Sizes(*np.asarray(sizes).tolist())))

  def __call__(self, state: PyTree, batch: PyTree):
    batch, sizes = batch if isinstance(batch, Arranged) else self.ready(batch)
    return self.run(state, batch, sizes=sizes)


class PackedScore(_Packed):
  """params, rollouts -> TokenScores in the order of the rollouts."""

  def __call__(self, params: PyTree, rollouts: PyTree) -> TokenScores:
    rollouts, order, sizes = self.arrange(rollouts)
    scores = self.run(params, rollouts, sizes=rounded(Sizes(*np.asarray(sizes).tolist())))
    return jax.tree.map(lambda x: x[jnp.argsort(order)], scores)
