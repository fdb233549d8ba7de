"""Attention of one new token a row to keys in pages on TPUs, by the kernel that JAX ships.
`cache.attend_pages` is the plain twin, which gathers the pages of all rows first.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.policies.block import rotate
from lcrl.policies.cache import LayerCache, write_page
from lcrl.policies.config import Config

LANES = 128  # of a vector register: the kernel copies whole ones
BLOCK = 512  # keys that it multiplies at once
SCALARS = 3 << 18  # bytes of the table of a call, of the 1 MiB that scalars have


def refusal(c: Config) -> str | None:
  """Why this model cannot decode here, or None."""
  if c.sinks:
    return "sinks"
  if c.head_dim % LANES:
    return f"head_dim={c.head_dim}"
  if any(c.windows or ()):
    return "window"
  if c.dtype != "bfloat16":  # which the kernel multiplies in
    return c.dtype
  return None


def misfit(slots: int | None, cache_dtype: str | None, tensor: int) -> str | None:
  """What of a sampler's settings it cannot serve, or None: it reads pages of bfloat16, and libtpu's
  partitioner aborts where a loop splits batch and heads by hand."""
  if slots is None:
    return "slots=None"
  if cache_dtype not in (None, "bfloat16"):
    return f"cache_dtype={cache_dtype!r}"
  return None if tensor == 1 else f"mesh.tensor={tensor}"


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
) -> tuple[jax.Array, LayerCache]:
  """As `cache.attend_pages`. The result of rows that are not live is 0."""
  from jax.experimental.pallas.ops.tpu.paged_attention import paged_attention

  del window, read_length  # refused before; every row reads as far as its own keys go
  pool = write_page(qkv, rope, pool, table, at, live)
  q, (pages, heads, page, size) = rotate(qkv[:, :, :-2], rope), pool["k"].shape
  block = max(BLOCK // page, 1)  # pages
  table = jnp.pad(table, ((0, 0), (0, -table.shape[1] % block)))
  # For the kernel a head of a row is a row, and a head of a page is a page, as it lies in the pool.
  table = table[:, None] * heads + jnp.arange(heads)[None, :, None]
  rows = len(at) * heads
  lengths = jnp.repeat(jnp.where(live, at + 1, 0).astype(jnp.int32), heads)
  q = (q * c.attention_scale).astype(q.dtype).reshape(rows, -1, size)
  parts = next(n for n in range(1, rows + 1) if not rows % n and table.size * 4 <= n * SCALARS)
  split = lambda x: jnp.split(x, parts)
  out = [
    paged_attention(
      q,
      *(pool[name].reshape(1, pages * heads, page, size) for name in ("k", "v")),
      lengths,
      table,
      attn_logits_soft_cap=c.attention_softcap,
      pages_per_compute_block=block,
    )
    for q, lengths, table in zip(
      split(q), split(lengths), split(table.reshape(rows, -1)), strict=True
    )
  ]
  return jnp.concatenate(out).reshape(len(at), heads, -1, size), pool
