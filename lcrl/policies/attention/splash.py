"""Splash attention for TPUs, as it comes with JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.policies.attention.spans import Spans

LANES = 128  # rows must be a multiple of it


def attend(q, k, v, *, index, spans: Spans | None, window: int | None, softcap: float | None):
  from jax.experimental.pallas.ops.tpu import splash_attention as tpu

  del index, softcap  # refused before
  lead, (length, heads, size) = q.shape[:-3], q.shape[-3:]
  more = -length % LANES
  pad = lambda x: jnp.pad(
    x.reshape(-1, *x.shape[-3:]), ((0, 0), (0, more), (0, 0), (0, 0))
  ).swapaxes(1, 2)
  shape = (length + more,) * 2
  one = tpu.CausalMask(shape) if window is None else tpu.LocalMask(shape, (window - 1, 0), 0)
  kernel = tpu.make_splash_mha(
    tpu.MultiHeadMask([one] * heads), head_shards=1, q_seq_shards=1,
    residual_checkpoint_name="attention",
  )  # fmt: skip
  first = jnp.zeros((1, length), jnp.int32) if spans is None else spans.first
  first = jnp.broadcast_to(first, (*lead, length)).reshape(-1, length)
  first = jnp.pad(
    first, ((0, 0), (0, more)), constant_values=-1
  )  # a segment's first token names it
  ids = tpu.SegmentIds(first, first)
  out = jax.vmap(kernel)(pad(q) * size**-0.5, pad(k), pad(v), ids)
  return out.swapaxes(1, 2)[:, :length].reshape(*lead, length, heads, size)
