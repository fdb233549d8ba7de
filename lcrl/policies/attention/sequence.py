"""Rows cut along a mesh's sequence axis, so that causal attention is as much work on every device.

A row of 2 n chunks is dealt to n devices: device i holds chunks i and 2 n - 1 - i, in this order.
The first has few keys and the second many; together they have as many on each device. Rows [R, W]
become R n shorter ones, [R n, W / n], whose first axis is split over batch and sequence axes: to a
layer they are rows like others. Attention gathers keys and values along the sequence axis, where
grouped queries make them small.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lcrl.mesh import BATCH

AXIS = "sequence"
CUT = P((*BATCH[0], AXIS))  # dealt rows, along their first axis


def shards() -> int:
  """The pieces that packed rows are cut into on the mesh in context; 1 without one."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty or AXIS in mesh.manual_axes else mesh.shape.get(AXIS, 1)


def order(parts: int) -> list[int]:
  """The chunks of a row, device after device.

  >>> order(3)
  [0, 5, 1, 4, 2, 3]
  """
  return [chunk for i in range(parts) for chunk in (i, 2 * parts - 1 - i)]


def deal(x: jax.Array, parts: int) -> jax.Array:
  """Rows [R, W, ...] -> [R * parts, W / parts, ...], dealt over the mesh in context."""
  if parts == 1:
    return x
  own = lambda x: x[:, positions(x.shape[1] // parts, parts)]
  return jax.shard_map(own, in_specs=BATCH, out_specs=CUT, check_vma=False)(x)


def gather(x: jax.Array, parts: int) -> jax.Array:
  """Inside a shard_map: the pieces [R, W / parts, ...] of all devices -> whole rows, in order."""
  whole = jax.lax.all_gather(x, AXIS, axis=1, tiled=True)
  chunks, places = whole.reshape(len(x), 2 * parts, -1, *x.shape[2:]), order(parts)
  in_order = sorted(range(2 * parts), key=places.__getitem__)
  return chunks[:, jnp.array(in_order)].reshape(whole.shape)


def positions(length: int, parts: int) -> jax.Array:
  """Inside a shard_map: where the `length` tokens of this device's piece stand in the row."""
  i, chunk = jax.lax.axis_index(AXIS), jnp.arange(length // 2)
  return jnp.concatenate([chunk + i * len(chunk), chunk + (2 * parts - 1 - i) * len(chunk)])


def share(x: jax.Array, parts: int) -> jax.Array:
  """Inside a shard_map: this device's part of an axis 1 that all devices of the axis hold whole."""
  length = x.shape[1] // parts
  return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(AXIS) * length, length, axis=1)
