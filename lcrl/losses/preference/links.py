"""Links: from the margin of a pair to its loss, element by element.

A margin z is how far the chosen answer's reward stands above the rejected one's. All fall with z
near 0; they differ in what they do with pairs that are already right, or very wrong.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.masked import as_float, finite_exp

__all__ = ["discopop_link", "exo_link", "hinge_link", "logistic_link", "robust_link"]

Array = jax.Array


def logistic_link(margins: Array, *, label_smoothing: float = 0.0) -> Array:
  """Bradley-Terry, with a share of the labels believed to be wrong.

    loss = -(1 - eps) log sigmoid(z) - eps log sigmoid(-z)

  Source: DPO, arXiv:2305.18290; eps > 0 is conservative DPO (Mitchell 2023). TRL from 0.29 has no
  smoothing here. [...] -> [...].

  >>> print(f"{logistic_link(jnp.array(0.0)):.3f}")  # log 2
  0.693
  """
  if not 0 <= label_smoothing <= 0.5:
    raise ValueError(f"label_smoothing must be in [0, 1/2], got {label_smoothing}.")
  z = as_float(margins)
  wrong = -jax.nn.log_sigmoid(-z)
  return (1 - label_smoothing) * -jax.nn.log_sigmoid(z) + label_smoothing * wrong


def robust_link(margins: Array, *, label_smoothing: float = 0.1) -> Array:
  """The logistic loss, unbiased if a share eps < 1/2 of the labels is flipped; may be negative.

    loss = (-(1 - eps) log sigmoid(z) + eps log sigmoid(-z)) / (1 - 2 eps)

  Source: robust DPO, arXiv:2403.00409. [...] -> [...].

  >>> print(f"{robust_link(jnp.array(2.0)):.3f}")
  -0.123
  """
  if not 0 <= label_smoothing < 0.5:
    raise ValueError(f"label_smoothing must be in [0, 1/2), got {label_smoothing}.")
  z = as_float(margins)
  right, wrong = -jax.nn.log_sigmoid(z), -jax.nn.log_sigmoid(-z)
  return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)


def hinge_link(margins: Array) -> Array:
  """max(0, 1 - z): pairs with a margin past 1 do not train. [...] -> [...].

  Source: RSO, arXiv:2309.06657.

  >>> print(hinge_link(jnp.array([0.0, 2.0])))
  [1. 0.]
  """
  return jnp.maximum(0.0, 1.0 - as_float(margins))


def exo_link(margins: Array, *, label_smoothing: float = 1e-3) -> Array:
  """Reverse KL from q = sigmoid(z) to the smoothed label.

    loss = q (log q - log(1 - eps)) + (1 - q) (log(1 - q) - log eps)

  Source: EXO, arXiv:2402.00856, its pairwise form; eps > 0. [...] -> [...].

  >>> print(f"{exo_link(jnp.array(0.0)):.3f}")
  2.761
  """
  if not 0 < label_smoothing < 1:
    raise ValueError(f"label_smoothing must be in (0, 1), got {label_smoothing}.")
  z = as_float(margins)
  right = jax.nn.sigmoid(z) * (jax.nn.log_sigmoid(z) - jnp.log1p(-label_smoothing))
  return right + jax.nn.sigmoid(-z) * (jax.nn.log_sigmoid(-z) - jnp.log(label_smoothing))


def discopop_link(margins: Array, *, temperature: float = 0.05) -> Array:
  """Logistic where z < 0, exponential where z > 0.

    loss = -(1 - m) log sigmoid(z) + m exp(-z),  m = sigmoid(z / temperature)

  Found by search, and not monotone: by default it rises for z from -0.12 to 0.07.
  Source: DiscoPOP, arXiv:2406.08414. [...] -> [...].

  >>> print(f"{discopop_link(jnp.array(2.0)):.3f}")  # exp(-2)
  0.135
  """
  z = as_float(margins)
  blend = jax.nn.log_sigmoid(z / temperature)  # m exp(-z) in one exponent: exp(-z) may overflow
  logistic = jax.nn.sigmoid(-z / temperature) * -jax.nn.log_sigmoid(z)
  return logistic + finite_exp(blend - z)
