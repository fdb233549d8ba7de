"""Preference losses and length where every answer is known: sums with long and short workings.

  python -m experiments.studies.preference.twin --out=runs/twin

A small decoder imitates workings of mixed length. Its own answers become pairs: the longest right
answer to a prompt over the shortest right one, the reverse, and a right one over a wrong one (as
they come, of equal length, and a long one over a short one). Six losses learn from each kind of
pairs, everything else equal, and the folder gets what they did to length, accuracy, KL and the
implicit reward. Seeds, kinds and losses are one compiled program.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments import testbed
from experiments.studies.preference import report
from experiments.studies.preference.contrast import (
  KINDS,
  LOSSES,
  Pairs,
  Point,
  learn,
  measure,
  paired,
)
from lcrl import evaluation, policies
from lcrl.masked import masked_mean
from lcrl.tasks.sums import Sums
from lcrl.training import optimizers
from lcrl.training.scorer import make_scorer
from lcrl.types import Budget, PyTree, Rollouts

FLAGS = flags.FLAGS
Array = jax.Array
TITLE = "Preference losses on sums with long and short workings"
COMMAND = "python -m experiments.studies.preference.twin --out=experiments/studies/preference"
SUMS = Sums()
WORKING: Any = {"recheck": 0.5, "sizes": (0.6, 0.3, 0.1)}  # what is imitated
POLICY = policies.make(policies.tiny(vocab_size=len(SUMS.symbols)))
SCORER: Any = make_scorer(POLICY)


class Sizes(NamedTuple):
  """How much of everything."""

  imitation: int = 800  # steps
  batch: int = 32  # demonstrations a step
  prompts: int = 512  # of which pairs are made
  group_size: int = 8  # answers to each
  pairs: int = 32  # a step
  steps: int = 10  # between two measurements
  points: int = 4  # measurements after the first
  judged: int = 128  # held-out prompts
  answers: int = 4  # to each of them
  learning_rate: float = 1e-4


SMALL = Sizes(4, 8, 8, 4, 2, 1, 2, 4, 2)


def score(params: PyTree, rows: Any) -> Array:
  """Log-probs of the rows' tokens, 0 where masked."""
  return SCORER(params, rows).log_probs


def imitate(key: Array, sizes: Sizes) -> PyTree:
  """A policy that is mostly right, at lengths between the shortest and the longest."""
  init_key, key = jax.random.split(key)
  params = POLICY.init(init_key)
  optimizer = optimizers.adamw(
    learning_rate=4e-3, warmup_steps=sizes.imitation // 15, decay_steps=sizes.imitation
  )
  carry, _ = testbed.imitate(
    POLICY,
    optimizer,
    (params, optimizer.init(params)),
    jax.random.split(key, sizes.imitation),
    sums=SUMS,
    batch=sizes.batch,
    **WORKING,
  )
  return carry[0]


def play(params: PyTree, key: Array, prompts: int, answers: int, *, held_out: bool) -> Rollouts:
  """`answers` to each of the first `prompts` problems of one side."""
  cap = jnp.full((prompts, answers), SUMS.response_length)
  ids = jnp.arange(prompts)
  return testbed.roll_out(
    POLICY,
    params,
    ids,
    ids,
    Budget(target=cap, cap=cap, level=jnp.zeros_like(cap)),
    key,
    sums=SUMS,
    max_tokens=SUMS.response_length,
    held_out=held_out,
  )


@partial(jax.jit, static_argnums=1)
def study(seed: Array, sizes: Sizes) -> tuple[Point, dict[str, Array]]:
  """One seed: points [kinds, losses, K + 1], and what each kind of pairs is like, [kinds]."""
  keys = jax.random.split(jax.random.key(seed), 4)
  start = imitate(keys[0], sizes)
  answers = play(start, keys[1], sizes.prompts, sizes.group_size, held_out=False)
  probe = play(start, keys[2], sizes.judged, sizes.answers, held_out=True)
  optimizer = optimizers.adamw(learning_rate=sizes.learning_rate)
  stack = lambda r: jax.tree.map(
    lambda *x: jnp.stack(x), *(paired(f, r, r.sampler_log_probs) for f in KINDS.values())
  )
  pairs, held = stack(answers), stack(probe)

  def run(pairs: Pairs, held: Pairs, loss: Array) -> Point:
    def advance(carry, part):
      i, key = part
      own = play(carry[0], key, sizes.judged, sizes.answers, held_out=True)
      start_own, start_probe = score(start, own), probe.sampler_log_probs
      point = measure(score, carry[0], own, start_own, probe, start_probe, held)
      steps = jnp.where(i < sizes.points, sizes.steps, 0)  # after the last nothing is measured
      carry = learn(
        score, optimizer, LOSSES, carry, pairs, loss, key, steps=steps, size=sizes.pairs
      )
      return carry, point

    many = sizes.points + 1
    parts = jnp.arange(many), jax.random.split(keys[3], many)
    return jax.lax.scan(advance, (start, optimizer.init(start)), parts)[1]

  each_loss = jax.vmap(run, in_axes=(None, None, 0))
  all_losses = jnp.arange(len(LOSSES))
  points = jax.lax.map(lambda both: each_loss(both[0], both[1], all_losses), (pairs, held))
  lengths = masked_mean(pairs.mask.sum(-1), pairs.valid[..., None], axis=1)
  facts = {"pairs": pairs.valid.sum(-1), "chosen": lengths[:, 0], "rejected": lengths[:, 1]}
  return points, facts


def results(seeds: range, sizes: Sizes) -> dict[str, Any]:
  """Everything that was measured, as plain lists: points by kind and loss, [seeds, K + 1]."""
  clock = time.perf_counter()
  points, facts = jax.tree.map(
    np.asarray, jax.vmap(partial(study, sizes=sizes))(jnp.arange(seeds.start, seeds.stop))
  )
  return {
    "sizes": sizes._asdict(),
    "seeds": [*seeds],
    "steps": [i * sizes.steps for i in range(sizes.points + 1)],
    "device": evaluation.device(),
    "commit": evaluation.commit(),
    "seconds": time.perf_counter() - clock,
    "kinds": {
      kind: {
        "pairs": {name: x[:, i].tolist() for name, x in facts.items()},
        "losses": {
          loss: {name: x[:, i, j].tolist() for name, x in points._asdict().items()}
          for j, loss in enumerate(LOSSES)
        },
      }
      for i, kind in enumerate(KINDS)
    },
  }


def main(_) -> None:
  seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)
  found = results(seeds, SMALL if FLAGS.smoke else Sizes())
  folder = Path(FLAGS.out)
  folder.mkdir(parents=True, exist_ok=True)
  evaluation.write_json(folder / "twin.json", found)
  report.write(folder, "twin", TITLE, COMMAND, found)
  print((folder / "twin.md").read_text())


if __name__ == "__main__":
  flags.DEFINE_string("out", None, "Folder of twin.json, twin.md and twin.png.", required=True)
  flags.DEFINE_integer("seeds", 3, "How many seeds.", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "The first of them.")
  flags.DEFINE_bool("smoke", False, "A few steps of everything, to see that it runs.")
  app.run(main)
