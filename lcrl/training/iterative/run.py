"""run="iterative": every `round.updates` steps the policy samples new answers, then it trains."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lcrl import recipes
from lcrl.data import batches
from lcrl.data.sources import Encoded
from lcrl.losses.preference import stages
from lcrl.mesh import batch_shards, check_divides, replicate
from lcrl.registry import resolve
from lcrl.training.build import build_tokenizer, ends_of, rollout_worker
from lcrl.training.clock import Clock, told
from lcrl.training.evaluator import make_evaluator
from lcrl.training.iterative import pool as pools
from lcrl.training.iterative.pool import Pool
from lcrl.training.iterative.rounds import Round
from lcrl.training.iterative.settings import COLUMNS, Settings
from lcrl.training.memory import check_rows
from lcrl.training.metrics import drop_after, json_line, known, values
from lcrl.training.pairs import learner as on_pairs
from lcrl.training.pairs.learner import PairLearner
from lcrl.training.progress import introduce
from lcrl.training.resume import fingerprint
from lcrl.training.rl import run as rl
from lcrl.training.rl.learner import SCORE_FIELDS
from lcrl.training.run import Run, Step
from lcrl.training.skipped import Skips
from lcrl.training.workdir import Workdir
from lcrl.types import PairBatch, Pairs, PyTree, TrainState

SUPPLIED = {"ref", "previous", "weights", "win_rates", *SCORE_FIELDS}


def build_learner(settings: Settings) -> PairLearner:
  """The learner of a run on pairs, with a pool in its state."""
  model = on_pairs.build_learner(dataclasses.replace(settings, run="preference"))
  rows = settings.round.prompts * settings.columns
  check_rows(model.mesh, rows, settings.window, "round.prompts * round.group_size")
  if missing := set(model.stage.needs) - SUPPLIED:
    raise ValueError(f"the loss needs {sorted(missing)}, which no round supplies.")
  pool = pools.empty(settings, model)
  return dataclasses.replace(
    model,
    abstract=dataclasses.replace(model.abstract, pending=_abstract(pool)),
    initial=lambda: dataclasses.replace(model.initial(), pending=pool),
  )


@contextlib.contextmanager
def begin(settings: Settings, out: Workdir) -> Iterator[Run]:
  """The run that `settings` describe, writing to `out`."""
  s = settings
  loss = resolve(stages, s.built["loss"], field="loss")
  out.describe(loss=inspect.getdoc(loss.func))  # type: ignore[attr-defined]
  model = build_learner(s)
  introduce(model, out)
  tokenizer = build_tokenizer(s, model.policy, out.started)
  out.describe(ends=ends_of(tokenizer, s))
  on_pairs.check_batches(model)
  check_divides(
    model.mesh,
    prompts=s.train.prompts,
    pieces=s.train.micro_batches,
    of="train.micro_batches",
  )
  base = model.base()
  with contextlib.ExitStack() as stack:
    task, worker = stack.enter_context(rollout_worker(model, tokenizer, s.built["task"], "task"))
    evaluate = make_evaluator(model, tokenizer, worker, say=out.note)
    start_round = Round(s, model, task, worker, base)
    yield Run(
      steps=s.train.steps,
      checkpoint=s.checkpoint,
      evaluate_every=s.eval.every,
      abstract=model.abstract,
      initial=model.initial,
      evaluate=lambda trained: rl.evaluation(evaluate(model.merge(base, trained))),
      steps_from=lambda first: Steps(
        s, model, base, start_round, PairLog(out, tokenizer, s, first)
      ),
      finish=lambda: rl.finish(
        out, s.built["loss"]["fn"], s.seed, steps=s.train.steps, setup=evaluate.setup
      ),
      data=fingerprint(task.prompts, rl.prompt_content),
    )


class Steps:
  """state -> the next step. All that it caches of a round can be computed again from the pool."""

  def __init__(
    self,
    settings: Settings,
    model: PairLearner,
    base: PyTree,
    start_round: Callable[[TrainState], Pool],
    log: PairLog,
  ):
    s = settings
    self._settings, self._model, self._update = s, model, model.make_update(base)
    self._start_round, self._choose, self._shown = start_round, pools.pairing(s), log
    self._skips = Skips(log.out, steps=s.train.steps)
    self._numbers = partial(recipes.numbers, pools.stages(s))
    self._batches = partial(
      resolve(batches, s.built["batches"], field="batches"),
      window=s.window,
      pad_id=log.tokenizer.pad_id,
      shards=batch_shards(model.mesh),
      pieces=s.train.micro_batches,
    )
    self._stream: Any = None
    self._round, self._count = -1, 0

  def __call__(self, state: TrainState) -> Step:
    clock, s = Clock(), self._settings
    number, at = divmod(int(state.step), s.round.updates)
    if at == 0:
      pool, position = self._start_round(state), int(state.position) + s.round.prompts
      moved = replicate(self._model.mesh, {"position": np.int32(position)})
      state = dataclasses.replace(state, pending=pool, **moved)
    sampled = clock()["time/step"]
    if number != self._round:
      pairs = pools.pairs_of(state.pending, self._choose)
      self._stream = self._batches(pairs, seed=s.seed + number) if pairs else None
      self._round, self._count = number, len(pairs)
      if at == 0:
        self._shown.write(int(state.step) + 1, pairs)
    state, numbers, batch = self._learn(state, at)
    learned = {name: known(x) for name, x in self._numbers(state.pending.states).items()}
    numbers |= (
      pool_metrics(state.pending)
      | values(learned)
      | {
        "round": float(number),
        "round/pairs": float(self._count),
        "time/sample": sampled,
      }
      | clock()
    )
    if batch is not None:
      self._skips(int(state.step), numbers, line(numbers), batch)
    return Step(state, numbers, line(numbers))

  def _learn(
    self, state: TrainState, at: int
  ) -> tuple[TrainState, dict[str, float], PairBatch | None]:
    """Updates on batch `at` of the round, and returns that batch, too. A round without a pair
    leaves the policy as it is."""
    model, pool = self._model, state.pending
    if self._stream is None:
      moved = replicate(model.mesh, {"step": np.asarray(state.step) + np.int32(1)})
      return dataclasses.replace(state, **moved), {}, None
    pairs: Pairs = self._stream[at]
    cut = {name: pairs.signals[name][..., : pairs.tokens.shape[-1]] for name in pool.signals}
    placed = model.place(dataclasses.replace(pairs, signals=pairs.signals | cut))
    batch = model.derive(placed, placed.signals.get("ref_log_probs"), state.step)
    batch = dataclasses.replace(batch, previous_log_probs=placed.signals.get("previous_log_probs"))
    counters = {
      "pairs": np.asarray(state.counters["pairs"]) + np.int32(pairs.valid.sum()),
      "tokens": np.asarray(state.counters["tokens"]) + np.float32(pairs.mask.sum()),
    }
    # The update donates the state; the pool stays out of it, since later steps read it again.
    state, metrics = self._update(dataclasses.replace(state, pending=None), batch)
    moved = replicate(model.mesh, {"counters": counters})
    state = dataclasses.replace(state, pending=pool, **moved)
    return state, values(jax.device_get(metrics)), batch


class PairLog:
  """pairs.jsonl: some pairs of every round as text, evenly spread over its prompts."""

  def __init__(self, out: Workdir, tokenizer: Any, s: Settings, first: int):
    self.tokenizer, self._count, self._writes = tokenizer, s.log.samples, out.writes
    self.out = out
    self._path = out.path / "pairs.jsonl"
    if self._writes:
      drop_after(self._path, first)

  def write(self, step: int, pairs: Sequence[Encoded]) -> None:
    if not self._writes:
      return
    with self._path.open("a") as file:
      for pair in pairs[:: max(len(pairs) // max(self._count, 1), 1)][: self._count]:
        texts = [self.tokenizer.decode(ids.tolist()) for ids in (pair.prompt, *pair.sides)]
        row = dict(zip(("prompt", "chosen", "rejected"), texts, strict=True))
        file.write(json_line({"step": step, **row, "scores": pair.scores}))


def pool_metrics(pool: Pool) -> dict[str, float]:
  """Metrics of the policy's answers of a round, and the share of prompts with a teacher's."""
  p = pools.on_host(pool)
  present, numbers = p.mask.any(-1) & ~p.teacher, {}
  sets = {"": present}
  if p.refines is not None:  # first answers, and refined ones as answers to the prompt
    number = np.arange(present.shape[1]) * COLUMNS // present.shape[1]
    sets = {"": present & (number == 0), "refined/": present & (number == 1)}
  for prefix, which in sets.items():
    for name, x in (
      ("accuracy", p.correct),
      ("length/mean", p.mask.sum(-1)),
      ("reward", p.rewards),
    ):
      numbers[prefix + name] = float(x[which].mean()) if which.any() else float("nan")
  return numbers | ({"teacher": float(p.teacher.sum(-1).mean())} if p.teacher.any() else {})


def line(numbers: dict[str, float]) -> str:
  text = (
    f"right {numbers['accuracy']:6.1%}  tokens {numbers['length/mean']:7.1f}  "
    f"{numbers['round/pairs']:.0f} pairs"
  )
  if "loss" in numbers:
    text += f"  loss {numbers['loss']:7.4f}  won {numbers['pairs/accuracy']:6.1%}"
  return f"{text}  {told(numbers)}"


def _abstract(tree: PyTree) -> PyTree:
  """The shapes, dtypes and shardings of `tree`."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)
