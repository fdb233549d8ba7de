"""Preference losses and length on SmolLM2-135M: a public set of pairs, and pairs of its answers.

  python -m experiments.studies.preference.smollm2 --policy=MODEL --data=PAIRS.json --out=FOLDER

`instructions`: chosen over rejected answers to instructions; the policy imitates the chosen ones
before it prefers them. `sums`: answers to reasoning_gym's chain_sum; the policy imitates its own
right answers, answers again, and learns from pairs of these: the shortest right one over the
longest right one, and a right one over a wrong one. Each loss starts from the same parameters with
the same keys. All losses, imitation included, are one compiled program.

B prompts, G answers to each, T positions of a row.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from experiments.studies.preference import contrast, report
from experiments.studies.preference.contrast import KINDS, LOSSES, Pairs, Point
from lcrl import evaluation, policies, tasks
from lcrl.data import readers, sources
from lcrl.data.layouts import read_pair
from lcrl.losses import preference as losses
from lcrl.masked import masked_mean
from lcrl.mesh import make_mesh
from lcrl.policies import Policy
from lcrl.rollouts.worker import RolloutWorker
from lcrl.sampling.engine import make_engine
from lcrl.tasks.task import Prompt, Task
from lcrl.tasks.verify import Verdict, Verifier
from lcrl.training import optimizers
from lcrl.training.rl.collect import pad_rows
from lcrl.training.scorer import join, make_scorer, split
from lcrl.types import Budget, Outcome, PyTree, Rollouts

FLAGS = flags.FLAGS
TITLE = "Preference losses on SmolLM2-135M"
COMMAND = "python -m experiments.studies.preference.smollm2 --policy=... --data=... --out=..."
SUMS: Any = {"dataset": "chain_sum", "max_terms": 3, "max_digits": 1, "extract": "last_number"}
HOW = {"SFT": lambda log_probs, pairs, key: imitation(log_probs, pairs), **LOSSES}


class Sizes(NamedTuple):
  """How much of everything."""

  prompt_tokens: int = 64
  answer_tokens: int = 64
  prompts: int = 1024  # of which pairs are made
  group_size: int = 8  # answers to each
  batch: int = 256  # prompts that are answered at a time
  imitation: int = 90  # updates of SFT
  pairs: int = 32  # an update
  steps: int = 20  # updates between two measurements
  points: int = 3  # measurements after the first
  judged: int = 104  # held-out prompts
  answers: int = 8  # to each of them
  learning_rate: float = 1e-5
  pieces: int = 8  # of what is only scored

  @property
  def window(self) -> int:
    return self.prompt_tokens + self.answer_tokens


SMALL = Sizes(
  prompts=16,
  group_size=4,
  batch=8,
  imitation=1,
  pairs=2,
  steps=1,
  points=1,
  judged=4,
  answers=2,
  pieces=2,
)


def imitation(log_probs: jax.Array, pairs: Pairs) -> jax.Array:
  """SFT on the chosen side: every token of the batch counts the same."""
  return losses.nll_loss(log_probs[:, 0], losses.batch_mean_weights(pairs.mask[:, 0]))


class Lab:
  """The policy and its compiled programs."""

  def __init__(self, policy: Policy, tokenizer: Any, sizes: Sizes):
    self.sizes, self.tokenizer = sizes, tokenizer
    self.mesh = make_mesh(devices=jax.devices()[:1])
    self.engine = make_engine(
      policy,
      max_tokens=sizes.answer_tokens,
      end_ids=tokenizer.end_ids,
      pad_id=tokenizer.pad_id,
      mesh=self.mesh,
    )
    scorer = make_scorer(policy)
    score = lambda params, rows: scorer(params, rows).log_probs

    def in_pieces(params: PyTree, rows: Any) -> jax.Array:
      return join(jax.lax.map(partial(score, params), split(rows, sizes.pieces)))

    self.optimizer = optimizers.adamw(learning_rate=sizes.learning_rate)
    self.score = jax.jit(in_pieces)  # params, rows -> log-probs
    self.measure: Callable[..., Point] = jax.jit(partial(contrast.measure, in_pieces))
    self.learn = jax.jit(partial(contrast.learn, score, self.optimizer, HOW, size=sizes.pairs))

  def imitate(self, params: PyTree, pairs: Pairs, key: jax.Array) -> PyTree:
    """Params after SFT on the chosen side."""
    carry = params, self.optimizer.init(params)
    how = jnp.int32([*HOW].index("SFT"))
    return self.learn(carry, pairs, how, key, steps=jnp.int32(self.sizes.imitation))[0]

  def play(
    self,
    params: PyTree,
    worker: RolloutWorker,
    prompts: Sequence[Prompt],
    answers: int,
    key: jax.Array,
  ) -> Rollouts:
    """Verified answers as rows of the window, `batch` prompts at a time."""
    played = []
    for first in range(0, len(prompts), self.sizes.batch):
      index = np.arange(first, min(first + self.sizes.batch, len(prompts)), dtype=np.int32)
      cap: Any = np.full((len(index), answers), self.sizes.answer_tokens, np.int32)
      here = [prompts[i] for i in index.tolist()]
      local = worker.render(here, index, Budget(cap, cap, cap * 0))
      rollouts, _ = worker.start(params, local, key).result()
      played.append(jax.tree.map(np.asarray, pad_rows(rollouts, self.sizes.window)))
    return jax.tree.map(lambda *x: jnp.concatenate(x), *played)

  def worker(self, task: Task, verifier: Any) -> RolloutWorker:
    limit = self.sizes.prompt_tokens
    return RolloutWorker(task, self.tokenizer, self.engine, verifier, self.mesh, limit)


class Question(NamedTuple):
  """What is asked: to make pairs of, and held out."""

  worker: RolloutWorker
  held: Sequence[Prompt]


def unjudged(response: str, reference: Any) -> float:
  raise ValueError("answers to instructions have no verdict.")


class Unjudged:
  """A verifier for what has no verdict."""

  def submit(self, items: Sequence[Any]) -> Future[list[Verdict]]:
    found: Future[list[Verdict]] = Future()
    found.set_result([Verdict(0.0, Outcome.WRONG) for _ in items])
    return found


def runs(
  lab: Lab,
  question: Question,
  before: PyTree,
  start: PyTree,
  pairs: Pairs,
  held: Pairs,
  key: jax.Array,
) -> dict[str, Any]:
  """What each loss does to `start`; `before` is what SFT began with."""
  sizes = lab.sizes
  play = lambda params, key: lab.play(params, question.worker, question.held, sizes.answers, key)
  probe = play(start, key)
  start_probe = lab.score(start, probe)

  def look(params: PyTree, key: jax.Array) -> Point:
    own = play(params, key)
    point = lab.measure(params, own, lab.score(start, own), probe, start_probe, held)
    answer = np.asarray(own.tokens[0, 0])[np.asarray(own.mask[0, 0])]
    logging.info("%.80r", lab.tokenizer.decode(answer.tolist()))
    return jax.tree.map(float, point)

  def one(loss: str) -> list[Point]:
    carry, points = (start, lab.optimizer.init(start)), []
    for i in range(sizes.points + 1):
      points.append(look(carry[0], jax.random.fold_in(key, i)))
      logging.info("%s, %d updates: %s", loss, i * sizes.steps, points[-1])
      if i < sizes.points:
        how, steps = jnp.int32([*HOW].index(loss)), jnp.int32(sizes.steps)
        carry = lab.learn(carry, pairs, how, jax.random.fold_in(key, 1000 + i), steps=steps)
    return points

  points = {loss: one(loss) for loss in LOSSES} | {"before SFT": [look(before, key)]}
  judged = not isinstance(question.worker.verifier, Unjudged)
  names = [name for name in Point._fields if judged or name != "accuracy"]
  lengths = masked_mean(pairs.mask.sum(-1), pairs.valid[:, None], axis=0).tolist()
  facts = {"pairs": int(pairs.valid.sum()), "chosen": lengths[0], "rejected": lengths[1]}
  return {
    "pairs": {name: [value] for name, value in facts.items()},
    "losses": {
      loss: {name: [[getattr(p, name) for p in one]] for name in names}
      for loss, one in points.items()
    },
  }


def laid(encoded: Sequence[sources.Encoded], count: int, sizes: Sizes, pad_id: int) -> Pairs:
  """The first `count` pairs whose prompts fit, and none where there are fewer; ref is 0."""
  some = [one for one in encoded if len(one.prompt) <= sizes.prompt_tokens][:count]
  tokens = np.full((count, 2, sizes.window), pad_id, np.int32)
  mask = np.zeros(tokens.shape, bool)
  for b, one in enumerate(some):
    for g, side in enumerate(one.sides):
      begin, end = len(one.prompt), len(one.prompt) + len(side)
      tokens[b, g, :end] = [*one.prompt, *side]
      mask[b, g, begin:end] = True
  arrays = tokens, mask, np.zeros(mask.shape, np.float32), mask.any((1, 2))
  return Pairs(*(jnp.asarray(x) for x in arrays))


def instructions(lab: Lab, params: PyTree, path: str, key: jax.Array) -> dict[str, Any]:
  """Pairs of a public set; what has no place in the window is left out."""
  sizes, rows = lab.sizes, readers.json(path)
  found = sources.pairs(lab.tokenizer, rows=rows, window=sizes.window, held_out=0.1)
  logging.info("%s", found.report)

  pad_id = lab.tokenizer.pad_id
  train = laid(found.train, sizes.prompts, sizes, pad_id)
  held = laid(found.held_out, sizes.judged, sizes, pad_id)
  start = lab.imitate(params, train, key)
  train, held = (p._replace(ref=lab.score(start, p)) for p in (train, held))
  asked = [one for one in found.held_out if len(one.prompt) <= sizes.prompt_tokens]
  prompts = [Prompt(one.id, read_pair(rows[one.id][1]).messages, None) for one in asked]
  task = Task("instructions", prompts, unjudged)
  question = Question(lab.worker(task, Unjudged()), prompts[: sizes.judged])
  return {
    "instructions: chosen over rejected": runs(lab, question, params, start, train, held, key)
  }


def sums(lab: Lab, params: PyTree, key: jax.Array) -> dict[str, Any]:
  """Pairs of the policy's own answers, after it imitated those that were right."""
  sizes = lab.sizes
  task = tasks.reasoning_gym(**SUMS, seed=1, size=2 * sizes.prompts)
  asked = [task.prompts[i] for i in range(2 * sizes.prompts)]
  held_task = tasks.reasoning_gym(**SUMS, seed=2, size=sizes.judged)
  held = [held_task.prompts[i] for i in range(sizes.judged)]
  with Verifier(task, workers=4, deadline=10.0) as verifier:
    worker = lab.worker(task, verifier)

    def answered(params, prompts, answers, key):
      r = lab.play(params, worker, prompts, answers, key)
      logging.info(
        "%.3f right of %d, %.1f tokens", r.correct.mean(), r.correct.size, r.lengths.mean()
      )
      return r, lab.score(params, r)

    first, log_probs = answered(params, asked[: sizes.prompts], sizes.group_size, key)
    right = contrast.paired(KINDS["right over wrong"], first, log_probs)
    start = lab.imitate(params, right, key)
    again = answered(start, asked[sizes.prompts :], sizes.group_size, key)
    unseen = answered(start, held, sizes.group_size, key)
    found = {}
    for kind in ("short over long", "right over wrong"):
      pairs, held_pairs = (contrast.paired(KINDS[kind], *r) for r in (again, unseen))
      question = Question(worker, held)
      found[f"sums: {kind}"] = runs(lab, question, params, start, pairs, held_pairs, key)
  return found


def study(lab: Lab, params: PyTree, path: str, seeds: range) -> Iterator[dict[str, Any]]:
  """All that was measured, in the form of the twin's: once a seed, of the seeds so far."""
  clock, kinds = time.perf_counter(), []
  joined = lambda *seeds: [*itertools.chain(*seeds)]
  join_seeds = partial(jax.tree.map, joined, is_leaf=lambda x: isinstance(x, list))
  for seed in seeds:
    key = jax.random.key(seed)
    kinds.append(instructions(lab, params, path, key) | sums(lab, params, key))
    yield {
      "sizes": lab.sizes._asdict(),
      "seeds": [*range(seeds.start, seed + 1)],
      "steps": [i * lab.sizes.steps for i in range(lab.sizes.points + 1)],
      "device": evaluation.device(),
      "commit": evaluation.commit(),
      "seconds": time.perf_counter() - clock,
      "kinds": join_seeds(*kinds),
    }


def main(_) -> None:
  policy, params = policies.load(FLAGS.policy, dtype="bfloat16", remat="full")
  lab = Lab(policy, policies.tokenizer(FLAGS.policy), SMALL if FLAGS.smoke else Sizes())
  folder = Path(FLAGS.out)
  folder.mkdir(parents=True, exist_ok=True)
  for found in study(lab, params, FLAGS.data, range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)):
    evaluation.write_json(folder / "smollm2.json", found)
    report.write(folder, "smollm2", TITLE, COMMAND, found)
  print((folder / "smollm2.md").read_text())


if __name__ == "__main__":
  flags.DEFINE_string("policy", None, "GGUF file or model folder.", required=True)
  flags.DEFINE_string("data", None, "JSON array of Alpaca-style pairs.", required=True)
  flags.DEFINE_string("out", None, "Folder of smollm2.json, .md and .png.", required=True)
  flags.DEFINE_integer("seeds", 1, "How many seeds; what is done is written after each.")
  flags.DEFINE_integer("seed", 0, "The first of them.")
  flags.DEFINE_bool("smoke", False, "A little of everything, to see that it runs.")
  app.run(main)
