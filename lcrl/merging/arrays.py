"""What the merging functions share: arrays in float32 or wider, weights of models, changes.

All functions of the package work on the host, in NumPy, on one tensor at a time: a whole model is
`jax.tree.map` over its params, or `lcrl-merge` over its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]  # of NumPy or JAX, one a model


def wide(x: Any) -> np.ndarray:
  """x as an array in float32 or wider."""
  x = np.asarray(x)
  return x.astype(np.promote_types(x.dtype, np.float32), copy=False)


def stacked(models: Arrays, base: Any = None) -> np.ndarray:
  """[models, ...]: the tensors of the models, or their changes to `base`."""
  if not len(models):
    raise ValueError("models is empty: a merge needs at least one.")
  shapes = [np.shape(x) for x in (*models, *([] if base is None else [base]))]
  if len(set(shapes)) > 1:
    raise ValueError(f"base and models must share a shape, got {shapes}.")
  given = [wide(x) for x in models]
  start = None if base is None else wide(base)
  found = np.empty((len(given), *shapes[0]), np.result_type(*given, *[start] * (base is not None)))
  for i, x in enumerate(given):  # one by one: a tensor may fill half the memory
    found[i] = x
    if start is not None:
      found[i] -= start
  return found


def per_model(values: Sequence[float] | float | None, count: int, name: str) -> np.ndarray:
  """[count] finite numbers from one for all, one for each model, or None: 1 for all."""
  given = np.atleast_1d(np.asarray(1.0 if values is None else values, float))
  if given.shape not in ((1,), (count,)):
    raise ValueError(f"{name} must have a number for each of {count} models, got {values}.")
  if not np.isfinite(given).all():
    raise ValueError(f"{name} must be finite, got {values}.")
  return np.broadcast_to(given, (count,))


def weighted_sum(values: np.ndarray, factors: np.ndarray) -> np.ndarray:
  """sum_k factors_k values_k, [models, ...] and [models] -> [...], in the dtype of the values."""
  total = np.zeros_like(values[0])
  for x, factor in zip(values, factors.tolist(), strict=True):
    total += factor * x
  return total


def check_share(name: str, value: float) -> None:
  """Raises ValueError unless 0 <= value <= 1."""
  if not 0 <= value <= 1:
    raise ValueError(f"{name} must be in [0, 1], got {value}.")


def check_number(name: str, value: float) -> None:
  """Raises ValueError for nan and the infinities."""
  if not np.isfinite(value):
    raise ValueError(f"{name} must be a finite number, got {value}.")
