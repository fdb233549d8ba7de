"""The kernels of a token's weight products against their plain twins: difference, time of one call.

python -m experiments.benchmarks.decode_products
python -m experiments.benchmarks.decode_products --shape=qwen2.5-0.5b --rows=256

Prints one JSON line a product and way to cut it. The calls of a timed loop hang on each other.
"""

import dataclasses
import json
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from experiments.benchmarks import shapes
from lcrl.policies import products, triton_products
from lcrl.policies.triton_products import Tiles

_SHAPE = flags.DEFINE_string("shape", "smollm2-135m", "a model by name")
_ROWS = flags.DEFINE_integer("rows", 512, "rows that decode")
_CALLS = flags.DEFINE_integer("calls", 200, "calls in a timed loop")
_INTERPRET = flags.DEFINE_bool("interpret", False, "runs the kernels without a GPU, slowly")

# rows, columns, depth, warps, stages
TILES = [
  Tiles(64, 64, 64, 4, 4),
  Tiles(64, 32, 64, 4, 4),
  Tiles(32, 64, 64, 4, 4),
  Tiles(32, 32, 64, 4, 4),
  Tiles(64, 64, 64, 8, 4),
  Tiles(64, 64, 64, 4, 2),
  Tiles(64, 32, 64, 4, 6),
  Tiles(128, 64, 64, 8, 3),
  Tiles(128, 32, 64, 4, 4),
  Tiles(64, 128, 64, 8, 3),
  Tiles(64, 32, 32, 4, 6),
  Tiles(32, 32, 64, 2, 5),
]


def main(argv):
  del argv
  c = shapes.config(_SHAPE.value, dtype="bfloat16")
  for name, call, of in cases(c):
    want = jax.jit(partial(call, of[0]))
    for tiles in (None, *TILES):
      f = of[0] if tiles is None else partial(of[1], tiles=tiles, interpret=_INTERPRET.value)
      way = "xla" if tiles is None else dataclasses.astuple(tiles)
      result: dict[str, Any] = {"product": name, "way": way}
      try:
        x = jax.random.normal(jax.random.key(9), (_ROWS.value, c.hidden_size), jnp.bfloat16)
        differ = lambda a, b: jnp.abs(a.astype(jnp.float32) - b.astype(jnp.float32)).max()
        result["differs"] = float(differ(jax.jit(partial(call, f))(x)[0], want(x)[0]))
        micro = 1e6 * shapes.timed(partial(loop(partial(call, f)), x), 3)["seconds"] / _CALLS.value
        result["us"] = round(micro, 2)
      except Exception as error:  # a kernel that does not compile is a result
        result["error"] = f"{type(error).__name__}: {error}"[:200]
      print(json.dumps(result), flush=True)
  print(json.dumps(shapes.machine() | {f.name: f.value for f in (_SHAPE, _ROWS)}))


def cases(c):
  """(name, call(f, x) -> (what f gives, the next x), (twin, kernel)) of each product."""
  keys = iter(jax.random.split(jax.random.key(0), 8))
  normal = lambda *shape: (jax.random.normal(next(keys), shape) * shape[0] ** -0.5).astype(
    "bfloat16"
  )
  d, rows, scale = c.hidden_size, _ROWS.value, jnp.ones(c.hidden_size)
  qkv = normal(d, c.kv_heads, c.heads // c.kv_heads + 2, c.head_dim)
  gate_up, down, out = (
    normal(d, 2, c.mlp_size),
    normal(c.mlp_size, d),
    normal(c.heads * c.head_dim, d),
  )
  gated, values = normal(rows, c.mlp_size), normal(rows, c.heads * c.head_dim)

  def into(f, w, x):
    y = f(c.norm_eps, scale, x, w)
    return y, x + y.reshape(rows, -1)[:, :1] * 1e-3  # the next call needs this one

  def back(f, y, w, x):
    x = f(x, y, w)
    return x, x

  return [
    ("read", lambda f, x: into(f, qkv, x), (products.read, triton_products.read)),
    ("gate", lambda f, x: into(f, gate_up, x), (products.gate, triton_products.gate)),
    ("out", lambda f, x: back(f, values, out, x), (products.add, triton_products.add)),
    ("down", lambda f, x: back(f, gated, down, x), (products.add, triton_products.add)),
  ]


def loop(call):
  return jax.jit(lambda x: jax.lax.fori_loop(0, _CALLS.value, lambda _, x: call(x)[1], x))


if __name__ == "__main__":
  app.run(main)
