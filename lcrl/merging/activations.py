"""AIM: a merge moves less where the base model is active."""

from __future__ import annotations

from typing import Any

import numpy as np

from lcrl.merging.arrays import check_share, stacked, wide

__all__ = ["activation_informed_merge"]


def activation_informed_merge(
  base: Any, merged: Any, activations: Any, *, omega: float = 0.4
) -> np.ndarray:
  """The change of each input channel, less the more active the channel is in the base model.

    base + (merged - base) * (1 - (1 - omega) * a / max a)

  where a is the mean |activation| of the channel on calibration data; all of the change where a is
  0 everywhere. Applied after another merge.
  Source: AIM, arXiv:2502.02421, from secondary notes; omega = 0.4 in arXiv:2503.20641.

  Args:
    base: [out, in].
    merged: [out, in], the result of another merge.
    activations: [in], at least 0, of the base model.
    omega: the share that the most active channel changes by.

  >>> print(activation_informed_merge(np.zeros((1, 2)), np.ones((1, 2)), np.array([0.0, 3.0])))
  [[1.  0.4]]
  """
  check_share("omega", omega)
  start, end = stacked([base, merged])
  active = wide(activations)
  if active.shape != start.shape[-1:]:
    raise ValueError(f"activations must be {start.shape[-1:]}, got {active.shape}.")
  if not np.isfinite(active).all() or (active < 0).any():
    raise ValueError("activations must be finite and at least 0.")
  if largest := active.max(initial=0):
    active = active / largest
  return start + (end - start) * (1 - (1 - omega) * active)
