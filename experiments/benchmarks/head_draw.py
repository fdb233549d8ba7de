"""Drawing a token from the head: the Triton kernel by tiles against product and draw of XLA.

python -m experiments.benchmarks.head_draw
python -m experiments.benchmarks.head_draw --shape=qwen2.5-1.5b --rows=256

Prints one JSON line a variant: microseconds a token, the share of the rows that draw the token of
the first variant, the plain twin, and the largest difference of their log-probs.
"""

import dataclasses
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from experiments.benchmarks import shapes
from lcrl.sampling import draw, triton_draw
from lcrl.sampling.triton_draw import Tiles

FLAGS = flags.FLAGS

TILES = [
  Tiles(),
  Tiles(each=1),
  Tiles(each=1, stages=4),
  Tiles(each=2),
  Tiles(stages=4),
  Tiles(each=12),
  Tiles(rows=256, each=1, warps=16),
  Tiles(rows=256, warps=16),
  Tiles(rows=64, warps=4),
  Tiles(warps=4),
]


def main(argv):
  del argv
  c = shapes.config(FLAGS.shape, dtype=FLAGS.dtype)
  keys = jax.random.split(jax.random.key(0), 3)
  hidden = jax.random.normal(keys[0], (FLAGS.rows, c.hidden_size), c.dtype)
  head = jax.random.normal(keys[1], (c.vocab_size, c.hidden_size), c.dtype)
  head *= jnp.asarray(c.hidden_size**-0.5, c.dtype)
  noise = jax.random.split(keys[2], FLAGS.rows)
  print(json.dumps(shapes.machine() | dataclasses.asdict(c) | {"rows": FLAGS.rows}, default=str))
  wanted = None
  variants: dict[str, Any] = {"xla": plain}
  for tiles in TILES:
    variants[json.dumps(tiles)] = functools.partial(
      triton_draw.draw, tiles=tiles, interpret=FLAGS.interpret
    )
  for name, take in variants.items():
    result: dict[str, Any] = {"variant": name}
    try:
      tokens, log_probs = jax.jit(take)(hidden, head, noise, jnp.ones(FLAGS.rows))
      wanted = (tokens, log_probs) if wanted is None else wanted
      same = tokens == wanted[0]
      result["same"] = float(same.mean())
      result["differs"] = float(jnp.where(same, jnp.abs(log_probs - wanted[1]), 0).max())
      many = jax.jit(functools.partial(loop, take), compiler_options=_options())
      run = functools.partial(many, hidden, head, noise)
      result["us"] = round(1e6 * shapes.timed(run, 3)["seconds"] / FLAGS.calls, 2)
    except Exception as error:  # what does not compile is a result
      result["error"] = f"{type(error).__name__}: {error}"[:200]
    print(json.dumps(result), flush=True)


def plain(hidden, head, keys, temperature):
  logits = jnp.matmul(hidden, head.T, preferred_element_type=jnp.float32) / temperature[:, None]
  tokens = draw.draw(draw.tile(logits), keys, temperature <= 0)
  return tokens, draw.log_probs(logits, tokens)


def loop(take, hidden, head, keys):
  """Draws one after the other: what one gives changes the next one's states."""

  def step(_, hidden):
    tokens, log_probs = take(hidden, head, keys, jnp.ones(len(hidden)))
    return hidden + (1e-3 * (log_probs + tokens % 2)[:, None]).astype(hidden.dtype)

  return jax.lax.fori_loop(0, FLAGS.calls, step, hidden)


def _options():
  nvidia = "NVIDIA" in jax.devices()[0].device_kind
  return {"xla_gpu_enable_triton_gemm": False} if nvidia else None


def define():
  """The flags of this program."""
  flags.DEFINE_string("shape", "smollm2-135m", "a model by name")
  flags.DEFINE_string("dtype", "bfloat16", "of states and head")
  flags.DEFINE_integer("rows", 512, "rows that draw")
  flags.DEFINE_integer("calls", 100, "draws in a timed loop")
  flags.DEFINE_bool("interpret", False, "runs the kernel without a GPU, slowly")


if __name__ == "__main__":
  define()
  app.run(main)
