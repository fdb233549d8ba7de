"""Train Long, Think Short: a length score around a shrinking budget, for right and wrong answers.

Source: Hammoud et al. 2025, arXiv:2508.08940. The budget's schedule is in `lcrl.budgets`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.masked import as_float
from lcrl.rewards.base import budget_target, compared
from lcrl.types import Stage

__all__ = [
  "band",
  "band_score",
  "curriculum",
  "curriculum_reward",
  "triangular",
  "triangular_score",
]

Score = Callable[[jax.Array, jax.Array], jax.Array]


def triangular_score(lengths: jax.Array, targets: jax.Array, *, peak: float = 1.0) -> jax.Array:
  """Rises to `peak` at the target and falls to 0 at twice the target. [...], [...] -> [...].

  >>> print(triangular_score(jnp.array([5, 10, 15, 30]), jnp.full(4, 10)))
  [0.5 1.  0.5 0. ]
  """
  same_shape(lengths=lengths, targets=targets)
  return peak * jnp.maximum(1.0 - jnp.abs(as_float(lengths) / as_float(targets) - 1.0), 0.0)


def band_score(lengths: jax.Array, targets: jax.Array, *, peak: float = 1.0) -> jax.Array:
  """`peak` up to the target, then down to 0 at twice the target. [...], [...] -> [...].

  >>> print(band_score(jnp.array([5, 10, 15, 30]), jnp.full(4, 10)))
  [1.  1.  0.5 0. ]
  """
  same_shape(lengths=lengths, targets=targets)
  return peak * jnp.clip(2.0 - as_float(lengths) / as_float(targets), 0.0, 1.0)


def curriculum_reward(
  correct: jax.Array,
  length_scores: jax.Array,
  has_think: jax.Array,
  has_answer: jax.Array,
  *,
  right: float = 1.0,
  think: float = 0.5,
  answer: float = 0.5,
  correct_weight: float = 0.6,
  length_weight: float = 0.3,
  format_weight: float = 0.1,
) -> jax.Array:
  """Weighted sum of verdict, length score and format. [...] each -> [...].

    r = correct_weight * right * correct + length_weight * length_score
        + format_weight * (think * has_think + answer * has_answer)

  A wrong answer of the requested length gets the whole length score. The paper's ablations weigh
  0.6, 0.3 and 0.3, 0.6; its main weights, `right`, `think` and `answer` are not given.

  >>> right, score, yes = jnp.array([1, 0]), jnp.array([0.5, 1.0]), jnp.array([True, True])
  >>> print(curriculum_reward(right, score, yes, yes))
  [0.85 0.4 ]
  """
  same_shape(
    correct=correct, length_scores=length_scores, has_think=has_think, has_answer=has_answer
  )
  form = think * as_float(has_think) + answer * as_float(has_answer)
  return (
    correct_weight * right * as_float(correct)
    + length_weight * as_float(length_scores)
    + format_weight * form
  )


def triangular(*, peak: float = 1.0) -> Score:
  """`triangular_score`, for the argument `score` of `curriculum`."""
  return partial(triangular_score, peak=peak)


def band(*, peak: float = 1.0) -> Score:
  """`band_score`, for the argument `score` of `curriculum`.

  >>> print(band(peak=2.0)(jnp.array([10, 15]), jnp.array([10, 10])))
  [2. 1.]
  """
  return partial(band_score, peak=peak)


def curriculum(
  *,
  score: Score = triangular_score,
  right: float = 1.0,
  think: float = 0.5,
  answer: float = 0.5,
  correct_weight: float = 0.6,
  length_weight: float = 0.3,
  format_weight: float = 0.1,
) -> Stage:
  """`curriculum_reward` around `budget.target`; needs the format signals if they weigh anything.

  A truncated response counts as one token longer than its cap.
  """
  needs = ("has_think", "has_answer") if format_weight else ()
  reward = partial(
    curriculum_reward,
    right=right,
    think=think,
    answer=answer,
    correct_weight=correct_weight,
    length_weight=length_weight,
    format_weight=format_weight,
  )

  def apply(state, r):
    flags = [r.signals[name] for name in needs] or [jnp.zeros_like(r.correct)] * 2
    return reward(r.correct, score(r.lengths + r.truncated, r.budget.target), *flags), state

  targets = lambda state, r: compared(budget_target("curriculum")(r), r)
  return Stage(init=lambda: (), apply=apply, needs=(*needs, "truncated"), targets=targets)
