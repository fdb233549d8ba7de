"""Attention of one new token a row to keys in pages, as two Triton kernels. `cache.attend_pages` is
the plain twin.

One row may have a hundred times the keys of another. So a program of the first kernel serves one
key head of one row for `span` of its keys, and programs behind the end of a row end at once. The
second kernel adds up the parts of a row. (Flash decoding: Dao et al., 2023.)
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from lcrl.policies.cache import LayerCache, largest
from lcrl.policies.config import Config
from lcrl.policies.triton_decode import LOW, encode_kv, index_of, load, rotated, store

_COLUMNS = 32  # of the values that a program of the second kernel adds up


class Tiles(NamedTuple):
  """Sizes of blocks, and the launch of the first kernel."""

  span: int = 1024  # keys of a program, at least
  keys: int = 64  # read at once; no more than a page, and of heads beyond 128 fewer
  warps: int = 4
  stages: int = 2  # blocks of keys on their way


TILES = Tiles()
MOST_PARTS = 32  # of a row


def attend(
  c: Config,
  qkv: jax.Array,
  rope: tuple[jax.Array, jax.Array],
  pool: LayerCache,
  table: jax.Array,
  at: jax.Array,
  live: jax.Array,
  window: int | None,
  read_length: int | None = None,
  *,
  tiles: Tiles = TILES,
  interpret: bool = False,
) -> tuple[jax.Array, LayerCache]:
  """As `cache.attend_pages`. The result of rows that are not live is 0."""
  del read_length  # every row reads as far as its own keys go
  rows, heads, many, size = qkv.shape
  page, width = pool["k"].shape[2], table.shape[1]
  keys = min(tiles.keys, max(tiles.keys * 128 // size, 16), page & -page)
  span = max(tiles.span, -(-width * page // MOST_PARTS))
  span += -span % keys
  parts, group = pl.cdiv(width * page, span), many - 2
  at = jnp.where(live, at, -1).astype(jnp.int32)
  names = tuple(pool)
  static = {"group": group, "size": size, "span": span, "window": window}
  inputs = [at, table, *(x.reshape(rows, size // 2) for x in rope), qkv]
  scalars = jax.ShapeDtypeStruct((rows, heads, parts, group), jnp.float32)
  values, top, total, *new = pl.pallas_call(
    functools.partial(_part, **static, page=page, keys=keys, scale=c.attention_scale, names=names),
    grid=(rows, heads, parts),
    out_shape=[
      jax.ShapeDtypeStruct((*scalars.shape, size), jnp.float32),
      scalars,
      scalars,
      *(jax.ShapeDtypeStruct(pool[name].shape, pool[name].dtype) for name in names),
    ],
    input_output_aliases={len(inputs) + i: 3 + i for i in range(len(names))},
    compiler_params=plgpu.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
    interpret=interpret,
    name="decode_pages",
  )(*inputs, *(pool[name] for name in names))
  out = pl.pallas_call(
    functools.partial(_sum, **static, parts=parts),
    grid=(rows, heads, size // _COLUMNS),
    out_shape=jax.ShapeDtypeStruct((rows, heads, group, size), qkv.dtype),
    compiler_params=plgpu.CompilerParams(num_warps=2, num_stages=1),
    interpret=interpret,
    name="decode_pages_sum",
  )(at, values, top, total)
  return out, dict(zip(names, new, strict=True))


def _part(*refs, group, size, span, window, page, keys, scale, names):
  """The running softmax over one span of keys: its largest logit, its sum, its sum of values."""
  at, table, cos, sin, qkv, *rest = refs
  old = dict(zip(names, rest, strict=False))
  values_out, top_out, total_out, *new_refs = rest[len(names) :]
  new = dict(zip(names, new_refs, strict=True))
  row, head, part = (pl.program_id(i) for i in range(3))
  position, begin = at[row], part * span
  first = 0 if window is None else jnp.maximum(position - window + 1, 0)
  hi = jnp.minimum(begin + span, position)  # keys before the token's own
  lo = jnp.maximum(begin, first)

  @pl.when((begin <= position) & (first < begin + span))
  def _():
    mine = position < begin + span  # the last part writes the token's own key, and reads it here
    lanes = max(16, pl.next_power_of_2(group))
    query, rows = jnp.minimum(jnp.arange(lanes), group - 1), jnp.zeros(lanes, jnp.int32) + row
    half, columns = jnp.arange(size // 2), jnp.arange(size)
    # Codes of one byte become float16 in one instruction, bfloat16 in several.
    coded = "v_scale" in old
    wide = jnp.dtype(jnp.float16) if coded else qkv.dtype
    most = largest(old["v"].dtype) if coded else 1.0

    q, k = (rotated(qkv, cos, sin, rows, head, part) for part in (query, query * 0 + group))
    v = load(qkv, rows, head, query * 0 + group + 1, columns)
    put, k, v = encode_kv(new, k, v)
    queries = [x.astype(wide) for x in q]
    product = lambda a, b: jnp.sum(a.astype(jnp.float32) * b.astype(jnp.float32), axis=1)
    own = (product(q[0], k[0]) + product(q[1], k[1])) * scale
    # Sums of weights stay apart by key until the end: adding them up takes a barrier of all warps.
    counted = (jnp.arange(keys) == 0)[None] & jnp.broadcast_to(mine, (lanes, 1))
    carry = (
      jnp.where(mine, own, LOW),
      jnp.where(counted, 1.0, 0.0),
      jnp.where(mine, v.astype(jnp.float32), 0.0),
    )

    def block(i, carry):
      top, total, values = carry
      key = i * keys + jnp.arange(keys)
      visible = (key >= lo) & (key < hi)
      where, offset = table[row, i * keys // page], i * keys % page + jnp.arange(keys)
      fetch = lambda ref, cols: load(ref, where, head, offset, cols, mask=visible[:, None])
      scales = lambda name: plgpu.load(old[name].at[where, head, offset], mask=visible, other=0.0)
      ks = [fetch(old["k"], cols).astype(wide) for cols in (half, half + size // 2)]
      logits = (plgpu.dot(queries[0], ks[0].T) + plgpu.dot(queries[1], ks[1].T)) * scale
      if coded:
        logits *= scales("k_scale")[None]
      logits = jnp.where(visible[None], logits, LOW)
      above = jnp.maximum(top, logits.max(axis=1))
      shrink = jnp.exp(top - above)[:, None]
      weights = jnp.where(visible[None], jnp.exp(logits - above[:, None]), 0.0)
      total = total * shrink + weights
      if coded:  # by the largest value of each key, which float16 holds where a scale is too small
        weights *= scales("v_scale")[None] * most
      vs = fetch(old["v"], columns).astype(wide)
      return above, total, values * shrink + plgpu.dot(weights.astype(wide), vs) * (1 / most)

    top, total, values = jax.lax.fori_loop(lo // keys, pl.cdiv(hi, keys), block, carry)
    plgpu.store(values_out.at[index_of(rows, head, part, query, columns)], values)
    plgpu.store(top_out.at[rows, head, part, query], top)
    plgpu.store(total_out.at[rows, head, part, query], total.sum(axis=1))
    pages = jnp.zeros(lanes, jnp.int32) + table[row, position // page]
    for name, x in put.items():
      store(new[name], x, pages, head, rows * 0 + position % page, mask=mine)


def _sum(at, values, top, total, out, *, group, size, span, window, parts):
  """Adds the parts of one head of a row up, for a few columns of its values."""
  del size
  row, head, column = (pl.program_id(i) for i in range(3))
  position = at[row]
  first = 0 if window is None else jnp.maximum(position - window + 1, 0)
  part = jnp.arange(pl.next_power_of_2(parts))
  lanes = jnp.arange(pl.next_power_of_2(group))
  columns = column * _COLUMNS + jnp.arange(_COLUMNS)
  active = (part * span <= position) & ((part + 1) * span > first) & (part < parts)
  mask = active[:, None] & (lanes < group)[None]
  scalar = lambda ref, other: plgpu.load(
    ref.at[row, head, part[:, None], lanes[None]], mask=mask, other=other
  )
  tops = scalar(top, LOW)
  weights = jnp.where(mask, jnp.exp(tops - tops.max(axis=0)[None]), 0.0)
  sums = (weights * scalar(total, 0.0)).sum(axis=0)
  parts_of = plgpu.load(
    values.at[row, head, part[:, None, None], lanes[None, :, None], columns[None, None]],
    mask=jnp.broadcast_to(mask[:, :, None], (*mask.shape, _COLUMNS)),
    other=0.0,
  )
  result = (weights[:, :, None] * parts_of).sum(axis=0) / jnp.where(sums > 0, sums, 1.0)[:, None]
  plgpu.store(
    out.at[row, head, lanes[:, None], columns[None]],
    result.astype(out.dtype),
    mask=jnp.broadcast_to((lanes < group)[:, None], result.shape),
  )
