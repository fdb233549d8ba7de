"""Sums of weights and of changes: average, task arithmetic, spherical interpolation, strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lcrl.merging.arrays import Arrays, check_number, per_model, stacked, weighted_sum, wide

__all__ = ["linear_merge", "slerp_merge", "strength_merge", "task_arithmetic_merge"]


def linear_merge(
  models: Arrays, *, weights: Sequence[float] | float | None = None, normalize: bool = True
) -> np.ndarray:
  """The weighted mean of the models: sum_k w_k theta_k / sum_k w_k. Arrays [...] -> [...].

  Source: model soups, arXiv:2203.05482; as in mergekit's `linear`.

  Args:
    models: one array a model.
    weights: one for each model, or one for all; None: 1.
    normalize: divide by the sum of the weights.
  Raises: ValueError: shapes differ, or the weights to divide by sum to 0.

  >>> print(linear_merge([np.zeros(2), np.array([4.0, 8.0])], weights=[3, 1]))
  [1. 2.]
  """
  parts = stacked(models)
  given = per_model(weights, len(parts), "weights")
  if normalize and given.sum() == 0:
    raise ValueError(f"weights sum to 0, so that they give no mean, got {weights}.")
  total = weighted_sum(parts, given)
  return total / parts.dtype.type(given.sum()) if normalize else total


def task_arithmetic_merge(
  base: Any,
  models: Arrays,
  *,
  weights: Sequence[float] | float | None = None,
  scale: float = 1.0,
  normalize: bool = False,
) -> np.ndarray:
  """base + scale * sum_k w_k (theta_k - base). Arrays [...] -> [...].

  Source: arXiv:2212.04089; as in mergekit, and with w = 1 as in long-to-short merging
  (arXiv:2503.20641, which takes scale = 0.7).

  Args:
    base: what all models started from.
    models: one array a model.
    weights: one for each model, or one for all; None: 1.
    scale: of the whole change.
    normalize: divide the change by the sum of the weights, unless that is 0.

  >>> print(task_arithmetic_merge(np.ones(2), [np.array([2.0, 1.0])], scale=0.5))
  [1.5 1. ]
  """
  check_number("scale", scale)
  changes = stacked(models, base)
  given = per_model(weights, len(changes), "weights")
  total = weighted_sum(changes, given)
  if normalize and abs(given.sum()) >= 1e-8:
    total = total / changes.dtype.type(given.sum())
  return wide(base) + scale * total


def strength_merge(base: Any, change: Any, *, strength: float) -> np.ndarray:
  """base + strength * change. Arrays [...] -> [...].

  The change leads to shorter chains of thought: between 0 and 1 is part of the way, above 1 is
  shorter than what was trained, below 0 longer than the base. Source: CoT-Valve, arXiv:2502.09601.

  Args:
    base: the weights at strength 0.
    change: a difference of weights, or an adapter's (`lcrl.policies.lora.change`).
    strength: how far along it.

  >>> print(strength_merge(np.ones(2), np.array([1.0, -2.0]), strength=1.5))
  [ 2.5 -2. ]
  """
  check_number("strength", strength)
  start, step = stacked([base, change])
  return start + strength * step


def slerp_merge(first: Any, second: Any, *, strength: float) -> np.ndarray:
  """From `first` to `second` along the arc between them, each tensor as one vector.

    sin((1 - t) a) / sin(a) first + sin(t a) / sin(a) second,  a the angle between the two

  The straight line where |cos a| > 0.9995. A vector of norm below 1e-8 counts as at right angles.
  Source: as in mergekit 0.1.5, which takes the angle of the unit vectors and sums the raw ones.

  Args:
    first: [...], the result at strength 0.
    second: [...], the result at strength 1.
    strength: t.

  >>> print(slerp_merge(np.array([1.0, 0.0]), np.array([0.0, 1.0]), strength=0.5).round(3))
  [0.707 0.707]
  """
  check_number("strength", strength)
  both = stacked([first, second])
  units = [_unit(x.ravel()) for x in both]
  cosine = float(units[0] @ units[1])
  if abs(cosine) > 0.9995:
    return (1 - strength) * both[0] + strength * both[1]
  angle = np.arccos(cosine)
  shares = np.sin([(1 - strength) * angle, strength * angle]) / np.sin(angle)
  return weighted_sum(both, shares)


def _unit(x: np.ndarray) -> np.ndarray:
  norm = np.linalg.norm(x)
  return x / norm if norm > 1e-8 else x
