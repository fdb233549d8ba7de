"""AlpacaEval 2's length-controlled win rate: the rate if all answers were equally long.

Source: arXiv:2404.04475; tatsu-lab/alpaca_eval, `metrics/glm_winrate.py`. Each model is fitted on
its own; rates are in percent. numpy in float64, on the host.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
  "Gamed",
  "LengthControlled",
  "WinRate",
  "extreme_change",
  "length_controlled_win_rate",
  "standard_length_difference",
  "win_rate",
  "win_rate_against",
]

GRID = np.logspace(-4, 4, 10)  # of C, for `choose_strength`
FOLDS = 5


class WinRate(NamedTuple):
  """How often the judge prefers the model, before any correction."""

  rate: float
  standard_error: float
  wins: int
  losses: int
  draws: int
  discrete_rate: float  # draws count half, everything else is a win or a loss


def win_rate(preference: ArrayLike) -> WinRate:
  """Raw win rate. `preference` [N]: 2 the model is better, 1 the baseline; 1.5 and 0 are draws.

  >>> win_rate([2.0, 1.25, 1.5, 1.25]).rate
  50.0
  """
  y = _wins(preference)
  wins, draws = int(np.sum(y > 0.5)), int(np.sum(y == 0.5))
  error = 100 * np.std(y, ddof=1) / np.sqrt(y.size)
  discrete = 100 * (wins + draws / 2) / y.size
  return WinRate(100 * float(y.mean()), float(error), wins, y.size - wins - draws, draws, discrete)


def _wins(preference: ArrayLike) -> np.ndarray:
  c = np.asarray(preference, np.float64)
  return np.where(c == 0, 1.5, c) - 1


def standard_length_difference(lengths: ArrayLike, baseline: ArrayLike) -> np.ndarray:
  """(baseline - length) / its sample deviation, not centred; 0 where all differences agree. [N]

  >>> print(standard_length_difference([3, 5], [5, 5]).round(3))
  [1.414 0.   ]
  """
  gap = np.asarray(baseline, np.float64) - np.asarray(lengths, np.float64)
  spread = np.std(gap, ddof=1)
  return gap / spread if spread > 0 else np.zeros_like(gap)


class Gamed(NamedTuple):
  """The baseline asked to be verbose or concise, judged against itself: a block each, K blocks."""

  length_difference: np.ndarray  # [K, N], as `standard_length_difference`
  wins: np.ndarray  # [K, N], in [0, 1]


class LengthControlled(NamedTuple):
  """A win rate at equal lengths, and the logistic model that it was computed with."""

  rate: float  # in [0, 1]
  standard_error: float  # over instructions; the fit's own noise is not in it
  weights: np.ndarray  # of tanh(length difference), of difficulty (if used) and of the model
  strength: float  # C


def length_controlled_win_rate(
  preference: ArrayLike,
  lengths: ArrayLike,
  baseline_lengths: ArrayLike,
  difficulty: ArrayLike | None = None,
  gamed: Gamed | None = None,
  *,
  strength: float | None = None,
  gamed_weight: float = 0.2,
) -> LengthControlled:
  """Fits P(win) = sigmoid(w . x) and predicts with the length term removed.

    x = [tanh(z), difficulty, 1 for the model's own rows],  z the standard length difference
    minimise |w|_1 + C sum_i s_i logistic_loss_i,  s = 1, and gamed_weight / 2 for gamed rows
    100 mean(sigmoid(w_difficulty difficulty + w_model))

  Args:
    preference: [N] in [1, 2], or 0 for a draw.
    lengths, baseline_lengths: [N] characters.
    difficulty: [N] of the instructions, fixed in advance; without it ("minimal") the standard
      error is 0.
    gamed: rows that keep the length effect near the baseline's; None: unregularised.
    strength: C; None chooses it by cross-validation as the official code does.
    gamed_weight: lambda, over both gamed blocks together.
  """
  z, y = standard_length_difference(lengths, baseline_lengths), _wins(preference)
  gamma = None if difficulty is None else np.asarray(difficulty, np.float64)
  x, s = _features(z, gamma, own=True), np.ones(y.size)
  if gamed is not None:
    blocks = [_features(block, gamma, own=False) for block in gamed.length_difference]
    x = np.concatenate([*blocks, x])
    y = np.concatenate([np.ravel(gamed.wins), y])
    s = np.concatenate([np.full(y.size - s.size, gamed_weight / 2), s])
  if strength is None:
    strength = choose_strength(x, y, s)
  weights = fit(x, y, s, strength)
  chance = 100 * _sigmoid(_features(np.zeros(z.size), gamma, own=True) @ weights)
  error = np.std(chance, ddof=1) / np.sqrt(chance.size)
  return LengthControlled(float(chance.mean()), float(error), weights, float(strength))


def _features(z: np.ndarray, difficulty: np.ndarray | None, *, own: bool) -> np.ndarray:
  columns = [np.tanh(z), *([] if difficulty is None else [difficulty]), np.full(len(z), float(own))]
  return np.stack(columns, 1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
  return np.exp(-np.logaddexp(0.0, -x))


def fit(
  x: np.ndarray, y: np.ndarray, s: np.ndarray, strength: float, *, tolerance: float = 1e-9
) -> np.ndarray:
  """argmin_w |w|_1 + C sum_i s_i (log(1 + e^(w.x_i)) - y_i w.x_i), by proximal Newton steps.

  Args:
    x: [N, D] features.
    y: [N] labels in [0, 1].
    s: [N] weights of the rows.
    strength: C.
    tolerance: the last step's largest entry.
  Returns: [D].
  """

  def objective(w):
    logits = x @ w
    return np.abs(w).sum() + strength * np.sum(s * (np.logaddexp(0.0, logits) - y * logits))

  w = np.zeros(x.shape[1])
  for _ in range(200):
    p = _sigmoid(x @ w)
    gradient = strength * (x.T @ (s * (p - y)))
    hessian = strength * (x.T * (s * p * (1 - p))) @ x + 1e-12 * np.eye(len(w))
    step = _lasso_step(w, gradient, hessian)
    if np.abs(step).max() < tolerance:
      return w
    now, size = objective(w), 1.0
    while objective(w + size * step) > now * (1 + 1e-12) and size > 1e-10:  # but for rounding
      size /= 2
    w = w + size * step
  raise ValueError(f"the fit did not settle: its last step was {np.abs(step).max():.1e}.")


def _lasso_step(w: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray:
  """argmin_d gradient.d + d.hessian.d / 2 + |w + d|_1, one coordinate after the other."""
  d = np.zeros_like(w)
  for _ in range(10_000):
    before = d.copy()
    for i, curvature in enumerate(np.diag(hessian)):
      slope = gradient[i] + hessian[i] @ d - curvature * d[i]
      target = w[i] - slope / curvature
      d[i] = np.sign(target) * max(abs(target) - 1 / curvature, 0.0) - w[i]
    if np.abs(d - before).max() < 1e-13:
      break
  return d


def choose_strength(x: np.ndarray, y: np.ndarray, s: np.ndarray) -> float:
  """The C of `GRID` with the least held-out loss; row i is held out in fold i mod 5."""
  fold = np.arange(len(y)) % FOLDS

  def held_out_loss(strength: float) -> float:
    losses = []
    for k in range(FOLDS):
      train, test = fold != k, fold == k
      p = _sigmoid(x[test] @ fit(x[train], y[train], s[train], strength))
      p = np.clip(p, 1e-15, 1 - 1e-15)
      losses.append(np.mean(s[test] * -(y[test] * np.log(p) + (1 - y[test]) * np.log(1 - p))))
    return float(np.mean(losses))

  return float(min(GRID, key=held_out_loss))


def win_rate_against(weights: ArrayLike, rival: ArrayLike, difficulty: ArrayLike) -> float:
  """Length-controlled win rate in percent against another fitted model.

    100 mean(sigmoid((w_model - v_model) + (w_difficulty - v_difficulty) difficulty))

  Args:
    weights, rival: [3] of the two fits: length, difficulty, model.
    difficulty: [N] of the instructions.

  >>> win_rate_against([-1.0, 0.5, 0.2], [-2.0, 0.5, 0.2], [0.3, -0.3])
  50.0
  """
  _, slope, offset = np.asarray(weights, np.float64) - np.asarray(rival, np.float64)
  return 100 * float(np.mean(_sigmoid(offset + slope * np.asarray(difficulty, np.float64))))


def extreme_change(raw: float, controlled: float, *, points: float = 10, share: float = 4) -> bool:
  """Whether length control moved a rate so far that the fit deserves a look.

  Beyond both `points` percentage points and a `share`-th of the room there was.

  >>> extreme_change(50, 37), extreme_change(50, 60)
  (True, False)
  """
  low = min(raw - raw / share, raw - points)
  high = max(raw + (100 - raw) / share, raw + points)
  return not low <= controlled <= high
