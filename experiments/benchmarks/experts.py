"""A layer of experts: time, the share of the floor, and the difference from the plain twin.

python -m experiments.benchmarks.experts                # Qwen3-30B-A3B: 128 experts, 8 a token
python -m experiments.benchmarks.experts --shape=mixtral-8x7b --tokens=64,16384
python -m experiments.benchmarks.experts --ways=mix --tokens=16384 --tiles=128x128x64x8x3

Prints one JSON line for each number of tokens and way to multiply, forward alone and with the
gradient of tokens and experts. The floor is the larger of two times: the products of the chosen
experts at the chip's peak, and reading the experts once (with the gradient, thrice the products,
reading twice and writing once). The routing is about uniform. `--tiles`: own x wide x deep x warps
x stages of `triton_experts.Tiles`, one line each; what it chooses by itself where there are none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from experiments.benchmarks import shapes
from lcrl.policies import experts, triton_experts
from lcrl.policies.config import Config
from lcrl.training.analysis.roofline import CHIPS

FLAGS = flags.FLAGS
WAYS: dict[str, Callable] = {"mix": experts.mix, "plain": experts.plain}


def gated(gate: jax.Array, up: jax.Array) -> jax.Array:
  return jax.nn.silu(gate) * up


def inputs(c: Config, tokens: int) -> tuple[jax.Array, experts.Routing, dict[str, jax.Array]]:
  keys = iter(jax.random.split(jax.random.key(0), 5))
  normal = lambda *shape: jax.random.normal(next(keys), shape, c.dtype) * shape[-2] ** -0.5
  inward, outward = (c.experts, c.hidden_size, c.mlp_size), (c.experts, c.mlp_size, c.hidden_size)
  weights = {"gate": normal(*inward), "up": normal(*inward), "down": normal(*outward)}
  x = jax.random.normal(next(keys), (1, tokens, c.hidden_size), c.dtype)
  router = jax.random.normal(next(keys), (c.hidden_size, c.experts)) * c.hidden_size**-0.5
  return x, experts.route(x, router, count=c.experts_per_token, normalize=True), weights


def floor(c: Config, tokens: int, gradient: bool) -> float | None:
  """Seconds, or None on a chip whose figures are not known."""
  chip = CHIPS.get(jax.devices()[0].device_kind)
  if chip is None:
    return None
  matrices = 3 * c.hidden_size * c.mlp_size
  products = 2 * tokens * c.experts_per_token * matrices * (3 if gradient else 1)
  reads = 2 * matrices * min(c.experts, tokens * c.experts_per_token) * (3 if gradient else 1)
  return max(products / chip.flops, reads / chip.bandwidth)


def measure(c: Config, tokens: int, way: str, spelled: str | None = None) -> dict[str, Any]:
  if spelled:
    own, wide, deep, warps, stages = map(int, spelled.split("x"))
    asked = triton_experts.Tiles(own, wide, deep, warps, stages)
    triton_experts.tiles = lambda mean_rows: asked
  x, routing, weights = inputs(c, tokens)
  forward = jax.jit(partial(WAYS[way], gated=gated))
  loss = lambda x, weights: (WAYS[way](x, routing, weights, gated=gated) ** 2).sum()
  both = jax.jit(jax.grad(loss, (0, 1)))
  runs = {"forward": lambda: forward(x, routing, weights), "gradient": lambda: both(x, weights)}
  found: dict[str, Any] = {"tokens": tokens, "way": way, "tiles": spelled}
  for name, run in runs.items():
    try:
      seconds = shapes.timed(run, FLAGS.repeats)["seconds"]
    except (RuntimeError, ValueError) as error:  # out of memory, say: a result
      found[name] = shapes.failure(error)
      continue
    least = floor(c, tokens, name == "gradient")
    found[name] = {"ms": round(1e3 * seconds, 3)}
    if least:
      found[name]["of_floor"] = round(least / seconds, 3)
  return found | {"peak_gib": shapes.peak_gib()}


def differences(c: Config, tokens: int = 512) -> dict[str, float]:
  """The largest of `mix` from the plain twin, in `c.dtype`, as shares of the largest number of each
  result: of what is added to tokens, and of the gradients of tokens and experts."""
  x, routing, weights = inputs(c, tokens)

  def run(way, x, weights):
    y = WAYS[way](x, routing, weights, gated=gated)
    return (y**2).sum(), y

  found = [jax.jit(jax.grad(partial(run, way), (0, 1), has_aux=True))(x, weights) for way in WAYS]
  share = lambda a, b: float(jnp.abs(a - b).max() / jnp.abs(b).max())
  ((dx, dw), y) = jax.tree.map(share, *found)
  return {"y": y, "x": dx, **dw}


def main(_) -> None:
  c = shapes.config(FLAGS.shape, dtype=FLAGS.dtype)
  if not c.experts:
    raise app.UsageError(f"--shape={FLAGS.shape} has no experts.")
  for way in FLAGS.ways:
    for tokens in map(int, FLAGS.tokens):
      for spelled in FLAGS.tiles or [None]:
        print(json.dumps(measure(c, tokens, way, spelled)), flush=True)
  print(json.dumps({**shapes.machine(), "shape": FLAGS.shape, "differs": differences(c)}))


if __name__ == "__main__":
  flags.DEFINE_string("shape", "qwen3-30b-a3b", "a model with experts by name")
  flags.DEFINE_list("tokens", ["64", "256", "2048", "16384"], "how many there are")
  flags.DEFINE_list("ways", ["mix", "plain"], "of WAYS")
  flags.DEFINE_list("tiles", [], "of the kernels")
  flags.DEFINE_string("dtype", "bfloat16", "of weights and computation")
  flags.DEFINE_integer("repeats", 3, "timed calls after the first")
  app.run(main)
