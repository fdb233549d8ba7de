"""Token surrogates of the GRPO family: one value a token, [..., T], before weights.

The loss of a batch is the sum of `weights * surrogate`; `losses/policy.py` has the stages that take
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.losses.kl import log_ratio, token_advantages
from lcrl.masked import AxisName, as_float, finite_exp, masked_mean

__all__ = [
  "SurrogateFractions",
  "cispo_loss",
  "clipped_surrogate_loss",
  "sapo_loss",
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

  >>> new, old = jnp.log(jnp.array([0.5, 0.9])), jnp.log(jnp.array([0.25, 0.1]))
  >>> print(token_ratio(new, old, jnp.array([True, False])))
  [2. 1.]
  """
  same_shape(log_probs=log_probs, old_log_probs=old_log_probs, mask=mask)
  logs = log_ratio(log_probs, old_log_probs, mask)
  return finite_exp(jnp.clip(logs, -log_limit, log_limit))


def sequence_ratio(
  log_probs: Array, old_log_probs: Array, mask: Array, *, log_limit: float = math.inf
) -> Array:
  """GSPO's ratio: the geometric mean of a response's token ratios, at each of its tokens.

    s = exp(mean over tokens (log_prob - old_log_prob))

  Source: GSPO, Zheng et al. 2025, arXiv:2507.18071; verl clamps the exponent at `log_limit=10`.
  [..., T] each -> [..., T], 1 where masked.

  >>> log_probs, old = jnp.array([-1.0, -1.0, 5.0]), jnp.array([-1.0, -2.0, 0.0])
  >>> print(sequence_ratio(log_probs, old, jnp.array([True, True, False])).round(3))
  [1.649 1.649 1.   ]
  """
  same_shape(log_probs=log_probs, old_log_probs=old_log_probs, mask=mask)
  mean = masked_mean(log_ratio(log_probs, old_log_probs, mask), mask, -1, keepdims=True)
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
  free, clipped, bound = _branches(
    log_probs,
    old_log_probs,
    advantages,
    mask,
    clip_low=clip_low,
    clip_high=clip_high,
    dual_clip=dual_clip,
    ratio_cap=ratio_cap,
    ratio=ratio,
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
  axis_name: AxisName = None,
  **clipping: Any,
) -> SurrogateFractions:
  """What `clipped_surrogate_loss` did with the same arguments, as means [] over sampled tokens.

  `clipping` holds its keyword arguments. Inside `jax.shard_map` the means are over the tokens of
  all devices along `axis_name`.

  >>> new, old = jnp.log(jnp.array([[0.5, 0.9]])), jnp.log(jnp.array([[0.5, 0.5]]))
  >>> found = surrogate_fractions(new, old, jnp.ones(1), jnp.ones((1, 2), bool), clip_high=0.2)
  >>> print(*(f"{x:.2f}" for x in found))
  0.50 0.00 -0.29
  """
  free, clipped, bound = _branches(log_probs, old_log_probs, advantages, mask, **clipping)
  mean = partial(masked_mean, mask=mask, axis_name=axis_name)
  return SurrogateFractions(
    clipped=mean(clipped > free),
    dual_clipped=mean(jnp.maximum(free, clipped) > bound),
    old_kl=-mean(log_ratio(log_probs, old_log_probs, mask)),
  )


def _branches(
  log_probs,
  old_log_probs,
  advantages,
  mask,
  *,
  clip_low=0.2,
  clip_high=0.2,
  dual_clip=None,
  ratio_cap=None,
  ratio=token_ratio,
):
  """The free and the clipped branch, of which the larger counts, and the dual clip's bound on it.

  [..., T] each.
  """
  if dual_clip is not None and not dual_clip > 1:
    raise ValueError(f"dual_clip must exceed 1, got {dual_clip}.")
  advantages = _token_advantages(advantages, log_probs, old_log_probs, mask)
  ratios = ratio(log_probs, old_log_probs, mask)
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

  >>> new, old = jnp.log(jnp.array([[0.5, 0.9]])), jnp.log(jnp.array([[0.5, 0.1]]))
  >>> print(cispo_loss(new, old, jnp.ones(1), jnp.ones((1, 2), bool)).round(3))
  [[0.693 0.527]]
  """
  advantages = _token_advantages(advantages, log_probs, old_log_probs, mask)
  ratios = token_ratio(log_probs, old_log_probs, mask)
  scale = jax.lax.stop_gradient(jnp.clip(ratios, lower, upper)) * advantages
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
  advantages = _token_advantages(advantages, log_probs, old_log_probs, mask)
  ratios = token_ratio(log_probs, old_log_probs, mask)
  tau = jnp.where(advantages > 0, tau_up, tau_down)
  return jnp.where(mask, -4.0 / tau * jax.nn.sigmoid(tau * (ratios - 1.0)) * advantages, 0.0)


def _token_advantages(advantages, log_probs, old_log_probs, mask):
  """`token_advantages`, after a check of the other arguments' shapes."""
  same_shape(log_probs=log_probs, old_log_probs=old_log_probs, mask=mask)
  return token_advantages(advantages, mask)
