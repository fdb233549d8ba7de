"""Slot 5: policy losses of the GRPO family, one value a token, and the stages that sum them.

A loss is a token surrogate times `batch.weights` (losses/weights.py), which carry all
normalisation. A stage may add a `kl` penalty, subtract an `entropy_bonus` times the tokens' entropy
and multiply all of that by importance weights (`correction`); `kl` and `correction` are named in
the config like any function: `kl=dict(fn="k3", beta=1e-3)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.losses import correction as _correction
from lcrl.losses import drpo as _drpo
from lcrl.losses import kl as _kl
from lcrl.losses import kl_cov as _kl_cov
from lcrl.losses import mode_switch as _mode_switch
from lcrl.losses.correction import *  # noqa: F403
from lcrl.losses.drpo import *  # noqa: F403
from lcrl.losses.kl import *  # noqa: F403
from lcrl.losses.kl_cov import *  # noqa: F403
from lcrl.losses.mode_switch import *  # noqa: F403
from lcrl.masked import AxisName, as_float, finite_exp, masked_mean
from lcrl.types import Stage

__all__ = [
  *_correction.__all__,
  *_drpo.__all__,
  *_kl.__all__,
  *_kl_cov.__all__,
  *_mode_switch.__all__,
  "SurrogateFractions",
  "cispo",
  "cispo_loss",
  "clipped_surrogate",
  "clipped_surrogate_loss",
  "sapo",
  "sapo_loss",
  "sequence_clipped_surrogate",
  "sequence_ratio",
  "surrogate_fractions",
  "token_ratio",
]

Array = jax.Array
Ratio = Callable[[Array, Array, Array], Array]


def token_ratio(
  log_probs: Array, old_log_probs: Array, mask: Array, *, log_limit: float = math.inf
) -> Array:
  """exp(log_prob - old_log_prob) of every token, 1 where masked. [..., T] each -> [..., T].

  verl clamps the exponent at `log_limit=20`, with gradient 0 beyond; `finite_exp` does where the
  ratio would not be finite.
  """
  same_shape(log_probs=log_probs, old_log_probs=old_log_probs, mask=mask)
  log_ratio = _kl.log_ratio(log_probs, old_log_probs, mask)
  return finite_exp(jnp.clip(log_ratio, -log_limit, log_limit))


def sequence_ratio(
  log_probs: Array, old_log_probs: Array, mask: Array, *, log_limit: float = math.inf
) -> Array:
  """GSPO's ratio: the geometric mean of a response's token ratios, at each of its tokens.

    s = exp(mean over tokens (log_prob - old_log_prob))

  Source: GSPO, Zheng et al. 2025, arXiv:2507.18071; verl clamps the exponent at `log_limit=10`.
  [..., T] each -> [..., T], 1 where masked.
  """
  same_shape(log_probs=log_probs, old_log_probs=old_log_probs, mask=mask)
  mean = masked_mean(_kl.log_ratio(log_probs, old_log_probs, mask), mask, -1, keepdims=True)
  return jnp.where(mask, finite_exp(jnp.clip(mean, -log_limit, log_limit)), 1.0)


def clipped_surrogate_loss(
  log_probs: Array,
  old_log_probs: Array,
  advantages: Array,
  mask: Array,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  dual_clip: float | None = None,
  ratio_cap: float | None = None,
  ratio: Ratio = token_ratio,
) -> Array:
  """PPO's clipped objective, negated, with the range open upwards and a bound below.

    loss = max(-ratio * A, -clip(ratio, 1 - clip_low, 1 + clip_high) * A)

  Where A < 0 that grows with the ratio without end. `dual_clip` bounds it by -dual_clip * A, with
  gradient 0 beyond; `ratio_cap` replaces the first ratio by min(ratio, ratio_cap).

  Source: PPO, arXiv:1707.06347; clip_high > clip_low is DAPO's clip-higher, arXiv:2503.14476;
  dual_clip as in verl (3.0), arXiv:1912.09729; ratio_cap as `delta` in TRL. `ratio=sequence_ratio`
  is GSPO, whose weights are `sequence_mean`, and LUSPO with weights `sequence_sum`.

  Args:
    log_probs, old_log_probs: [..., T], of the sampled tokens.
    advantages: [...] or [..., T].
    mask: [..., T] bool, sampled tokens.
  Returns: [..., T] float, 0 where masked.

  >>> log_probs, old = jnp.log(jnp.array([0.6, 0.1])), jnp.log(jnp.array([0.4, 0.2]))
  >>> print(clipped_surrogate_loss(log_probs, old, jnp.array(1.0), jnp.ones(2, bool)))
  [-1.2 -0.5]
  """
  targets = _targets(advantages, log_probs, old_log_probs, mask)
  free, clipped, bound = _branches(
    ratio(log_probs, old_log_probs, mask),
    targets,
    clip_low=clip_low,
    clip_high=clip_high,
    dual_clip=dual_clip,
    ratio_cap=ratio_cap,
  )
  return jnp.where(mask, jnp.minimum(jnp.maximum(free, clipped), bound), 0.0)


class SurrogateFractions(NamedTuple):
  """What clipping did: shares of tokens, and the k1 estimate of KL(old || policy)."""

  clipped: Array  # [], the clipped branch was the larger
  dual_clipped: Array  # [], the dual clip bound a token of negative advantage
  old_kl: Array  # [], mean of old_log_prob - log_prob


def surrogate_fractions(
  log_probs: Array,
  old_log_probs: Array,
  advantages: Array,
  mask: Array,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  dual_clip: float | None = None,
  ratio_cap: float | None = None,
  ratio: Ratio = token_ratio,
  axis_name: AxisName = None,
) -> SurrogateFractions:
  """Diagnostics of `clipped_surrogate_loss` with the same arguments: means over sampled tokens,
  those of all devices along `axis_name` inside `jax.shard_map`."""
  mean = partial(masked_mean, axis_name=axis_name)
  targets = _targets(advantages, log_probs, old_log_probs, mask)
  free, clipped, bound = _branches(
    ratio(log_probs, old_log_probs, mask),
    targets,
    clip_low=clip_low,
    clip_high=clip_high,
    dual_clip=dual_clip,
    ratio_cap=ratio_cap,
  )
  return SurrogateFractions(
    clipped=mean(clipped > free, mask),
    dual_clipped=mean(jnp.maximum(free, clipped) > bound, mask),
    old_kl=-mean(_kl.log_ratio(log_probs, old_log_probs, mask), mask),
  )


def _branches(ratios, advantages, *, clip_low, clip_high, dual_clip, ratio_cap):
  """The two branches, larger is used, and the dual clip's bound on them. [..., T] each."""
  if dual_clip is not None and not dual_clip > 1:
    raise ValueError(f"dual_clip must exceed 1, got {dual_clip}.")
  free = ratios if ratio_cap is None else jnp.minimum(ratios, ratio_cap)
  clipped = jnp.clip(ratios, 1.0 - clip_low, 1.0 + clip_high)
  if dual_clip is None:
    bound = jnp.full_like(advantages, jnp.inf)
  else:
    bound = jnp.where(advantages < 0, -dual_clip * advantages, jnp.inf)
  return -free * advantages, -clipped * advantages, bound


def cispo_loss(
  log_probs: Array,
  old_log_probs: Array,
  advantages: Array,
  mask: Array,
  *,
  lower: float = 0.0,
  upper: float = 5.0,
) -> Array:
  """REINFORCE weighted by a clipped ratio without gradient: clipped tokens still teach.

    loss = -stop_gradient(clip(ratio, lower, upper)) * A * log_prob

  Source: MiniMax-M1, arXiv:2506.13585. The bounds are absolute ratios: TRL clips above only (5.0,
  as in ScaleRL), verl to [1 - eps_low, 1 + eps_high]. The value is not comparable with the
  surrogates'; compare gradients. [..., T], [..., T], [...] or [..., T], [..., T] -> [..., T].
  """
  targets = _targets(advantages, log_probs, old_log_probs, mask)
  ratios = token_ratio(log_probs, old_log_probs, mask)
  scale = jax.lax.stop_gradient(jnp.clip(ratios, lower, upper)) * targets
  return jnp.where(mask, -scale * jnp.where(mask, as_float(log_probs), 0.0), 0.0)


def sapo_loss(
  log_probs: Array,
  old_log_probs: Array,
  advantages: Array,
  mask: Array,
  *,
  tau_up: float = 1.0,
  tau_down: float = 1.05,
) -> Array:
  """A soft gate in place of the clip: the gradient fades as the ratio leaves 1, and never ends.

    loss = -4 / tau * sigmoid(tau * (ratio - 1)) * A;  tau_up where A > 0, tau_down elsewhere

  Source: SAPO, as in TRL; weights `sequence_mean`. At ratio 1 the gradient is that of -ratio * A.
  [..., T], [..., T], [...] or [..., T], [..., T] -> [..., T].

  >>> zero = jnp.zeros(1)
  >>> print(sapo_loss(zero, zero, jnp.array(0.5), jnp.ones(1, bool)))
  [-1.]
  """
  targets = _targets(advantages, log_probs, old_log_probs, mask)
  ratios = token_ratio(log_probs, old_log_probs, mask)
  tau = jnp.where(targets > 0, tau_up, tau_down)
  return jnp.where(mask, -4.0 / tau * jax.nn.sigmoid(tau * (ratios - 1.0)) * targets, 0.0)


def _targets(advantages, log_probs, old_log_probs, mask):
  """Advantages as `token_advantages` has them, once the other arguments are what they must be."""
  same_shape(log_probs=log_probs, old_log_probs=old_log_probs, mask=mask)
  return _kl.token_advantages(advantages, mask)


def _stage(token_loss, kl, correction, entropy_bonus) -> Stage:
  """Sum of weights * correction * (token_loss + kl - entropy_bonus * entropy).

  All three are means over what was sampled, so all are weighted: with w = old_prob / sampler_prob,
  the mean of w * f over the sampler's tokens is that of f over the old policy's, whatever f is.
  """

  def apply(state, scores, batch):
    mask, log_probs = batch.rollouts.mask & batch.keep[..., None], scores.log_probs
    old = jax.lax.stop_gradient(log_probs) if batch.old_log_probs is None else batch.old_log_probs
    losses = token_loss(log_probs, old, batch.advantages, mask)
    if kl is not None:
      losses = losses + kl(log_probs, batch.ref_log_probs, mask)
    if entropy_bonus:
      losses = losses - entropy_bonus * jnp.where(mask, as_float(scores.entropy), 0.0)
    if correction is not None:
      drawn = mask & batch.rollouts.drawn
      ratios = correction(old, batch.rollouts.sampler_log_probs, drawn)
      losses = losses * jnp.where(drawn, ratios, 1.0)
    return jnp.sum(batch.weights * losses), state

  needs = [name for name, asked in (("ref", kl is not None), ("entropy", entropy_bonus)) if asked]
  return Stage(init=lambda: (), apply=apply, needs=tuple(needs))


def clipped_surrogate(
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  dual_clip: float | None = None,
  ratio_cap: float | None = None,
  kl: _kl.TokenKL | None = None,
  correction: _correction.Correction | None = None,
  entropy_bonus: float = 0.0,
) -> Stage:
  """`clipped_surrogate_loss` of token ratios: PPO, GRPO, DAPO."""

  def token_loss(*arrays):
    return clipped_surrogate_loss(
      *arrays, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip, ratio_cap=ratio_cap
    )

  return _stage(token_loss, kl, correction, entropy_bonus)


def sequence_clipped_surrogate(
  *,
  clip_low: float = 3e-4,
  clip_high: float = 4e-4,
  kl: _kl.TokenKL | None = None,
  correction: _correction.Correction | None = None,
  entropy_bonus: float = 0.0,
) -> Stage:
  """`clipped_surrogate_loss` of sequence ratios: GSPO with weights `sequence_mean`, LUSPO
  (arXiv:2602.05261; clip 2e-3, 2.5e-3) with `sequence_sum` or, scaled down, `fixed_length`."""

  def token_loss(*arrays):
    return clipped_surrogate_loss(
      *arrays, clip_low=clip_low, clip_high=clip_high, ratio=sequence_ratio
    )

  return _stage(token_loss, kl, correction, entropy_bonus)


def cispo(
  *,
  lower: float = 0.0,
  upper: float = 5.0,
  kl: _kl.TokenKL | None = None,
  correction: _correction.Correction | None = None,
  entropy_bonus: float = 0.0,
) -> Stage:
  """`cispo_loss`; the paper's weights are `token_mean`."""
  return _stage(
    lambda *arrays: cispo_loss(*arrays, lower=lower, upper=upper), kl, correction, entropy_bonus
  )


def sapo(
  *,
  tau_up: float = 1.0,
  tau_down: float = 1.05,
  kl: _kl.TokenKL | None = None,
  correction: _correction.Correction | None = None,
  entropy_bonus: float = 0.0,
) -> Stage:
  """`sapo_loss`."""

  def token_loss(*arrays):
    return sapo_loss(*arrays, tau_up=tau_up, tau_down=tau_down)

  return _stage(token_loss, kl, correction, entropy_bonus)
