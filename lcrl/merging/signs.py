"""Merges that let models agree on a sign first: TIES, DARE, SCE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lcrl.merging.arrays import (
  Arrays,
  check_number,
  check_share,
  per_model,
  stacked,
  weighted_sum,
  wide,
)
from lcrl.merging.selective import largest_entries

__all__ = [
  "agreed_sum",
  "dare_merge",
  "drop_and_rescale",
  "keep_largest",
  "sce_change",
  "sce_merge",
  "ties_merge",
  "trim_smallest",
  "trimmed_ties_merge",
]


def keep_largest(change: Any, *, density: float) -> np.ndarray:
  """The max(1, int(density * size)) entries of largest magnitude, 0 elsewhere; none at density 0.

  >>> print(keep_largest(np.array([1.0, -3.0, 2.0]), density=0.4))
  [ 0. -3.  0.]
  """
  check_share("density", density)
  change = wide(change)
  if density == 1:
    return change
  count = max(1, int(density * change.size)) if density > 0 else 0
  return np.where(largest_entries(change, count=count), change, 0)


def trim_smallest(change: Any, *, rate: float) -> np.ndarray:
  """Entries at or above the int(rate * size)-th smallest magnitude, 0 elsewhere.

  `rate` is the share to trim, where `density` is the share to keep, and the entry at the threshold
  stays. Source: the code of arXiv:2503.20641.

  >>> print(trim_smallest(np.array([1.0, -3.0, 2.0]), rate=0.7))
  [ 0. -3.  2.]
  """
  check_share("rate", rate)
  change = wide(change)
  if not (count := int(rate * change.size)):
    return change
  sizes = np.abs(change)
  threshold = np.partition(sizes.ravel(), count - 1)[count - 1]
  return np.where(sizes >= threshold, change, 0)


def agreed_sum(
  changes: Any, weights: Sequence[float] | float | None = None, *, normalize: bool = True
) -> np.ndarray:
  """Per element, the sum of w_k delta_k over those of the elected sign. [models, ...] -> [...].

  The sign is that of sum_k w_k delta_k, 0 counts as +. An entry of 0 has no sign and never joins.
  `normalize` divides by the sum of the weights that joined (by 1 if that is 0).

  >>> print(agreed_sum(np.array([[1.0, -1.0], [3.0, 2.0], [-1.0, 0.0]])))
  [2. 2.]
  """
  changes = stacked(changes)
  given = per_model(weights, len(changes), "weights")
  total, joined = _joined(changes, given, weighted_sum(changes, given))
  return total / np.where(joined == 0, 1, joined) if normalize else total


def _joined(
  changes: np.ndarray, weights: np.ndarray, elected: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(sum of w_k delta_k, sum of w_k) over those whose w_k delta_k has the sign of `elected`."""
  total, joined = np.zeros_like(elected), np.zeros_like(elected)
  for change, weight in zip(changes, weights.tolist(), strict=True):
    own = weight * change
    joins = np.where(elected >= 0, own > 0, own < 0)
    total += np.where(joins, own, 0)
    joined += np.where(joins, total.dtype.type(weight), 0)
  return total, joined


def ties_merge(
  base: Any,
  models: Arrays,
  *,
  weights: Sequence[float] | float | None = None,
  density: Sequence[float] | float = 0.5,
  scale: float = 1.0,
  normalize: bool = True,
) -> np.ndarray:
  """Trim each change to its largest entries, elect a sign per element, and sum what agrees.

    base + scale * agreed_sum_k(w_k keep_largest(theta_k - base))

  Source: TIES, arXiv:2306.01708, as in mergekit: entries are ranked within a tensor, where the
  paper ranks them within the whole model.

  Args:
    base: [...], what all models started from.
    models: one array [...] a model.
    weights: one for each model, or one for all; None: 1.
    density: the share of entries that each model keeps.
    scale: of the whole change.
    normalize: a weighted mean over what agrees; False: a weighted sum.

  >>> models = [np.array([3.0, 1.0, -2.0, 0.0]), np.array([1.0, 0.0, 4.0, 2.0])]
  >>> print(ties_merge(np.zeros(4), models, density=0.5))
  [3. 0. 4. 2.]
  """
  check_number("scale", scale)
  changes = stacked(models, base)
  densities = per_model(density, len(changes), "density")
  for i, share in enumerate(densities.tolist()):
    changes[i] = keep_largest(changes[i], density=share)
  return wide(base) + scale * agreed_sum(changes, weights, normalize=normalize)


def trimmed_ties_merge(
  base: Any, models: Arrays, *, rate: float = 0.8, scale: float = 1.0
) -> np.ndarray:
  """TIES as long-to-short merging runs it: `trim_smallest`, then the mean of what agrees.

  Source: arXiv:2503.20641 and its code; rate 0.8 and scale 1 for 7 B, 0.2 and 0.5 for 14 B.

  Args:
    base: [...], the short model.
    models: one array [...] a model.
    rate: the share of entries to trim.
    scale: of the whole change.

  >>> print(trimmed_ties_merge(np.zeros(3), [np.array([3.0, 1.0, -2.0])], rate=0.7))
  [ 3.  0. -2.]
  """
  check_number("scale", scale)
  changes = stacked(models, base)
  for i, change in enumerate(changes):
    changes[i] = trim_smallest(change, rate=rate)
  return wide(base) + scale * agreed_sum(changes)


def drop_and_rescale(change: Any, keep: Any, *, drop: float) -> np.ndarray:
  """change / (1 - drop) where `keep`, 0 elsewhere: the same on average, if `drop` are not kept.

  Source: DARE, arXiv:2311.03099.

  Args:
    change: [...].
    keep: [...] bool.
    drop: the chance of an entry to be dropped, below 1.

  >>> print(drop_and_rescale(np.array([1.0, 2.0]), np.array([True, False]), drop=0.5))
  [2. 0.]
  """
  if not 0 <= drop < 1:
    raise ValueError(f"drop must be at least 0 and below 1, got {drop}.")
  change = wide(change)
  return np.where(np.asarray(keep, bool), change / change.dtype.type(1 - drop), 0)


def dare_merge(
  base: Any,
  models: Arrays,
  keep: Arrays,
  *,
  weights: Sequence[float] | float | None = None,
  drop: Sequence[float] | float = 0.3,
  scale: float = 1.0,
  signs: bool = False,
) -> np.ndarray:
  """base + scale * sum_k w_k drop_and_rescale(theta_k - base, keep_k); `signs`: as TIES sums.

  Source: DARE, arXiv:2311.03099; a drop of 0.3 in long-to-short merging (arXiv:2503.20641).

  Args:
    base: [...], what all models started from.
    models: one array [...] a model.
    keep: one array [...] of bool a model, drawn with probability 1 - drop.
    weights: one for each model, or one for all; None: 1.
    drop: the share of entries that each model loses.
    scale: of the whole change.
    signs: sum only the entries of the elected sign, divided by the sum of their weights.

  >>> keep = [np.array([True, False])]
  >>> print(dare_merge(np.zeros(2), [np.ones(2)], keep, drop=0.5))
  [2. 0.]
  """
  check_number("scale", scale)
  changes = stacked(models, base)
  drops = per_model(drop, len(changes), "drop").tolist()
  if (found := [np.shape(mask) for mask in keep]) != [np.shape(base)] * len(changes):
    raise ValueError(f"keep must have {np.shape(base)} for each model, got shapes {found}.")
  for i, (mask, share) in enumerate(zip(keep, drops, strict=True)):
    changes[i] = drop_and_rescale(changes[i], mask, drop=share)
  given = per_model(weights, len(changes), "weights")
  total = agreed_sum(changes, given.tolist()) if signs else weighted_sum(changes, given)
  return wide(base) + scale * total


def sce_change(changes: Any, *, topk: float = 1.0) -> np.ndarray:
  """Select, calculate, erase: the merged change of SCE. [models, ...] -> [...].

  Keeps the int(topk * n) elements whose variance over the models is largest, n those where it is
  not 0. A model's weight is its share of the mean squares of what is left. Per element, models
  whose sign is not that of the sum are left out, and the other weights divided by their sum.

  Source: FuseChat's SCE, arXiv:2408.07990, as in mergekit 0.1.5. Ours: weights are equal only where
  all mean squares are 0; mergekit's are equal below a sum of 1e-6, which most fine-tuning is.

  >>> print(sce_change(np.array([[1.0, 3.0], [1.0, -1.0]])).round(3))
  [1. 3.]
  """
  check_share("topk", topk)
  changes = stacked(changes)
  if topk < 1:
    spread = changes.var(0)
    count = int(topk * np.count_nonzero(spread))
    changes = np.where(largest_entries(spread, count=count), changes, 0)
  squares = np.square(changes, dtype=np.float64).mean(axis=tuple(range(1, changes.ndim)))
  shares = squares / squares.sum() if squares.sum() else np.full(len(changes), 1 / len(changes))
  total, left = _joined(changes, shares, changes.sum(0))
  return total / np.maximum(left, 1e-6)


def sce_merge(base: Any, models: Arrays, *, topk: float = 1.0) -> np.ndarray:
  """base + `sce_change` of the models' changes. Arrays [...] -> [...].

  >>> print(sce_merge(np.ones(2), [np.array([2.0, 4.0]), np.array([2.0, 0.0])]).round(3))
  [2. 4.]
  """
  return wide(base) + sce_change(stacked(models, base), topk=topk)
