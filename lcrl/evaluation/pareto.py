"""Accuracy against length: which points no other beats, how much they cover, one number for both.

All numpy on the host. A point is an accuracy (larger is better) and a length (smaller is better).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["accuracy_efficiency_score", "hypervolume", "on_front"]


def _points(accuracy: ArrayLike, length: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
  accuracy, length = np.asarray(accuracy, np.float64), np.asarray(length, np.float64)
  if accuracy.ndim != 1 or accuracy.shape != length.shape:
    raise ValueError(
      f"accuracy and length must be [points], got {accuracy.shape} and {length.shape}."
    )
  return accuracy, length


def on_front(accuracy: ArrayLike, length: ArrayLike) -> np.ndarray:
  """True where no other point is at least as right and as short, and better in one. [N] -> [N].

  Equal points do not beat each other: all stay.

  >>> print(on_front([0.8, 0.7, 0.6], [300, 200, 250]))
  [ True  True False]
  """
  a, n = _points(accuracy, length)
  no_worse = (a[:, None] >= a) & (n[:, None] <= n)  # [i, j]: i is nowhere worse than j
  return np.logical_not((no_worse & ~no_worse.T).any(0))


def hypervolume(
  accuracy: ArrayLike,
  length: ArrayLike,
  *,
  ref_accuracy: float,
  ref_length: float,
  normalised: bool = False,
) -> float:
  """Area between the points and a reference that each should beat. [N] -> number.

    area of {(l, a): some point has length <= l < ref_length, ref_accuracy < a <= accuracy}

  Points outside the reference box add nothing. `normalised` divides by
  (1 - ref_accuracy) * ref_length, so that instant and always right is 1.

  >>> hypervolume([0.5, 0.8], [100, 300], ref_accuracy=0.0, ref_length=400)
  180.0
  """
  a, n = _points(accuracy, length)
  inside = (a > ref_accuracy) & (n < ref_length)
  order = np.argsort(n[inside], kind="stable")
  heights = np.maximum.accumulate(a[inside][order]) - ref_accuracy
  widths = np.diff(np.append(n[inside][order], ref_length))
  area = float(np.sum(heights * widths))
  return area / ((1 - ref_accuracy) * ref_length) if normalised else area


def accuracy_efficiency_score(
  accuracy: float,
  length: float,
  base_accuracy: float,
  base_length: float,
  *,
  alpha: float = 1.0,
  beta: float = 3.0,
  gamma: float = 5.0,
) -> float:
  """AES: tokens saved, plus accuracy won or minus accuracy lost, relative to a base model.

    alpha * dL + beta * dA  where dA >= 0, else  alpha * dL + gamma * dA
    dL = (base_length - length) / base_length,  dA = (accuracy - base_accuracy) / base_accuracy

  Source: O1-Pruner, arXiv:2501.12570, and what follows it.

  >>> accuracy_efficiency_score(0.8, 2000, 0.8, 4000)
  0.5
  """
  if base_accuracy <= 0 or base_length <= 0:
    raise ValueError(
      f"a base with accuracy {base_accuracy} and length {base_length} cannot be compared with."
    )
  saved = (base_length - length) / base_length
  gained = (accuracy - base_accuracy) / base_accuracy
  return alpha * saved + (beta if gained >= 0 else gamma) * gained
