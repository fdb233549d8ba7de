"""Attention: one function, several back ends, each of which says what it can do.

Shapes: T queries of N heads, S keys of K heads, N a multiple of K, head size H.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Window = int | jax.Array | None


class Backend(NamedTuple):
  """An implementation, and what it supports besides causal attention."""

  attend: Callable
  supports: frozenset[str]


def attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  *,
  index: jax.Array | None = None,
  segments: jax.Array | None = None,
  window: Window = None,
  softcap: float | None = None,
  backend: str = "xla",
) -> jax.Array:
  """Causal softmax attention, q k^T / sqrt(H), each group of N / K heads sharing keys and values.

  Args:
    q: [..., T, N, H]. k, v: [..., S, K, H].
    index: [..., T] int, where each query stands among the keys; None: query t is key t.
    segments: [..., S] int, a query sees only keys of its own segment; needs T == S.
    window: a query sees the last `window` keys, itself included; None: all. May be traced.
    softcap: logits become softcap * tanh(logits / softcap).
    backend: a name in BACKENDS.
  Returns: [..., T, N, H] in q's dtype.
  """
  if backend not in BACKENDS:
    raise ValueError(f"Unknown attention back end {backend!r}: {', '.join(BACKENDS)}.")
  asked = {
    "offset queries": index is not None,
    "segment ids": segments is not None,
    "grouped queries": q.shape[-2] != k.shape[-2],
    "window": window is not None,
    "window per layer": isinstance(window, jax.Array),
    "soft-cap": softcap is not None,
    str(q.dtype): True,
  }
  missing = sorted({name for name, on in asked.items() if on} - BACKENDS[backend].supports)
  if missing:
    raise ValueError(f"Attention back end {backend!r} does not support {', '.join(missing)}.")
  attend = BACKENDS[backend].attend
  return attend(q, k, v, index=index, segments=segments, window=window, softcap=softcap)


def _visible(index, length: int, segments, window: Window) -> jax.Array:
  """bool [..., T, S]: may this query see this key?"""
  shape = (*index.shape, length)
  keys = jax.lax.broadcasted_iota(index.dtype, shape, len(shape) - 1)
  distance = index[..., None] - keys
  mask = distance >= 0
  if window is not None:
    mask &= distance < window
  if segments is not None:
    mask = mask & (segments[..., :, None] == segments[..., None, :])
  return mask


def _xla(q, k, v, *, index, segments, window, softcap):
  *lead, length, heads, size = q.shape
  if index is None:
    index = jax.lax.broadcasted_iota(jnp.int32, (1,) * len(lead) + (length,), len(lead))
  mask = _visible(index, k.shape[-3], segments, window)[..., None, None, :, :]
  q = q.reshape(*lead, length, k.shape[-2], -1, size)
  wide = jnp.promote_types(q.dtype, jnp.float32)
  logits = jnp.einsum("...tkgh,...skh->...kgts", q, k, preferred_element_type=wide) * size**-0.5
  if softcap is not None:
    logits = softcap * jnp.tanh(logits / softcap)
  logits = jnp.where(mask, logits, jnp.finfo(wide).min)
  probs = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
  return jnp.einsum("...kgts,...skh->...tkgh", probs, v).reshape(*lead, length, heads, size)


def _cudnn(q, k, v, *, index, segments, window, softcap):
  del index, segments, softcap  # refused above
  flat = [x.reshape(-1, *x.shape[-3:]) for x in (q, k, v)]
  local = None if window is None else (window - 1, 0)
  attend = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
  return attend(*flat, is_causal=True, local_window_size=local).reshape(q.shape)


_ANY = {"grouped queries", "window", "bfloat16", "float16"}
BACKENDS = {
  "xla": Backend(
    _xla,
    frozenset(
      _ANY | {"float32", "float64", "offset queries", "segment ids", "window per layer", "soft-cap"}
    ),
  ),
  "cudnn": Backend(_cudnn, frozenset(_ANY)),
}
