"""Changes of low rank: truncation, and LoRE's shared base with low-rank changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lcrl.merging.arrays import Arrays, check_number, stacked, wide

__all__ = ["LowRank", "lore", "lore_merge", "low_rank_merge", "truncated"]


class LowRank(NamedTuple):
  """A base matrix, and a change of low rank for each model, as `lore` finds them."""

  base: np.ndarray  # [out, in]
  changes: np.ndarray  # [models, out, in]


def truncated(change: Any, *, rank: int) -> tuple[np.ndarray, float]:
  """(the nearest matrix of this rank, its share of the squared singular values). [out, in].

  The share of a matrix of zeros is 1: nothing is lost. Source: as Twin-Merging (arXiv:2406.15479)
  keeps its task vectors.

  >>> print(truncated(np.diag([3.0, 4.0]), rank=1))
  (array([[0., 0.],
         [0., 4.]]), 0.64)
  """
  if rank < 0:
    raise ValueError(f"rank must be at least 0, got {rank}.")
  change = _matrix(change)
  sizes, directions = _spectrum(change)
  energy = np.square(sizes)
  share = float(energy[:rank].sum() / energy.sum()) if energy.sum() else 1.0
  return _scaled(change, directions, np.arange(len(sizes)) < rank), share


def low_rank_merge(base: Any, models: Arrays, *, rank: int, scale: float = 1.0) -> np.ndarray:
  """base + scale * sum_k truncated(theta_k - base). Vectors keep their whole change.

  Args:
    base: [...], what all models started from.
    models: one array [...] a model.
    rank: of each change.
    scale: of the whole change.

  >>> print(low_rank_merge(np.zeros((2, 2)), [np.diag([3.0, 4.0])], rank=1))
  [[0. 0.]
   [0. 4.]]
  """
  check_number("scale", scale)
  changes = stacked(models, base)
  if changes.ndim == 3:
    changes = np.stack([truncated(x, rank=rank)[0] for x in changes])
  return wide(base) + scale * changes.sum(0)


def lore(models: Arrays, *, mu: float, iterations: int = 10) -> LowRank:
  """A base and changes of low rank that explain the models. Matrices [out, in], one a model.

    min sum_k ||base + delta_k - theta_k||^2 + mu ||delta_k||_nuclear

  by coordinate descent from base = mean(theta_k) and delta = 0: in each sweep every delta_k is
  theta_k - base with its singular values less mu / 2 (at least 0), then base is
  mean(theta_k - delta_k). Source: LoRE-Merging, as arXiv:2503.20641 uses it; no code is published.

  >>> found = lore([np.diag([4.0, 0.0]), np.zeros((2, 2))], mu=2.0, iterations=1)
  >>> print(found.base.diagonal(), found.changes[0].diagonal())
  [2. 0.] [1. 0.]
  """
  if not mu >= 0:
    raise ValueError(f"mu must be at least 0, got {mu}.")
  if iterations < 1:
    raise ValueError(f"iterations must be at least 1, got {iterations}.")
  parts = np.stack([_matrix(x) for x in stacked(models)])
  base, changes = parts.mean(0), np.zeros_like(parts)
  for _ in range(iterations):
    changes = np.stack([_shrunk(part - base, mu / 2) for part in parts])
    base = (parts - changes).mean(0)
  return LowRank(base, changes)


def lore_merge(
  models: Arrays, *, mu: float, iterations: int = 10, scale: float = 1.0
) -> np.ndarray:
  """`lore`'s base + scale * the mean of its changes; the mean of the models where they are vectors.

  >>> models = [np.diag([4.0, 0.0]), np.zeros((2, 2))]
  >>> print(lore_merge(models, mu=2.0, iterations=1, scale=0.0).diagonal())
  [2. 0.]
  """
  check_number("scale", scale)
  if np.ndim(models[0]) != 2:
    return stacked(models).mean(0)
  found = lore(models, mu=mu, iterations=iterations)
  return found.base + scale * found.changes.mean(0)


def _matrix(x: Any) -> np.ndarray:
  if np.ndim(x) != 2:
    raise ValueError(f"only a matrix has a rank, got an array of shape {np.shape(x)}.")
  return wide(x)


def _shrunk(x: np.ndarray, by: float) -> np.ndarray:
  """x with its singular values less `by`, at least 0."""
  sizes, directions = _spectrum(x)
  kept = np.maximum(sizes - by, 0.0)
  return _scaled(x, directions, np.divide(kept, sizes, out=np.zeros_like(kept), where=sizes > 0))


def _spectrum(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(singular values, falling; singular vectors [short, short] of the shorter side), in float64.

  They are of x x^T, which is several times as fast as a decomposition of x. Squares lose half of
  the digits: values below 1e-8 of the largest are noise, far below what float32 holds of x.
  """
  short = x if x.shape[0] <= x.shape[1] else x.T
  short = short.astype(np.float64, copy=False)
  squares, directions = np.linalg.eigh(short @ short.T)
  return np.sqrt(np.maximum(squares[::-1], 0.0)), directions[:, ::-1]


def _scaled(x: np.ndarray, directions: np.ndarray, factors: np.ndarray) -> np.ndarray:
  """x with each singular value times its factor: in the dtype of x, over the directions kept."""
  kept = factors > 0
  vectors = directions[:, kept]
  left, right = (vectors * factors[kept]).astype(x.dtype), vectors.T.astype(x.dtype)
  return left @ (right @ x) if x.shape[0] <= x.shape[1] else (x @ left) @ right
