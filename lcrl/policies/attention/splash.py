"""Splash attention for TPUs, from JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.policies.attention.spans import Spans

LANES = 128  # the kernel refuses rows that are no multiple of a vector register's lanes
BLOCKS = (512, 384, 256, LANES)  # queries or keys at a time


def attend(
  q,
  k,
  v,
  *,
  index,
  spans: Spans | None,
  window: int | None,
  softcap: float | None,
  scale: float,
  interpret: bool = False,
):
  """As `attention`, without branches. `interpret`: in plain JAX, where there is no TPU."""
  from jax.experimental.pallas.ops.tpu import splash_attention as tpu

  del index, softcap  # refused before
  lead, (length, heads, size) = q.shape[:-3], q.shape[-3:]
  more = -length % LANES
  block = next(b for b in BLOCKS if (length + more) % b == 0)
  shape = (length + more,) * 2
  one = tpu.CausalMask(shape) if window is None else tpu.LocalMask(shape, (window - 1, 0), 0)
  kernel = tpu.make_splash_mha(
    tpu.MultiHeadMask([one] * heads),
    block_sizes=tpu.BlockSizes(block, block, block, block, block, block, block, block),
    head_shards=1,
    q_seq_shards=1,
    residual_checkpoint_name="attention",
    interpret=interpret,
  )

  def pad(x):
    """[..., T, N, H] -> [rows, N, length + more, H]"""
    flat = x.reshape(-1, *x.shape[-3:])
    return jnp.pad(flat, ((0, 0), (0, more), (0, 0), (0, 0))).swapaxes(1, 2)

  # A segment's first token names it.
  first = jnp.zeros((1, length), jnp.int32) if spans is None else spans.first
  first = jnp.broadcast_to(first, (*lead, length)).reshape(-1, length)
  first = jnp.pad(first, ((0, 0), (0, more)), constant_values=-1)  # padding is its own segment
  out = jax.vmap(kernel)(pad(q) * scale, pad(k), pad(v), tpu.SegmentIds(first, first))
  return out.swapaxes(1, 2)[:, :length].reshape(*lead, length, heads, size)
