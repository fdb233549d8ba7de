"""Length held at a limit by a price that moves: Lagrange multipliers.

Source: Constrained RLHF, arXiv:2310.04373, and its code. Mean returns are those of the global
batch. With several updates a batch the same violation counts several times: divide the step size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.masked import as_float, masked_mean
from lcrl.rewards.base import same_shape, shaped_with_state
from lcrl.types import Rollouts, Stage

__all__ = ["Multipliers", "dual_price", "length_dual", "priced_reward", "update_multipliers"]


class Multipliers(NamedTuple):
  raw: jax.Array  # [N] float, before squashing
  velocity: jax.Array  # [N] float


def update_multipliers(
  state: Multipliers,
  returns: jax.Array,
  targets: jax.Array,
  *,
  squash: Callable[[jax.Array], jax.Array] | None = jnp.tanh,
  learning_rate: float = 0.1,
  momentum: float = 0.1,
  max_norm: float = 0.5,
) -> Multipliers:
  """One step down sum_i squash(raw_i) (return_i - target_i): a multiplier rises below its target.

    velocity = momentum * velocity + clipped gradient;   raw = raw - learning_rate * velocity

  `jnp.tanh` holds returns at the targets, `jax.nn.sigmoid` above them; None means no squashing and
  projection to raw >= 0. State from the caller; [N] each.
  """
  same_shape(raw=state.raw, returns=returns, targets=targets)
  violation = jax.lax.stop_gradient(as_float(returns) - as_float(targets))
  multiplier = squash or (lambda raw: raw)
  gradient = jax.grad(lambda raw: jnp.sum(multiplier(raw) * violation))(as_float(state.raw))
  norm = jnp.sqrt(jnp.sum(gradient**2))
  gradient = gradient * jnp.minimum(1.0, max_norm / (norm + 1e-6))
  velocity = momentum * state.velocity + gradient
  raw = state.raw - learning_rate * velocity
  return Multipliers(raw if squash else jnp.maximum(raw, 0.0), velocity)


def dual_price(
  price: jax.Array,
  mean_length: jax.Array,
  *,
  target: float,
  scale: float,
  step_size: float = 0.1,
  max_price: float = 1.0,
) -> jax.Array:
  """clip(price + step_size * (mean length - target) / scale, 0, max_price). [], [] -> [].

  >>> print(dual_price(jnp.array(0.0), jnp.array(30.0), target=20, scale=20))
  0.05
  """
  return jnp.clip(price + step_size * (mean_length - target) / scale, 0.0, max_price)


def priced_reward(
  rewards: jax.Array, lengths: jax.Array, price: jax.Array, *, scale: float
) -> jax.Array:
  """r - price * length / scale, right or wrong. [...], [...], [] -> [...]."""
  same_shape(rewards=rewards, lengths=lengths)
  return as_float(rewards) - price * as_float(lengths) / scale


def length_dual(
  *,
  target: float,
  scale: float | None = None,
  step_size: float = 0.1,
  max_price: float = 1.0,
  base: Stage | None = None,
) -> Stage:
  """A price per `scale` tokens (the target, by default) that climbs while the mean is above it.

  Projected dual ascent, ours; the batch is paid at the price before it. State: the price.
  """
  scale = target if scale is None else scale

  def shape(price, rewards, r: Rollouts):
    mean = masked_mean(r.lengths, r.valid)
    knobs = dict(target=target, scale=scale, step_size=step_size, max_price=max_price)
    new = dual_price(price, mean, **knobs).astype(price.dtype)
    return priced_reward(rewards, r.lengths, price, scale=scale), new

  return shaped_with_state(base, lambda: jnp.zeros((), jnp.float32), shape)
