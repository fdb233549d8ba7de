"""What the merging functions share: arrays in float32 or wider, weights of models, changes.

All functions of the package work on the host, in NumPy, on one tensor at a time: a whole model is
`jax.tree.map` over its params, or `experiments.merge` over its files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Arrays = Sequence[Any]  # of NumPy or JAX, one a model


def wide(x: Any) -> np.ndarray:
  """x as an array in float32 or wider."""
  x = np.asarray(x)
  return x.astype(np.promote_types(x.dtype, np.float32) if x.dtype.kind == "f" else _dtype(x))


def _dtype(x: np.ndarray) -> type:
  return np.float64 if x.dtype.kind in "biu" else np.float32  # bfloat16 is of no kind


def stacked(models: Arrays, base: Any = None) -> np.ndarray:
  """[models, ...]: the tensors of the models, or their changes to `base`."""
  if not len(models):
    raise ValueError("models is empty: a merge needs at least one.")
  shapes = [np.shape(x) for x in (*models, *([] if base is None else [base]))]
  if len(set(shapes)) > 1:
    raise ValueError(f"base and models must share a shape, got {shapes}.")
  parts = [wide(x) for x in models]
  return np.stack(parts if base is None else [x - wide(base) for x in parts])


def per_model(values: Sequence[float] | float | None, count: int, name: str) -> np.ndarray:
  """[count] finite numbers from one for all, one for each model, or None: 1 for all."""
  given = np.atleast_1d(np.asarray(1.0 if values is None else values, float))
  if given.shape not in ((1,), (count,)):
    raise ValueError(f"{name} must have a number for each of {count} models, got {values}.")
  if not np.isfinite(given).all():
    raise ValueError(f"{name} must be finite, got {values}.")
  return np.broadcast_to(given, (count,))


def scaled(values: np.ndarray, factors: np.ndarray) -> np.ndarray:
  """[models, ...] times [models], in the dtype of the first."""
  return values * factors.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))


def check_share(name: str, value: float) -> None:
  """Raises ValueError unless 0 <= value <= 1."""
  if not 0 <= value <= 1:
    raise ValueError(f"{name} must be in [0, 1], got {value}.")


def check_number(name: str, value: float) -> None:
  """Raises ValueError for nan and the infinities."""
  if not np.isfinite(value):
    raise ValueError(f"{name} must be a finite number, got {value}.")
