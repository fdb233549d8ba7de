"""Flash attention in Pallas for NVIDIA GPUs: packed rows, grouped queries, windows, soft-cap.

The query at position t sees the keys from `first[t]` to t and those from `stem[t]` up to `fork[t]`.
A block of queries therefore visits two runs of blocks of keys, and keys outside cost nothing: rows
packed of short segments take as long as the segments. The T queries are those of all S tokens, or
of some of them in ascending order. Method: FlashAttention-2, arXiv:2307.08691, in three kernels.
Program (i, n, b) of a kernel works on block i of head n of row b, and its operands are:

    block spec       shape            holds
    _block           [own, H]         queries of block i, or keys of block i of the head's group
    _row             [T or S, H]      all queries, or all keys and values
    _block_bounds    [c, own]         of queries: position, first, stem and fork; of keys: how many
                                      queries stand before each, how many do up to the last that may
                                      see it, and how many have a `first` up to it
    _block_scalars   [own]            one number a query and head: log-normaliser, delta

Where a block of queries sees all of a block of keys, no mask is computed: these run in a loop of
their own, and on long rows they are most of the work.
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

from lcrl.policies.attention.spans import Spans, Window, at, last_query, visible_keys

_FLOOR = -1e30  # logit of a key that is not visible
_LOG2E = math.log2(math.e)


class Tile(NamedTuple):
  """The rows of a program's own block, those of each block that it loops over, and its launch."""

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
  unmasked: bool = True  # blocks that are seen as a whole in a loop without a mask
  interpret: bool = False


# By head size, the fastest of `experiments.benchmarks.attention --tune` on an H100. A program keeps
# the sums of its own block in registers, so larger heads want smaller blocks, as does the kernel of
# keys with its two sums, dk and dv. A stage is a block on its way, in shared memory.
TUNED = {
  64: Settings(Tile(128, 64, 8, 3), Tile(128, 64, 4, 3), Tile(64, 128, 4, 2)),
  128: Settings(Tile(64, 64, 4, 3), Tile(128, 64, 8, 3), Tile(64, 64, 4, 2)),
}


def attend(
  q,
  k,
  v,
  *,
  index=None,
  spans: Spans | None = None,
  window: Window,
  softcap: float | None,
  scale: float,
  settings=None,
):
  """See `attention`. `settings`: `Settings`, for tests and for tuning."""
  settings = (settings or TUNED[q.shape[-1]])._replace(softcap=softcap, scale=scale)
  lead, length, keys = q.shape[:-3], q.shape[-3], k.shape[-3]
  q_, k_, v_ = (x.reshape(-1, *x.shape[-3:]) for x in (q, k, v))
  flat = jax.tree.map(lambda x: x.reshape(-1, keys), spans)
  up_to = jax.vmap(functools.partial(jnp.searchsorted, side="right"))  # both ascend along a row
  key = jnp.broadcast_to(jnp.arange(keys, dtype=jnp.int32), (q_.shape[0], keys))
  last = last_query(key, flat, window)
  if index is None:
    visible, before = visible_keys(key, flat, window), (key, last + 1)
  else:
    index = jnp.broadcast_to(index, (*lead, length)).reshape(-1, length)
    visible = visible_keys(index, flat and at(flat, index), window)
    before = up_to(index, key - 1), up_to(index, last)
  position, first, stem, fork = visible
  stems = (first, first) if stem is None or fork is None else (stem, fork)
  bounds = jnp.stack([position, first, *stems], axis=1)
  seen_by = jnp.stack([*before, up_to(first, key)], axis=1)
  unit = max(max(tile[:2]) for tile in (settings.forward, settings.queries, settings.keys))

  def pad(x, axis=1, mode="constant"):
    """Up to whole blocks. Bounds repeat: padding visits no block of its own."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, -x.shape[axis] % unit)
    return jnp.pad(x, pads, mode)

  bounds, seen_by = (pad(x, 2, "edge") for x in (bounds, seen_by))
  out = _attend(settings, *map(pad, (q_, k_, v_)), bounds, seen_by)
  return out[:, :length].reshape(*lead, *q.shape[-3:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(settings: Settings, q, k, v, bounds, seen_by):
  return _forward(settings, q, k, v, bounds, seen_by)[0]


def _forward(settings: Settings, q, k, v, bounds, seen_by):
  (rows, length, heads, size), tile = q.shape, settings.forward
  group = heads // k.shape[2]
  q_block, kv_row = _block(tile.own, size), _row(k.shape[1], size, group)
  out, norm = _call(
    settings,
    tile,
    _forward_kernel,
    (length // tile.own, heads, rows),
    in_specs=[q_block, kv_row, kv_row, _block_bounds(tile.own, 4)],
    out_specs=[q_block, _block_scalars(tile.own)],
    out_shape=[
      jax.ShapeDtypeStruct(q.shape, q.dtype),
      jax.ShapeDtypeStruct((rows, heads, length), jnp.float32),
    ],
  )(q, k, v, bounds)
  out, norm = checkpoint_name(out, "attention"), checkpoint_name(norm, "attention")
  return out, (q, k, v, bounds, seen_by, out, norm)


def _backward(settings: Settings, residuals, dout):
  q, k, v, bounds, seen_by, out, norm = residuals
  (rows, length, heads, size), keys = q.shape, k.shape[1]
  group = heads // k.shape[2]
  delta = jnp.sum(dout.astype(jnp.float32) * out.astype(jnp.float32), axis=-1).swapaxes(1, 2)
  like = lambda length: jax.ShapeDtypeStruct((rows, length, heads, size), q.dtype)

  tile = settings.queries
  q_block, kv_row = _block(tile.own, size), _row(keys, size, group)
  q_scalars = _block_scalars(tile.own)
  dq = _call(
    settings,
    tile,
    _queries_kernel,
    (length // tile.own, heads, rows),
    in_specs=[q_block, kv_row, kv_row, _block_bounds(tile.own, 4), q_block, q_scalars, q_scalars],
    out_specs=q_block,
    out_shape=like(length),
  )(q, k, v, bounds, dout, norm, delta)

  tile = settings.keys
  q_row = _row(length, size)
  q_row_scalars = pl.BlockSpec((None, None, length), lambda i, n, b: (b, n, 0))
  bounds_row = pl.BlockSpec((None, 4, length), lambda i, n, b: (b, 0, 0))
  dk, dv = _call(
    settings,
    tile,
    _keys_kernel,
    (keys // tile.own, heads, rows),
    in_specs=[
      q_row,
      _block(tile.own, size, group),
      _block(tile.own, size, group),
      bounds_row,
      _block_bounds(tile.own, 3),
      q_row,
      q_row_scalars,
      q_row_scalars,
    ],
    out_specs=[_block(tile.own, size)] * 2,
    out_shape=[like(keys)] * 2,
  )(q, k, v, bounds, seen_by, dout, norm, delta)

  def shared(x):
    """Adds up what the heads of a group found for the keys that they share."""
    x = x.reshape(rows, keys, -1, group, size)
    return x.sum(axis=3, dtype=jnp.float32).astype(k.dtype)

  return dq, shared(dk), shared(dv), None, None


_attend.defvjp(_forward, _backward)


def _forward_kernel(q_ref, k_ref, v_ref, bounds_ref, out_ref, norm_ref, *, settings: Settings):
  q = q_ref[...]

  def body(visit, j, carry):
    total, weighted, peak = carry
    block, visible = visit(j)
    logits, _ = _logits(settings, gpu.dot(q, k_ref[block, :].T))
    logits = _where(visible, logits, _FLOOR)
    higher = jnp.maximum(peak, jnp.max(logits, axis=1))
    shrink = jnp.exp2(peak - higher)
    p = jnp.exp2(logits - higher[:, None])
    v = v_ref[block, :]
    weighted = weighted * shrink[:, None] + gpu.dot(p.astype(v.dtype), v)
    return total * shrink + jnp.sum(p, axis=1), weighted, higher

  zero = jnp.zeros((q.shape[0],), jnp.float32)
  start = (zero, jnp.zeros(q.shape, jnp.float32), zero + _FLOOR)
  loops = _keys_of(settings, settings.forward, bounds_ref)
  total, weighted, peak = _run(loops, body, start)
  out_ref[...] = (weighted / total[:, None]).astype(out_ref.dtype)
  norm_ref[...] = peak + jnp.log2(total)


def _queries_kernel(
  q_ref, k_ref, v_ref, bounds_ref, dout_ref, norm_ref, delta_ref, dq_ref, *, settings: Settings
):
  q, dout, norm, delta = q_ref[...], dout_ref[...], norm_ref[...], delta_ref[...]

  def body(visit, j, dq):
    block, visible = visit(j)
    k, v = k_ref[block, :], v_ref[block, :]
    logits, slope = _logits(settings, gpu.dot(q, k.T))
    p = _where(visible, jnp.exp2(logits - norm[:, None]), 0.0)
    d = p * (gpu.dot(dout, v.T) - delta[:, None]) * slope
    return dq + gpu.dot(d.astype(k.dtype), k)

  loops = _keys_of(settings, settings.queries, bounds_ref)
  dq = _run(loops, body, jnp.zeros(q.shape, jnp.float32))
  dq_ref[...] = (dq * settings.scale).astype(dq_ref.dtype)


def _keys_kernel(
  q_ref,
  k_ref,
  v_ref,
  bounds_ref,
  seen_by_ref,
  dout_ref,
  norm_ref,
  delta_ref,
  dk_ref,
  dv_ref,
  *,
  settings: Settings,
):
  own, other = settings.keys[:2]
  k, v = k_ref[...], v_ref[...]
  key = pl.program_id(0) * own + jnp.arange(own)

  def body(visit, j, carry):
    dk, dv = carry
    block, visible = visit(j)
    q, dout = q_ref[block, :], dout_ref[block, :]
    logits, slope = _logits(settings, gpu.dot(k, q.T))
    p = _where(visible, jnp.exp2(logits - norm_ref[block][None, :]), 0.0)
    dv = dv + gpu.dot(p.astype(dout.dtype), dout)
    d = p * (gpu.dot(v, dout.T) - delta_ref[block][None, :]) * slope
    return dk + gpu.dot(d.astype(q.dtype), q), dv

  before, up_to, first_up_to = (seen_by_ref[i, :] for i in range(3))
  begin, end = jax.lax.div(jnp.min(before), other), _up(jnp.max(up_to), other)
  whole, beyond = _whole(settings, other, jnp.max(before), jnp.min(first_up_to), begin, end)

  def partly(j):
    start = (begin + j + jnp.where(begin + j >= whole, beyond - whole, 0)) * other
    block = pl.ds(start, other)
    return block, _visible(key[:, None], *(bounds_ref[i, block][None, :] for i in range(4)))

  loops = _loops(end - begin, partly, whole, beyond, other)
  zero = jnp.zeros(k.shape, jnp.float32)
  dk, dv = _run(loops, body, (zero, zero))
  dk_ref[...] = (dk * settings.scale).astype(dk_ref.dtype)
  dv_ref[...] = dv.astype(dv_ref.dtype)


def _logits(settings: Settings, products):
  """Logits in units of log 2, and their slope in the products (without the scale)."""
  if settings.softcap is None:
    return products * (settings.scale * _LOG2E), 1.0
  bent = jnp.tanh(products * (settings.scale / settings.softcap))
  return bent * (settings.softcap * _LOG2E), 1.0 - bent * bent


def _visible(key, position, first, stem, fork):
  """Does the query at `position` see the key?"""
  return ((key >= first) & (key <= position)) | ((key >= stem) & (key < fork))


def _where(visible, x, other):
  return x if visible is None else jnp.where(visible, x, other)


def _up(n, size: int):
  """Blocks that hold n."""
  return jax.lax.div(n + size - 1, size)


def _keys_of(settings: Settings, tile: Tile, bounds_ref):
  """The `_loops` over the keys that this block of queries sees."""
  other = tile.other
  position, first, stem, fork = (bounds_ref[i, :] for i in range(4))
  begin, after = jax.lax.div(jnp.min(stem), other), _up(jnp.max(fork), other)
  ahead = jnp.maximum(after - begin, 0)  # blocks of stems; then those of branches
  again = jnp.maximum(after, jax.lax.div(jnp.min(first), other))
  end = _up(jnp.max(position) + 1, other)
  whole, beyond = _whole(settings, other, jnp.max(first), jnp.min(position) + 1, again, end)

  def partly(j):
    later = again + j - ahead
    later += jnp.where(later >= whole, beyond - whole, 0)
    start = jnp.where(j < ahead, begin + j, later) * other
    key = start + jnp.arange(other)[None, :]
    return pl.ds(start, other), _visible(key, *(x[:, None] for x in (position, first, stem, fork)))

  return _loops(ahead + end - again, partly, whole, beyond, other)


def _whole(settings: Settings, size: int, first, after, begin, end):
  """The blocks from `begin` up to `end` that lie from place `first` up to `after`: (first, end)."""
  whole = jnp.maximum(_up(first, size), begin)
  beyond = jnp.maximum(jnp.minimum(jax.lax.div(after, size), end), whole)
  return whole, beyond if settings.unmasked else whole


def _loops(blocks, partly, whole, beyond, size: int):
  """Two loops: (number of steps, step -> (its block, which pairs are visible; None: all are))."""
  wholly = lambda j: (pl.ds((whole + j) * size, size), None)
  return (beyond - whole, wholly), (blocks - (beyond - whole), partly)


def _run(loops, body, carry):
  """`body(visit, step, carry)` for every step of the loops."""
  for steps, visit in loops:
    carry = jax.lax.fori_loop(0, steps, functools.partial(body, visit), carry)
  return carry


def _call(settings: Settings, tile: Tile, kernel, grid, **specs):
  return pl.pallas_call(
    functools.partial(kernel, settings=settings),
    grid=grid,
    interpret=settings.interpret,
    compiler_params=gpu.CompilerParams(num_warps=tile.warps, num_stages=tile.stages),
    name=f"attention{kernel.__name__.removesuffix('_kernel')}",
    **specs,
  )


# The grid is (i, n, b), see the table above.
def _block(own: int, size: int, group: int = 1):
  return pl.BlockSpec((None, own, None, size), lambda i, n, b: (b, i, n // group, 0))


def _row(length: int, size: int, group: int = 1):
  return pl.BlockSpec((None, length, None, size), lambda i, n, b: (b, 0, n // group, 0))


def _block_bounds(own: int, count: int):
  return pl.BlockSpec((None, count, own), lambda i, n, b: (b, 0, i))


def _block_scalars(own: int):
  return pl.BlockSpec((None, None, own), lambda i, n, b: (b, n, i))
