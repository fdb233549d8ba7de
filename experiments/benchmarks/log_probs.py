"""Log-probs in tiles against dense logits: time and memory of one forward and backward pass.

python -m experiments.benchmarks.log_probs --peer=transformers                 # the H100 yardstick
python -m experiments.benchmarks.log_probs --shape=qwen2.5-0.5b --tiles=8192x8192,8192x16384
python -m experiments.benchmarks.log_probs --tokens=512 --hidden=64 --vocab=4096 --dtype=float32

`temp_gib` is scratch memory: beyond inputs, weights and results. Twins are dense logits, and the
bare product with the head, forward and back, that no method can undercut; the peer makes its own
from dense logits, in a process of its own. Prints one JSON line for it, then one with all.
"""

import functools
import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import app, flags

from experiments.benchmarks import peers
from experiments.benchmarks.profiles import profile
from experiments.benchmarks.shapes import config, failure, machine, timed
from lcrl.losses.log_probs import score_tokens

FLAGS = flags.FLAGS


def tiled(hidden, head, targets, *, tile: str):
  tokens, entries = map(int, tile.split("x"))
  scores = score_tokens(
    hidden,
    head,
    targets,
    needs=tuple(FLAGS.needs),
    token_chunk=tokens,
    vocab_chunk=entries,
  )
  return sum(jnp.sum(x) for x in jax.tree.leaves(scores))


def dense(hidden, head, targets):
  logits = jnp.dot(hidden, head, preferred_element_type=jnp.float32)
  log_probs = jax.nn.log_softmax(logits)
  return jnp.take_along_axis(log_probs, targets[:, None], axis=-1).sum()


def product(hidden, head, targets):
  """The bare head product and its two transposes: what no method can undercut."""
  del targets
  return jnp.sum(jnp.dot(hidden, head) ** 2)


def measure(score, width: int, vocab: int) -> dict[str, float]:
  """Median milliseconds and compiler's scratch memory of score's value and both gradients."""
  dtype = jnp.dtype(FLAGS.dtype)
  keys = jax.random.split(jax.random.key(0), 3)
  normal = jax.jit(jax.random.normal, static_argnums=(1, 2))
  args = (
    normal(keys[0], (FLAGS.tokens, width), dtype),
    normal(keys[1], (width, vocab), dtype) * width**-0.5,
    jax.random.randint(keys[2], (FLAGS.tokens,), 0, vocab),
  )
  step = jax.jit(jax.value_and_grad(score, argnums=(0, 1))).lower(*args).compile()
  result = {"median_ms": 1e3 * timed(lambda: step(*args), FLAGS.repeats)["seconds"]}
  if memory := step.memory_analysis():
    result["temp_gib"] = memory.temp_size_in_bytes / 2**30
  if FLAGS.profile:
    result["profile"] = profile(lambda: step(*args))
  return result


def main(argv):
  del argv
  width, vocab = FLAGS.hidden, FLAGS.vocab
  if FLAGS.shape:
    shape = config(FLAGS.shape, dtype=FLAGS.dtype)
    width, vocab = shape.hidden_size, shape.vocab_size
  peer = peers.ask("log_probs", hidden=width, vocab=vocab)
  result = machine() | {"tokens": FLAGS.tokens, "hidden": width, "vocab": vocab}
  result |= {"dtype": FLAGS.dtype, "needs": FLAGS.needs}
  variants: dict[str, Callable] = {
    f"tiled {tile}": functools.partial(tiled, tile=tile) for tile in FLAGS.tiles
  }
  variants |= {f.__name__: f for f in (dense, product) if f.__name__ in FLAGS.twins}
  for name, score in variants.items():
    try:
      result[name] = measure(score, width, vocab)
    except RuntimeError as error:  # out of memory is a result
      result[name] = failure(error)
  tiles = [result[name] for name in variants if " " in name and "median_ms" in result[name]]
  if tiles:
    best = min(tiles, key=lambda found: found["median_ms"])
    result["dense_over_tiled"] = peers.ratios(result.get("dense"), best, ("median_ms", "temp_gib"))
    result |= {"peer": peer, "times_less": peers.ratios(peer, best, ("median_ms", "temp_gib"))}
  print(json.dumps(result))


def define():
  """The flags of this program."""
  peers.define()
  flags.DEFINE_integer("tokens", 8192, "tokens to score")
  flags.DEFINE_integer("hidden", 4096, "width of the hidden states")
  flags.DEFINE_integer("vocab", 151_936, "vocabulary size")
  flags.DEFINE_string("dtype", "bfloat16", "of hidden states and head")
  flags.DEFINE_string("shape", None, "a model whose width and vocabulary to take")
  flags.DEFINE_list("tiles", ["8192x8192"], "tokens by vocabulary entries of a tile, each")
  flags.DEFINE_list("needs", ["log_probs"], "score fields to compute")
  flags.DEFINE_integer("repeats", 10, "timed calls after the first")
  flags.DEFINE_list("twins", ["dense", "product"], "what else to measure")
  flags.DEFINE_bool("profile", False, "says where the time goes")


if __name__ == "__main__":
  define()
  app.run(main)
