"""Keys and values that decoding keeps, and attention to them: the plain twin of `triton_decode`.

A row's keys lie in two places: those of its prompt, which R / B neighbouring rows have in common,
and its own, which grow by one a token. R rows, B prompts, K key heads, G queries of each, head size
H.

That cache has room for the longest prompt and the longest response of every row, and its responses'
part grows with them (`sampling.jobs.cache_lengths`). Where rows wait for others, keys lie in pages
of a pool instead, of which a row has as many as it needs (`attend_pages`). A token reads as far as
the live rows are long: here all rows read as far as the longest (`read_length`), in the kernels
each row reads its own length.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.policies.attention.sinks import softmax
from lcrl.policies.block import rotate
from lcrl.policies.config import Config

# k, v: [rows, kv_heads, length, head_dim]. Types of one byte also have k_scale and v_scale, without
# the last axis.
LayerCache = dict[str, jax.Array]
Cache = tuple[LayerCache, ...]  # one a layer
# A key has a scale: max |k| is the largest such number. Of SmolLM2's distributions int8 moves less
# (benchmarks.cache_error); float8 without scales moves more, and overflows beyond 448.
ONE_BYTE_DTYPES = ("int8", "float8_e4m3fn")
SHORTEST = 128  # positions that are always read


class Prompts(NamedTuple):
  """Keys and values of prompts, which come before those in the rows' own caches."""

  lengths: jax.Array  # [B] int32, keys that count
  layers: Cache  # B rows each


def read_lengths(length: int) -> tuple[int, ...]:
  """How far loops over tokens read a cache: 128 positions, 4 times as many, ..., all of them.

  There are few, because each is a loop of its own in the compiled program.

  >>> read_lengths(2048), read_lengths(100)
  ((128, 512, 2048), (100,))
  """
  lengths = [length]
  while (least := SHORTEST * 4 ** (len(lengths) - 1)) < length:
    lengths.insert(-1, least)
  return tuple(lengths)


def init_cache(c: Config, rows: int, length: int, dtype=None) -> Cache:
  """Zeros in `dtype`: one of ONE_BYTE_DTYPES, or a wider floating type (None: the model's)."""
  dtype = jnp.dtype(dtype or c.dtype)
  wide = dtype.itemsize > 1 and jnp.issubdtype(dtype, jnp.floating)
  if not wide and dtype.name not in ONE_BYTE_DTYPES:
    raise ValueError(
      f"a cache of {dtype.name}: it may be float32, bfloat16, {', '.join(ONE_BYTE_DTYPES)}."
    )
  shape = (rows, c.kv_heads, length)

  def layer_cache() -> LayerCache:
    arrays = {name: jnp.zeros((*shape, c.head_dim), dtype) for name in ("k", "v")}
    if dtype.name in ONE_BYTE_DTYPES:
      arrays |= {name: jnp.zeros(shape, jnp.float32) for name in ("k_scale", "v_scale")}
    return arrays

  return tuple(layer_cache() for _ in range(c.layers))


def pack(k: jax.Array, v: jax.Array, like: LayerCache) -> LayerCache:
  """Keys and values [..., H] as a cache such as `like` stores them."""
  if "k_scale" not in like:
    return {"k": k.astype(like["k"].dtype), "v": v.astype(like["v"].dtype)}
  (k, k_scale), (v, v_scale) = (quantize(x, like["k"].dtype) for x in (k, v))
  return {"k": k, "v": v, "k_scale": k_scale, "v_scale": v_scale}


def largest(dtype) -> float:
  """127 of int8, 448 of float8_e4m3fn."""
  whole = jnp.issubdtype(dtype, jnp.integer)
  return float(jnp.iinfo(dtype).max if whole else jnp.finfo(dtype).max)


def quantize(x: jax.Array, dtype=jnp.int8) -> tuple[jax.Array, jax.Array]:
  """[..., H] -> codes of one byte and scales [...]; x is about codes * scale.

  >>> codes, scale = quantize(jnp.array([1.0, -2.0, 0.26]))
  >>> print(codes, scale.round(4))
  [  64 -127   17] 0.0157
  """
  x = x.astype(jnp.float32)
  scale = jnp.abs(x).max(axis=-1) / largest(dtype)
  codes = x / jnp.where(scale > 0, scale, 1.0)[..., None]
  return (jnp.round(codes) if dtype == jnp.int8 else codes).astype(dtype), scale


def write_prompts(cache: LayerCache, k: jax.Array, v: jax.Array) -> LayerCache:
  """Writes keys and values [B, P, K, H] to the first P positions."""
  new = pack(k.swapaxes(1, 2), v.swapaxes(1, 2), cache)
  return {name: old.at[:, :, : k.shape[1]].set(new[name]) for name, old in cache.items()}


def write(cache: LayerCache, k: jax.Array, v: jax.Array, at: jax.Array) -> LayerCache:
  """Writes keys and values [R, K, H] to position `at`, [] for all rows or [R]."""
  new = pack(k, v, cache)
  if at.ndim == 0:
    put = lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x[:, :, None], at, axis=2)
  else:
    rows, heads = jnp.arange(len(k))[:, None], jnp.arange(k.shape[1])[None]
    put = lambda old, x: old.at[rows, heads, at[:, None]].set(x)
  return {name: put(old, new[name]) for name, old in cache.items()}


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
  sinks: jax.Array | None = None,
) -> tuple[jax.Array, LayerCache]:
  """One token a row: writes its key, then attends to the prompt and to its own keys.

  Args:
    c: for its scale and soft-cap.
    qkv: [R, K, G + 2, H], G queries, a key, a value; not rotated yet.
    rope: cos and sin of the rows' positions, [R, 1, 1, H / 2].
    cache: keys and values of the rows.
    at: [] or [R], the position of the token's key in the cache: the number of keys before it.
    live: [R] bool, rows whose result is used; the results of others are undefined.
    prompt: keys and values of B prompts.
    prompt_lengths: [B], how many of them count.
    window: keys that a query sees, itself included; None: all.
    read_length: positions of the cache that are read, more than any live row's `at`; None: all.
    sinks: [K G], as in `attention`.
  Returns: [R, K, G, H] and the cache.
  """
  del live  # computed like the others
  q = rotate(qkv[:, :, :-2], rope)
  cache = write(cache, rotate(qkv[:, :, -2:-1], rope)[:, :, 0], qkv[:, :, -1], at)
  read = {name: x[:, :, :read_length] for name, x in cache.items()}
  count = read["k"].shape[2]
  at = jnp.broadcast_to(at, q.shape[:1])[:, None]
  logits = [_mask(_scores(q, read), at - jnp.arange(count)[None], c, window)]
  if prompt is not None and prompt_lengths is not None:
    products = _split_rows(_scores(_group_queries(q, len(prompt_lengths)), prompt), len(q))
    index = jnp.arange(products.shape[3])[None]
    visible = jnp.repeat(prompt_lengths, len(q) // len(prompt_lengths))[:, None]
    logits.append(_mask(products, jnp.where(index < visible, visible + at - index, -1), c, window))
  probs = softmax(jnp.concatenate(logits, axis=-1), _of_heads(sinks, q))
  values = _weigh(probs[..., :count], read, q.dtype)
  if prompt is not None and prompt_lengths is not None:
    probs = _group_queries(probs[..., count:], len(prompt_lengths))
    values += _split_rows(_weigh(probs, prompt, q.dtype), len(q))
  return values.astype(q.dtype), cache


def attend_pages(
  c: Config,
  qkv: jax.Array,
  rope: tuple[jax.Array, jax.Array],
  pool: LayerCache,
  table: jax.Array,
  at: jax.Array,
  live: jax.Array,
  window: int | None,
  read_length: int | None = None,
  sinks: jax.Array | None = None,
) -> tuple[jax.Array, LayerCache]:
  """One token a row, as `attend`, where the keys of a row lie in pages of a pool.

  Args:
    pool: keys and values [C, K, page, H] of C pages.
    table: [R, W] int32, the pages of each row in the order of its tokens.
    at: [R], the position of each token: so many keys come before it.
    live: [R] bool; other rows write nothing.
    read_length: tokens that are read of every row, more than any live row's `at`; None: W pages.
    sinks: [K G], as in `attention`.
  Returns: [R, K, G, H] and the pool.
  """
  q, page = rotate(qkv[:, :, :-2], rope), pool["k"].shape[2]
  pool = write_page(qkv, rope, pool, table, at, live)
  count = table.shape[1] if read_length is None else -(-read_length // page)
  gathered = {name: x[table[:, :count]].swapaxes(1, 2) for name, x in pool.items()}
  read = {name: x.reshape(*x.shape[:2], -1, *x.shape[4:]) for name, x in gathered.items()}
  distance = at[:, None] - jnp.arange(count * page)[None]
  probs = softmax(_mask(_scores(q, read), distance, c, window), _of_heads(sinks, q))
  return _weigh(probs, read, q.dtype).astype(q.dtype), pool


def write_page(qkv, rope, pool: LayerCache, table, at, live) -> LayerCache:
  """Writes the key and the value of each live row to its page. Arguments: `attend_pages`."""
  page = pool["k"].shape[2]
  last = jnp.take_along_axis(table, at[:, None] // page, axis=1)
  last = jnp.where(live[:, None], last, len(pool["k"]))  # that page does not exist
  heads, offset = jnp.arange(qkv.shape[1])[None], (at % page)[:, None]
  new = pack(rotate(qkv[:, :, -2:-1], rope)[:, :, 0], qkv[:, :, -1], pool)
  return {name: x.at[last, heads, offset].set(new[name], mode="drop") for name, x in pool.items()}


def _of_heads(sinks, q):
  """[K G] -> [K, G, 1], beside logits of queries [R, K, G, H]."""
  return None if sinks is None else sinks.reshape(*q.shape[1:3], 1)


def _scores(q, cache: LayerCache):
  """[R, K, M, H] -> products with all keys of a cache [R, K, M, L]."""
  products = _product(q, cache["k"].astype(q.dtype))
  return products * cache["k_scale"][:, :, None] if "k_scale" in cache else products


def _weigh(probs, cache: LayerCache, dtype):
  """[R, K, M, L] -> sums of the values of a cache [R, K, M, H], multiplied in `dtype`."""
  probs = probs * cache["v_scale"][:, :, None] if "v_scale" in cache else probs
  return _product(probs.astype(dtype), cache["v"].astype(dtype).swapaxes(2, 3))


def _product(x, y):
  """[R, K, M, I], [R, K, J, I] -> [R, K, M, J] in float32 or wider."""
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jnp.einsum("rkmi,rkji->rkmj", x, y, preferred_element_type=wide)


def _group_queries(x, prompts: int):
  """[R, K, G, X] -> [B, K, R / B G, X]: all queries of a prompt, so that its keys are read once."""
  _, heads, group, size = x.shape
  x = x.reshape(prompts, -1, heads, group, size).swapaxes(1, 2)
  return x.reshape(prompts, heads, -1, size)


def _split_rows(x, rows: int):
  """The inverse of `_group_queries`."""
  prompts, heads, _, size = x.shape
  x = x.reshape(prompts, heads, rows // prompts, -1, size).swapaxes(1, 2)
  return x.reshape(rows, heads, -1, size)


def _mask(products, distance, c: Config, window: int | None):
  """[R, K, G, J] scaled products -> logits, where a key is `distance` [R, J] tokens back."""
  logits = products * c.attention_scale
  if c.attention_softcap is not None:
    logits = c.attention_softcap * jnp.tanh(logits / c.attention_softcap)
  visible = distance >= 0
  if window is not None:
    visible &= distance < window
  return jnp.where(visible[:, None, None], logits, jnp.finfo(logits.dtype).min)
