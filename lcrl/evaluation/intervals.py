"""Means with intervals, for answers that are alike within a prompt and differ between prompts.

B prompts with G answers each are B clusters, not B * G independent draws: an interval that forgets
this is too narrow by up to sqrt(G). Everything here is numpy in float64, on the host.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

__all__ = ["Estimate", "accuracy_estimate", "difference", "mean_estimate", "seed_estimate"]


class Estimate(NamedTuple):
  """A mean and its interval. The ends are nan if there is only one cluster."""

  value: float
  low: float
  high: float


class _Clustered(NamedTuple):
  mean: float
  variance: float  # of the mean
  clusters: int
  samples: int


def _clustered(values: ArrayLike, valid: ArrayLike | None) -> _Clustered:
  values = np.asarray(values, np.float64)
  valid = np.ones(values.shape, bool) if valid is None else np.asarray(valid, bool)
  if values.ndim != 2 or valid.shape != values.shape:
    raise ValueError(
      f"values and valid must be [prompts, samples], got {values.shape} and {valid.shape}."
    )
  counts = valid.sum(1)
  samples, clusters = int(counts.sum()), int((counts > 0).sum())
  if not samples:
    raise ValueError(f"there is no valid sample among the {values.size} given.")
  totals = np.where(valid, values, 0.0).sum(1)
  mean = totals.sum() / samples
  spread = np.sum((totals - mean * counts) ** 2) / samples**2
  variance = spread * clusters / (clusters - 1) if clusters > 1 else math.nan
  return _Clustered(float(mean), float(variance), clusters, samples)


def _quantile(clusters: int, level: float) -> float:
  if not 0 < level < 1:
    raise ValueError(f"level must lie between 0 and 1, got {level}.")
  return float(stdtrit(clusters - 1, (1 + level) / 2)) if clusters > 1 else math.nan


def mean_estimate(
  values: ArrayLike, valid: ArrayLike | None = None, *, level: float = 0.95
) -> Estimate:
  """Mean over samples, with a t interval whose variance is robust to clusters.

    mean = sum(y) / n,  var = B / (B - 1) * sum_b (sum_g (y_bg - mean))^2 / n^2,  B - 1 degrees

  Source: Liang & Zeger 1986; Miller 2024, arXiv:2411.00640, section 2.2, for language models.

  Args:
    values: [B, G], G answers to each of B prompts.
    valid: [B, G] bool, answers that count; all if None. Groups may be ragged.
    level: share of such intervals that holds the true mean.

  >>> mean, low, high = mean_estimate([[1, 3], [5, 7], [9, 11]])
  >>> print(f"{mean:.1f} {low:.2f} {high:.2f}")
  6.0 -3.94 15.94
  """
  c = _clustered(values, valid)
  half = _quantile(c.clusters, level) * math.sqrt(c.variance)
  return Estimate(c.mean, c.mean - half, c.mean + half)


def accuracy_estimate(
  correct: ArrayLike, valid: ArrayLike | None = None, *, level: float = 0.95
) -> Estimate:
  """Share of right answers, with a Wilson interval on the effective number of answers.

    n_eff = p (1 - p) / var, at most n;  B where all answers are right or all are wrong

  with `var` as in `mean_estimate` and its t quantile in place of the normal one. Unlike the t
  interval it stays inside [0, 1] and keeps a width when everything is right.
  Source: Wilson 1927 with the effective sample size of Korn & Graubard 1998.

  Args:
    correct: [B, G] bool, or shares in [0, 1]: G answers to each of B prompts.
    valid: [B, G] bool, answers that count; all if None.

  >>> p, low, high = accuracy_estimate([[True, True]] * 20)
  >>> print(f"{p:.2f} {low:.2f} {high:.2f}")
  1.00 0.82 1.00
  """
  c = _clustered(correct, valid)
  p, binomial = c.mean, c.mean * (1 - c.mean)
  if c.clusters < 2:
    return Estimate(p, math.nan, math.nan)
  if binomial == 0:
    n = float(c.clusters)
  else:
    n = c.samples if c.variance == 0 else min(c.samples, binomial / c.variance)
  z2 = _quantile(c.clusters, level) ** 2
  centre = (p + z2 / (2 * n)) / (1 + z2 / n)
  half = math.sqrt(z2 * (binomial / n + z2 / (4 * n**2))) / (1 + z2 / n)
  return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def seed_estimate(values: ArrayLike, *, level: float = 0.95) -> Estimate:
  """Mean over seeds with a t interval over seeds: what another seed would give. [S].

  It holds all that differs between runs, training included, and is wide for few seeds.

  >>> print("{:.1f} {:.2f} {:.2f}".format(*seed_estimate([9.0, 10.0, 11.0])))
  10.0 7.52 12.48
  """
  return mean_estimate(np.asarray(values, np.float64)[:, None], level=level)


def difference(a: Estimate, b: Estimate) -> Estimate:
  """a - b for independent estimates, from their intervals alone; these may be lopsided.

    low = d - sqrt((a - low_a)^2 + (high_b - b)^2),  high = d + sqrt((high_a - a)^2 + (b - low_b)^2)

  Source: the square-and-add method, Newcombe 1998; MOVER, Zou & Donner 2008.

  >>> print("{:.0f} {:.0f} {:.0f}".format(*difference(Estimate(9, 6, 12), Estimate(5, 1, 9))))
  4 -1 9
  """
  d = a.value - b.value
  low = d - math.hypot(a.value - a.low, b.high - b.value)
  high = d + math.hypot(a.high - a.value, b.value - b.low)
  return Estimate(d, low, high)
