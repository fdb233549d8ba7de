"""The Triton kernels of decoding from pages: difference from their plain twin, and time of a layer.

python -m experiments.benchmarks.decode_pages
python -m experiments.benchmarks.decode_pages --tiles=512x64x4x2,1024x64x4x3 --cache_dtypes=int8

Rows have log-normal lengths, cut off at the limit, and pages lie in random order. Prints one JSON
line a variant: microseconds a layer, and the share of the memory bandwidth that reading every live
key and value once would need. A tile is span x keys x warps x stages, see `triton_pages.Tiles`.
"""

import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.benchmarks import shapes
from experiments.benchmarks.decode_attention import leaves
from lcrl.policies import cache as plain
from lcrl.policies import triton_pages
from lcrl.policies.block import rotation
from lcrl.training.analysis.roofline import CHIPS

FLAGS = flags.FLAGS
TILES = [
  "512x64x4x2",
  "512x64x4x3",
  "512x64x2x3",
  "512x32x2x3",
  "512x32x4x4",
  "256x64x4x2",
  "1024x64x4x2",
  "1024x64x4x4",
  "512x64x8x2",
  "512x64x4x1",
]


def main(argv):
  del argv
  c = shapes.config(FLAGS.shape, dtype="bfloat16")
  chip = CHIPS.get(jax.devices()[0].device_kind)
  for cache_dtype in FLAGS.cache_dtypes:
    call, pools, qkv, bytes_, at = inputs(c, cache_dtype)
    want = call(plain.attend_pages, pools[0], qkv) if FLAGS.check else None
    for spelled in FLAGS.tiles:
      tiles = triton_pages.Tiles(*map(int, spelled.split("x")))
      attend = partial(triton_pages.attend, tiles=tiles, interpret=FLAGS.interpret)
      result: dict[str, Any] = {"cache": cache_dtype, "tiles": spelled}
      try:
        if want is not None:
          got = jax.jit(partial(call, attend))(pools[0], qkv)
          result["differs"] = [
            difference(a, b) for a, b in zip(leaves(got), leaves(want), strict=True)
          ]
        many = jax.jit(partial(loop, partial(call, attend)))
        micro = 1e6 * shapes.timed(partial(many, pools, qkv), 3)["seconds"]
        result["us"] = round(micro / FLAGS.calls / FLAGS.layers, 2)
        if chip:
          result["of_bandwidth"] = round(bytes_ / chip.bandwidth * 1e6 / result["us"], 3)
      except (RuntimeError, ValueError) as error:  # does not compile: a result
        result |= shapes.failure(error)
      print(json.dumps(result), flush=True)
  names = ("shape", "rows", "limit", "mean", "page", "layers")
  common = {name: FLAGS[name].value for name in names} | {"mean_position": float(at.mean())}
  print(json.dumps(shapes.machine() | common))


def difference(a, b) -> float:
  return float(jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).max())


def inputs(c, cache_dtype):
  """(call(attend, pool, qkv), a pool a layer, qkv, bytes of a layer's live keys, positions)."""
  rng, keys = np.random.default_rng(0), iter(jax.random.split(jax.random.key(0), 8))
  draws = rng.lognormal(np.log(FLAGS.mean) - 0.5, 1.0, FLAGS.rows)
  at = np.clip(draws.round(), 1, FLAGS.limit - 1).astype(np.int32)
  width = -(-FLAGS.limit // FLAGS.page)
  held = at // FLAGS.page + 1
  ids = rng.permutation(held.sum())
  table = np.zeros((FLAGS.rows, width), np.int32)
  table[np.arange(width)[None] < held[:, None]] = ids
  normal = lambda *shape: jax.random.normal(next(keys), shape, jnp.bfloat16)
  shape = (len(ids), c.kv_heads, FLAGS.page, c.head_dim)
  like = plain.init_cache(c, 1, 1, cache_dtype)[0]
  pool = plain.pack(normal(*shape), normal(*shape), like)
  pools = tuple(jax.tree.map(jnp.copy, pool) for _ in range(FLAGS.layers))
  qkv = normal(FLAGS.rows, c.kv_heads, c.heads // c.kv_heads + 2, c.head_dim)
  rope = rotation(c, jnp.asarray(at)[:, None])
  live = jnp.ones(FLAGS.rows, bool)

  def call(attend, pool, qkv):
    return attend(c, qkv, rope, pool, jnp.asarray(table), jnp.asarray(at), live, None)

  a_key = sum(x.nbytes for x in like.values())
  return call, pools, qkv, int(at.sum()) * a_key, at


def loop(call, pools, qkv):
  """All layers, several times: pools are carried in place, and values are the next queries."""

  def step(_, carry):
    pools, qkv = carry
    new = []
    for pool in pools:
      values, pool = call(pool, qkv)
      qkv = qkv.at[:, :, :-2].set(values)
      new.append(pool)
    return tuple(new), qkv

  return jax.lax.fori_loop(0, FLAGS.calls, step, (pools, qkv))


def define():
  """The flags of this program."""
  flags.DEFINE_string("shape", "qwen2.5-1.5b", "a model by name")
  flags.DEFINE_integer("rows", 256, "rows that decode")
  flags.DEFINE_integer("limit", 8448, "tokens of a row at most")
  flags.DEFINE_integer("mean", 2500, "mean position of the rows")
  flags.DEFINE_integer("page", 64, "tokens of a page")
  flags.DEFINE_integer("layers", 4, "pools that are read in turn")
  flags.DEFINE_integer("calls", 10, "calls of each in a timed loop")
  flags.DEFINE_list("tiles", TILES, "what to time")
  flags.DEFINE_list("cache_dtypes", ["bfloat16", *plain.ONE_BYTE_DTYPES], "of keys and values")
  flags.DEFINE_bool("check", True, "also compare with the twin")
  flags.DEFINE_bool("interpret", False, "runs the kernels without a GPU, slowly")


if __name__ == "__main__":
  define()
  app.run(main)
