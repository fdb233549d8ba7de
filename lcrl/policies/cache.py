"""Keys and values that decoding keeps, and attention over them. The plain twin of `triton_decode`.

A row's keys lie in two places: those of its prompt, which R / B neighbouring rows have in common,
and its own, which grow by one a token. R rows, B prompts, K key heads, G queries of each, head size
H.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.policies.block import rotate
from lcrl.policies.config import Config

Slot = dict[str, jax.Array]  # k, v: [rows, kv_heads, length, head_dim]; int8: and their scales
Cache = tuple[Slot, ...]  # one a layer


class Prompts(NamedTuple):
  """What rows have read before their own caches begin."""

  lengths: jax.Array  # [B] int32, keys that count
  layers: Cache  # B rows each


def init_cache(c: Config, rows: int, length: int, dtype=None) -> Cache:
  """Zeros. With dtype "int8" a key is 127 steps of its own scale: max |k| / 127."""
  dtype = jnp.dtype(dtype or c.dtype)
  shape = (rows, c.kv_heads, length)

  def slot() -> Slot:
    kept = {name: jnp.zeros((*shape, c.head_dim), dtype) for name in ("k", "v")}
    if dtype == jnp.int8:
      kept |= {name: jnp.zeros(shape, jnp.float32) for name in ("k_scale", "v_scale")}
    return kept

  return tuple(slot() for _ in range(c.layers))


def pack(k: jax.Array, v: jax.Array, like: Slot) -> Slot:
  """Keys and values [..., H] as a slot such as `like` stores them."""
  if "k_scale" not in like:
    return {"k": k.astype(like["k"].dtype), "v": v.astype(like["v"].dtype)}
  (k, k_scale), (v, v_scale) = quantize(k), quantize(v)
  return {"k": k, "v": v, "k_scale": k_scale, "v_scale": v_scale}


def quantize(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """[..., H] -> int8 and scales [...]: x is about int8 * scale.

  >>> whole, scale = quantize(jnp.array([1.0, -2.0, 0.26]))
  >>> print(whole, scale.round(4))
  [  64 -127   17] 0.0157
  """
  x = x.astype(jnp.float32)
  scale = jnp.abs(x).max(axis=-1) / 127
  return jnp.round(x / jnp.where(scale > 0, scale, 1.0)[..., None]).astype(jnp.int8), scale


def write_prompts(slot: Slot, k: jax.Array, v: jax.Array) -> Slot:
  """Keys and values [B, P, K, H] to the first P places."""
  new = pack(k.swapaxes(1, 2), v.swapaxes(1, 2), slot)
  return {name: old.at[:, :, : k.shape[1]].set(new[name]) for name, old in slot.items()}


def write(slot: Slot, k: jax.Array, v: jax.Array, at: jax.Array) -> Slot:
  """Keys and values [R, K, H] to place `at`, [] for all rows or [R]."""
  new = pack(k, v, slot)
  if at.ndim == 0:
    put = lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x[:, :, None], at, axis=2)
  else:
    rows, heads = jnp.arange(len(k))[:, None], jnp.arange(k.shape[1])[None]
    put = lambda old, x: old.at[rows, heads, at[:, None]].set(x)
  return {name: put(old, new[name]) for name, old in slot.items()}


def attend(
  c: Config,
  qkv: jax.Array,
  turn: tuple[jax.Array, jax.Array],
  slot: Slot,
  at: jax.Array,
  live: jax.Array,
  prompt: Slot | None,
  seen: jax.Array | None,
  window: int | None,
) -> tuple[jax.Array, Slot]:
  """One token a row: writes its key, then attends to the prompt and to its own keys.

  Args:
    c: for its soft-cap.
    qkv: [R, K, G + 2, H], G queries, a key, a value; not turned yet.
    turn: cos and sin of the rows' positions, [R, 1, 1, H / 2].
    slot: own keys and values.
    at: [] or [R], where the token's own go: the number of own keys before it.
    live: [R] bool, rows whose result is read; others may be anything.
    prompt: keys and values of B prompts.
    seen: [B], how many of them count.
    window: keys that a query sees, itself included; None: all.
  Returns: [R, K, G, H] and the slot.
  """
  del live  # computed like the others
  q = rotate(qkv[:, :, :-2], turn)
  slot = write(slot, rotate(qkv[:, :, -2:-1], turn)[:, :, 0], qkv[:, :, -1], at)
  k, v = _read(slot, q.dtype)
  at, own = jnp.broadcast_to(at, q.shape[:1])[:, None], k.shape[2]
  distance = at - jnp.arange(own)[None]
  logits = [_mask(_product(q, k), distance, c, window)]
  if prompt is not None and seen is not None:
    keys, more = _read(prompt, q.dtype)
    products = _apart(_product(_together(q, len(seen)), keys), len(q))
    index, read = jnp.arange(keys.shape[2])[None], jnp.repeat(seen, len(q) // len(seen))[:, None]
    logits.append(_mask(products, jnp.where(index < read, read + at - index, -1), c, window))
  probs = jax.nn.softmax(jnp.concatenate(logits, axis=-1), axis=-1).astype(q.dtype)
  values = _product(probs[..., :own], v.swapaxes(2, 3))
  if prompt is not None and seen is not None:
    probs = _together(probs[..., own:], len(seen))
    values += _apart(_product(probs, more.swapaxes(2, 3)), len(q))
  return values.astype(q.dtype), slot


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


def _read(slot: Slot, dtype) -> tuple[jax.Array, jax.Array]:
  def one(name: str):
    x = slot[name].astype(dtype)
    scale = slot.get(f"{name}_scale")
    return x if scale is None else x * scale[..., None].astype(dtype)

  return one("k"), one("v")


def _mask(products, distance, c: Config, window: int | None):
  """[R, K, G, J] scaled products -> logits, where a key is `distance` [R, J] tokens back."""
  logits = products * c.head_dim**-0.5
  if c.attention_softcap is not None:
    logits = c.attention_softcap * jnp.tanh(logits / c.attention_softcap)
  visible = distance >= 0
  if window is not None:
    visible &= distance < window
  return jnp.where(visible[:, None, None], logits, jnp.finfo(logits.dtype).min)
