"""DLER's merge: only the largest changes of training go back into the model it started from."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from lcrl.types import PyTree

__all__ = ["largest_entries", "selective_merge"]


def largest_entries(values: jax.Array | np.ndarray, *, count: int) -> jax.Array | np.ndarray:
  """Where the `count` entries of largest magnitude are; of equal ones the first. Any shape.

  An array of NumPy is not sorted, which takes a tenth of the time, and gives one of NumPy.

  >>> print(largest_entries(jnp.array([0.5, -2.0, 0.5]), count=2))
  [ True  True False]
  """
  if isinstance(values, np.ndarray):
    return _largest(np.abs(values), min(count, values.size))
  order = jnp.argsort(-jnp.abs(values.ravel()), stable=True)
  chosen = jnp.zeros(values.size, bool).at[order[:count]].set(True)
  return chosen.reshape(values.shape)


def _largest(sizes: np.ndarray, count: int) -> np.ndarray:
  if count < 1:
    return np.zeros(sizes.shape, bool)
  flat = sizes.ravel()
  limit = np.partition(flat, flat.size - count)[flat.size - count]
  chosen = flat > limit
  equal = np.flatnonzero(flat == limit)
  chosen[equal[: count - chosen.sum()]] = True
  return chosen.reshape(sizes.shape)


def selective_merge(
  base: PyTree,
  tuned: PyTree,
  *,
  fraction: float = 0.25,
  scale: float = 0.7,
  whole_model: bool = False,
  rounding: Callable[[float], int] = round,
) -> PyTree:
  """base + scale * (tuned - base), of each tensor only the `fraction` of largest changes.

  Source: DLER, arXiv:2510.15110 (0.25 and 0.7); no code is published. Whether tensors are ranked
  one by one or all together (`whole_model`) is not stated, nor how the count is rounded.

  >>> base, tuned = {"w": jnp.zeros(4)}, {"w": jnp.array([1.0, -4.0, 2.0, 3.0])}
  >>> print(selective_merge(base, tuned, fraction=0.5, scale=0.5)["w"])
  [ 0.  -2.   0.   1.5]
  """
  if not 0 <= fraction <= 1:
    raise ValueError(f"fraction must be in [0, 1], got {fraction}.")

  def merge(base, tuned):
    change = tuned - base
    chosen = largest_entries(change, count=rounding(fraction * change.size))
    return base + scale * (change * chosen)

  if not whole_model:
    return jax.tree.map(merge, base, tuned)
  flat, restore = ravel_pytree(base)
  return restore(merge(flat, ravel_pytree(tuned)[0]))
