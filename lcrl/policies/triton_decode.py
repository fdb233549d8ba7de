"""Attention of one new token a row, as one Triton kernel. `cache.attend` is its plain twin.

It rotates query and key, writes key and value into the cache, and reads the live part of the cache
and nothing behind it. A program serves one key head of a few neighbouring rows with a common
prompt, so that the prompt is read once for all of them. Its queries fill the 16 rows of a product
that tensor cores compute in any case.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from lcrl.policies.cache import LayerCache, largest
from lcrl.policies.config import Config

LOW = -1e30  # a logit that never counts; -inf - -inf is nan


@dataclasses.dataclass(frozen=True)
class Tiles:
  """Sizes of blocks, and the launch."""

  queries: int = 16  # at most, where a program serves more than one row
  keys: int = 64  # read at once, of all its rows together; of heads beyond 64 fewer
  warps: int = 2
  stages: int = 3  # blocks of keys on their way


TILES = Tiles()


def refusal(c: Config) -> str | None:
  """Why this model cannot decode here, or None."""
  if c.sinks:
    return "sinks"
  if c.attention_softcap is not None:
    return "soft-cap"
  if c.head_dim < 32 or c.head_dim & (c.head_dim - 1):
    return f"head_dim={c.head_dim}"
  if jnp.dtype(c.dtype).itemsize != 2:
    return c.dtype
  return None


def attend(
  c: Config,
  qkv: jax.Array,
  rope: tuple[jax.Array, jax.Array],
  cache: LayerCache,
  at: jax.Array,
  live: jax.Array,
  prompt: LayerCache | None,
  prompt_lengths: jax.Array | None,
  window: int | None,
  read_length: int | None = None,
  *,
  tiles: Tiles = TILES,
  interpret: bool = False,
) -> tuple[jax.Array, LayerCache]:
  """As `cache.attend`. Rows that are not live read nothing and write to position 0."""
  del read_length  # every row reads as far as its own keys go
  rows, heads, parts, size = qkv.shape
  group = parts - 2
  if prompt is None or prompt_lengths is None:
    prompt, prompt_lengths = {}, jnp.zeros((rows,), jnp.int32)
  share = rows // len(prompt_lengths)
  tiles = dataclasses.replace(tiles, keys=max(tiles.keys // max(size // 64, 1), 16))
  per = max(n for n in (1, 2, 4, 8, 16) if not share % n and (n == 1 or n * group <= tiles.queries))
  at = jnp.where(live, jnp.broadcast_to(at, (rows,)), -1).astype(jnp.int32)
  names = tuple(cache)
  kernel = functools.partial(
    _kernel,
    per=per,
    share=share,
    group=group,
    size=size,
    scale=c.attention_scale,
    window=window,
    tiles=tiles,
    names=names,
    prompted=bool(prompt),
  )
  inputs = [at, prompt_lengths, *(x.reshape(rows, size // 2) for x in rope), qkv]
  inputs += [prompt[name] for name in names if prompt]
  first = len(inputs)
  out, *new = pl.pallas_call(
    kernel,
    grid=(rows // per, heads),
    out_shape=[
      jax.ShapeDtypeStruct((rows, heads, group, size), qkv.dtype),
      *(jax.ShapeDtypeStruct(cache[name].shape, cache[name].dtype) for name in names),
    ],
    input_output_aliases={first + i: 1 + i for i in range(len(names))},
    compiler_params=plgpu.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
    interpret=interpret,
    name="decode_attention",
  )(*inputs, *(cache[name] for name in names))
  return out, dict(zip(names, new, strict=True))


def _kernel(*refs, per, share, group, size, scale, window, tiles, names, prompted):
  at, prompt_lengths, cos, sin, qkv, *rest = refs
  many = len(names)
  prompt = dict(zip(names, rest[:many], strict=True)) if prompted else {}
  old = dict(zip(names, rest[-2 * many - 1 : -many - 1], strict=True))
  out, new = rest[-many - 1], dict(zip(names, rest[-many:], strict=True))
  first, head = pl.program_id(0) * per, pl.program_id(1)

  lanes = max(16, pl.next_power_of_2(per * group))
  lane = jnp.minimum(jnp.arange(lanes), per * group - 1)  # a query; the last one fills up
  row = first + lane // group
  half = jnp.arange(size // 2)

  # The lengths are loaded first, since all other loads wait for them. Nothing is stored before the
  # end: the compiler does not move a load above a store, which may alias it.
  row_lengths = [at[first + r] for r in range(per)]
  position = plgpu.load(at.at[row])
  each = tiles.keys // per  # a block of own keys has as many of each row: they wait together
  index, some = first + jnp.arange(tiles.keys) // each, jnp.arange(tiles.keys) % each
  bound, length = plgpu.load(at.at[index]), prompt_lengths[first // share]
  q, k = (rotated(qkv, cos, sin, row, head, part) for part in (lane % group, lane * 0 + group))
  v = load(qkv, row, head, lane * 0 + group + 1, jnp.arange(size))
  put, k, v = encode_kv(new, k, v)

  product = lambda a, b: jnp.sum(a.astype(jnp.float32) * b.astype(jnp.float32), axis=1)
  carry = (
    (product(q[0], k[0]) + product(q[1], k[1])) * scale,
    jnp.ones(lanes),
    v.astype(jnp.float32),
  )

  def read(source, index, key, bound, for_lane, distance_from, lo, hi, carry):
    """Adds blocks [lo, hi) of `source[index]` to the running softmax: keys `key(i)` below `bound`.
    `for_lane` [lanes, keys] says which lanes see them."""

    def block(i, carry):
      top, total, values = carry
      keys = key(i)
      inside = keys < bound
      fetch = functools.partial(load, mask=inside[:, None])
      columns = (half, half + size // 2)
      ks = [fetch(source["k"], index, head, keys, cols).astype(qkv.dtype) for cols in columns]
      logits = plgpu.dot(q[0], ks[0].T) + plgpu.dot(q[1], ks[1].T)
      logits = logits * scale
      if "k_scale" in source:
        logits *= plgpu.load(source["k_scale"].at[index, head, keys], mask=inside, other=0.0)[None]
      visible = inside[None] & for_lane
      if window is not None:
        visible &= distance_from[:, None] - keys[None] < window
      logits = jnp.where(visible, logits, LOW)
      above = jnp.maximum(top, logits.max(axis=1))
      shrink = jnp.exp(top - above)
      weights = jnp.exp(logits - above[:, None])
      total = total * shrink + weights.sum(axis=1)
      if "v_scale" in source:
        weights *= plgpu.load(source["v_scale"].at[index, head, keys], mask=inside, other=0.0)[None]
      vs = fetch(source["v"], index, head, keys, jnp.arange(size)).astype(qkv.dtype)
      return above, total, values * shrink[:, None] + plgpu.dot(weights.astype(qkv.dtype), vs)

    return jax.lax.fori_loop(lo, hi, block, carry)

  # A row that is not live has position -1 and reads nothing, unless a live one needs the prompt.
  most = functools.reduce(jnp.maximum, row_lengths)
  fewest = functools.reduce(jnp.minimum, row_lengths)
  since = lambda end: 0 if window is None else jnp.maximum(end - window, 0)
  if prompted:
    hi = jnp.where(most < 0, 0, pl.cdiv(length, tiles.keys))
    key = lambda i: i * tiles.keys + jnp.arange(tiles.keys)
    all_lanes = jnp.ones((lanes, tiles.keys), bool)
    lo, far = since(length) // tiles.keys, length + position
    carry = read(prompt, first // share, key, length, all_lanes, far, lo, hi, carry)
  for_lane, hi = row[:, None] == index[None], pl.cdiv(jnp.maximum(most, 0), each)
  key = lambda i: i * each + some
  carry = read(old, index, key, bound, for_lane, position, since(fewest) // each, hi, carry)
  _, total, values = carry
  values = (values / total[:, None]).astype(out.dtype)
  plgpu.store(out.at[index_of(row, head, lane % group, jnp.arange(size))], values)
  for name, parts in put.items():
    store(new[name], parts, row, head, jnp.maximum(position, 0))


def rotated(qkv, cos, sin, row, head, part):
  """Both halves of the queries or keys `part` of rows, one a lane, rotated in float32."""
  size = qkv.shape[-1]
  half = jnp.arange(size // 2)
  a, b = (
    load(qkv, row, head, part, columns).astype(jnp.float32) for columns in (half, half + size // 2)
  )
  c, s = load(cos, row, half), load(sin, row, half)
  return (a * c - b * s).astype(qkv.dtype), (b * c + a * s).astype(qkv.dtype)


def index_of(*index):
  """An index of rows and columns: arrays before the last are rows, the last is columns."""
  *leading, columns = index
  return (*(i[:, None] if getattr(i, "ndim", 0) else i for i in leading), columns[None])


def load(ref, *index, mask=None):
  nothing = None if mask is None else jnp.zeros((), ref.dtype)
  return plgpu.load(ref.at[index_of(*index)], mask=mask, other=nothing)


def encode_kv(new, k, v):
  """What `new` keeps of keys (in halves) and values, parts by name; and both as they read back."""
  if "k_scale" not in new:
    return {"k": k, "v": (v,)}, k, v
  code, wide = new["k"].dtype, k[0].dtype
  top = lambda *parts: functools.reduce(jnp.maximum, (jnp.abs(x).max(axis=1) for x in parts))
  scales = [x.astype(jnp.float32) / largest(code) for x in (top(*k), top(v))]
  codes = [_code(x, scales[0], code) for x in k], [_code(v, scales[1], code)]
  put = {"k": codes[0], "v": codes[1], "k_scale": scales[:1], "v_scale": scales[1:]}
  back = lambda parts, s: [(x.astype(jnp.float32) * s[:, None]).astype(wide) for x in parts]
  return put, back(codes[0], scales[0]), back(codes[1], scales[1])[0]


def store(ref, parts, row, head, position, mask=None):
  """Writes [lanes, columns] or [lanes] to a position of each row; lanes of a row are equal.

  mask: one flag for all; None: writes.
  """
  for i, x in enumerate(parts):
    at = row, head, position
    if x.ndim == 2:
      at = index_of(*at, jnp.arange(x.shape[1]) + i * x.shape[1])
    all_or_none = None if mask is None else jnp.zeros(x.shape, bool) | mask
    plgpu.store(ref.at[at], x.astype(ref.dtype), mask=all_or_none)


def _code(x, scale, dtype):
  """As `cache.quantize`, but in float32 where whole; halves go away from 0."""
  x = x.astype(jnp.float32) / jnp.where(scale > 0, scale, 1.0)[:, None]
  return jnp.trunc(x + jnp.where(x < 0, -0.5, 0.5)) if dtype == jnp.int8 else x.astype(dtype)
