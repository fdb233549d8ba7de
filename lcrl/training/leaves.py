"""The arrays of a checkpoint beside those that a run expects: their names, shapes and dtypes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

PyTree = Any


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class AsSaved:
  """A leaf of an abstract state that stands for whatever the checkpoint has there: nested dicts of
  arrays, or None."""

  sharding: Callable[[tuple[int, ...]], jax.sharding.Sharding]  # of an array of this shape


def with_saved_shapes(saved: PyTree, abstract: PyTree) -> PyTree:
  """`abstract`, with the shapes of `saved` in place of each `AsSaved`."""
  is_open = lambda x: isinstance(x, AsSaved)
  if not any(map(is_open, jax.tree.leaves(abstract, is_leaf=is_open))):
    return abstract

  def with_shape(path, x):
    if not is_open(x):
      return x
    like = lambda y: jax.ShapeDtypeStruct(y.shape, y.dtype, sharding=x.sharding(y.shape))
    return jax.tree.map(like, functools.reduce(lambda tree, key: tree[key.name], path, saved))

  return jax.tree_util.tree_map_with_path(with_shape, abstract, is_leaf=is_open)


def different_leaves(saved: PyTree, abstract: PyTree, most: int = 3) -> list[str]:
  """Describes the leaves whose shape or dtype differ, the first `most` of them."""
  sides = []
  for tree in (saved, abstract):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".")
    sides.append({name(path): f"{x.dtype}{[*x.shape]}" for path, x in leaves})
  stored, wanted = sides
  names = [name for name in {**wanted, **stored} if stored.get(name) != wanted.get(name)]
  texts = [
    f"{name} is {stored.get(name, 'absent')} in the checkpoint and "
    f"{wanted.get(name, 'absent')} here"
    for name in names
  ]
  return texts if len(texts) <= most else [*texts[:most], f"and {len(texts) - most} more"]
