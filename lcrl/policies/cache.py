"""Keys and values that decoding keeps, and attention over them. The plain twin of `triton_decode`.

A row's keys lie in two places: those of its prompt, which `share` neighbouring rows have in common,
and its own, which grow by one a token. R rows, B = R / share prompts, K key heads, G queries of each,
head size H.
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
  new = pack(*(x.swapaxes(1, 2) for x in (k, v)), slot)
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
  rows, heads, group, size = q.shape
  k, v = _read(slot, q.dtype)
  wide = jnp.promote_types(q.dtype, jnp.float32)
  at = jnp.broadcast_to(at, (rows,))[:, None]
  distance = at - jnp.arange(k.shape[2])[None]
  logits = [
    _mask(jnp.einsum("rkgh,rkjh->rkgj", q, k, preferred_element_type=wide), distance, c, window)
  ]
  if prompt is not None and seen is not None:
    prompts = len(seen)
    apart = q.reshape(prompts, -1, heads, group, size)
    pk, pv = _read(prompt, q.dtype)
    products = jnp.einsum("bskgh,bkph->bskgp", apart, pk, preferred_element_type=wide)
    index = jnp.arange(pk.shape[2])[None]
    read = jnp.repeat(seen, rows // prompts)[:, None]
    distance = jnp.where(index < read, read + at - index, -1)
    logits.append(_mask(products.reshape(rows, heads, group, -1), distance, c, window))
  probs = jax.nn.softmax(jnp.concatenate(logits, axis=-1), axis=-1).astype(q.dtype)
  values = jnp.einsum("rkgj,rkjh->rkgh", probs[..., : k.shape[2]], v, preferred_element_type=wide)
  if prompt is not None:
    apart = probs[..., k.shape[2] :].reshape(prompts, -1, heads, group, pk.shape[2])
    more = jnp.einsum("bskgp,bkph->bskgh", apart, pv, preferred_element_type=wide)
    values += more.reshape(values.shape)
  return values.astype(q.dtype), slot


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
