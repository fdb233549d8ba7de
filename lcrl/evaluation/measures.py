"""Measures of sampled, verified answers: accuracy, tokens, and the spread of tokens.

All read the verifier's verdicts, never a shaped reward. numpy in float64, on the host.
B prompts, G answers each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lcrl.evaluation.intervals import accuracy_estimate, mean_estimate
from lcrl.types import end_name

__all__ = ["cap_saturation", "ecdf", "length_summary", "measure", "pass_at_k", "within_prompt_var"]


def _finite(x: float) -> float | None:
  return float(x) if np.isfinite(x) else None


def _mean(values: np.ndarray) -> float | None:
  return float(values.mean()) if values.size else None


def _point(correct, lengths, valid, truncated, shortest, end, thinking_cut) -> dict[str, Any]:
  accuracy = None if correct is None else accuracy_estimate(correct, valid)
  tokens = mean_estimate(lengths, valid)
  right, wrong = (None, None) if correct is None else (valid & correct, valid & ~correct)
  point: dict[str, Any] = {
    "accuracy": accuracy and accuracy.value,
    "accuracy_ci": [_finite(end) for end in accuracy[1:]] if accuracy else [None, None],
    "tokens": tokens.value,
    "tokens_ci": [_finite(max(tokens.low, 0.0)), _finite(tokens.high)],
    "n": int(valid.sum()),
    "tokens_right": None if right is None else _mean(lengths[right]),
    "tokens_wrong": None if wrong is None else _mean(lengths[wrong]),
  }
  if truncated is not None:
    point["truncated"] = _mean(truncated[valid])
  if end is not None:
    point["ends"] = {end_name(x): _mean(end[valid] == x) for x in np.unique(end[valid]).tolist()}
  if thinking_cut is not None:
    point["thinking_cut"] = _mean(thinking_cut[valid])
  if shortest is not None and right is not None:
    point["excess_tokens"] = _mean((lengths - shortest[:, None])[right])
  return point


def measure(
  correct: ArrayLike | None,
  lengths: ArrayLike,
  difficulty: ArrayLike,
  *,
  valid: ArrayLike | None = None,
  truncated: ArrayLike | None = None,
  shortest: ArrayLike | None = None,
  end: ArrayLike | None = None,
  thinking_cut: ArrayLike | None = None,
) -> dict[str, Any]:
  """One evaluation as plain numbers, over all prompts and by difficulty.

  Args:
    correct: [B, G] bool, the verifier's verdicts; None without a verifier: then accuracy,
      tokens_right and tokens_wrong are None, too.
    lengths: [B, G] int, sampled tokens including the end token.
    difficulty: [B] int, as the task counts it.
    valid: [B, G] bool, answers that count; all if None.
    truncated: [B, G] bool, answers that met the cap.
    shortest: [B] int, tokens of the shortest correct answer, where the task knows it.
    end: [B, G] int, why answers ended (`lcrl.types.EndReason`).
    thinking_cut: [B, G] bool, answers whose thinking met its budget.
  Returns: accuracy, accuracy_ci, tokens, tokens_ci (95 %, prompts as clusters; None where one
    prompt leaves nothing to judge by), n answers, tokens_right, tokens_wrong (None without such
    answers), truncated (a share), ends (shares by the name of the reason), thinking_cut (a share),
    excess_tokens (length above the shortest, right answers only), and by_difficulty, the same for
    each difficulty; what is not given is not there.

  >>> m = measure([[1, 0], [1, 1]], [[9, 4], [5, 6]], [3, 2], shortest=[7, 5])
  >>> m["accuracy"], m["tokens"], m["tokens_wrong"], m["excess_tokens"]
  (0.75, 6.0, 4.0, 1.0)
  >>> m["by_difficulty"]["2"]["tokens"]
  5.5
  """
  lengths, difficulty = np.asarray(lengths, np.int64), np.asarray(difficulty)
  correct = None if correct is None else np.asarray(correct, bool)
  shape = lengths.shape if correct is None else correct.shape
  valid = np.ones(shape, bool) if valid is None else np.asarray(valid, bool)
  truncated = None if truncated is None else np.asarray(truncated, bool)
  shortest = None if shortest is None else np.asarray(shortest, np.int64)
  if not shape == lengths.shape == valid.shape or difficulty.shape != shape[:1]:
    raise ValueError(
      "correct, lengths and valid must be [B, G] and difficulty [B], got "
      f"{shape}, {lengths.shape}, {valid.shape} and {difficulty.shape}."
    )

  def at(rows: np.ndarray) -> dict[str, Any]:
    of = lambda x: None if x is None else np.asarray(x)[rows]
    return _point(*map(of, (correct, lengths, valid, truncated, shortest, end, thinking_cut)))

  levels = np.unique(difficulty[valid.any(1)])
  by_difficulty = {str(d): at(difficulty == d) for d in levels}
  return {**at(np.ones(len(difficulty), bool)), "by_difficulty": by_difficulty}


def pass_at_k(n: ArrayLike, c: ArrayLike, *, k: int) -> np.ndarray:
  """Chance that k of n answers, c of them right, hold a right one; unbiased. [...] -> [...].

    1 - C(n - c, k) / C(n, k) = 1 - prod_{i < k} (n - c - i) / (n - i),  1 where n - c < k

  Source: Chen et al. 2021, arXiv:2107.03374.

  >>> print(pass_at_k(4, [0, 1, 2, 3], k=2))
  [0.         0.5        0.83333333 1.        ]
  """
  n, c = np.broadcast_arrays(np.asarray(n, np.float64), np.asarray(c, np.float64))
  if k < 1 or (n < k).any():
    raise ValueError(f"k must lie between 1 and the number of answers, got {k} of {n.min():.0f}.")
  i = np.arange(k)
  return 1 - np.prod(np.maximum(n[..., None] - c[..., None] - i, 0) / (n[..., None] - i), axis=-1)


def cap_saturation(lengths: ArrayLike, threshold: float) -> float:
  """Share of answers with length >= threshold; at the cap, the share that may be cut short.

  Source: BenchOverflow, 2026, CSR@k.

  >>> cap_saturation([100, 400, 500, 500], 500)
  0.5
  """
  return float(np.mean(np.asarray(lengths) >= threshold))


def ecdf(lengths: ArrayLike, at: ArrayLike) -> np.ndarray:
  """Share of answers with length <= at, over all of `lengths`. [...], [K] -> [K]

  >>> print(ecdf([100, 400, 500, 500], [99, 400, 500]))
  [0.  0.5 1. ]
  """
  ordered = np.sort(np.asarray(lengths), axis=None)
  return np.searchsorted(ordered, at, side="right") / ordered.size


def within_prompt_var(lengths: ArrayLike, *, ddof: int = 1) -> np.ndarray:
  """Variance of length over the answers to one prompt. [B, G] -> [B]

  >>> print(within_prompt_var([[1, 3], [5, 5]]))
  [2. 0.]
  """
  return np.var(np.asarray(lengths, np.float64), axis=-1, ddof=ddof)


def length_summary(lengths: ArrayLike, *, cap: int) -> dict[str, Any]:
  """The spread of length over answers: what a mean hides. Percentiles interpolate linearly.

  Source: CASTILLO, arXiv:2505.16881. `std` divides by n, `std_sample` by n - 1 (None for one
  answer), `cv` is std / mean, `hit_cap` says that an answer reached the cap.

  >>> s = length_summary([2, 4, 9], cap=9)
  >>> s["mean"], s["p50"], s["hit_cap"]
  (5.0, 4.0, True)
  """
  x = np.asarray(lengths, np.float64).ravel()
  if not x.size:
    raise ValueError("lengths is empty.")
  percentiles = {f"p{q}": float(np.percentile(x, q)) for q in (25, 50, 75, 99)}
  return {
    "mean": float(x.mean()),
    "std": float(x.std()),
    "std_sample": float(x.std(ddof=1)) if x.size > 1 else None,
    **percentiles,
    "min": int(x.min()),
    "max": int(x.max()),
    "cv": float(x.std() / x.mean()) if x.mean() > 0 else 0.0,
    "hit_cap": bool(x.max() >= cap),
  }
