"""How many prompts to sample, so that enough groups pass the filter. Host side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["oversampling_factor", "prompts_to_sample"]


def oversampling_factor(
  history: Sequence[tuple[int, int]],
  *,
  window: int = 20,
  initial: float = 1.5,
  low: float = 1.2,
  high: float = 5.0,
) -> float:
  """The multiple of the batch to sample, so that enough groups pass the filter in one round.

    clip((1 + std) / mean, low, high) of the pass rates of the last `window` steps

  `history` holds (sampled, passed) a step, oldest first. Source: DOT's code. Host side.

  >>> oversampling_factor([(192, 96)])
  2.0
  """
  if not history:
    return initial
  rates = np.array([passed / sampled for sampled, passed in history[-window:]])
  if rates.mean() == 0:
    return high
  return float(np.clip((1 + rates.std()) / rates.mean(), low, high))


def prompts_to_sample(prompts: int, factor: float) -> int:
  """The batch times the factor, rounded down.

  >>> prompts_to_sample(64, 1.5)
  96
  """
  return math.floor(prompts * factor)
