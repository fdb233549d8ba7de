"""The Triton kernel of decoding against its plain twin: largest difference, and time of one call.

python -m experiments.benchmarks.decode_attention
python -m experiments.benchmarks.decode_attention --shape=qwen2.5-1.5b --rows=256 --group=8 \
  --asked=128 --length=512 --at=256

Calls take the caches of `--layers` in turn, as a decoder does: what one reads, the next does not
find in the chip's own cache. Prints one JSON line a variant: microseconds a call, and the share of
the memory bandwidth that reading every live key and value once would need.
"""

import concurrent.futures
import dataclasses
import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from experiments.benchmarks import shapes
from lcrl.policies import cache as plain
from lcrl.policies import triton_decode
from lcrl.policies.block import rotation
from lcrl.policies.triton_decode import Tiles
from lcrl.training.analysis.roofline import CHIPS

FLAGS = flags.FLAGS

TILES = [
  Tiles(),
  Tiles(warps=1),
  Tiles(warps=4),
  Tiles(stages=1),
  Tiles(stages=2),
  Tiles(stages=4),
  Tiles(keys=32, warps=1),
  Tiles(keys=128, warps=4),
  Tiles(queries=8),
  Tiles(queries=8, warps=1),
  Tiles(queries=32, keys=128, warps=4),
  Tiles(queries=1),
]


def main(argv):
  del argv
  c = shapes.config(FLAGS.shape, dtype="bfloat16")
  chip = CHIPS.get(jax.devices()[0].device_kind)
  for cache_dtype in FLAGS.cache_dtypes:
    call, layers, qkv, bytes_ = inputs(c, cache_dtype)
    variants = {"xla": plain.attend} | {
      json.dumps(dataclasses.astuple(t)): partial(
        triton_decode.attend, tiles=t, interpret=FLAGS.interpret
      )
      for t in TILES
    }

    def build(attend, call=call, layers=layers, qkv=qkv):
      """Once, and many times in a loop; or why it does not compile, which is a result."""
      try:
        f = partial(call, attend)
        once, many = jax.jit(f).lower(layers[0], qkv), jax.jit(partial(loop, f)).lower(layers, qkv)
        return [once.compile(), many.compile()]
      except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]

    with concurrent.futures.ThreadPoolExecutor() as pool:
      built = dict(zip(variants, pool.map(build, variants.values()), strict=True))
    want = leaves(call(plain.attend, layers[0], qkv))
    for name, found in built.items():
      result: dict[str, Any] = {"cache": cache_dtype, "variant": name}
      if isinstance(found, str):
        result["error"] = found
      else:
        once, many = found
        differ = lambda a, b: jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).max()
        got = leaves(once(layers[0], qkv))
        result["differs"] = [float(differ(a, b)) for a, b in zip(got, want, strict=True)]
        seconds = shapes.timed(partial(many, layers, qkv), 3)["seconds"]
        micro = 1e6 * seconds / FLAGS.calls / FLAGS.layers
        result["us"] = round(micro, 2)
        if chip:
          result["of_bandwidth"] = round(bytes_ / chip.bandwidth * 1e6 / micro, 3)
      print(json.dumps(result), flush=True)
  print(
    json.dumps(
      shapes.machine()
      | {name: FLAGS[name].value for name in ("shape", "rows", "group", "asked", "at", "layers")}
    )
  )


def leaves(result):
  values, cache = result
  return [values, *(cache[name] for name in sorted(cache))]


def inputs(c, cache_dtype):
  """(call(attend, layer, qkv), layers, qkv, bytes of a layer's live keys and values)."""
  rows, prompts = FLAGS.rows, FLAGS.rows // FLAGS.group
  keys = iter(jax.random.split(jax.random.key(0), 8))
  normal = lambda *shape: jax.random.normal(next(keys), shape, jnp.bfloat16)
  like = plain.init_cache(c, 1, 1, cache_dtype)[0]

  def filled(count, length):
    shape = (count, c.kv_heads, length, c.head_dim)
    return plain.pack(normal(*shape), normal(*shape), like)

  layer = filled(rows, FLAGS.length), filled(prompts, FLAGS.asked)
  layers = tuple(jax.tree.map(jnp.copy, layer) for _ in range(FLAGS.layers))
  qkv = normal(rows, c.kv_heads, c.heads // c.kv_heads + 2, c.head_dim)
  at = jnp.full(rows, FLAGS.at, jnp.int32)
  seen = jnp.full(prompts, FLAGS.asked, jnp.int32)
  rope = rotation(c, (at + FLAGS.asked)[:, None])
  live = jnp.ones(rows, bool)

  @partial(jax.jit, static_argnums=0)
  def call(attend, layer, qkv):
    cache, prompt = layer
    return attend(c, qkv, rope, cache, at, live, prompt, seen, None)

  live_keys = rows * FLAGS.at + prompts * FLAGS.asked
  a_key = sum(x.nbytes for x in like.values())  # of all heads, with its value and scales
  return call, layers, qkv, live_keys * a_key


def loop(call, layers, qkv):
  """All layers, several times: caches are carried in place, and values are the next queries."""

  def step(_, carry):
    caches, qkv = carry
    new = []
    for cache, (_, prompt) in zip(caches, layers, strict=True):
      values, cache = call((cache, prompt), qkv)
      qkv = qkv.at[:, :, :-2].set(values)
      new.append(cache)
    return new, qkv

  return jax.lax.fori_loop(0, FLAGS.calls, step, ([slot for slot, _ in layers], qkv))


def define():
  """The flags of this program."""
  flags.DEFINE_string("shape", "smollm2-135m", "a model by name")
  flags.DEFINE_integer("rows", 512, "rows that decode")
  flags.DEFINE_integer("group", 8, "rows with a common prompt")
  flags.DEFINE_integer("asked", 96, "tokens of a prompt")
  flags.DEFINE_integer("length", 96, "places of a row's own cache")
  flags.DEFINE_integer("at", 48, "own keys that are live")
  flags.DEFINE_integer("layers", 8, "caches that are read in turn")
  flags.DEFINE_integer("calls", 25, "calls of each in a timed loop")
  flags.DEFINE_list("cache_dtypes", ["bfloat16", *plain.ONE_BYTE_DTYPES], "of keys and values")
  flags.DEFINE_bool("interpret", False, "runs the kernel without a GPU, slowly")


if __name__ == "__main__":
  define()
  app.run(main)
