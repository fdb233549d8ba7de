"""Attention in plain JAX: the twin that the fast back ends must equal. Long rows go in blocks."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.policies.attention import blocked
from lcrl.policies.attention.devices import block_width
from lcrl.policies.attention.sinks import softmax
from lcrl.policies.attention.spans import Spans, Visible, Window, at, visible_keys


def attend(
  q,
  k,
  v,
  *,
  index,
  spans: Spans | None,
  window: Window,
  softcap: float | None,
  scale: float,
  sinks: jax.Array | None = None,
):
  *lead, length, heads, size = q.shape
  width, most = block_width()
  if index is None:
    index = jax.lax.broadcasted_iota(jnp.int32, (*lead, length), len(lead))
  elif spans is None:  # queries of a cache
    return dense(q, k, v, visible_keys(index, spans, window), softcap, scale, sinks)
  else:
    index, spans = jnp.broadcast_to(index, (*lead, length)), at(spans, index)
  visible = visible_keys(index, spans, window)
  if k.shape[-3] <= most:
    return dense(q, k, v, visible, softcap, scale, sinks)
  q, k, v = (x.reshape(-1, *x.shape[len(lead) :]) for x in (q, k, v))
  visible = jax.tree.map(lambda x: x.reshape(-1, length), visible)
  out = blocked.attend(q, k, v, visible, softcap, scale, width=width, sinks=sinks)
  return out.reshape(*lead, length, heads, size)


def dense(q, k, v, visible: Visible, softcap: float | None, scale: float, sinks=None):
  """All scores at once."""
  *lead, length, heads, size = q.shape
  index = visible.position
  keys = jax.lax.broadcasted_iota(jnp.int32, (1,) * index.ndim + k.shape[-3:-2], index.ndim)
  mask = (keys <= index[..., None]) & (keys >= visible.first[..., None])
  if visible.stem is not None and visible.fork is not None:
    mask |= (keys >= visible.stem[..., None]) & (keys < visible.fork[..., None])
  q = q.reshape(*lead, length, k.shape[-2], -1, size)
  wide = jnp.promote_types(q.dtype, jnp.float32)
  # in the order of the product: any other is a copy of all logits
  logits = jnp.einsum("...tkgh,...skh->...ktgs", q, k, preferred_element_type=wide) * scale
  if softcap is not None:
    logits = softcap * jnp.tanh(logits / softcap)
  logits = jnp.where(mask[..., None, :, None, :], logits, jnp.finfo(wide).min)
  beside = None if sinks is None else sinks.reshape(k.shape[-2], 1, -1, 1)
  probs = softmax(logits, beside).astype(v.dtype)
  return jnp.einsum("...ktgs,...skh->...tkgh", probs, v).reshape(*lead, length, heads, size)
