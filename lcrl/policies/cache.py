"""Keys and values that decoding keeps, and attention over them. The plain twin of `triton_decode`.

A row's keys lie in two places: those of its prompt, which R / B neighbouring rows have in common,
and its own, which grow by one a token. R rows, B prompts, K key heads, G queries of each, head size
H.

Memory has room for the longest prompt and the longest response of every row that decodes at once.
Where no row waits, the responses' part grows with them (`sampling.jobs.cache_lengths`). A token
reads as far as the live rows are long: here all rows read as far as the longest (`read_length`), in
the kernel each row reads its own length.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.policies.block import rotate
from lcrl.policies.config import Config

LayerCache = dict[
  str, jax.Array
]  # k, v: [rows, kv_heads, length, head_dim]; of a byte: and their scales
Cache = tuple[LayerCache, ...]  # one a layer
# A key has a scale: max |k| is the largest such number. Of SmolLM2's distributions int8 moves less
# (benchmarks.cache_error); float8 without scales moves more, and overflows beyond 448.
ONE_BYTE_DTYPES = ("int8", "float8_e4m3fn")
SHORTEST = 128  # places that are always read


class Prompts(NamedTuple):
  """What rows have read before their own caches begin."""

  lengths: jax.Array  # [B] int32, keys that count
  layers: Cache  # B rows each


def read_lengths(length: int) -> tuple[int, ...]:
  """How far loops over tokens read a cache: to 128 places, to 4 times as many, ..., to all. Few,
  because each is a program of its own.

  >>> read_lengths(2048), read_lengths(100)
  ((128, 512, 2048), (100,))
  """
  found = [length]
  while (least := SHORTEST * 4 ** (len(found) - 1)) < length:
    found.insert(-1, least)
  return tuple(found)


def init_cache(c: Config, rows: int, length: int, dtype=None) -> Cache:
  """Zeros of a wider floating type, None: that of the computation; or of one in ONE_BYTE_DTYPES."""
  dtype = jnp.dtype(dtype or c.dtype)
  wide = dtype.itemsize > 1 and jnp.issubdtype(dtype, jnp.floating)
  if not wide and dtype.name not in ONE_BYTE_DTYPES:
    raise ValueError(
      f"a cache of {dtype.name}: it may be float32, bfloat16, {', '.join(ONE_BYTE_DTYPES)}."
    )
  shape = (rows, c.kv_heads, length)

  def layer_cache() -> LayerCache:
    kept = {name: jnp.zeros((*shape, c.head_dim), dtype) for name in ("k", "v")}
    if dtype.name in ONE_BYTE_DTYPES:
      kept |= {name: jnp.zeros(shape, jnp.float32) for name in ("k_scale", "v_scale")}
    return kept

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
  """[..., H] -> codes of a byte and scales [...]: x is about codes * scale.

  >>> codes, scale = quantize(jnp.array([1.0, -2.0, 0.26]))
  >>> print(codes, scale.round(4))
  [  64 -127   17] 0.0157
  """
  x = x.astype(jnp.float32)
  scale = jnp.abs(x).max(axis=-1) / largest(dtype)
  codes = x / jnp.where(scale > 0, scale, 1.0)[..., None]
  return (jnp.round(codes) if dtype == jnp.int8 else codes).astype(dtype), scale


def write_prompts(cache: LayerCache, k: jax.Array, v: jax.Array) -> LayerCache:
  """Keys and values [B, P, K, H] to the first P places."""
  new = pack(k.swapaxes(1, 2), v.swapaxes(1, 2), cache)
  return {name: old.at[:, :, : k.shape[1]].set(new[name]) for name, old in cache.items()}


def write(cache: LayerCache, k: jax.Array, v: jax.Array, at: jax.Array) -> LayerCache:
  """Keys and values [R, K, H] to place `at`, [] for all rows or [R]."""
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
  seen: jax.Array | None,
  window: int | None,
  read_length: int | None = None,
) -> tuple[jax.Array, LayerCache]:
  """One token a row: writes its key, then attends to the prompt and to its own keys.

  Args:
    c: for its soft-cap.
    qkv: [R, K, G + 2, H], G queries, a key, a value; not turned yet.
    rope: cos and sin of the rows' positions, [R, 1, 1, H / 2].
    cache: own keys and values.
    at: [] or [R], where the token's own go: the number of own keys before it.
    live: [R] bool, rows whose result is read; others may be anything.
    prompt: keys and values of B prompts.
    seen: [B], how many of them count.
    window: keys that a query sees, itself included; None: all.
    read_length: places of the cache that are read, more than any live row's `at`; None: all.
  Returns: [R, K, G, H] and the cache.
  """
  del live  # computed like the others
  q = rotate(qkv[:, :, :-2], rope)
  cache = write(cache, rotate(qkv[:, :, -2:-1], rope)[:, :, 0], qkv[:, :, -1], at)
  near = {name: x[:, :, :read_length] for name, x in cache.items()}
  own = near["k"].shape[2]
  at = jnp.broadcast_to(at, q.shape[:1])[:, None]
  logits = [_mask(_scores(q, near), at - jnp.arange(own)[None], c, window)]
  if prompt is not None and seen is not None:
    products = _apart(_scores(_together(q, len(seen)), prompt), len(q))
    index = jnp.arange(products.shape[3])[None]
    read = jnp.repeat(seen, len(q) // len(seen))[:, None]
    logits.append(_mask(products, jnp.where(index < read, read + at - index, -1), c, window))
  probs = jax.nn.softmax(jnp.concatenate(logits, axis=-1), axis=-1)
  values = _weigh(probs[..., :own], near, q.dtype)
  if prompt is not None and seen is not None:
    values += _apart(_weigh(_together(probs[..., own:], len(seen)), prompt, q.dtype), len(q))
  return values.astype(q.dtype), cache


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


def _together(x, prompts: int):
  """[R, K, G, X] -> [B, K, R / B G, X]: all queries of a prompt."""
  _, heads, group, size = x.shape
  x = x.reshape(prompts, -1, heads, group, size).swapaxes(1, 2)
  return x.reshape(prompts, heads, -1, size)


def _apart(x, rows: int):
  """The inverse of `_together`."""
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
