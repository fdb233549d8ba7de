"""Attention in plain JAX by blocks of queries and of keys, and only where one sees the other.

Neither pass holds more than one block of scores a row. Memory grows with the length, time with the
number of visible pairs. As in FlashAttention (arXiv:2205.14135) the forward pass keeps a running
peak and leaves one log-normaliser a query, and the backward pass computes each block again.

Shapes: I blocks of B queries and J of B keys a row, R rows, K kv heads, Q = B * queries a kv head,
head size H.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lcrl.policies.attention.spans import Visible

_FLOOR = -1e30  # score of a key that is not visible: exp(_FLOOR - peak) is 0 after a visible key


class Pairs(NamedTuple):
  """The first `number` are blocks of queries in which some row sees a key of the other block."""

  queries: jax.Array  # [I * J]
  keys: jax.Array
  number: jax.Array  # []

  @classmethod
  def of(cls, visible: Visible, blocks: int) -> Pairs:
    """visible [I, R, B] of I blocks of queries, and J `blocks` of keys."""
    width = visible.first.shape[-1]
    begin = width * jnp.arange(blocks)[:, None, None, None]
    meets = lambda first, end: (first < end) & (first < begin + width) & (end > begin)
    some = meets(visible.first[None], visible.position[None] + 1)
    if visible.stem is not None and visible.fork is not None:
      some |= meets(visible.stem[None], visible.fork[None])
    some = some.any((2, 3)).T
    queries, keys = jnp.nonzero(some, size=some.size, fill_value=0)
    return cls(queries, keys, some.sum())


def attend(
  q, k, v, visible: Visible, softcap: float | None, scale: float, *, width: int, sinks=None
):
  """q [R, T, N, H], k and v [R, S, K, H], visible [R, T], sinks [N] -> [R, T, N, H], in blocks of
  `width`."""
  length, heads, group = q.shape[1], k.shape[2], q.shape[2] // k.shape[2]

  def cut(x, mode="constant"):
    """[R, T, ...] -> [I, R, B, ...]"""
    pads = ((0, 0), (0, -x.shape[1] % width), *((0, 0),) * (x.ndim - 2))
    x = jnp.pad(x, pads, mode)
    return jnp.moveaxis(x.reshape(x.shape[0], -1, width, *x.shape[2:]), 1, 0)

  q = cut(q.reshape(*q.shape[:2], heads, group, -1)).swapaxes(2, 3)
  q = q.reshape(*q.shape[:3], width * group, -1)
  k, v = (cut(x).swapaxes(2, 3) for x in (k, v))
  visible = jax.tree.map(partial(cut, mode="edge"), visible)  # padding sees what the last one does
  if sinks is not None:
    sinks = jnp.tile(sinks.reshape(heads, group), width)  # [K, Q]
  out = _attend(softcap, scale, q, k, v, sinks, visible).reshape(*q.shape[:3], width, group, -1)
  out = jnp.moveaxis(out.swapaxes(2, 3), 0, 1)
  return out.reshape(out.shape[0], -1, heads * group, out.shape[-1])[:, :length]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(softcap, scale, q, k, v, sinks, visible):
  """q [I, R, K, Q, H], k and v [J, R, K, B, H], sinks [K, Q], visible [I, R, B] ->
  [I, R, K, Q, H]."""
  return _forward(softcap, scale, q, k, v, sinks, visible)[0]


def _forward(softcap, scale, q, k, v, sinks, visible):
  pairs = Pairs.of(visible, len(k))

  def pair(at, sums):
    i, j = pairs.queries[at], pairs.keys[at]
    peak, total, values = (_take(x, i) for x in sums)
    z, _ = _scores(softcap, scale, _take(q, i), _take(k, j), _take(visible, i), j)
    new = jnp.maximum(peak, z.max(-1))
    p, shrink = jnp.exp(z - new[..., None]), jnp.exp(peak - new)
    more = _product("rkqs,rksh->rkqh", p.astype(v.dtype), _take(v, j))
    now = new, shrink * total + p.sum(-1), shrink[..., None] * values + more
    return tuple(_put(x, y, i) for x, y in zip(sums, now, strict=True))

  zero = jnp.zeros(q.shape, jnp.promote_types(q.dtype, jnp.float32))
  start = zero[..., 0] + _FLOOR, zero[..., 0], zero
  if sinks is not None:  # as a key that comes first, whose value is 0
    start = jnp.broadcast_to(sinks, zero.shape[:-1]).astype(zero.dtype), zero[..., 0] + 1, zero
  peak, total, values = jax.lax.fori_loop(0, pairs.number, pair, start)
  out = checkpoint_name((values / total[..., None]).astype(q.dtype), "attention")
  norm = checkpoint_name(peak + jnp.log(total), "attention")
  return out, (q, k, v, sinks, visible, pairs, out, norm)


def _backward(softcap, scale, residuals, g):
  """With z the scores and p = exp(z - norm): dz = p (g v^T - g out^T). The value of a sink is 0."""
  q, k, v, sinks, visible, pairs, out, norm = residuals
  inner = (g.astype(norm.dtype) * out.astype(norm.dtype)).sum(-1)

  def pair(at, grads):
    i, j = pairs.queries[at], pairs.keys[at]
    q_i, g_i, k_j, v_j = _take(q, i), _take(g, i), _take(k, j), _take(v, j)
    z, slope = _scores(softcap, scale, q_i, k_j, _take(visible, i), j)
    p = jnp.exp(z - _take(norm, i)[..., None])
    dp = _product("rkqh,rksh->rkqs", g_i, v_j)
    dz = (p * (dp - _take(inner, i)[..., None]) * slope).astype(q.dtype)
    more = (
      (_product("rkqs,rksh->rkqh", dz, k_j), i),
      (_product("rkqs,rkqh->rksh", dz, q_i), j),
      (_product("rkqs,rkqh->rksh", p.astype(g.dtype), g_i), j),
    )
    return tuple(_put(x, _take(x, b) + y, b) for x, (y, b) in zip(grads, more, strict=True))

  start = tuple(jnp.zeros(x.shape, norm.dtype) for x in (q, k, v))
  grads = jax.lax.fori_loop(0, pairs.number, pair, start)
  grads = (d.astype(x.dtype) for d, x in zip(grads, (q, k, v), strict=True))
  if sinks is None:
    return *grads, None, None
  p = jnp.exp(jnp.broadcast_to(sinks, norm.shape) - norm)
  return *grads, -(p * inner).sum((0, 1)).astype(sinks.dtype), None


_attend.defvjp(_forward, _backward)


def _scores(softcap, scale, q, k, visible: Visible, j):
  """Of queries with block j of keys, [R, K, Q, B], and what they grow by with the product of q and
  k."""
  slope: float | jax.Array = scale
  z = _product("rkqh,rksh->rkqs", q, k) * scale
  if softcap is not None:
    z = softcap * jnp.tanh(z / softcap)
    slope = slope * (1 - (z / softcap) ** 2)
  width = k.shape[-2]
  key = (j * width + jnp.arange(width))[None, None]
  mask = (key <= visible.position[..., None]) & (key >= visible.first[..., None])
  if visible.stem is not None and visible.fork is not None:
    mask |= (key >= visible.stem[..., None]) & (key < visible.fork[..., None])
  mask = jnp.repeat(mask, q.shape[-2] // width, axis=1)
  return jnp.where(mask[:, None], z, _FLOOR), slope


def _product(subscripts: str, a, b):
  wide = jnp.promote_types(a.dtype, jnp.float32)
  return jnp.einsum(subscripts, a, b, preferred_element_type=wide)


def _take(tree, at):
  return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, at, keepdims=False), tree)


def _put(x, y, at):
  return jax.lax.dynamic_update_index_in_dim(x, y, at, 0)
