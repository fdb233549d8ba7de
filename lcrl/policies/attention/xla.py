"""Attention in plain JAX: the twin that the fast back ends must equal. Long rows go in blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.policies.attention.spans import Seen, Spans, Window, seen_keys

BLOCK = 512  # queries at a time in rows that are longer than four such blocks


def attend(q, k, v, *, index, spans: Spans | None, window: Window, softcap: float | None):
  *lead, length, heads, size = q.shape
  if index is None:
    index = jax.lax.broadcasted_iota(jnp.int32, (1,) * len(lead) + (length,), len(lead))
  seen = seen_keys(index, spans, window)
  if length <= 4 * BLOCK:
    return _block(q, k, v, index, seen, softcap)

  def blocks(x, axis):
    """[..., T, ...] -> [T / BLOCK, ..., BLOCK, ...]; what is added sees only the first key."""
    pads = [(0, 0)] * x.ndim
    pads[axis] = (0, -length % BLOCK)
    x = jnp.pad(x, pads)
    return jnp.moveaxis(x.reshape(*x.shape[:axis], -1, BLOCK, *x.shape[axis + 1 :]), axis, 0)

  # A block's probabilities are computed again on the way back: memory is linear in length.
  one = jax.checkpoint(lambda x: _block(x[0], k, v, x[1], x[2], softcap))
  per_query = jax.tree.map(lambda x: blocks(x, x.ndim - 1), (index, seen))
  out = jax.lax.map(one, (blocks(q, q.ndim - 3), *per_query))
  out = jnp.moveaxis(out, 0, len(lead))
  return out.reshape(*lead, -1, heads, size)[..., :length, :, :]


def _block(q, k, v, index, seen: Seen, softcap):
  *lead, length, heads, size = q.shape
  keys = jax.lax.broadcasted_iota(jnp.int32, (1,) * index.ndim + k.shape[-3:-2], index.ndim)
  mask = (keys <= index[..., None]) & (keys >= seen.first[..., None])
  if seen.stem is not None and seen.fork is not None:
    mask |= (keys >= seen.stem[..., None]) & (keys < seen.fork[..., None])
  q = q.reshape(*lead, length, k.shape[-2], -1, size)
  wide = jnp.promote_types(q.dtype, jnp.float32)
  # in the order of the product: any other is a copy of all logits
  logits = jnp.einsum("...tkgh,...skh->...ktgs", q, k, preferred_element_type=wide) * size**-0.5
  if softcap is not None:
    logits = softcap * jnp.tanh(logits / softcap)
  logits = jnp.where(mask[..., None, :, None, :], logits, jnp.finfo(wide).min)
  probs = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum("...ktgs,...skh->...tkgh", probs, v).reshape(*lead, length, heads, size)
