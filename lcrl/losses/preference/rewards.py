"""Rewards that a likelihood implies, element by element: what links compare and what runs log."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.losses.preference.sequences import sequence_log_ratios, sum_weights
from lcrl.masked import as_float, exponent_limit

__all__ = [
  "alpha_divergence_reward",
  "cdr_reward",
  "forward_kl_reward",
  "implicit_reward",
  "js_reward",
  "power_reward",
]

Array = jax.Array


def implicit_reward(values: Array, *, beta: float) -> Array:
  """beta * values without gradient, for logs: of log-ratios, or of SimPO's means. [...] -> [...].

  >>> print(implicit_reward(jnp.array([2.0, -1.0]), beta=0.5))
  [ 1.  -0.5]
  """
  return jax.lax.stop_gradient(beta * as_float(values))


def forward_kl_reward(log_ratios: Array) -> Array:
  """f-DPO for the forward KL: 1 - exp(-u) in place of u. [...] -> [...].

  Source: arXiv:2309.16240.

  >>> print(forward_kl_reward(jnp.array([0.0, 30.0])))
  [0. 1.]
  """
  return _power(log_ratios, -1)


def js_reward(log_ratios: Array) -> Array:
  """f-DPO for the Jensen-Shannon divergence: log 2 + log sigmoid(u). [...] -> [...].

  Source: arXiv:2309.16240.

  >>> print(js_reward(jnp.array([0.0])))
  [0.]
  """
  return jnp.log(2.0) + jax.nn.log_sigmoid(as_float(log_ratios))


def alpha_divergence_reward(log_ratios: Array, *, alpha: float = 0.5) -> Array:
  """f-DPO for an alpha divergence: (exp((alpha - 1) u) - 1) / (alpha - 1), u where alpha is 1.

  Source: arXiv:2309.16240. [...] -> [...].

  >>> print(f"{alpha_divergence_reward(jnp.array(3.0), alpha=2.0):.3f}")  # exp(3) - 1
  19.086
  """
  return _power(log_ratios, alpha - 1)


def power_reward(means: Array, *, alpha: float = 0.25) -> Array:
  """AlphaPO's reward (1 - p^-alpha) / alpha of the mean log-prob a = log p; a itself at alpha = 0.

  Means only: of sums the power overflows. [...] -> [...]. Source: AlphaPO, arXiv:2501.03884.

  >>> print(f"{power_reward(jnp.array(-1.0), alpha=1.0):.3f}")  # 1 - e
  -1.718
  """
  return _power(means, -alpha)


def _power(x: Array, exponent: float) -> Array:
  """(exp(exponent x) - 1) / exponent, flat beyond `exponent_limit`."""
  x = as_float(x)
  most = exponent_limit(x.dtype)
  return x if exponent == 0 else jnp.expm1(jnp.minimum(exponent * x, most)) / exponent


def cdr_reward(
  strong_log_probs: Array,
  weak_log_probs: Array,
  mask: Array,
  *,
  weigh: Callable[[Array], Array] = sum_weights,
) -> Array:
  """How much likelier a strong model finds an answer than a weak one: labels pairs for training.

    r = sum weights * (log p_strong - log p_weak)

  The sum grows with length; `weigh=mean_weights` does not. A criterion may stand in the prompt that
  the strong model saw. Source: customized density ratios (CDR), from the abstract.

  Args:
    strong_log_probs, weak_log_probs: [..., T].
    mask: [..., T] bool, tokens of the answer.
  Returns: [...], no gradient.

  >>> mask = jnp.array([True, True, False])
  >>> print(cdr_reward(jnp.array([-1.0, -2.0, 0.0]), jnp.array([-2.0, -2.5, 0.0]), mask))
  1.5
  """
  same_shape(strong_log_probs=strong_log_probs, weak_log_probs=weak_log_probs, mask=mask)
  ratios = sequence_log_ratios(strong_log_probs, weak_log_probs, weigh(mask))
  return jax.lax.stop_gradient(ratios)
