"""Laws of accuracy: in steps of reasoning, in model size, in tokens of a growing thought."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import lambertw

__all__ = [
  "PowerLaw",
  "best_steps",
  "episode_progress",
  "episode_regret",
  "pass_law",
  "pass_until",
  "quadratic_peak",
  "steps_accuracy",
  "token_regret",
]


def steps_accuracy(
  steps: ArrayLike, *, operators: float, capability: float, noise_scale: float, alpha: float = 1.0
) -> np.ndarray:
  """The inverted U: few steps are each too hard, many steps are each a chance to slip.

    alpha * ((1 - T / (N M)) * (1 - T / C))^N,  for N > T / M steps

  Source: When More is Less, arXiv:2502.07266.

  Args:
    steps: N, [...] steps of reasoning.
    operators: T, in the task.
    capability: M, operators that the model can do in a step.
    noise_scale: C; a step slips with probability T / C.
    alpha: accuracy without errors.

  >>> print(steps_accuracy([4, 8, 16], operators=4, capability=2, noise_scale=400).round(3))
  [0.06  0.092 0.101]
  """
  n = np.asarray(steps, np.float64)
  step = (1 - operators / (n * capability)) * (1 - operators / noise_scale)
  return alpha * np.maximum(step, 0) ** n


def best_steps(*, operators: float, capability: float, noise_scale: float) -> float:
  """The steps at which `steps_accuracy` peaks: T Z / (M (Z + 1)), Z = W_-1(-(1 - T / C) / e).

  >>> round(best_steps(operators=32, capability=4, noise_scale=600), 3)
  29.704
  """
  z = lambertw(-(1 - operators / noise_scale) / math.e, k=-1).real
  return float(operators * z / (capability * (z + 1)))


def quadratic_peak(lengths: ArrayLike, accuracy: ArrayLike) -> tuple[np.ndarray, float]:
  """Parabola through accuracy by length: coefficients, highest first, and where it peaks.

  The point is a peak only where the first coefficient is negative.

  >>> coefficients, peak = quadratic_peak([1, 2, 3], [0.0, 1.0, 0.0])
  >>> round(peak, 6), bool(coefficients[0] < 0)
  (2.0, True)
  """
  a, b, c = np.polyfit(np.asarray(lengths, np.float64), np.asarray(accuracy, np.float64), 2)
  return np.array([a, b, c]), float(-b / (2 * a))


def pass_until(draws: int, *, passes: int) -> tuple[float, float | None]:
  """Pass probability from drawing until so many passes: likeliest r / K, unbiased (r-1) / (K-1).

  The second is None for one pass. Source: PassUntil, arXiv:2310.03262.

  >>> pass_until(11, passes=3)
  (0.2727272727272727, 0.2)
  """
  if not 1 <= passes <= draws:
    raise ValueError(f"passes must lie between 1 and draws, got {passes} of {draws}.")
  return passes / draws, (passes - 1) / (draws - 1) if passes > 1 else None


class PowerLaw(NamedTuple):
  """log(-log p) = intercept + slope log N, that is p = exp(-c N^-alpha)."""

  values: np.ndarray  # [K] log(-log p)
  slope: float
  intercept: float

  @property
  def alpha(self) -> float:
    return -self.slope

  @property
  def c(self) -> float:
    return math.exp(self.intercept)


def pass_law(sizes: ArrayLike, passes: ArrayLike) -> PowerLaw:
  """Least-squares fit of p = exp(-c N^-alpha) to pass probabilities by model size. [K], [K]

  Source: PassUntil, arXiv:2310.03262.

  >>> law = pass_law([10.0, 100.0], [0.9, 0.99])
  >>> print(round(law.alpha, 3))
  1.02
  """
  n, p = np.asarray(sizes, np.float64), np.asarray(passes, np.float64)
  if not ((p > 0) & (p < 1)).all():
    raise ValueError(f"pass probabilities must lie between 0 and 1, got {p}.")
  values = np.log(-np.log(p))
  slope, intercept = np.polyfit(np.log(n), values, 1)
  return PowerLaw(values, float(slope), float(intercept))


def token_regret(tokens: ArrayLike, pass_at_1: ArrayLike, *, budget: float) -> float:
  """Share of the budget's area that accuracy so far leaves open. [K], [K] -> number

    1 - area / budget, the area under the line from (0, 0) through (tokens, pass_at_1),
    flat after its last point, cut at the budget

  Source: MRT, arXiv:2503.07572, `regret.ipynb`.

  >>> token_regret([500, 1000], [1.0, 1.0], budget=1000)
  0.25
  """
  x = np.concatenate([[0.0], np.asarray(tokens, np.float64)])
  y = np.concatenate([[0.0], np.asarray(pass_at_1, np.float64)])
  if (np.diff(x) <= 0).any():
    raise ValueError(f"tokens must be positive and grow, got {x[1:]}.")
  ends = np.append(x[x < budget], budget)
  return float(1 - np.trapezoid(np.interp(ends, x, y), ends) / budget)


def episode_regret(optimal: ArrayLike, achieved: ArrayLike) -> float:
  """Cumulative regret over episodes, sum_j (J*_j - J_j). [..., K] -> number, mean over the rest

  Source: MRT, arXiv:2503.07572.

  >>> round(episode_regret([1.0, 1.0], [0.5, 0.75]), 6)
  0.75
  """
  gap = np.asarray(optimal, np.float64) - np.asarray(achieved, np.float64)
  return float(gap.sum(-1).mean())


def episode_progress(achieved: ArrayLike) -> np.ndarray:
  """What each episode added, J_j - J_{j-1} with J_{-1} = 0. [..., K] -> [..., K]

  >>> print(episode_progress([0.5, 0.75]))
  [0.5  0.25]
  """
  return np.diff(np.asarray(achieved, np.float64), axis=-1, prepend=0.0)
