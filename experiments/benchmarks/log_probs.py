"""Log-probs in tiles against dense logits: time and memory of one forward and backward pass.

python -m experiments.benchmarks.log_probs                                     # the H100 yardstick
python -m experiments.benchmarks.log_probs --tokens=512 --hidden=64 --vocab=4096 --dtype=float32

Prints one JSON line. `temp_gib` is scratch memory: beyond inputs, weights and results.
"""

import json
import statistics
import time

import jax
import jax.numpy as jnp
from absl import app, flags

from lcrl.losses.log_probs import score_tokens

_TOKENS = flags.DEFINE_integer("tokens", 8192, "tokens to score")
_HIDDEN = flags.DEFINE_integer("hidden", 4096, "width of the hidden states")
_VOCAB = flags.DEFINE_integer("vocab", 151_936, "vocabulary size")
_DTYPE = flags.DEFINE_string("dtype", "bfloat16", "of hidden states and head")
_TOKEN_CHUNK = flags.DEFINE_integer("token_chunk", 8192, "tokens in a tile")
_VOCAB_CHUNK = flags.DEFINE_integer("vocab_chunk", 8192, "vocabulary entries in a tile")
_NEEDS = flags.DEFINE_list("needs", ["log_probs"], "score fields to compute")
_REPEATS = flags.DEFINE_integer("repeats", 10, "timed calls after two warm-up calls")
_VARIANTS = flags.DEFINE_list("variants", ["tiled", "dense", "product"], "what to measure")


def tiled(hidden, head, targets):
  scores = score_tokens(
    hidden,
    head,
    targets,
    needs=tuple(_NEEDS.value),
    token_chunk=_TOKEN_CHUNK.value,
    vocab_chunk=_VOCAB_CHUNK.value,
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


def measure(score) -> dict[str, float]:
  """Median milliseconds and compiler's scratch memory of score's value and both gradients."""
  dtype = jnp.dtype(_DTYPE.value)
  keys = jax.random.split(jax.random.key(0), 3)
  normal = jax.jit(jax.random.normal, static_argnums=(1, 2))
  args = (
    normal(keys[0], (_TOKENS.value, _HIDDEN.value), dtype),
    normal(keys[1], (_HIDDEN.value, _VOCAB.value), dtype) * _HIDDEN.value**-0.5,
    jax.random.randint(keys[2], (_TOKENS.value,), 0, _VOCAB.value),
  )
  step = jax.jit(jax.value_and_grad(score, argnums=(0, 1))).lower(*args).compile()
  times = []
  for _ in range(2 + _REPEATS.value):
    start = time.perf_counter()
    jax.block_until_ready(step(*args))
    times.append(1e3 * (time.perf_counter() - start))
  result = {"median_ms": statistics.median(times[2:])}
  if memory := step.memory_analysis():
    result["temp_gib"] = memory.temp_size_in_bytes / 2**30
  return result


def main(argv):
  del argv
  result = {
    "device": jax.devices()[0].device_kind,
    "jax": jax.__version__,
    **{f.name: f.value for f in (_TOKENS, _HIDDEN, _VOCAB, _DTYPE, _TOKEN_CHUNK, _VOCAB_CHUNK)},
    "needs": _NEEDS.value,
  }
  variants = {f.__name__: f for f in (tiled, dense, product)}
  for name in _VARIANTS.value:
    try:
      result[name] = measure(variants[name])
    except jax.errors.JaxRuntimeError as error:  # out of memory is a result
      result[name] = {"error": str(error).splitlines()[0]}
  print(json.dumps(result))


if __name__ == "__main__":
  app.run(main)
