"""The kernels of a token's weight products against their plain twins: difference, time of one call.

python -m experiments.benchmarks.decode_products
python -m experiments.benchmarks.decode_products --shape=qwen2.5-0.5b --rows=256

Prints one JSON line a product and way to cut it. The calls of a timed loop hang on each other.
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
  x = jax.random.normal(jax.random.key(9), (_ROWS.value, c.hidden_size), jnp.bfloat16)
  runs = []
  for name, call, (twin, kernel) in cases(c):
    runs.append(((name, "xla"), partial(call, twin)))
    for tiles in TILES:
      f = partial(kernel, tiles=tiles, interpret=_INTERPRET.value)
      runs.append(((name, dataclasses.astuple(tiles)), partial(call, f)))

  def build(call):
    """Once, and many times in a loop; or why it does not compile, which is a result."""
    try:
      return [jax.jit(f).lower(x).compile() for f in (lambda x: call(x)[0], loop(call))]
    except Exception as error:
      return f"{type(error).__name__}: {error}"[:200]

  with concurrent.futures.ThreadPoolExecutor() as pool:
    built = list(pool.map(build, [call for _, call in runs]))
  want = {}
  for ((name, way), _), found in zip(runs, built, strict=True):
    result: dict[str, Any] = {"product": name, "way": way}
    if isinstance(found, str):
      result["error"] = found
    else:
      once, many = found
      got = once(x).astype(jnp.float32)
      result["differs"] = float(jnp.abs(got - want.setdefault(name, got)).max())
      seconds = shapes.timed(partial(many, x), 3)["seconds"]
      result["us"] = round(1e6 * seconds / _CALLS.value, 2)
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
  return lambda x: jax.lax.fori_loop(0, _CALLS.value, lambda _, x: call(x)[1], x)


if __name__ == "__main__":
  app.run(main)
