"""Sums over a tile of logits, and its exponentials, in one reading: for NVIDIA, where XLA takes
three. `tiles` has the plain twin.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu


def keep(
  logits: jax.Array,
  targets: jax.Array,
  window: jax.Array,
  exps: jax.Array,
  *,
  temperature: float,
  vocab_size: int,
  floor: float,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """With z = logits / temperature, and hardly anything where an entry does not count:

  Args:
    logits: [R, C, n] float32, of one tile.
    targets: [R, C] int32.
    window: [3] int32: the tile's place in exps, its first token, columns that count elsewhere.
    exps: [N, R, C, n], of which this tile's part is written, in place.
    temperature, vocab_size: tokens from here on do not count.
    floor: logit of what does not count.
    interpret: runs without a GPU, slowly.
  Returns: peak = max z, sum exp(z - peak), the target's logit or 0, [R, C] each; and exps with
    exp(z - peak) of the tile.
  """
  shape, columns = targets.shape, logits.shape[-1]
  rows = targets.size
  one = pl.BlockSpec((1,), lambda row: (row,))
  whole = pl.BlockSpec(memory_space=pl.ANY)
  # Inside a `jax.shard_map`, all differ along the axes along which logits do.
  like = functools.partial(
    jax.ShapeDtypeStruct, manual_axis_type=jax.typeof(logits).manual_axis_type
  )
  number = like((rows,), logits.dtype)
  flat = exps.reshape(len(exps), rows, columns)
  *sums, exps_ = pl.pallas_call(
    functools.partial(
      _kernel, temperature=temperature, vocab_size=vocab_size, floor=floor, columns=columns
    ),
    grid=(rows,),
    in_specs=[whole, one, whole, whole],
    out_specs=[one, one, one, whole],
    out_shape=[number] * 3 + [like(flat.shape, flat.dtype)],
    input_output_aliases={3: 3},
    compiler_params=plgpu.CompilerParams(num_warps=8),
    interpret=interpret,
    name="keep_exps",
  )(window, targets.reshape(rows), logits.reshape(rows, columns), flat)
  peak, total, logit = (x.reshape(shape) for x in sums)
  return peak, total, logit, exps_.reshape(exps.shape)


def _kernel(
  window, target, logits, old, peak, total, logit, exps, *, temperature, vocab_size, floor, columns
):
  del old  # written through exps
  row, column = pl.program_id(0), jnp.arange(pl.next_power_of_2(columns))
  place, first, seen = (window[i] for i in range(3))
  end = jnp.minimum(vocab_size - first, columns)
  inside = column < columns
  x = plgpu.load(logits.at[row, column], mask=inside, other=floor)
  x = jnp.where((column >= seen) & (column < end), x, floor)
  top = x.max()
  e = jnp.exp2((x - top) * (math.log2(math.e) / temperature))
  plgpu.store(exps.at[place, row, column], e.astype(exps.dtype), mask=inside)
  hit = target[0] - first
  own = plgpu.load(
    logits.at[row, jnp.full((1,), hit)], mask=jnp.full((1,), (hit >= seen) & (hit < end)), other=0.0
  )
  for ref, value in ((peak, top / temperature), (total, e.sum())):
    plgpu.store(ref, jnp.full((1,), value))
  plgpu.store(logit, own)
