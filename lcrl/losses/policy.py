"""Slot 5: policy losses as stages, and every name that `loss.fn` of a config may give for run="rl".

A loss is a token surrogate (losses/surrogates.py) times `batch.weights` (losses/weights.py), which
carry all normalisation. A stage may add a teacher's term to the advantages (`distill`) and a `kl`
penalty, subtract `entropy_bonus` times the tokens' entropy, and multiply all of that by importance
weights (`correction`). A config names `distill`, `kl` and `correction` like any function:
`kl=dict(fn="k3", beta=1e-3)`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lcrl.losses.correction import Correction
from lcrl.losses.correction import importance_ratio as importance_ratio
from lcrl.losses.correction import mean_one as mean_one
from lcrl.losses.correction import rejected as rejected
from lcrl.losses.correction import rejected_importance as rejected_importance
from lcrl.losses.correction import truncated as truncated
from lcrl.losses.correction import truncated_importance as truncated_importance
from lcrl.losses.distillation import (
  TEACHER,
  Distillation,
  distillation_fractions,
  distilled_advantages,
)
from lcrl.losses.distillation import reverse_kl as reverse_kl
from lcrl.losses.distillation import teacher_advantage as teacher_advantage
from lcrl.losses.drpo import drpo as drpo
from lcrl.losses.drpo import drpo_loss as drpo_loss
from lcrl.losses.drpo import drpo_positive_weights as drpo_positive_weights
from lcrl.losses.forced_opening import forced_opening as forced_opening
from lcrl.losses.forced_opening import opening_log_probs as opening_log_probs
from lcrl.losses.kl import TokenKL
from lcrl.losses.kl import abs_kl as abs_kl
from lcrl.losses.kl import absolute as absolute
from lcrl.losses.kl import k1 as k1
from lcrl.losses.kl import k1_kl as k1_kl
from lcrl.losses.kl import k2 as k2
from lcrl.losses.kl import k2_kl as k2_kl
from lcrl.losses.kl import k3 as k3
from lcrl.losses.kl import k3_kl as k3_kl
from lcrl.losses.kl import log_ratio as log_ratio
from lcrl.losses.kl_cov import high_covariance as high_covariance
from lcrl.losses.kl_cov import kl_cov as kl_cov
from lcrl.losses.kl_cov import kl_cov_loss as kl_cov_loss
from lcrl.losses.mode_switch import hinge as hinge
from lcrl.losses.mode_switch import logistic as logistic
from lcrl.losses.mode_switch import mode_switch as mode_switch
from lcrl.losses.mode_switch import mode_switch_hinge_loss as mode_switch_hinge_loss
from lcrl.losses.mode_switch import mode_switch_logistic_loss as mode_switch_logistic_loss
from lcrl.losses.mode_switch import opening_logits as opening_logits
from lcrl.losses.surrogates import SurrogateFractions as SurrogateFractions
from lcrl.losses.surrogates import cispo_loss as cispo_loss
from lcrl.losses.surrogates import clipped_surrogate_loss as clipped_surrogate_loss
from lcrl.losses.surrogates import sapo_loss as sapo_loss
from lcrl.losses.surrogates import sequence_ratio as sequence_ratio
from lcrl.losses.surrogates import surrogate_fractions as surrogate_fractions
from lcrl.losses.surrogates import token_ratio as token_ratio
from lcrl.masked import as_float, masked_mean
from lcrl.types import Stage

__all__ = [
  "SurrogateFractions",
  "abs_kl",
  "absolute",
  "cispo",
  "cispo_loss",
  "clipped_surrogate",
  "clipped_surrogate_loss",
  "drpo",
  "drpo_loss",
  "drpo_positive_weights",
  "forced_opening",
  "high_covariance",
  "hinge",
  "importance_ratio",
  "k1",
  "k1_kl",
  "k2",
  "k2_kl",
  "k3",
  "k3_kl",
  "kl_cov",
  "kl_cov_loss",
  "log_ratio",
  "logistic",
  "mean_one",
  "mode_switch",
  "mode_switch_hinge_loss",
  "mode_switch_logistic_loss",
  "opening_log_probs",
  "opening_logits",
  "rejected",
  "rejected_importance",
  "reverse_kl",
  "sapo",
  "sapo_loss",
  "sequence_clipped_surrogate",
  "sequence_ratio",
  "surrogate_fractions",
  "teacher_advantage",
  "token_ratio",
  "truncated",
  "truncated_importance",
]


def __dir__() -> list[str]:
  return __all__


Array = jax.Array


def _old_and_mask(batch, log_probs) -> tuple[Array, Array]:
  """Log-probs before the update, and the mask of the tokens that are trained on."""
  old = jax.lax.stop_gradient(log_probs) if batch.old_log_probs is None else batch.old_log_probs
  return old, batch.rollouts.mask & batch.keep[..., None]


def _stage(token_loss, kl, correction, entropy_bonus, distill, shares=None) -> Stage:
  """Sum of weights * correction * (token_loss + kl - entropy_bonus * entropy).

  All three are means over what was sampled, so all are weighted: with w = old_prob / sampler_prob,
  the mean of w * f over the sampler's tokens is that of f over the old policy's, whatever f is.
  `token_loss` and `shares`, which gives `Stage.fractions`, take (log_probs, old, advantages, mask).
  """

  def apply(state, scores, batch):
    log_probs = scores.log_probs
    old, mask = _old_and_mask(batch, log_probs)
    losses = token_loss(log_probs, old, distilled_advantages(distill, log_probs, batch, mask), mask)
    if kl is not None:
      losses = losses + kl(log_probs, batch.ref_log_probs, mask)
    if entropy_bonus:
      losses = losses - entropy_bonus * jnp.where(mask, as_float(scores.entropy), 0.0)
    if correction is not None:
      drawn = mask & batch.rollouts.drawn
      ratios = correction(old, batch.rollouts.sampler_log_probs, drawn)
      losses = losses * jnp.where(drawn, ratios, 1.0)
    return jnp.sum(batch.weights * losses), state

  def fractions(state, scores, batch) -> dict[str, Array]:
    del state
    log_probs = scores.log_probs
    old, mask = _old_and_mask(batch, log_probs)
    found: dict[str, Array] = {}
    if shares is not None:
      advantages = distilled_advantages(distill, log_probs, batch, mask)
      found |= shares(log_probs, old, advantages, mask)
    if distill is not None:
      found |= distillation_fractions(distill, log_probs, batch, mask)
    return found

  terms = {"ref": kl is not None, "entropy": entropy_bonus, TEACHER: distill is not None}
  return Stage(
    init=lambda: (),
    apply=apply,
    needs=tuple(name for name, asked in terms.items() if asked),
    rowwise=True,
    fractions=fractions if shares or distill else None,
  )


def _clipped(kl, correction, entropy_bonus, distill, **clipping: Any) -> Stage:
  """The stage of `clipped_surrogate_loss` with the keyword arguments `clipping`."""

  def token_loss(*arrays):
    return clipped_surrogate_loss(*arrays, **clipping)

  def shares(*arrays) -> dict[str, Array]:
    found = surrogate_fractions(*arrays, **clipping)
    dual = {"dual_clip_fraction": found.dual_clipped} if clipping.get("dual_clip") else {}
    return {"clip_fraction": found.clipped} | dual

  return _stage(token_loss, kl, correction, entropy_bonus, distill, shares)


def clipped_surrogate(
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  dual_clip: float | None = None,
  ratio_cap: float | None = None,
  kl: TokenKL | None = None,
  correction: Correction | None = None,
  entropy_bonus: float = 0.0,
  distill: Distillation | None = None,
) -> Stage:
  """`clipped_surrogate_loss` of token ratios: PPO, GRPO, DAPO."""
  return _clipped(
    kl,
    correction,
    entropy_bonus,
    distill,
    clip_low=clip_low,
    clip_high=clip_high,
    dual_clip=dual_clip,
    ratio_cap=ratio_cap,
  )


def sequence_clipped_surrogate(
  *,
  clip_low: float = 3e-4,
  clip_high: float = 4e-4,
  kl: TokenKL | None = None,
  correction: Correction | None = None,
  entropy_bonus: float = 0.0,
  distill: Distillation | None = None,
) -> Stage:
  """`clipped_surrogate_loss` of sequence ratios: GSPO with weights `sequence_mean`, LUSPO
  (arXiv:2602.05261; clip 2e-3, 2.5e-3) with `sequence_sum` or, scaled down, `fixed_length`."""
  clipping = {"clip_low": clip_low, "clip_high": clip_high, "ratio": sequence_ratio}
  return _clipped(kl, correction, entropy_bonus, distill, **clipping)


def cispo(
  *,
  lower: float = 0.0,
  upper: float = 5.0,
  kl: TokenKL | None = None,
  correction: Correction | None = None,
  entropy_bonus: float = 0.0,
  distill: Distillation | None = None,
) -> Stage:
  """`cispo_loss`; the paper's weights are `token_mean`."""

  def token_loss(*arrays):
    return cispo_loss(*arrays, lower=lower, upper=upper)

  def shares(log_probs, old, advantages, mask) -> dict[str, Array]:
    del advantages
    ratios = token_ratio(log_probs, old, mask)
    return {"clip_fraction": masked_mean((ratios < lower) | (ratios > upper), mask)}

  return _stage(token_loss, kl, correction, entropy_bonus, distill, shares)


def sapo(
  *,
  tau_up: float = 1.0,
  tau_down: float = 1.05,
  kl: TokenKL | None = None,
  correction: Correction | None = None,
  entropy_bonus: float = 0.0,
  distill: Distillation | None = None,
) -> Stage:
  """The stage of `sapo_loss`."""

  def token_loss(*arrays):
    return sapo_loss(*arrays, tau_up=tau_up, tau_down=tau_down)

  return _stage(token_loss, kl, correction, entropy_bonus, distill)
