"""On-policy distillation: the policy samples, and a teacher says how likely each token was.

In expectation over the policy's own tokens, the gradient of the policy's log-prob times
log(teacher / policy) is that of -KL(policy || teacher) at the token: a reverse KL, whose samples
come from the student. So the log ratio is an advantage, alone or beside that of a reward.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.checks import positive, same_shape
from lcrl.losses.kl import log_ratio
from lcrl.masked import masked_mean
from lcrl.types import Batch

__all__ = ["TEACHER", "Distillation", "distilled_advantages", "reverse_kl", "teacher_advantage"]

TEACHER = "teacher_log_probs"  # the signal that holds a teacher's log-probs, [B, G, T]


def teacher_advantage(
  log_probs: jax.Array, teacher_log_probs: jax.Array, mask: jax.Array, *, limit: float = math.inf
) -> jax.Array:
  """clip(teacher_log_prob - log_prob, -limit, limit), with no gradient. [..., T] each -> [..., T].

  Where the teacher finds a token impossible, an infinite `limit` gives -inf; 0 where masked.

  Source: K3's merging of specialists, arXiv:2607.24653, r = clip(sg(log pi_teacher / pi), +-R_max).

  >>> policy, teacher = jnp.log(jnp.array([0.5, 0.5])), jnp.log(jnp.array([0.25, 0.5]))
  >>> print(teacher_advantage(policy, teacher, jnp.array([True, True]), limit=0.5))
  [-0.5  0. ]
  """
  positive(limit=limit)
  same_shape(log_probs=log_probs, teacher_log_probs=teacher_log_probs, mask=mask)
  gap = jax.lax.stop_gradient(log_ratio(teacher_log_probs, log_probs, mask))
  return jnp.where(mask, jnp.clip(gap, -limit, limit), 0.0)


class Distillation(NamedTuple):
  """A teacher's share in the advantages of a loss."""

  term: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # of arrays as `teacher_advantage`
  limit: float  # on the log ratio of a token


def reverse_kl(*, coefficient: float = 1.0, limit: float = 5.0) -> Distillation:
  """`coefficient` times `teacher_advantage`, added to the advantages: for the argument `distill` of
  a loss. The section `teachers` names the teachers.

  Args:
    coefficient: of the teacher's term.
    limit: on the log ratio of a token, in nats.
  """
  positive(coefficient=coefficient, limit=limit)
  return Distillation(lambda *args: coefficient * teacher_advantage(*args, limit=limit), limit)


def distilled_advantages(
  distill: Distillation | None, log_probs: jax.Array, batch: Batch, mask: jax.Array
) -> jax.Array:
  """The batch's advantages with the teacher's term, [B, G, T]; without `distill` as they are.

  >>> from types import SimpleNamespace
  >>> batch = SimpleNamespace(advantages=jnp.ones((1, 2)))
  >>> print(distilled_advantages(None, jnp.zeros((1, 2, 3)), batch, jnp.ones((1, 2, 3), bool)))
  [[1. 1.]]
  """
  if distill is None:
    return batch.advantages
  teacher = batch.rollouts.signals[TEACHER]
  own = batch.advantages if batch.advantages.ndim == mask.ndim else batch.advantages[..., None]
  # The policy did not draw what a prefix forced: the term would not be a gradient of the KL there.
  return own + distill.term(log_probs, teacher, mask & batch.rollouts.drawn)


def distillation_fractions(
  distill: Distillation, log_probs: jax.Array, batch: Batch, mask: jax.Array
) -> dict[str, jax.Array]:
  """The mean of log(policy / teacher), an estimate of the reverse KL a token, and the share of
  tokens whose log ratio is cut."""
  mask = mask & batch.rollouts.drawn
  gap = log_ratio(log_probs, batch.rollouts.signals[TEACHER], mask)
  return {
    "teacher_kl": masked_mean(gap, mask),
    "teacher_clip_fraction": masked_mean(jnp.abs(gap) > distill.limit, mask),
  }
