"""The weight products of a decoder layer with what stands around them. Plain twins of
`triton_products`.

x [..., D] is the residual stream, in the dtype of the computation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lcrl.policies.block import Norm


class Products(NamedTuple):
  """A layer is: read, attend, add, gate, add."""

  read: Callable  # (eps, scale [D], x, kernel [D, K, G + 2, H]) -> norm(x) @ kernel
  gate: Callable  # (eps, scale [D], x, kernel [D, 2, F]) -> silu(y[0]) * y[1], y = norm(x) @ kernel
  add: Callable  # (x, y [..., F], kernel [F, D]) -> x + y @ kernel


def norm(eps: float, scale: jax.Array, x: jax.Array) -> jax.Array:
  return Norm(eps).apply({"params": {"scale": scale}}, x)


def read(eps: float, scale: jax.Array, x: jax.Array, kernel: jax.Array) -> jax.Array:
  return jnp.einsum("...d,dkch->...kch", norm(eps, scale, x), kernel)


def gate(eps: float, scale: jax.Array, x: jax.Array, kernel: jax.Array) -> jax.Array:
  y = jnp.einsum("...d,dcf->...cf", norm(eps, scale, x), kernel)
  return nn.silu(y[..., 0, :]) * y[..., 1, :]


def add(x: jax.Array, y: jax.Array, kernel: jax.Array) -> jax.Array:
  return x + y @ kernel


PLAIN = Products(read, gate, add)
