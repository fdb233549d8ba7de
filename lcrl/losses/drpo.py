"""DRPO: right answers are weighted among themselves by length, wrong ones are pushed down together.

Advantages mix the two: a long right answer in a group of short ones gets a negative advantage and
is unlearned. Here the length reward only moves weight between right answers, and never below zero.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.checks import per_row, same_groups
from lcrl.losses.kl import log_ratio
from lcrl.masked import as_float, masked_mean, masked_sum
from lcrl.types import Stage

__all__ = ["drpo", "drpo_loss", "drpo_positive_weights"]


def drpo_positive_weights(
  correct: jax.Array,
  lengths: jax.Array,
  keep: jax.Array,
  *,
  max_length: float,
  temperature: float | None = 0.1,
) -> jax.Array:
  """Share of each right answer among its group's: softmax((1 - length / max_length) / temperature).

  `temperature=None` gives all right answers the same share, which is DisCO.
  [..., G] each -> [..., G], 0 at wrong answers, sums to 1 over a group with a right one.

  >>> right, keep = jnp.array([[True, True, False]]), jnp.ones((1, 3), bool)
  >>> print(drpo_positive_weights(right, jnp.array([[10, 20, 5]]), keep, max_length=100))
  [[0.7310586  0.26894143 0.        ]]
  """
  same_groups(correct=correct, lengths=lengths, keep=keep)
  positive = correct.astype(bool) & keep
  scores = 1.0 - as_float(lengths) / max_length
  return _softmax(scores / temperature if temperature is not None else 0.0 * scores, positive)


def drpo_loss(
  log_probs: jax.Array,
  old_log_probs: jax.Array,
  correct: jax.Array,
  mask: jax.Array,
  keep: jax.Array,
  *,
  max_length: float,
  temperature: float | None = 0.1,
  tau: float = 10.0,
  delta: float = 1e-4,
  beta: float = 1e3,
  released_value: bool = False,
) -> jax.Array:
  """Contrast of right and wrong answers by mean token log-prob, inside a trust region.

    J_g = sum_right w_i s_i - tau log mean_wrong exp(s_j / tau),   s = mean token log-prob
    loss = -mean over groups J_g + beta / 2 max(KL - delta, 0)^2,  KL = token mean(old - log_prob)

  Groups without a right and a wrong answer have J_g = 0 and count in the mean. The loss couples the
  batch through KL: inside `jax.shard_map`, gather the batch first.
  Source: DRPO, arXiv:2510.04474, and DisCO (`temperature=None`,
  arXiv:2505.12366). The released code has the same gradient at another value, which
  `released_value` reports: the log-mean-exp reads 1, so each contrasted group adds tau, and the
  penalty reads beta max(KL - delta, 0) KL.

  Args:
    log_probs, old_log_probs: [B, G, T].
    correct: [B, G] bool or 0/1.
    mask: [B, G, T] bool, sampled tokens.
    keep: [B, G] bool, rows that train.
    max_length: length at which the length reward is 0: the cap, not the padded width.
    temperature: Lambda; how far weight may move to short answers.
    tau, delta, beta: softness over wrong answers; size and stiffness of the trust region.
  Returns: [] float.

  >>> log_probs, correct = jnp.array([[[-0.5], [-2.0]]]), jnp.array([[True, False]])
  >>> mask, keep = jnp.ones((1, 2, 1), bool), jnp.ones((1, 2), bool)
  >>> print(f"{drpo_loss(log_probs, log_probs, correct, mask, keep, max_length=8):.2f}")
  -1.50
  """
  tokens = dict(log_probs=log_probs, old_log_probs=old_log_probs, mask=mask)
  per_row(tokens, correct=correct, keep=keep)
  same_groups(correct=correct, keep=keep)
  mask = mask & keep[..., None]
  keep = jnp.any(mask, -1)  # a response without tokens has no score
  differences = log_ratio(log_probs, old_log_probs, mask)
  scores = masked_mean(jnp.where(mask, log_probs, 0.0), mask, -1)
  positive, negative = correct.astype(bool) & keep, ~correct.astype(bool) & keep
  weights = drpo_positive_weights(
    correct, jnp.sum(mask, -1), keep, max_length=max_length, temperature=temperature
  )
  attract = masked_sum(weights * scores, positive, -1)
  repel = tau * _log_mean_exp(scores / tau, negative)
  contrasted = jnp.any(positive, -1) & jnp.any(negative, -1)
  kl = -masked_mean(differences, mask)
  excess = jnp.maximum(kl - delta, 0.0)
  penalty = 0.5 * beta * excess**2
  if released_value:
    repel = repel + jax.lax.stop_gradient(tau - repel)
    penalty = jax.lax.stop_gradient(beta * excess) * kl
  groups = jnp.maximum(jnp.sum(jnp.any(keep, -1)), 1)
  return -masked_sum(attract - repel, contrasted) / groups + penalty


def drpo(
  *,
  max_length: float,
  temperature: float | None = 0.1,
  tau: float = 10.0,
  delta: float = 1e-4,
  beta: float = 1e3,
) -> Stage:
  """`drpo_loss`. It reads `correct` and lengths; advantages and weights are not used."""

  def apply(state, scores, batch):
    old = batch.old_log_probs
    loss = drpo_loss(
      scores.log_probs,
      jax.lax.stop_gradient(scores.log_probs) if old is None else old,
      batch.rollouts.correct,
      batch.rollouts.mask,
      batch.keep,
      max_length=max_length,
      temperature=temperature,
      tau=tau,
      delta=delta,
      beta=beta,
    )
    return loss, state

  return Stage(init=lambda: (), apply=apply, coupled=True)


def _log_mean_exp(x, mask):
  """log mean exp of x where mask, along the last axis; 0 where nothing is selected."""
  top = jax.lax.stop_gradient(jnp.max(jnp.where(mask, x, -jnp.inf), -1, keepdims=True))
  top = jnp.where(jnp.isfinite(top), top, 0.0)
  mean = masked_mean(jnp.exp(jnp.where(mask, x - top, 0.0)), mask, -1)
  return jnp.log(jnp.where(mean > 0, mean, 1.0)) + top[..., 0]


def _softmax(x, mask):
  """exp(x) over its sum where mask, along the last axis; 0 where masked."""
  top = jnp.max(jnp.where(mask, x, -jnp.inf), -1, keepdims=True)
  terms = jnp.where(mask, jnp.exp(jnp.where(mask, x - top, 0.0)), 0.0)
  return terms / jnp.maximum(jnp.sum(terms, -1, keepdims=True), 1.0)
