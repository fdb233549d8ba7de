"""HAPO: a response's length against the shortest right answer to its prompt so far.

Source: Huang et al. 2025, arXiv:2505.11225, and its repository. The history is one number a row of
the data set, infinite before the first right answer. All rollouts of a step read the old history.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.by_row import add_to_rows, known_rows, lower_rows, of_prompts, unknown
from lcrl.checks import per_row, same_groups, same_shape
from lcrl.masked import as_float, masked_sum
from lcrl.rewards.base import shaped_with_state
from lcrl.types import Rollouts, Stage

__all__ = [
  "cosine_history",
  "cosine_history_score",
  "hapo",
  "hapo_mean",
  "linear_history",
  "linear_history_score",
  "mean_right_length",
  "shortest_right_length",
]

Score = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def cosine_history_score(
  correct: jax.Array, lengths: jax.Array, history: jax.Array, *, floor: float = -0.7
) -> jax.Array:
  """1 for no tokens, 0 at the history, -1 from twice the history on; 0 without a history.

    f = cos(pi / 2 * min(length / history, 2));  max(floor, f) if right, min(0, f) if wrong

  So a wrong answer never gains by being short. A history of 0 counts as none, as in the code.

  Args:
    correct: [...] bool or 0/1.
    lengths: [...] int.
    history: [...] float, inf where there is none.
  Returns: [...] float.

  >>> history = jnp.full(3, 100.0)
  >>> print(cosine_history_score(jnp.ones(3), jnp.array([0, 200, 300]), history, floor=-1.0))
  [ 1. -1. -1.]
  """
  same_shape(correct=correct, lengths=lengths, history=history)
  known, share = _share(lengths, history)
  f = jnp.cos(0.5 * math.pi * jnp.minimum(share, 2.0))
  score = jnp.where(correct.astype(bool), jnp.maximum(floor, f), jnp.minimum(0.0, f))
  return jnp.where(known, score, 0.0)


def linear_history_score(
  correct: jax.Array,
  lengths: jax.Array,
  history: jax.Array,
  *,
  floor: float = -0.7,
  tolerance: float = 0.1,
) -> jax.Array:
  """The code's linear alternative: 1 - length / history below it, 0 up to `tolerance` above it,
  then falling, to `floor` if right and -1 if wrong; a wrong answer never gains.
  [...] each -> [...].

  >>> history = jnp.full(3, 100.0)
  >>> print(linear_history_score(jnp.ones(3), jnp.array([50, 105, 160]), history))
  [ 0.5  0.  -0.5]
  """
  same_shape(correct=correct, lengths=lengths, history=history)
  known, share = _share(lengths, history)
  correct = correct.astype(bool)
  over = -jnp.maximum(share - (1.0 + tolerance), 0.0)
  short = jnp.where(correct, jnp.maximum(1.0 - share, 0.0), 0.0)
  return jnp.where(known, short + jnp.maximum(over, jnp.where(correct, floor, -1.0)), 0.0)


def _share(lengths, history):
  """(whether a history is known, length / history or a finite stand-in)."""
  history = as_float(history)
  known = jnp.isfinite(history) & (history > 0)
  return known, as_float(lengths) / jnp.where(known, history, 1.0)


def shortest_right_length(
  history: jax.Array, correct: jax.Array, lengths: jax.Array, valid: jax.Array
) -> jax.Array:
  """The history with this group: min(history, lengths of its right answers).

  [...], [..., G] each -> [...].

  >>> correct, lengths = jnp.array([[True, False]]), jnp.array([[6, 3]])
  >>> print(shortest_right_length(jnp.array([9.0]), correct, lengths, jnp.ones((1, 2), bool)))
  [6.]
  """
  _check(dict(correct=correct, lengths=lengths, valid=valid), history=history)
  right = correct.astype(bool) & valid
  return jnp.minimum(history, jnp.min(jnp.where(right, as_float(lengths), jnp.inf), -1))


def mean_right_length(
  mean: jax.Array, count: jax.Array, correct: jax.Array, lengths: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Running mean and count of right answers' lengths with this group; inf while the count is 0.

  The released code repeats this update once for every rollout. [...], [...], [..., G] each.

  >>> correct, lengths = jnp.array([[True, True, False]]), jnp.array([[10, 20, 99]])
  >>> mean = jnp.array([30.0])
  >>> print(*mean_right_length(mean, jnp.array([2.0]), correct, lengths, jnp.ones((1, 3), bool)))
  [22.5] [4.]
  """
  _check(dict(correct=correct, lengths=lengths, valid=valid), mean=mean, count=count)
  right = correct.astype(bool) & valid
  total = jnp.where(count > 0, as_float(mean) * count, 0.0) + masked_sum(lengths, right, -1)
  count = count + jnp.sum(right, -1)
  return _mean(total, count), count


def _check(groups, **rows):
  same_groups(**groups)
  per_row(groups, **rows)


def _mean(total, count):
  return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.inf)


def cosine_history(*, floor: float = -0.7) -> Score:
  """`cosine_history_score`, for the argument `score` of `hapo`."""
  return partial(cosine_history_score, floor=floor)


def linear_history(*, floor: float = -0.7, tolerance: float = 0.1) -> Score:
  """`linear_history_score`, for the argument `score` of `hapo`.

  >>> score = linear_history(floor=-0.2)
  >>> print(score(jnp.ones(2), jnp.array([50, 200]), jnp.full(2, 100.0)))
  [ 0.5 -0.2]
  """
  return partial(linear_history_score, floor=floor, tolerance=tolerance)


def hapo(
  *,
  rows: int,
  weight: float = 1.0,
  score: Score = cosine_history_score,
  base: Stage | None = None,
) -> Stage:
  """HAPO (arXiv:2505.11225): r = correct + weight * score against the prompt's shortest right
  answer so far.

  With weight at most 1 the worst right answer (0.3) still outranks the best wrong one (0).
  State: [rows] float32, one a row of the data set.
  """

  def shape(history, rewards, r: Rollouts):
    terms = weight * score(r.correct, r.lengths, of_prompts(history, r))
    none = jnp.full(r.prompt_ids.shape, jnp.inf)
    shortest = shortest_right_length(none, r.correct, r.lengths, r.valid)
    history = lower_rows(history, r.prompt_ids, shortest.astype(history.dtype))
    return rewards + terms, history

  stage = shaped_with_state(
    base,
    partial(unknown, rows),
    shape,
    targets=_targets("hapo"),
    numbers=partial(known_rows, "hapo"),
  )
  return stage._replace(rows=rows)


class RightLengths(NamedTuple):
  total: jax.Array  # [rows] float32, tokens of all right answers so far
  answers: jax.Array  # [rows] int32, right answers so far


def hapo_mean(
  *,
  rows: int,
  weight: float = 1.0,
  score: Score = cosine_history_score,
  base: Stage | None = None,
) -> Stage:
  """`hapo` against the mean length of the prompt's right answers so far.

  >>> hapo_mean(rows=3).rows
  3
  """

  def init():
    return RightLengths(jnp.zeros(rows, jnp.float32), jnp.zeros(rows, jnp.int32))

  def shape(state, rewards, r: Rollouts):
    history = _mean(state.total, state.answers)
    terms = weight * score(r.correct, r.lengths, of_prompts(history, r))
    right = r.correct & r.valid
    tokens = masked_sum(r.lengths, right, -1).astype(state.total.dtype)
    total = add_to_rows(state.total, r.prompt_ids, tokens)
    count = add_to_rows(state.answers, r.prompt_ids, jnp.sum(right, -1, dtype=jnp.int32))
    return rewards + terms, RightLengths(total, count)

  of = lambda state: _mean(state.total, state.answers)
  stage = shaped_with_state(
    base,
    init,
    shape,
    targets=lambda state, r: _targets("hapo_mean")(of(state), r),
    numbers=lambda state: known_rows("hapo_mean", of(state)),
  )
  return stage._replace(rows=rows)


def _targets(name: str):
  return lambda history, r: {name: of_prompts(history, r)}
