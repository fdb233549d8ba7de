"""Sampling time against mean length at a fixed limit, and against the limit at a fixed mean length.

python -m experiments.benchmarks.lengths
python -m experiments.benchmarks.lengths --shape=laptop --dtype=float32 --prompts=16 --slots=16 \
  --means=8,16,32 --limit=64 --mean=8 --limits=32,64,128

The engine knows the limit only: a control ends each group after a length that its first token
stands for (log-normal, sigma 0.5, the longest of them the same share of every mean). The first is
linear and the second flat where memory and time follow the tokens that live. Prints one JSON line a
point, then one with all.
"""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.benchmarks import shapes
from lcrl import policies
from lcrl.sampling.controls import Control
from lcrl.sampling.engine import make_engine

_SHAPE = flags.DEFINE_string("shape", "smollm2-135m", "a model by name")
_DTYPE = flags.DEFINE_string("dtype", "bfloat16", "of weights and computation")
_DECODING = flags.DEFINE_string("decoding", None, "None: the fastest here")
_PROMPTS = flags.DEFINE_integer("prompts", 128, "prompts")
_GROUP = flags.DEFINE_integer("group", 8, "rollouts of each")
_ASKED = flags.DEFINE_integer("asked", 96, "tokens of a prompt")
_SLOTS = flags.DEFINE_integer("slots", 256, "rows that decode at once")
_MEANS = flags.DEFINE_list("means", ["64", "128", "256", "384"], "mean lengths at --limit")
_LIMIT = flags.DEFINE_integer("limit", 2048, "the limit of the first table")
_MEAN = flags.DEFINE_integer("mean", 128, "the mean length of the second table")
_LIMITS = flags.DEFINE_list("limits", ["512", "2048", "4096"], "limits at --mean")
_REPEATS = flags.DEFINE_integer("repeats", 2, "timed calls after the first")


def main(argv):
  del argv
  c = shapes.config(_SHAPE.value, dtype=_DTYPE.value)
  policy = policies.make(c)
  params = shapes.random_params(policy, _DTYPE.value)
  points = [(int(mean), _LIMIT.value) for mean in _MEANS.value]
  points += [(_MEAN.value, int(limit)) for limit in _LIMITS.value]
  found = {}
  for mean, limit in dict.fromkeys(points):
    result = measure(policy, params, mean, limit)
    found[mean, limit] = result["seconds"]
    print(json.dumps(result), flush=True)
  by_mean = {mean: found[int(mean), _LIMIT.value] for mean in _MEANS.value}
  by_limit = {limit: found[_MEAN.value, int(limit)] for limit in _LIMITS.value}
  spread = max(by_limit.values()) / min(by_limit.values()) - 1
  tables = {"by_mean": by_mean, "by_limit": by_limit, "spread": spread}
  print(json.dumps(shapes.machine() | {"shape": _SHAPE.value} | tables), flush=True)


def measure(policy, params, mean: int, limit: int) -> dict:
  work = shapes.Work(_PROMPTS.value, _GROUP.value, _ASKED.value, limit)
  rows, budget = shapes.make_rows(work, policy.config.vocab_size)
  sigma = 0.5
  draws = np.random.default_rng(0).lognormal(np.log(mean) - sigma**2 / 2, sigma, work.prompts)
  lengths = np.clip(draws.round(), 1, limit).astype(np.int32)
  rows.tokens[..., 0] = np.arange(work.prompts)[:, None]
  end = policy.config.vocab_size  # no logit of its own: only the control says it
  engine = make_engine(
    policy,
    max_tokens=limit,
    end_ids=(end,),
    pad_id=0,
    slots=_SLOTS.value,
    decoding=_DECODING.value,
    control=ends_after(jnp.asarray(lengths), end),
  )
  run = lambda: engine.generate(params, rows, budget, jax.random.key(1))
  sampled = int(run().lengths.sum())
  tokens = int(lengths.sum()) * work.group
  if sampled != tokens:
    raise ValueError(f"{sampled} tokens were sampled, not {tokens}.")
  timed = shapes.timed(run, _REPEATS.value)
  point = {"mean": mean, "limit": limit, "mean_sampled": tokens / work.rows}
  return point | {"longest": int(lengths.max()), **timed, "tokens_per_s": tokens / timed["seconds"]}


def ends_after(lengths: jax.Array, end: int) -> Control:
  """Ends a row after as many tokens as stand in `lengths` where its first token points."""

  def take(left, logits, sampled):
    del logits
    return left - 1, jnp.where(left == 1, end, sampled), jnp.zeros(left.shape, bool)

  return Control(
    init=lambda tokens, _: lengths[tokens[:, 0]],
    shape=lambda left, logits: logits,
    take=take,
  )


if __name__ == "__main__":
  app.run(main)
