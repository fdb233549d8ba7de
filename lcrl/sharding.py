"""Operations along axes that may have explicit sharding (`jax.sharding.AxisType.Explicit`).

There JAX refuses what it would have to guess, such as sorting along an axis that is cut. For other
arrays these are the plain operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")


def left_to_xla(f: Callable[..., T], like: Any, *arrays: Any) -> T:
  """f(*arrays), which XLA splits over devices by itself; results are cut as `like` is.

  `f` reads no other arrays. `like` has the shape of the results, or of their first axes.
  """
  cut = [at for x in arrays if any((at := jax.typeof(x).sharding).spec)]
  if not cut:
    return f(*arrays)
  out = jax.typeof(like).sharding
  if out.mesh.empty:
    out = jax.sharding.NamedSharding(cut[0].mesh, jax.sharding.PartitionSpec())
  return jax.sharding.auto_axes(f, out_sharding=out)(*arrays)


def ranks(x: jax.Array) -> jax.Array:
  """The place of each value in the order of its last axis; equal values keep their order.

  >>> print(ranks(jnp.array([0.5, 0.1, 0.5])))
  [1 0 2]
  """
  return left_to_xla(lambda x: jnp.argsort(jnp.argsort(x, -1, stable=True), -1), x, x)


def ordered(x: jax.Array) -> jax.Array:
  """The last axis in ascending order."""
  return left_to_xla(lambda x: jnp.sort(x, -1), x, x)


def running_sum(x: jax.Array) -> jax.Array:
  """The sum up to each place of the last axis, itself included."""
  return left_to_xla(lambda x: jnp.cumsum(x, -1), x, x)


def running_product(x: jax.Array) -> jax.Array:
  """The product up to each place of the last axis, itself included."""
  return left_to_xla(lambda x: jnp.cumprod(x, -1), x, x)


def along(x: jax.Array, places: jax.Array) -> jax.Array:
  """The values at these places of the last axis. [..., N], [..., M] -> [..., M]."""
  return left_to_xla(lambda x, places: jnp.take_along_axis(x, places, -1), places, x, places)


def look_up(table: jax.Array, index: jax.Array | int) -> jax.Array:
  """table[index]. [N], [...] -> [...]."""
  return left_to_xla(lambda table, index: table[index], index, table, index)
