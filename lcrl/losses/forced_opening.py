"""Forced openings: how often one was forced stands in the place of the policy's probability."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lcrl.checks import per_row, same_shape
from lcrl.masked import as_float
from lcrl.sharding import look_up, running_sum
from lcrl.types import Batch, Stage

__all__ = ["forced_opening", "opening_log_probs"]


def opening_log_probs(
  log_probs: jax.Array, mask: jax.Array, drawn_mask: jax.Array, shares: jax.Array
) -> jax.Array:
  """Log-probs under a sampler that forces a response's opening with probability `share`.

  log share at the first token, 0 at the opening's other tokens; from the first drawn token on, the
  policy's own. Source: pi_IS of AdaptThink, arXiv:2505.13417, whose openings are one token.
  [..., T], [..., T], [..., T], [...] -> [..., T].

  >>> mask, drawn = jnp.ones(3, bool), jnp.array([False, False, True])
  >>> print(opening_log_probs(jnp.full(3, -7.0), mask, drawn, jnp.array(1.0)))
  [ 0.  0. -7.]
  """
  same_shape(log_probs=log_probs, mask=mask, drawn_mask=drawn_mask)
  per_row(dict(log_probs=log_probs), shares=shares)
  opening = mask & (running_sum(mask & drawn_mask) == 0)
  first = opening & (running_sum(mask) == 1)
  forced = jnp.where(first, jnp.log(as_float(shares))[..., None], 0.0)
  return jnp.where(opening, forced, as_float(log_probs))


def forced_opening(*, shares: Sequence[float], base: Stage) -> Stage:
  """The loss of `base`, with `opening_log_probs` as the old ones: AdaptThink.

  The paper's base is `sequence_clipped_surrogate` with clip 0.2, as in its code. The openings are
  forced by `task.render=dict(fn="prefix", counts=True, ...)`.

  Args:
    shares: of the rollouts that got each level's opening, one a level of the budget.
    base: a loss of the GRPO family.
  Raises:
    ValueError: the shares are not positive or do not sum to 1; or, once a batch trains, nothing was
      forced.
  """
  if not shares or min(shares) <= 0 or not math.isclose(sum(shares), 1.0, rel_tol=1e-6):
    raise ValueError(f"loss.shares must be positive and sum to 1, got {tuple(shares)}.")

  def forced(scores, batch: Batch) -> Batch:
    r = batch.rollouts
    if r.undrawn is None:
      raise ValueError(
        "loss.fn='forced_opening' needs openings that are forced and count: a section task.render "
        'with fn="prefix" and counts=True.'
      )
    old = scores.log_probs if batch.old_log_probs is None else batch.old_log_probs
    share = look_up(jnp.asarray(shares, jnp.float32), r.budget.level)
    old = opening_log_probs(jax.lax.stop_gradient(old), r.mask, r.drawn, share)
    return dataclasses.replace(batch, old_log_probs=old)

  fractions = base.fractions
  return base._replace(
    apply=lambda state, scores, batch: base.apply(state, scores, forced(scores, batch)),
    fractions=fractions and (lambda state, s, batch: fractions(state, s, forced(s, batch))),
  )
