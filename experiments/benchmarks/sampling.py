"""Sampling at the speed of the memory: the engine's variants on one shape, against the floor.

python -m experiments.benchmarks.sampling --peer=tunix            # 64 x 8 rows of 96 + 96 tokens
python -m experiments.benchmarks.sampling --shape=qwen2.5-1.5b --prompts=32 --asked=128 --limit=512
python -m experiments.benchmarks.sampling --heavy --prompts=512 --limit=1024 --slots=512
python -m experiments.benchmarks.sampling --shape=laptop --prompts=4 --group=4 --asked=64 \
  --limit=128 --dtype=float32 --variants=xla

Weights are random and no token ends a response, so lengths are the caps. With `--heavy` lengths are
log-normal, and the same engine runs with slots that refill and batch by batch. The peer does the
same work first, in a process of its own. Prints one JSON line for it and for each variant, then one
with all. `peak_gib` is the most that a process had in use so far.
"""

import dataclasses
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.benchmarks import peers, shapes
from experiments.benchmarks.profiles import profile
from lcrl import policies
from lcrl.sampling.engine import make_engine

FLAGS = flags.FLAGS


def main(argv):
  del argv
  work = shapes.asked_work(FLAGS.heavy)._replace(mean=FLAGS.mean)
  peer = ask_peer(work)
  results = {}
  for name in FLAGS.variants:
    begin = time.perf_counter()
    try:
      found = measure(name, work)
      own = found["slots"] if work.heavy else found
      found["times_less"] = peers.ratios(peer, own, ("seconds", "first_s", "peak_gib"))
    except (RuntimeError, ValueError) as error:  # out of memory, or refused, is a result
      found = shapes.failure(error)
    results[name] = found | {"wall_s": round(time.perf_counter() - begin, 1)}
    print(json.dumps({name: results[name]}), flush=True)
  print(json.dumps(_result(work, peer, results)), flush=True)


def ask_peer(work: shapes.Work) -> dict | None:
  """The peer's time for the same rows. Tunix, which knows no caps, decodes each of the batches to
  the limit: they are alike, so one is measured."""
  if not work.heavy or FLAGS.peer == "transformers":
    return peers.ask("sampling")
  found = peers.ask("sampling", prompts=FLAGS.slots // FLAGS.group, heavy=False)
  if found and "seconds" in found:
    batches = work.rows // FLAGS.slots
    found |= {"batches": batches, "seconds": found["seconds"] * batches}
    found["tokens_per_s"] = int(work.lengths().sum()) / found["seconds"]
  return found


def measure(name: str, work: shapes.Work) -> dict:
  """Times of a variant, in all ways that the flags ask for."""
  decoding, _, asked = name.partition("+")
  cache_dtype = asked or None
  c = shapes.config(FLAGS.shape, dtype=FLAGS.dtype)
  policy = policies.make(c)
  params = shapes.random_params(policy, FLAGS.dtype)
  rows, budget = shapes.make_rows(work, c.vocab_size)
  tokens = int(budget.cap.sum())
  bytes_ = jnp.dtype(cache_dtype or c.dtype).itemsize

  def engine(slots):
    return make_engine(
      policy,
      max_tokens=work.limit,
      end_ids=(c.vocab_size,),
      pad_id=0,
      slots=slots,
      cache_gib=FLAGS.cache_gib if slots else None,
      decoding=decoding,
      cache_dtype=cache_dtype,
      compiler=shapes.compiler_options(FLAGS.compiler),
    )

  def report(run, at_once, first=None):
    found = shapes.timed(run, FLAGS.repeats, first)
    found |= {"tokens_per_s": tokens / found["seconds"], "peak_gib": shapes.peak_gib()}
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
  caps = jnp.ones_like(budget.cap).at[0, 0].set(work.limit // 2 + 1)
  short = dataclasses.replace(budget, cap=caps)  # of the same programs
  found: dict[str, Any] = {"mean_length": tokens / work.rows}
  if FLAGS.longest_first:
    rows = dataclasses.replace(rows, expected=work.lengths().mean(axis=1).astype(np.float32))
  found["slots"] = report(
    lambda: queue.generate(params, rows, budget, key),
    FLAGS.slots,
    first=lambda: queue.generate(params, rows, short, key),
  )
  if FLAGS.batches:
    found["batches"] = report(
      lambda: [batch.generate(params, *p, key) for p in parts],
      FLAGS.slots,
      first=lambda: batch.generate(params, *parts[0], key),
    )
    found["ratio"] = found["batches"]["seconds"] / found["slots"]["seconds"]
  return found


def _result(work: shapes.Work, peer: dict | None, results: dict) -> dict:
  config = shapes.config(FLAGS.shape, dtype=FLAGS.dtype)
  keep = ("layers", "hidden_size", "mlp_size", "heads", "kv_heads", "head_dim", "vocab_size")
  if peer and "seconds" in peer:
    at_once = FLAGS.slots if work.heavy else work.rows
    floor = shapes.sampling_floor(config, work, rows=at_once, shared=False)
    peer["of_floor"] = floor and floor / peer["seconds"]
  return {
    **shapes.machine(),
    "shape": FLAGS.shape,
    "config": {name: getattr(config, name) for name in keep},
    "work": work._asdict(),
    "dtype": FLAGS.dtype,
    "compiler": FLAGS.compiler,
    "peer": peer,
    "variants": results,
  }


def define():
  """The flags of this program."""
  for part in (shapes, peers):
    part.define()
  flags.DEFINE_bool("heavy", False, "lengths of heavy tail: slots against batches")
  flags.DEFINE_integer("slots", 512, "with --heavy: rows that decode at once")
  flags.DEFINE_float("cache_gib", None, "with --heavy: GiB for keys; None: slots of full length")
  flags.DEFINE_float("mean", None, "with --heavy: mean length; None: a quarter of the limit")
  flags.DEFINE_bool("batches", True, "with --heavy: also batch by batch")
  flags.DEFINE_bool("longest_first", False, "with --heavy: as if mean lengths of groups were known")
  flags.DEFINE_list("variants", ["xla", "triton", "triton+int8"], "decoding[+cache dtype]")
  flags.DEFINE_list("compiler", [], "options of XLA, name=true or name=false")
  flags.DEFINE_bool("profile", False, "adds the kernels of one call to each variant")


if __name__ == "__main__":
  define()
  app.run(main)
