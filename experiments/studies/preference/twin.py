"""Preference losses and length where every answer is known: sums with long and short workings.

  python -m experiments.studies.preference.twin --out=runs/twin

A small decoder imitates workings of mixed length. Its own answers become pairs: the longest right
answer to a prompt over the shortest right one, the reverse, and a right one over a wrong one (as
they come, of equal length, and a long one over a short one). Six losses learn from each kind of
pairs, everything else equal, and the folder gets what they did to length, accuracy, KL and the
implicit reward. Seeds, kinds and losses are one compiled program.

N prompts, G answers to each, T positions of a row.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from experiments import testbed
from experiments.studies.preference import twin_report
from lcrl import evaluation, policies
from lcrl.losses import preference as losses
from lcrl.masked import centre, masked_mean
from lcrl.tasks.sums import Sums
from lcrl.training import optimizers
from lcrl.training.scorer import make_scorer
from lcrl.types import Budget, PyTree, Rollouts

Array = jax.Array
SUMS = Sums()
WORKING: Any = {"recheck": 0.5, "sizes": (0.6, 0.3, 0.1)}  # what is imitated
POLICY = policies.make(policies.tiny(vocab_size=len(SUMS.symbols)))
SCORE: Callable = make_scorer(POLICY)


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


class Pairs(NamedTuple):
  """One pair a prompt, the chosen row first."""

  tokens: Array  # [N, 2, T] int32
  mask: Array  # [N, 2, T] bool
  ref: Array  # [N, 2, T] log-probs of the start
  valid: Array  # [N] bool, False where the prompt has no such pair


class Point(NamedTuple):
  """What is measured of a policy, [] each."""

  accuracy: Array
  tokens: Array
  kl: Array  # nats an answer, of the policy to the start
  slope: Array  # of log policy / start against length, nats a token, within prompts
  correlation: Array  # of the same two
  mean_correlation: Array  # of SimPO's reward, the mean log-prob, with length
  agreement: Array  # share of held-out pairs whose chosen side gained more than the other


# Which answer over which: verdicts and lengths of both -> (is a pair, how good a one), [N, G, G].
KINDS: dict[str, Callable[[Array, Array, Array], tuple[Array, Array]]] = {
  "long over short": lambda right, other, gap: (right & other & (gap > 0), gap),
  "short over long": lambda right, other, gap: (right & other & (gap < 0), -gap),
  "right over wrong": lambda right, other, gap: (right & ~other, 0 * gap),
  "right over wrong, equal lengths": lambda right, other, gap: (right & ~other & (gap == 0), gap),
  "right, long over wrong, short": lambda right, other, gap: (right & ~other & (gap > 0), gap),
}


def paired(kind: Callable, r: Rollouts) -> Pairs:
  """The best pair of each prompt; the first of equals. The start's own log-probs are kept."""
  here, there = r.correct[:, :, None], r.correct[:, None, :]
  ok, value = kind(here, there, r.lengths[:, :, None] - r.lengths[:, None, :])
  best = jnp.argmax(jnp.where(ok, value, -jnp.inf).reshape(len(ok), -1), axis=-1)
  both = jnp.stack(jnp.unravel_index(best, ok.shape[1:]), axis=-1)[..., None]
  take = lambda x: jnp.take_along_axis(x, both, axis=1)
  return Pairs(take(r.tokens), take(r.mask), take(r.sampler_log_probs), ok.any((1, 2)))


def _ratios(weigh: Callable, log_probs: Array, pairs: Pairs) -> list[Array]:
  return [
    losses.sequence_log_ratios(
      log_probs[:, side],
      pairs.ref[:, side],
      weigh(pairs.mask[:, side], pairs.mask[:, 1 - side]),
    )
    for side in (0, 1)
  ]


def _dpo(log_probs, pairs, key, *, weigh=losses.sum_weights, beta=0.1):
  return losses.dpo_loss(*_ratios(weigh, log_probs, pairs), beta=beta)


def _r_dpo(log_probs, pairs, key):
  u, v = _ratios(losses.sum_weights, log_probs, pairs)
  chosen, rejected = pairs.mask.sum(-1).T
  return losses.r_dpo_loss(u, v, chosen, rejected, beta=0.1, alpha=0.1)


def _sampo(log_probs, pairs, key):
  keys = jax.random.split(key, len(log_probs))
  return _dpo(log_probs, pairs, key, weigh=partial(losses.sampled_weights, keys))


def _simpo(log_probs, pairs, key):
  means = losses.sequence_log_probs(log_probs, losses.mean_weights(pairs.mask))
  return losses.simpo_loss(means[:, 0], means[:, 1], beta=2.5, margin=0.2)


LOSSES: dict[str, Callable[[Array, Pairs, Array], Array]] = {
  "DPO": _dpo,
  "R-DPO": _r_dpo,
  "LD-DPO": partial(_dpo, weigh=partial(losses.desensitized_weights, alpha=0.3)),
  "SamPO": _sampo,
  "LN-DPO": partial(_dpo, weigh=losses.mean_weights, beta=2.5),
  "SimPO": _simpo,
}


def imitate(key: Array, sizes: Sizes) -> PyTree:
  """A policy that is mostly right, at lengths between the shortest and the longest."""
  init_key, key = jax.random.split(key)
  params = POLICY.init(init_key)
  optimizer = optimizers.adamw(
    learning_rate=4e-3, warmup=sizes.imitation // 15, decay=sizes.imitation
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
  return testbed.play(
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


def measure(start: PyTree, probe: Rollouts, pairs: Pairs, params: PyTree, key: Array) -> Point:
  """A policy on fresh answers of its own, on the start's answers `probe`, on held-out pairs."""
  own = play(params, key, *probe.lengths.shape, held_out=True)
  gain = own.sampler_log_probs - SCORE(start, own).log_probs
  log_probs = SCORE(params, probe).log_probs
  ratios = jnp.sum(log_probs - probe.sampler_log_probs, -1)
  means = losses.sequence_log_probs(log_probs, losses.mean_weights(probe.mask))
  within = lambda x: centre(x, probe.valid)
  lengths, ratios, means = within(probe.lengths), within(ratios), within(means)
  dot = lambda x, y: jnp.sum(x * y)
  alike = lambda x, y: dot(x, y) / jnp.sqrt(jnp.maximum(dot(x, x) * dot(y, y), 1e-12))
  u, v = _ratios(losses.sum_weights, SCORE(params, pairs).log_probs, pairs)
  return Point(
    accuracy=own.correct.mean(),
    tokens=own.lengths.mean(),
    kl=jnp.mean(jnp.sum(gain, -1)),
    slope=dot(lengths, ratios) / jnp.maximum(dot(lengths, lengths), 1e-12),
    correlation=alike(lengths, ratios),
    mean_correlation=alike(lengths, means),
    agreement=masked_mean(u > v, pairs.valid),
  )


def learn(start: PyTree, pairs: Pairs, loss: Array, look: Callable, key: Array, sizes: Sizes):
  """Points [K + 1] of a policy that learns from `pairs` with the loss of index `loss` []."""
  optimizer = optimizers.adamw(learning_rate=sizes.learning_rate)
  chance = pairs.valid / jnp.maximum(pairs.valid.sum(), 1)

  def step(carry, key):
    params, opt_state = carry
    draw_key, key = jax.random.split(key)
    drawn = jax.random.choice(draw_key, len(chance), (sizes.pairs,), p=chance)
    some = jax.tree.map(lambda x: x[drawn], pairs)

    def mean_loss(params):
      log_probs = SCORE(params, some).log_probs
      return jnp.stack([f(log_probs, some, key).mean() for f in LOSSES.values()])[loss]

    grads = jax.grad(mean_loss)(params)
    changes, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, changes), opt_state

  def advance(carry, part):
    i, key = part
    point = look(carry[0], key)
    count = jnp.where(i < sizes.points, sizes.steps, 0)  # nothing is left to measure after the last
    one = lambda j, carry: step(carry, jax.random.fold_in(key, j))
    return jax.lax.fori_loop(0, count, one, carry), point

  keys = jax.random.split(key, sizes.points + 1)
  parts = jnp.arange(sizes.points + 1), keys
  return jax.lax.scan(advance, (start, optimizer.init(start)), parts)[1]


@partial(jax.jit, static_argnums=1)
def study(seed: Array, sizes: Sizes) -> tuple[Point, dict[str, Array]]:
  """One seed: points [kinds, losses, K + 1], and what each kind of pairs is like, [kinds]."""
  keys = jax.random.split(jax.random.key(seed), 4)
  start = imitate(keys[0], sizes)
  answers = play(start, keys[1], sizes.prompts, sizes.group_size, held_out=False)
  probe = play(start, keys[2], sizes.judged, sizes.answers, held_out=True)
  stack = lambda r: jax.tree.map(lambda *x: jnp.stack(x), *(paired(f, r) for f in KINDS.values()))
  pairs, held = stack(answers), stack(probe)

  def one(pairs, held, loss):
    return learn(start, pairs, loss, partial(measure, start, probe, held), keys[3], sizes)

  each_loss = jax.vmap(one, in_axes=(None, None, 0))
  points = jax.vmap(each_loss, in_axes=(0, 0, None))(pairs, held, jnp.arange(len(LOSSES)))
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
  twin_report.write(folder, found)
  print((folder / "twin.md").read_text())


if __name__ == "__main__":
  FLAGS = flags.FLAGS
  flags.DEFINE_string("out", None, "Folder of twin.json, twin.md and twin.png.", required=True)
  flags.DEFINE_integer("seeds", 3, "How many seeds.", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "The first of them.")
  flags.DEFINE_bool("smoke", False, "A few steps of everything, to see that it runs.")
  app.run(main)
