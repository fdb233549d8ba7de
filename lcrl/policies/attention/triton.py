"""Flash attention in Pallas for NVIDIA GPUs: packed rows, grouped queries, windows, soft-cap.

A query sees the keys from `first[t]` to t and those from `stem[t]` up to `fork[t]`, so that a block
of queries meets two runs of blocks of keys and what lies outside costs nothing: rows packed of
short segments take as long as the segments. Method: FlashAttention-2, arXiv:2307.08691, in three
kernels.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as gpu

from lcrl.policies.attention.spans import Spans, Window, last_query, seen_keys

_FLOOR = -1e30  # logit of what is not seen
_LOG2E = math.log2(math.e)


class Tile(NamedTuple):
  """A kernel's block of its own rows, its block of those it loops over, and how it is run."""

  own: int
  other: int
  warps: int
  stages: int


class Settings(NamedTuple):
  """Everything static."""

  forward: Tile  # queries by keys
  queries: Tile  # queries by keys: gradients of queries
  keys: Tile  # keys by queries: gradients of keys and values
  softcap: float | None = None
  scale: float = 1.0
  interpret: bool = False


TUNED = {  # by head size, on an H100
  64: Settings(Tile(128, 64, 8, 3), Tile(128, 64, 4, 3), Tile(64, 128, 4, 2)),
  128: Settings(Tile(64, 64, 4, 3), Tile(128, 64, 8, 3), Tile(64, 64, 4, 2)),
}


def attend(
  q,
  k,
  v,
  *,
  index=None,
  spans: Spans | None,
  window: Window,
  softcap: float | None,
  scale: float,
  how=None,
):
  """See `attention`. `how`: `Settings`, for tests and for tuning."""
  del index  # refused before
  how = (how or TUNED[q.shape[-1]])._replace(softcap=softcap, scale=scale)
  lead, length = q.shape[:-3], q.shape[-3]
  q_, k_, v_ = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
  flat = jax.tree.map(lambda x: x.reshape(-1, length), spans)
  place = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (q_.shape[0], length))
  first, stem, fork = seen_keys(place, flat, window)
  stems = (first, first) if stem is None or fork is None else (stem, fork)
  seen = jnp.stack([first, *stems], axis=1)
  last = last_query(place, flat, window)
  more = -length % max(how.forward.own, how.keys.own, how.queries.own)
  if more:  # what is added sees itself alone
    q_, k_, v_ = (jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0))) for x in (q_, k_, v_))
    added = jnp.broadcast_to(jnp.arange(length, length + more, dtype=jnp.int32), (len(q_), more))
    last = jnp.concatenate([last, added], axis=1)
    seen = jnp.concatenate([seen, jnp.broadcast_to(added[:, None], (len(q_), 3, more))], axis=2)
  return _attend(how, q_, k_, v_, seen, last)[:, :length].reshape(*lead, *q.shape[-3:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(how: Settings, q, k, v, seen, last):
  return _forward(how, q, k, v, seen, last)[0]


def _forward(how: Settings, q, k, v, seen, last):
  (rows, length, heads, size), tile = q.shape, how.forward
  group = heads // k.shape[2]
  mine, theirs = _block(tile.own, size), _whole(length, size, group)
  out, norm = _call(
    how,
    tile,
    _forward_kernel,
    (length // tile.own, heads, rows),
    in_specs=[mine, theirs, theirs, _triples(tile.own)],
    out_specs=[mine, _per_head(tile.own)],
    out_shape=[
      jax.ShapeDtypeStruct(q.shape, q.dtype),
      jax.ShapeDtypeStruct((rows, heads, length), jnp.float32),
    ],
  )(q, k, v, seen)
  out, norm = checkpoint_name(out, "attention"), checkpoint_name(norm, "attention")
  return out, (q, k, v, seen, last, out, norm)


def _backward(how: Settings, residuals, dout):
  q, k, v, seen, last, out, norm = residuals
  rows, length, heads, size = q.shape
  group = heads // k.shape[2]
  delta = jnp.sum(dout.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).swapaxes(1, 2)
  every = jax.ShapeDtypeStruct(q.shape, q.dtype)

  tile = how.queries
  mine, theirs, number = _block(tile.own, size), _whole(length, size, group), _per_head(tile.own)
  dq = _call(
    how,
    tile,
    _queries_kernel,
    (length // tile.own, heads, rows),
    in_specs=[mine, theirs, theirs, _triples(tile.own), mine, number, number],
    out_specs=mine,
    out_shape=every,
  )(q, k, v, seen, dout, norm, delta)

  tile = how.keys
  whole, numbers = (
    _whole(length, size),
    pl.BlockSpec((None, None, length), lambda i, n, b: (b, n, 0)),
  )
  triples = pl.BlockSpec((None, 3, length), lambda i, n, b: (b, 0, 0))
  dk, dv = _call(
    how,
    tile,
    _keys_kernel,
    (length // tile.own, heads, rows),
    in_specs=[
      whole,
      _block(tile.own, size, group),
      _block(tile.own, size, group),
      triples,
      _numbers(tile.own),
      whole,
      numbers,
      numbers,
    ],
    out_specs=[_block(tile.own, size)] * 2,
    out_shape=[every] * 2,
  )(q, k, v, seen, last, dout, norm, delta)

  def shared(x):
    """Adds up what the heads of a group found for the keys that they share."""
    x = x.reshape(rows, length, -1, group, size)
    return x.sum(axis=3, dtype=jnp.float32).astype(k.dtype)

  return dq, shared(dk), shared(dv), None, None


_attend.defvjp(_forward, _backward)


def _forward_kernel(q_ref, k_ref, v_ref, seen_ref, out_ref, norm_ref, *, how: Settings):
  q = q_ref[...]
  blocks, visit = _keys_of(how.forward, seen_ref)

  def body(j, carry):
    total, weighted, peak = carry
    here, seen = visit(j)
    logits, _ = _logits(how, gpu.dot(q, k_ref[here, :].T))
    logits = jnp.where(seen, logits, _FLOOR)
    higher = jnp.maximum(peak, jnp.max(logits, axis=1))
    shrink = jnp.exp2(peak - higher)
    p = jnp.exp2(logits - higher[:, None])
    v = v_ref[here, :]
    weighted = weighted * shrink[:, None] + gpu.dot(p.astype(v.dtype), v)
    return total * shrink + jnp.sum(p, axis=1), weighted, higher

  zero = jnp.zeros((q.shape[0],), jnp.float32)
  start = (zero, jnp.zeros(q.shape, jnp.float32), zero + _FLOOR)
  total, weighted, peak = jax.lax.fori_loop(0, blocks, body, start)
  out_ref[...] = (weighted / total[:, None]).astype(out_ref.dtype)
  norm_ref[...] = peak + jnp.log2(total)


def _queries_kernel(
  q_ref, k_ref, v_ref, seen_ref, dout_ref, norm_ref, delta_ref, dq_ref, *, how: Settings
):
  q, dout, norm, delta = q_ref[...], dout_ref[...], norm_ref[...], delta_ref[...]
  blocks, visit = _keys_of(how.queries, seen_ref)

  def body(j, dq):
    here, seen = visit(j)
    k, v = k_ref[here, :], v_ref[here, :]
    logits, slope = _logits(how, gpu.dot(q, k.T))
    p = jnp.where(seen, jnp.exp2(logits - norm[:, None]), 0.0)
    d = p * (gpu.dot(dout, v.T) - delta[:, None]) * slope
    return dq + gpu.dot(d.astype(k.dtype), k)

  zero = jnp.zeros(q.shape, jnp.float32)
  dq = jax.lax.fori_loop(0, blocks, body, zero)
  dq_ref[...] = (dq * how.scale).astype(dq_ref.dtype)


def _keys_kernel(
  q_ref,
  k_ref,
  v_ref,
  seen_ref,
  last_ref,
  dout_ref,
  norm_ref,
  delta_ref,
  dk_ref,
  dv_ref,
  *,
  how: Settings,
):
  own, other = how.keys[:2]
  k, v = k_ref[...], v_ref[...]
  key = pl.program_id(0) * own + jnp.arange(own)

  def body(j, carry):
    dk, dv = carry
    here = pl.ds(j * other, other)
    q, dout = q_ref[here, :], dout_ref[here, :]
    logits, slope = _logits(how, gpu.dot(k, q.T))
    place = j * other + jnp.arange(other)
    seen = _seen(key[:, None], place[None, :], *(seen_ref[i, here][None, :] for i in range(3)))
    p = jnp.where(seen, jnp.exp2(logits - norm_ref[here][None, :]), 0.0)
    dv = dv + gpu.dot(p.astype(dout.dtype), dout)
    d = p * (gpu.dot(v, dout.T) - delta_ref[here][None, :]) * slope
    return dk + gpu.dot(d.astype(q.dtype), q), dv

  begin = jax.lax.div(pl.program_id(0) * own, other)
  end = jax.lax.div(jnp.max(last_ref[...]), other) + 1
  zero = jnp.zeros(k.shape, jnp.float32)
  dk, dv = jax.lax.fori_loop(begin, end, body, (zero, zero))
  dk_ref[...] = (dk * how.scale).astype(dk_ref.dtype)
  dv_ref[...] = dv.astype(dv_ref.dtype)


def _logits(how: Settings, products):
  """Logits in units of log 2, and their slope in the products (without the scale)."""
  if how.softcap is None:
    return products * (how.scale * _LOG2E), 1.0
  bent = jnp.tanh(products * (how.scale / how.softcap))
  return bent * (how.softcap * _LOG2E), 1.0 - bent * bent


def _seen(key, place, first, stem, fork):
  """Does the query at `place` see the key?"""
  return ((key >= first) & (key <= place)) | ((key >= stem) & (key < fork))


def _keys_of(tile: Tile, seen_ref):
  """What this block of queries sees: so many blocks of keys, and j -> (the j-th, [own, other])."""
  own, other = tile[:2]
  place = pl.program_id(0) * own + jnp.arange(own)
  first, stem, fork = (seen_ref[i, :] for i in range(3))
  up = lambda n: jax.lax.div(n + other - 1, other)
  begin, after = jax.lax.div(jnp.min(stem), other), up(jnp.max(fork))
  ahead = jnp.maximum(after - begin, 0)  # blocks of stems; then those of branches
  again = jnp.maximum(after, jax.lax.div(jnp.min(first), other))
  end = up((pl.program_id(0) + 1) * own)

  def visit(j):
    start = jnp.where(j < ahead, begin + j, again + j - ahead) * other
    key = start + jnp.arange(other)[None, :]
    return pl.ds(start, other), _seen(key, *(x[:, None] for x in (place, first, stem, fork)))

  return ahead + end - again, visit


def _call(how: Settings, tile: Tile, kernel, grid, **specs):
  return pl.pallas_call(
    functools.partial(kernel, how=how),
    grid=grid,
    interpret=how.interpret,
    compiler_params=gpu.CompilerParams(num_warps=tile.warps, num_stages=tile.stages),
    name=f"attention{kernel.__name__.removesuffix('_kernel')}",
    **specs,
  )


# A program works on block i of head n of row b.
def _block(own: int, size: int, group: int = 1):
  return pl.BlockSpec((None, own, None, size), lambda i, n, b: (b, i, n // group, 0))


def _whole(length: int, size: int, group: int = 1):
  return pl.BlockSpec((None, length, None, size), lambda i, n, b: (b, 0, n // group, 0))


def _numbers(own: int):
  return pl.BlockSpec((None, own), lambda i, n, b: (b, i))


def _triples(own: int):
  return pl.BlockSpec((None, 3, own), lambda i, n, b: (b, 0, i))


def _per_head(own: int):
  return pl.BlockSpec((None, None, own), lambda i, n, b: (b, n, i))
