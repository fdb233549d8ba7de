"""Learning which mode to open with, from the logits of the two opening tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import per_row, same_groups, same_shape
from lcrl.masked import as_float, masked_mean, masked_sum
from lcrl.modes import mode_is_preferred
from lcrl.sharding import running_sum
from lcrl.types import Stage

__all__ = [
  "hinge",
  "logistic",
  "mode_switch",
  "mode_switch_hinge_loss",
  "mode_switch_logistic_loss",
  "opening_logits",
]

PairLoss = Callable[[jax.Array, jax.Array], jax.Array]


def mode_switch_hinge_loss(
  preferred_logits: jax.Array, other_logits: jax.Array, *, margin: float = 1.0
) -> jax.Array:
  """max(0, margin - (preferred - other)): nothing to learn once the margin is there.

  At the first response position, without an instruction to use either mode. Source: the structure
  of Adaptive Deep Reasoning, arXiv:2505.20101; the formula is ours, unverified.
  [...], [...] -> [...].

  >>> print(mode_switch_hinge_loss(jnp.array(1.0), jnp.array(2.0)))
  2.0
  """
  same_shape(preferred_logits=preferred_logits, other_logits=other_logits)
  return jnp.maximum(0.0, margin - (as_float(preferred_logits) - as_float(other_logits)))


def mode_switch_logistic_loss(preferred_logits: jax.Array, other_logits: jax.Array) -> jax.Array:
  """log(1 + exp(other - preferred)): the hinge's smooth alternative. [...], [...] -> [...].

  >>> print(mode_switch_logistic_loss(jnp.array([0.0, 9.0]), jnp.array([0.0, 0.0])).round(3))
  [0.693 0.   ]
  """
  same_shape(preferred_logits=preferred_logits, other_logits=other_logits)
  return jax.nn.softplus(as_float(other_logits) - as_float(preferred_logits))


def hinge(*, margin: float = 1.0) -> PairLoss:
  """`mode_switch_hinge_loss`, for the argument `pair` of `mode_switch`."""
  return partial(mode_switch_hinge_loss, margin=margin)


def logistic() -> PairLoss:
  """`mode_switch_logistic_loss`, for the argument `pair` of `mode_switch`.

  >>> print(logistic()(jnp.array([0.0]), jnp.array([0.0])).round(3))
  [0.693]
  """
  return mode_switch_logistic_loss


def opening_logits(
  logits: jax.Array, mask: jax.Array, preferred: jax.Array, keep: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Mean logit of the first sampled token, over a group's rollouts in the preferred mode and over
  its others, and whether the group has both.

  The rollouts of a group share their prompt, so each shows one logit of the same distribution.
  [..., G, T], [..., G, T], [..., G], [..., G] -> [...], [...], [...] bool.

  >>> logits, mask = jnp.array([[[9.0, 2.0], [9.0, 1.0]]]), jnp.array([[[False, True]] * 2])
  >>> print(*opening_logits(logits, mask, jnp.array([[True, False]]), jnp.ones((1, 2), bool)))
  [2.] [1.] [ True]
  """
  per_row(dict(logits=logits, mask=mask), preferred=preferred, keep=keep)
  same_groups(preferred=preferred, keep=keep)
  first = mask & (running_sum(mask) == 1)
  opening, sampled = masked_sum(logits, first, -1), keep & jnp.any(mask, -1)
  side, other = sampled & preferred, sampled & ~preferred
  both = jnp.any(side, -1) & jnp.any(other, -1)
  return masked_mean(opening, side, -1), masked_mean(opening, other, -1), both


def mode_switch(
  *, base: Stage, weight: float = 0.1, threshold: float = 0.3, pair: PairLoss | None = None
) -> Stage:
  """The loss of `base`, plus `weight` times the mean over groups of `pair` (by default `hinge`) of
  `opening_logits`, preferred as `rewards.preferred_mode` says: `budget.level` 1 is long.

  Source: Adaptive Deep Reasoning, arXiv:2505.20101, abstract and sampling step only.
  """
  pair = hinge() if pair is None else pair

  def apply(state, scores, batch):
    loss, state = base.apply(state, scores, batch)
    r = batch.rollouts
    preferred = mode_is_preferred(r.correct, r.budget.level == 1, r.valid, threshold=threshold)
    *sides, both = opening_logits(scores.logits_at, r.mask, preferred, batch.keep)
    return loss + weight * masked_mean(pair(*sides), both), state

  return base._replace(apply=apply, needs=(*base.needs, "logits_at"), coupled=True)
