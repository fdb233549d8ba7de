"""Time against mean length at a fixed limit, and against the limit at a fixed mean length.

python -m experiments.benchmarks.lengths --update=attention/triton/4/3456/scan > lengths.jsonl
python -m experiments.benchmarks.lengths --plot=lengths.jsonl --out=lengths.png
python -m experiments.benchmarks.lengths --shape=laptop --dtype=float32 --prompts=16 --slots=16 \
  --means=8,16,32 --limit=64 --mean=8 --limits=32,64,128

The engine knows the limit only: a control ends each group after as many tokens as its first token
says (log-normal, sigma 0.5, the longest of them the same share of every mean). The first is
linear and the second flat where memory and time follow the tokens that live. With `--update`, a run
as `benchmarks.update` writes it, the rollouts train too, and a step is both. Prints one JSON line a
point, then one of what all have in common; `--plot` draws such lines and prints their tables.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.benchmarks import lengths_report, shapes, update
from lcrl import policies
from lcrl.sampling.controls import Control
from lcrl.sampling.engine import Engine, make_engine
from lcrl.types import Rollouts

FLAGS = flags.FLAGS


def main(argv):
  del argv
  if FLAGS.plot:
    found = lengths_report.read(pathlib.Path(FLAGS.plot).read_text())
    lengths_report.draw(FLAGS.out, found)
    print(lengths_report.tables(found))
    return
  c = shapes.config(FLAGS.shape, dtype=FLAGS.dtype)
  policy = policies.make(c)
  params = shapes.random_params(policy, FLAGS.dtype)
  points = [(int(mean), FLAGS.limit) for mean in FLAGS.means]
  points += [(FLAGS.mean, int(limit)) for limit in FLAGS.limits]
  engine = functools.cache(functools.partial(make, policy))
  learner = functools.cache(trains)
  for mean, limit in dict.fromkeys(points):
    point = {"mean": mean, "limit": limit}
    try:
      sampled, result = sample(engine(limit), params, mean)
      if FLAGS.update:
        result |= learner(limit)(sampled)
        result["step_s"] = result["seconds"] + result["update_s"]
    except (RuntimeError, ValueError) as error:  # out of memory is a result
      result = shapes.failure(error)
    print(json.dumps(point | result), flush=True)
  common = {name: FLAGS[name].value for name in ("shape", "dtype", "prompts", "group", "slots")}
  common |= {"mean_of_limits": FLAGS.mean, "limit_of_means": FLAGS.limit, "update": FLAGS.update}
  print(json.dumps(shapes.machine() | common), flush=True)


def make(policy: policies.Policy, limit: int) -> Engine:
  end = policy.config.vocab_size  # no logit of its own: only the control says it
  return make_engine(
    policy,
    max_tokens=limit,
    end_ids=(end,),
    pad_id=0,
    slots=FLAGS.slots,
    decoding=FLAGS.decoding,
    control=ends(end),
  )


def sample(engine: Engine, params, mean: int) -> tuple[Rollouts, dict]:
  """Rollouts of this mean length, and how long they took."""
  limit = engine.max_tokens
  work = shapes.Work(FLAGS.prompts, FLAGS.group, FLAGS.asked, limit)
  rows, budget = shapes.make_rows(work, engine.policy.config.vocab_size)
  sigma = 0.5
  draws = np.random.default_rng(0).lognormal(np.log(mean) - sigma**2 / 2, sigma, work.prompts)
  lengths = np.clip(draws.round(), 1, limit).astype(np.int32)
  tokens = rows.tokens.copy()
  tokens[..., 0] = lengths[:, None]
  rows = dataclasses.replace(rows, tokens=tokens)
  rollouts: list[Rollouts] = []

  def run():
    rollouts[:] = [engine.generate(params, rows, budget, jax.random.key(1))]
    return rollouts

  timed = shapes.timed(run, FLAGS.repeats)
  sampled, wanted = int(rollouts[0].lengths.sum()), int(lengths.sum()) * work.group
  if sampled != wanted:
    raise ValueError(f"{sampled} tokens were sampled, not {wanted}.")
  point = {"mean_sampled": wanted / work.rows, "longest": int(lengths.max())}
  return rollouts[0], point | {**timed, "tokens_per_s": wanted / timed["seconds"]}


def ends(end: int) -> Control:
  """Ends a row after as many tokens as its first token says."""

  def take(left, logits, sampled):
    del logits
    return left - 1, jnp.where(left == 1, end, sampled), jnp.zeros(left.shape, bool)

  return Control(init=lambda tokens, _: tokens[:, 0], shape=lambda left, logits: logits, take=take)


def trains(limit: int) -> Callable[[Rollouts], dict]:
  """Rollouts of this limit -> how long an update on them takes."""
  work = shapes.Work(FLAGS.prompts, FLAGS.group, FLAGS.asked, limit)
  c = shapes.config(FLAGS.shape, dtype=FLAGS.dtype)
  model = update.model_of(FLAGS.update, work, c)
  state = model.initial()
  signs = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], (work.prompts, work.group)))

  def measure(rollouts: Rollouts) -> dict:
    scored = dataclasses.replace(rollouts, scores=signs.astype(jnp.float32))
    tokens = jnp.minimum(rollouts.tokens, c.vocab_size - 1)  # the end has no embedding here
    batch = update.to_train_on(dataclasses.replace(scored, tokens=tokens))

    def step():
      nonlocal state
      state, _ = model.update(state, batch)
      return state

    timed = shapes.timed(step, FLAGS.repeats, warm=2)
    return {"update_s": timed["seconds"], "update_first_s": timed["first_s"]}

  return measure


def define():
  """The flags of this program."""
  shapes.define(prompts=128, limit=2048, repeats=2)
  flags.DEFINE_string("decoding", None, "None: the fastest here")
  flags.DEFINE_integer("slots", 256, "rows that decode at once")
  flags.DEFINE_list("means", ["64", "128", "256", "384"], "mean lengths at --limit")
  flags.DEFINE_integer("mean", 128, "the mean length at --limits")
  flags.DEFINE_list("limits", ["512", "2048", "4096"], "limits at --mean")
  flags.DEFINE_string("update", None, "how to train on what was sampled; None: it is sampled only")
  flags.DEFINE_string("plot", None, "draws what is in this file and measures nothing")
  flags.DEFINE_string("out", "lengths.png", "where to, with --plot")


if __name__ == "__main__":
  define()
  app.run(main)
