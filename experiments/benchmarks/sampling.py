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

FLAGS = flags.FLAGS


def main(argv):
  del argv
  work = shapes.Work(FLAGS.prompts, FLAGS.group, FLAGS.asked, FLAGS.limit, FLAGS.heavy)
  results = {}
  for name in FLAGS.variants:
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
  c = shapes.config(FLAGS.shape, dtype=FLAGS.dtype)
  policy = policies.make(c)
  params = shapes.random_params(policy, FLAGS.dtype)
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
      compiler=shapes.compiler_options(FLAGS.compiler),
    )

  def report(run, at_once, first=None):
    found = shapes.timed(run, FLAGS.repeats, first)
    found["tokens_per_s"] = tokens / found["seconds"]
    for shared in (False, True):
      floor = shapes.sampling_floor(c, work, rows=at_once, shared=shared, cache_bytes=bytes_)
      found["of_floor" + "_shared" * shared] = floor and floor / found["seconds"]
    if FLAGS.profile:
      found["profile"] = profile(run)
    return found

  key = jax.random.key(1)
  if not work.heavy:
    whole = engine(None)
    return report(lambda: whole.generate(params, rows, budget, key), work.rows)
  if work.rows % FLAGS.slots or FLAGS.slots % work.group:
    raise ValueError(f"--slots={FLAGS.slots} must divide the rows and be a multiple of --group.")
  some = FLAGS.slots // work.group
  starts = range(0, work.prompts, some)
  parts = [jax.tree.map(lambda x: x[i : i + some], (rows, budget)) for i in starts]  # noqa: B023
  batch, queue = engine(None), engine(FLAGS.slots)
  caps = jnp.ones_like(budget.cap).at[0, 0].set(work.limit)
  short = dataclasses.replace(budget, cap=caps)  # of the same programs
  found = {
    "batches": report(
      lambda: [batch.generate(params, *p, key) for p in parts],
      FLAGS.slots,
      first=lambda: batch.generate(params, *parts[0], key),
    ),
    "slots": report(
      lambda: queue.generate(params, rows, budget, key),
      FLAGS.slots,
      first=lambda: queue.generate(params, rows, short, key),
    ),
    "mean_length": tokens / work.rows,
  }
  found["ratio"] = found["batches"]["seconds"] / found["slots"]["seconds"]
  return found


def _result(work: shapes.Work, results: dict) -> dict:
  c = dataclasses.asdict(shapes.config(FLAGS.shape, dtype=FLAGS.dtype))
  keep = ("layers", "hidden_size", "mlp_size", "heads", "kv_heads", "head_dim", "vocab_size")
  return {
    **shapes.machine(),
    "shape": FLAGS.shape,
    "config": {name: c[name] for name in keep},
    "work": work._asdict(),
    "dtype": FLAGS.dtype,
    "compiler": FLAGS.compiler,
    "variants": results,
  }


def define():
  """The flags of this program."""
  flags.DEFINE_string("shape", "smollm2-135m", "a model by name")
  flags.DEFINE_integer("prompts", 64, "prompts")
  flags.DEFINE_integer("group", 8, "rollouts of each")
  flags.DEFINE_integer("asked", 96, "tokens of a prompt")
  flags.DEFINE_integer("limit", 96, "the longest response")
  flags.DEFINE_bool("heavy", False, "lengths of heavy tail: slots against batches")
  flags.DEFINE_integer("slots", 512, "with --heavy: rows that decode at once")
  flags.DEFINE_string("dtype", "bfloat16", "of weights and computation")
  flags.DEFINE_list("variants", ["xla", "triton", "triton+int8"], "decoding[+cache dtype]")
  flags.DEFINE_integer("repeats", 3, "timed calls after the first")
  flags.DEFINE_list("compiler", [], "options of XLA, name=true or name=false")
  flags.DEFINE_bool("profile", False, "adds the kernels of one call to each variant")


if __name__ == "__main__":
  define()
  app.run(main)
