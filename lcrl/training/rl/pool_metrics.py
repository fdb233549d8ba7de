"""How far the sampler's pool of pages was used, as metrics of a step."""

from __future__ import annotations

import logging

import numpy as np

from lcrl.sampling.pages import PoolUse
from lcrl.training.metrics import Mean, Metrics

MANY = 0.1  # restarts a row: so much of the sampling, at most, is done again


class PoolMetrics:
  """Metrics of a round, and one warning for the run if many rows start again."""

  def __init__(self) -> None:
    self._warned = False

  def __call__(self, use: PoolUse | None) -> Metrics:
    """`use` of a finished round; None where the sampler has no pool."""
    if use is None:
      return {}
    restarts, peak = (float(np.asarray(x)) for x in use)
    if restarts > MANY and not self._warned:
      self._warned = True
      logging.warning(
        "the pool of keys runs dry: %.1f restarts a row, each of which samples the same tokens "
        "again. Raise sampling.cache_gib, or lower sampling.slots.",
        restarts,
      )
    return {"pool/restarts": Mean(restarts, 1.0), "pool/peak": Mean(peak, 1.0)}
