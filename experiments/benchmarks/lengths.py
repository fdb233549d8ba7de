"""Sampling time against mean length at a fixed limit, and against the limit at a fixed mean length.

python -m experiments.benchmarks.lengths
python -m experiments.benchmarks.lengths --shape=laptop --dtype=float32 --prompts=16 --slots=16 \
  --means=8,16,32 --limit=64 --mean=8 --limits=32,64,128

The engine knows the limit only: a control ends each group after as many tokens as its first token
says (log-normal, sigma 0.5, the longest of them the same share of every mean). The first is
linear and the second flat where memory and time follow the tokens that live. Prints one JSON line a
point, then one with all.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.benchmarks import shapes
from lcrl import policies
from lcrl.sampling.controls import Control
from lcrl.sampling.engine import Engine, make_engine

FLAGS = flags.FLAGS


def main(argv):
  del argv
  c = shapes.config(FLAGS.shape, dtype=FLAGS.dtype)
  policy = policies.make(c)
  params = shapes.random_params(policy, FLAGS.dtype)
  points = [(int(mean), FLAGS.limit) for mean in FLAGS.means]
  points += [(FLAGS.mean, int(limit)) for limit in FLAGS.limits]
  engine = functools.cache(partial(make, policy))
  found = {}
  for mean, limit in dict.fromkeys(points):
    result = measure(engine(limit), params, mean)
    found[mean, limit] = result["seconds"]
    print(json.dumps(result), flush=True)
  by_mean = {mean: found[int(mean), FLAGS.limit] for mean in FLAGS.means}
  by_limit = {limit: found[FLAGS.mean, int(limit)] for limit in FLAGS.limits}
  spread = max(by_limit.values()) / min(by_limit.values()) - 1
  tables = {"by_mean": by_mean, "by_limit": by_limit, "spread": spread}
  print(json.dumps(shapes.machine() | {"shape": FLAGS.shape} | tables), flush=True)


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


def measure(engine: Engine, params, mean: int) -> dict:
  limit = engine.max_tokens
  work = shapes.Work(FLAGS.prompts, FLAGS.group, FLAGS.asked, limit)
  rows, budget = shapes.make_rows(work, engine.policy.config.vocab_size)
  sigma = 0.5
  draws = np.random.default_rng(0).lognormal(np.log(mean) - sigma**2 / 2, sigma, work.prompts)
  lengths = np.clip(draws.round(), 1, limit).astype(np.int32)
  tokens = rows.tokens.copy()
  tokens[..., 0] = lengths[:, None]
  rows = dataclasses.replace(rows, tokens=tokens)
  run = lambda: engine.generate(params, rows, budget, jax.random.key(1))
  sampled, wanted = int(run().lengths.sum()), int(lengths.sum()) * work.group
  if sampled != wanted:
    raise ValueError(f"{sampled} tokens were sampled, not {wanted}.")
  timed = shapes.timed(run, FLAGS.repeats)
  point = {"mean": mean, "limit": limit, "mean_sampled": wanted / work.rows}
  return point | {"longest": int(lengths.max()), **timed, "tokens_per_s": wanted / timed["seconds"]}


def ends(end: int) -> Control:
  """Ends a row after as many tokens as its first token says."""

  def take(left, logits, sampled):
    del logits
    return left - 1, jnp.where(left == 1, end, sampled), jnp.zeros(left.shape, bool)

  return Control(init=lambda tokens, _: tokens[:, 0], shape=lambda left, logits: logits, take=take)


def define():
  """The flags of this program."""
  flags.DEFINE_string("shape", "smollm2-135m", "a model by name")
  flags.DEFINE_string("dtype", "bfloat16", "of weights and computation")
  flags.DEFINE_string("decoding", None, "None: the fastest here")
  flags.DEFINE_integer("prompts", 128, "prompts")
  flags.DEFINE_integer("group", 8, "rollouts of each")
  flags.DEFINE_integer("asked", 96, "tokens of a prompt")
  flags.DEFINE_integer("slots", 256, "rows that decode at once")
  flags.DEFINE_list("means", ["64", "128", "256", "384"], "mean lengths at --limit")
  flags.DEFINE_integer("limit", 2048, "the limit of the first table")
  flags.DEFINE_integer("mean", 128, "the mean length of the second table")
  flags.DEFINE_list("limits", ["512", "2048", "4096"], "limits at --mean")
  flags.DEFINE_integer("repeats", 2, "timed calls after the first")


if __name__ == "__main__":
  define()
  app.run(main)
