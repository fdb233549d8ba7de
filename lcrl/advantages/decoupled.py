"""DECS: what a right answer thinks after it has reached the answer is compared by itself.

Source: Jiang et al. 2025, arXiv:2509.25827, and its code. Places count the tokens of a response,
from its first one on.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.checks import per_row, positive, same_groups, same_shape
from lcrl.masked import as_float, standardize
from lcrl.types import Rollouts, Stage

__all__ = ["decoupled_reward", "decs", "place_normalized_advantage"]


def decoupled_reward(
  correct: jax.Array,
  lengths: jax.Array,
  needed: jax.Array,
  think_lengths: jax.Array,
  *,
  places: int,
  max_length: float,
  high: float = 1.1,
  low: float = 1.0,
  slope: float = 0.1,
) -> jax.Array:
  """Rewards of the places of a right answer: less for thinking that was not needed any more.

    low - slope * length / max_length  from `needed` up to `think_length`;  high elsewhere

  Elsewhere includes the places behind the response, so that a longer one is compared with `high`
  there. A wrong answer has 0 everywhere; `needed` 0 marks nothing. The released code has low = 1.1;
  its REINFORCE++ branch has 1 + slope * (place - length) / max_length there, 1 elsewhere.

  Args:
    correct: [...] bool or 0/1.
    lengths: [...] int, tokens.
    needed: [...] int, tokens up to the end of the chunk that first has the answer.
    think_lengths: [...] int, tokens of thinking.
    places: P.
  Returns: [..., P] float.

  >>> ten, needed, think = (jnp.array([n]) for n in (10, 1, 3))
  >>> print(decoupled_reward(jnp.ones(1), ten, needed, think, places=4, max_length=20))
  [[1.1  0.95 0.95 1.1 ]]
  """
  same_shape(correct=correct, lengths=lengths, needed=needed, think_lengths=think_lengths)
  positive(max_length=max_length)
  column = lambda x: x[..., None]
  at = jax.lax.broadcasted_iota(jnp.int32, (*lengths.shape, places), lengths.ndim)
  waste = (column(needed) > 0) & (at >= column(needed)) & (at < column(think_lengths))
  less = low - slope * as_float(lengths) / max_length
  return jnp.where(column(correct.astype(bool)), jnp.where(waste, column(less), high), 0.0)


def place_normalized_advantage(
  rewards: jax.Array, keep: jax.Array, *, ddof: int = 1, eps: float = 1e-6
) -> jax.Array:
  """(r - mean) / (std + eps), mean and deviation over the group's rollouts at the same place.

  [..., B, G, P], [..., B, G] -> [..., B, G, P], 0 where not kept.

  >>> rewards = jnp.array([[[1.0, 0.0], [1.0, 2.0]]])
  >>> print(place_normalized_advantage(rewards, jnp.ones((1, 2), bool), ddof=0, eps=0.0))
  [[[ 0. -1.]
    [ 0.  1.]]]
  """
  same_groups(keep=keep)
  per_row(dict(rewards=rewards), keep=keep)
  by_place = jnp.swapaxes(rewards, -1, -2)
  return jnp.swapaxes(standardize(by_place, keep[..., None, :], ddof=ddof, eps=eps), -1, -2)


def decs(
  *,
  max_length: float,
  high: float = 1.1,
  low: float = 1.0,
  slope: float = 0.1,
  ddof: int = 1,
  eps: float = 1e-6,
) -> Stage:
  """`place_normalized_advantage` of `decoupled_reward`, [B, G, T]; it reads the verdict alone.

  The signals `needed` and `think_length` [B, G] say what was needed: those of
  `task.signals.fn="answer_chunk"`, or of a judge.
  """

  def apply(state, rewards, keep, r: Rollouts):
    del rewards
    token_rewards = decoupled_reward(
      r.correct,
      r.lengths,
      r.signals["needed"],
      r.signals["think_length"],
      places=r.mask.shape[-1],
      max_length=max_length,
      high=high,
      low=low,
      slope=slope,
    )
    advantages = place_normalized_advantage(token_rewards, keep, ddof=ddof, eps=eps)
    place = jnp.maximum(r.places, 0)
    return jnp.where(r.mask, jnp.take_along_axis(advantages, place, -1), 0.0), state

  return Stage(init=lambda: (), apply=apply, needs=("group", "needed", "think_length"))
