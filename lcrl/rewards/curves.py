"""Curves over length up to the generation limit: no target, no comparison with the group."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape, typed
from lcrl.masked import as_float
from lcrl.rewards.base import ended_length, shaped
from lcrl.types import Stage

__all__ = [
  "cosine_length",
  "cosine_length_reward",
  "format_length",
  "format_length_reward",
  "length_range",
  "length_range_reward",
  "turning_score",
  "word_range",
]


def cosine_length_reward(
  correct: jax.Array,
  lengths: jax.Array,
  *,
  max_length: float,
  right: tuple[float, float] = (2.0, 1.0),
  wrong: tuple[float, float] = (-10.0, 0.0),
  exceed: float = -10.0,
  margin: int = 16,
  shortest: float = 0.0,
) -> jax.Array:
  """Half a cosine from the value at no tokens to the value at `max_length`, one for each verdict.

    r = at_max + (at_0 - at_max) / 2 * (1 + cos(pi * length / max_length))
    r = exceed, right or wrong, if length + margin >= max_length

  Source: Demystifying Long CoT, arXiv:2502.03373 (max_length 14336). A wrong answer gains by being
  long, an incentive to think on. `shortest` counts a shorter right answer as that long: Light-R1,
  arXiv:2503.10460, which prints no formula; this is our reading, unverified.

  Args:
    correct: [...] bool or 0/1.
    lengths: [...] int.
    right, wrong: (value at no tokens, value at `max_length`).
  Returns: [...] float.

  >>> lengths = jnp.array([0, 50, 90])
  >>> print(cosine_length_reward(jnp.ones(3), lengths, max_length=100))
  [  2.    1.5 -10. ]
  """
  same_shape(correct=correct, lengths=lengths)
  correct, lengths = correct.astype(bool), as_float(lengths)
  at_start, at_max = (jnp.where(correct, *pair) for pair in zip(right, wrong, strict=True))
  share = jnp.where(correct, jnp.maximum(lengths, shortest), lengths) / max_length
  curve = at_max + 0.5 * (at_start - at_max) * (1.0 + jnp.cos(math.pi * share))
  return jnp.where(lengths + margin >= max_length, exceed, curve)


def cosine_length(
  *,
  max_length: float,
  right: tuple[float, float] = (2.0, 1.0),
  wrong: tuple[float, float] = (-10.0, 0.0),
  exceed: float = -10.0,
  margin: int = 16,
  shortest: float = 0.0,
) -> Stage:
  """The stage of `cosine_length_reward`."""
  reward = partial(
    cosine_length_reward,
    max_length=max_length,
    right=right,
    wrong=wrong,
    exceed=exceed,
    margin=margin,
    shortest=shortest,
  )
  return shaped(None, lambda rewards, r: reward(r.correct, r.lengths))


def turning_score(
  lengths: jax.Array, *, max_length: float, turn: float = 0.5, clamp: bool = False
) -> jax.Array:
  """Two parabolas in x = length / max_length: 0 at 0, up to 1 at `turn`, down to -1 at 1.

    1 - (1 - x / turn)^2 if x <= turn;  1 - 2 ((x - turn) / (1 - turn))^2 beyond

  Beyond `max_length` it keeps falling, as in the paper's code, unless `clamp`. [...] -> [...].

  >>> print(turning_score(jnp.array([0, 5, 10]), max_length=10))
  [ 0.  1. -1.]
  """
  typed(lengths=lengths)
  if not 0 < turn < 1:
    raise ValueError(f"turn must be between 0 and 1, got {turn}.")
  x = as_float(lengths) / max_length
  x = jnp.minimum(x, 1.0) if clamp else x
  down = 1.0 - 2.0 * ((x - turn) / (1.0 - turn)) ** 2
  return jnp.where(x <= turn, 1.0 - (1.0 - x / turn) ** 2, down)


def format_length_reward(well_formed: jax.Array, length_scores: jax.Array) -> jax.Array:
  """1 + score for a readable answer, min(0, score) for others: no verdict is needed.

  Source: arXiv:2505.19439 (Eq. 5; turn 0.5, max_length 3072). The released code has half a point
  for each of two format flags. [...], [...] -> [...].

  >>> print(format_length_reward(jnp.array([True, False, False]), jnp.array([0.5, 0.5, -0.5])))
  [ 1.5  0.  -0.5]
  """
  same_shape(well_formed=well_formed, length_scores=length_scores)
  scores = as_float(length_scores)
  return jnp.where(well_formed.astype(bool), 1.0 + scores, jnp.minimum(scores, 0.0))


def format_length(*, max_length: float, turn: float = 0.5, clamp: bool = False) -> Stage:
  """`format_length_reward` of `turning_score`, without the verdict."""

  def shape(rewards, r):
    scores = turning_score(r.lengths, max_length=max_length, turn=turn, clamp=clamp)
    return format_length_reward(r.signals["has_answer"], scores)

  return shaped(None, shape, needs=("has_answer",))


def length_range_reward(
  lengths: jax.Array, low: jax.Array, high: jax.Array, *, max_length: float
) -> jax.Array:
  """1 from `low` to `high`; it rises to that from 0 at no tokens and falls to 0 at `max_length`.

  Source: LongWriter-Zero, arXiv:2506.18841, from secondary notes: a judge predicts the range in
  words; the clamp at 0 is ours. [...] each -> [...].

  >>> lengths = jnp.array([5, 20, 60])
  >>> print(length_range_reward(lengths, jnp.full(3, 10), jnp.full(3, 20), max_length=100))
  [0.5 1.  0.5]
  """
  same_shape(lengths=lengths, low=low, high=high)
  lengths, low, high = as_float(lengths), as_float(low), as_float(high)
  room = jnp.where(max_length > high, max_length - high, 1.0)
  beyond = jnp.clip((max_length - lengths) / room, 0.0, 1.0)
  rising = jnp.minimum(lengths / jnp.maximum(low, 1.0), 1.0)
  return jnp.where(lengths > high, beyond, rising)


def length_range(*, low: int, high: int, max_length: float) -> Stage:
  """`length_range_reward` in tokens with one range for all, where the paper asks a judge.

  A truncated response counts as beyond the range (`ended_length`).
  """
  if not 1 <= low <= high < max_length:
    raise ValueError(f"1 <= low <= high < max_length must hold, got {low}, {high}, {max_length}.")

  def shape(rewards, r):
    least, most = (jnp.full_like(r.lengths, bound) for bound in (low, high))
    lengths = ended_length(r.lengths, most, r.truncated)
    return length_range_reward(lengths, least, most, max_length=max_length)

  return shaped(None, shape, needs=("truncated",))


def word_range(*, max_words: float) -> Stage:
  """`length_range_reward` in words, with a range for each prompt: LongWriter-Zero.

  The signals words, words_low and words_high [B, G] are those of `task.signals.fn="words"`. A
  truncated response counts as beyond its range.
  """

  def shape(rewards, r):
    words, low, high = (r.signals[name] for name in ("words", "words_low", "words_high"))
    counted = ended_length(words, high, r.truncated)
    return length_range_reward(counted, low, high, max_length=max_words)

  return shaped(None, shape, needs=("words", "words_low", "words_high", "truncated"))
