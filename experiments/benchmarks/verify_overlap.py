"""Verification while others are sampled, against verification when all are.

python -m experiments.benchmarks.verify_overlap                # slots, lengths of heavy tail
python -m experiments.benchmarks.verify_overlap --shape=laptop --dtype=float32 --prompts=8 \
  --group=4 --asked=16 --limit=64 --slots=8 --score_ms=20 --workers=2

Weights are random and no token ends a response: lengths are the caps, log-normal with a mean of a
quarter of the limit. The text of a token is its number, and a scorer in worker processes takes
`--score_ms` for each response. Prints one JSON line: seconds of sampling by one program and by
pieces, of both and verification one after the other and together, and `hidden`, the share of
verification that the second saves. `launch` is when the host was free again; `ended` is how many
responses were finished when, by piece.
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import app, flags

from experiments.benchmarks import peers, scorers, shapes
from lcrl import policies
from lcrl.mesh import make_mesh, to_global
from lcrl.rollouts.grader import LocalPrompts
from lcrl.rollouts.worker import RolloutWorker
from lcrl.sampling.engine import Engine, make_engine
from lcrl.tasks.task import Prompt, Task
from lcrl.tasks.verify import Verifier

FLAGS = flags.FLAGS


def main(argv):
  del argv
  work = shapes.asked_work(heavy=True)
  c = shapes.config(FLAGS.shape, dtype=FLAGS.dtype)
  policy, words = policies.make(c), peers.Ids(c.vocab_size)
  mesh = make_mesh(data=1, fsdp=1, devices=jax.devices()[:1])
  engine = make_engine(
    policy,
    max_tokens=work.limit,
    end_ids=(words.eos_id(),),
    pad_id=0,
    slots=FLAGS.slots or None,
    decoding=FLAGS.decoding,
    mesh=mesh,
  )
  params = engine.prepared(shapes.random_params(policy, FLAGS.dtype))
  rows, budget = jax.tree.map(np.asarray, shapes.make_rows(work, c.vocab_size))
  prompts = [Prompt(i, (), "") for i in range(work.prompts)]
  key = jax.random.key(1)
  given = params, to_global(mesh, rows), to_global(mesh, budget), key
  task = Task("patient", prompts, functools.partial(scorers.patient, seconds=FLAGS.score_ms / 1e3))
  with Verifier(task, workers=FLAGS.workers) as verifier:
    words_only: Any = _Words(words)
    worker = lambda engine: RolloutWorker(task, words_only, engine, verifier, mesh, work.asked)
    start = lambda engine: worker(engine).start(params, LocalPrompts(prompts, rows, budget), key)
    roll_out = lambda engine: start(engine).result()[0]
    runs: dict[str, Callable[[], Any]] = {
      "sampling": lambda: engine.generate(*given),
      "sampling_in_pieces": lambda: list(engine.stream(*given)),
      "in_turn": lambda: roll_out(_Whole(engine)),
      "together": lambda: roll_out(engine),
    }
    first, *others = (
      {name: timed(run) for name, run in runs.items()} for _ in range(1 + FLAGS.repeats)
    )
    np.testing.assert_array_equal(runs["in_turn"]().scores, runs["together"]().scores)
    began = time.perf_counter()
    pending = start(engine)
    launch = time.perf_counter() - began
    pending.result()
    ended = [
      (round(piece.sampled_at - began, 4), len(piece.positions))
      for piece in (future.result() for future in pending.pieces)
    ]
  seconds = {name: statistics.median(times[name] for times in others) for name in first}
  verification = seconds["in_turn"] - seconds["sampling"]
  result = {
    **shapes.machine(),
    "shape": FLAGS.shape,
    "work": work._asdict(),
    "slots": FLAGS.slots,
    "decoding": engine.policy.config.decoding,
    "score_ms": FLAGS.score_ms,
    "workers": FLAGS.workers,
    "mean_length": float(work.lengths().mean()),
    "seconds": seconds,
    "all_s": [{name: round(value, 4) for name, value in times.items()} for times in others],
    "first_s": first,
    "verification_s": verification,
    "hidden": (seconds["in_turn"] - seconds["together"]) / verification,
    "launch_s": launch,
    "ended": ended,
  }
  print(json.dumps(result), flush=True)


def timed(run: Callable[[], Any]) -> float:
  start = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - start


class _Words:
  """A tokenizer as far as reading needs one."""

  def __init__(self, ids: peers.Ids):
    self.decode, self.end_ids, self.pad_id = ids.decode, (ids.eos_id(),), 0


class _Whole:
  """An engine whose rollouts come when all are there."""

  def __init__(self, engine: Engine):
    self._engine = engine

  def stream(self, *given: Any):
    rollouts = self._engine.generate(*given)
    yield rollouts, rollouts.valid


def define():
  """The flags of this program."""
  shapes.define(prompts=256, limit=512)
  flags.DEFINE_integer("slots", 256, "rows that decode at once; 0: all")
  flags.DEFINE_string("decoding", None, "of the sampler; None: the fastest here")
  flags.DEFINE_float("score_ms", 5.0, "milliseconds that a scorer takes for a response")
  flags.DEFINE_integer("workers", 8, "processes of the verifier")


if __name__ == "__main__":
  define()
  app.run(main)
