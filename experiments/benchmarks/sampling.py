"""Sampling at the speed of the memory: the engine's variants on one shape, against the floor.

python -m experiments.benchmarks.sampling                         # 64 x 8 rows of 96 + 96 tokens
python -m experiments.benchmarks.sampling --shape=qwen2.5-1.5b --prompts=32 --asked=128 --limit=512
python -m experiments.benchmarks.sampling --heavy --prompts=512 --limit=1024 --slots=512
python -m experiments.benchmarks.sampling --shape=laptop --prompts=4 --group=4 --asked=64 \
  --limit=128 --dtype=float32 --variants=xla

Weights are random and no token ends a response, so lengths are the caps. With `--heavy` lengths are
log-normal, and the same engine runs with slots that refill and batch by batch. Prints one JSON line
a variant, then one with all.
"""

import dataclasses
import json
import time

import jax
import jax.numpy as jnp
from absl import app, flags

from experiments.benchmarks import shapes
from experiments.benchmarks.profiles import profile
from lcrl import policies
from lcrl.sampling.engine import make_engine

_SHAPE = flags.DEFINE_string("shape", "smollm2-135m", "a model by name")
_PROMPTS = flags.DEFINE_integer("prompts", 64, "prompts")
_GROUP = flags.DEFINE_integer("group", 8, "rollouts of each")
_ASKED = flags.DEFINE_integer("asked", 96, "tokens of a prompt")
_LIMIT = flags.DEFINE_integer("limit", 96, "the longest response")
_HEAVY = flags.DEFINE_bool("heavy", False, "lengths of heavy tail: slots against batches")
_SLOTS = flags.DEFINE_integer("slots", 512, "with --heavy: rows that decode at once")
_DTYPE = flags.DEFINE_string("dtype", "bfloat16", "of weights and computation")
_VARIANTS = flags.DEFINE_list(
  "variants", ["xla", "triton", "triton+int8"], "decoding[+cache dtype]"
)
_REPEATS = flags.DEFINE_integer("repeats", 3, "timed calls after the first")
_COMPILER = flags.DEFINE_list("compiler", [], "options of XLA, name=true or name=false")
_PROFILE = flags.DEFINE_bool("profile", False, "adds the kernels of one call to each variant")


def main(argv):
  del argv
  work = shapes.Work(_PROMPTS.value, _GROUP.value, _ASKED.value, _LIMIT.value, _HEAVY.value)
  results = {}
  for name in _VARIANTS.value:
    begin = time.perf_counter()
    try:
      results[name] = measure(name, work)
    except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
      results[name] = {"error": str(error).splitlines()[0][:300]}
    results[name]["wall_s"] = round(time.perf_counter() - begin, 1)
    print(json.dumps({name: results[name]}), flush=True)
  print(json.dumps(_result(work, results)), flush=True)


def measure(name: str, work: shapes.Work) -> dict:
  """Times of a variant, in all ways that the flags ask for."""
  decoding, _, asked = name.partition("+")
  cache_dtype = asked or None
  c = shapes.config(_SHAPE.value, dtype=_DTYPE.value)
  policy = policies.make(c)
  params = shapes.random_params(policy, _DTYPE.value)
  rows, budget = shapes.make_rows(work, c.vocab_size)
  tokens = int(budget.cap.sum())
  bytes_ = 1 if cache_dtype == "int8" else jax.numpy.dtype(c.dtype).itemsize

  def engine(slots):
    return make_engine(
      policy,
      max_tokens=work.limit,
      end_ids=(c.vocab_size,),
      pad_id=0,
      slots=slots,
      decoding=decoding,
      cache_dtype=cache_dtype,
      compiler=shapes.compiler_options(_COMPILER.value),
    )

  def report(run, at_once, first=None):
    found = shapes.timed(run, _REPEATS.value, first)
    found["tokens_per_s"] = tokens / found["seconds"]
    for shared in (False, True):
      floor = shapes.sampling_floor(c, work, rows=at_once, shared=shared, cache_bytes=bytes_)
      found["of_floor" + "_shared" * shared] = floor and floor / found["seconds"]
    if _PROFILE.value:
      found["profile"] = profile(run)
    return found

  key = jax.random.key(1)
  if not work.heavy:
    whole = engine(None)
    return report(lambda: whole.generate(params, rows, budget, key), work.rows)
  if work.rows % _SLOTS.value or _SLOTS.value % work.group:
    raise ValueError(f"--slots={_SLOTS.value} must divide the rows and be a multiple of --group.")
  some = _SLOTS.value // work.group
  starts = range(0, work.prompts, some)
  parts = [jax.tree.map(lambda x: x[i : i + some], (rows, budget)) for i in starts]  # noqa: B023
  batch, queue = engine(None), engine(_SLOTS.value)
  caps = jnp.ones_like(budget.cap).at[0, 0].set(work.limit)
  short = dataclasses.replace(budget, cap=caps)  # of the same programs
  found = {
    "batches": report(
      lambda: [batch.generate(params, *p, key) for p in parts],
      _SLOTS.value,
      first=lambda: batch.generate(params, *parts[0], key),
    ),
    "slots": report(
      lambda: queue.generate(params, rows, budget, key),
      _SLOTS.value,
      first=lambda: queue.generate(params, rows, short, key),
    ),
    "mean_length": tokens / work.rows,
  }
  found["ratio"] = found["batches"]["seconds"] / found["slots"]["seconds"]
  return found


def _result(work: shapes.Work, results: dict) -> dict:
  c = dataclasses.asdict(shapes.config(_SHAPE.value, dtype=_DTYPE.value))
  keep = ("layers", "hidden_size", "mlp_size", "heads", "kv_heads", "head_dim", "vocab_size")
  return {
    **shapes.machine(),
    "shape": _SHAPE.value,
    "config": {name: c[name] for name in keep},
    "work": work._asdict(),
    "dtype": _DTYPE.value,
    "compiler": _COMPILER.value,
    "variants": results,
  }


if __name__ == "__main__":
  app.run(main)
