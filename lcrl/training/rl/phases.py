"""The three phases of a step as the host runs them: roll out and shape, then learn."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from lcrl import data, recipes
from lcrl.data.lengths import counted_prefix, first
from lcrl.mesh import batch_shards, replicate, replicated, shard_batch
from lcrl.registry import build
from lcrl.rollouts.worker import Player
from lcrl.tasks.task import Task
from lcrl.training.metrics import Mean, Metrics, Sum, known, merge
from lcrl.training.rl import pending as pending_rollouts
from lcrl.training.rl import revise
from lcrl.training.rl.collect import Collected, Collector, ask_budget, check_budgets, step_key
from lcrl.training.rl.learner import Model
from lcrl.training.rl.rounds import Provider, Rounds, reference_scores, scorer_signals
from lcrl.training.rl.step_metrics import Facts, facts
from lcrl.types import Batch, Recipe, Rollouts, TrainState

PyTree = Any
APART = 2**31 - 1  # takes the place of a step in the keys of evaluations and monitor runs


class Shaped(NamedTuple):
  """A batch ready to train on, and what is known of it before it does."""

  batch: Batch
  ready: Any  # the batch as the update takes it
  states: Recipe[PyTree]
  seen: Facts  # still on the devices
  numbers: Metrics  # of the states that shaped it, likewise
  collected: Collected
  ahead: Callable[[], Collected] | None  # finishes the rollouts of the next step, which are begun


def make_rounds(model: Model, player: Player, providers: Sequence[Provider] = ()) -> Rounds:
  """How rounds are played.

  Raises:
    ValueError: a stage needs what neither they nor the `providers` supply, or groups are chosen a
      step ahead by what only the policy that trains can tell, or a budget asks for more tokens than
      a response may have.
  """
  s = model.settings
  spec = s.revise
  revision = None if spec is None else build(revise, spec, field="revise", gives=revise.Revision)
  reference = reference_scores(model) if model.needs_reference else None
  own = scorer_signals(model, reference)
  rounds = Rounds(player, revision, (*own, *providers), reference)
  rounds.check(model.recipe)
  late = rounds.read_of((model.recipe.reward, model.recipe.filter))
  if s.train.steps_ahead and late and (s.train.max_rounds > 1 or s.train.window):
    raise ValueError(
      f"reward or filter needs {sorted(late)}, which with train.steps_ahead=1 is known when a "
      "batch trains; with train.max_rounds or train.window groups are chosen before that."
    )
  check_budgets(
    model.recipe.budget,
    steps=s.train.steps,
    prompts=s.train.prompts,
    group_size=s.train.group_size,
    most=s.train.max_tokens,
    seed=s.seed,
    forced=partial(counted_prefix, player.task, player.tokenizer),
  )
  return rounds


class _Asked(NamedTuple):
  """What the collection of a step needs, besides parameters."""

  states: Recipe[PyTree]
  step: int
  position: int
  passed: list[tuple[int, int]]


class _Begun(NamedTuple):
  params: PyTree
  asked: _Asked
  finish: Callable[..., Collected]


class Roll:
  """state -> Shaped: the phases collect and shape. The state stays as it is.

  With train.steps_ahead=1 the rollouts are those that are pending in the state, from the policy
  before its last update. The next ones begin to be sampled by a copy of the policy as it is.
  """

  def __init__(self, model: Model, task: Task, rounds: Rounds):
    s = model.settings
    stream = data.prompts(task, seed=s.seed)
    self._model, self._rounds = model, rounds
    self._collect = Collector(
      lambda position: stream[position],
      rounds,
      model.recipe,
      prompts=s.train.prompts,
      group_size=s.train.group_size,
      max_rounds=s.train.max_rounds,
      predict=s.train.window > 0,
      multiple=s.train.micro_batches,
      seed=s.seed,
      apart=s.sampling.devices > 0,
    )

    def look(batch: Batch, states: Recipe[PyTree]) -> tuple[dict[str, jax.Array], Metrics]:
      numbers = recipes.numbers(model.recipe, states)
      return facts(batch), {name: known(x) for name, x in numbers.items()}

    self._look = jax.jit(look, out_shardings=replicated(model.mesh))
    self._next: _Asked | None = None
    self._begun: _Begun | None = None

  def __call__(self, state: TrainState) -> Shaped:
    train, begun = self._model.settings.train, self._begun
    self._begun = None
    if begun and begun.params is state.params:
      asked, collected = begun.asked, begun.finish(spent=0.0)
    else:
      passed = [] if state.passed is None else np.asarray(state.passed).tolist()
      asked = _Asked(state.recipe, int(state.step), int(state.position), passed)
      pending = state.pending
      collected = (
        self._collect(state.params, *asked)
        if pending is None
        else pending_rollouts.collected(pending)
      )
    batch, states = self._shaped(state, collected.rollouts, asked.step)
    ready, (seen, numbers) = self._model.ready(batch), self._look(batch, state.recipe)
    self._next = None
    if asked.step + 1 < train.steps:
      passed = [*asked.passed[1:], collected.passed] if asked.passed else []
      kept = self._collect.kept(states)
      self._next = _Asked(kept, asked.step + 1, collected.position, passed)
    following = None
    if train.steps_ahead and self._next:
      following = self._launch(self._rounds.player.engine.prepared(state.params), self._next).finish
      self._next = None
    return Shaped(batch, ready, states, seen, numbers, collected, following)

  def begin(self, params: PyTree) -> None:
    """Has the next step's prompts sampled by the parameters that the update gives, as soon as it
    has: the devices need not wait for the host. A call of the state with these parameters finishes
    it; budget, reward and filter must not have learned anything in between.

    Nothing is begun in several processes: the longest prompt, which all must know, and whether one
    is to stop would be asked of busy devices.
    """
    asked, self._next = self._next, None
    if asked and jax.process_count() == 1:
      self._begun = self._launch(params, asked)

  def _launch(self, params: PyTree, asked: _Asked) -> _Begun:
    return _Begun(params, asked, self._collect.launch(params, *asked))

  def _shaped(
    self, state: TrainState, rollouts: Rollouts, step: int
  ) -> tuple[Batch, Recipe[PyTree]]:
    model, rounds = self._model, self._rounds
    rollouts = rounds.read(state.params, shard_batch(model.mesh, rollouts))
    signals = dict(rollouts.signals)
    old = signals.pop("old_log_probs", None)
    rollouts = dataclasses.replace(rollouts, signals=signals)
    key = step_key(model.settings.seed, step)
    batch, states = model.shape(state.recipe, rollouts, step=state.step, key=key)
    ref = signals.get("ref_log_probs")
    if ref is None and rounds.reference is not None:
      ref = rounds.reference(rollouts)
    return dataclasses.replace(batch, old_log_probs=old, ref_log_probs=ref), states


def learn(
  model: Model,
  state: TrainState,
  shaped: Shaped,
  meanwhile: Callable[[PyTree], None] = lambda params: None,
) -> tuple[TrainState, Metrics]:
  """The phase update, on a state that it uses up; position and counters move on.

  While the devices are at it the host does `meanwhile`, which gets the parameters that they
  compute, and finishes the rollouts of the next step if they are sampled ahead. The times are the
  host's, so that they add up.
  """
  start, collected = time.perf_counter(), shaped.collected
  counted = ("position", "counters", "passed")
  was = {name: jax.tree.map(np.array, getattr(state, name)) for name in counted}  # copies
  state = dataclasses.replace(state, recipe=shaped.states, pending=None)
  state, found = model.update(state, shaped.ready)
  # Put there before what is begun meanwhile: a checkpoint of the state does not wait for that.
  seen = jax.tree.map(np.asarray, shaped.seen)
  tokens = float(seen["lengths"][seen["valid"]].sum())
  moved = replicate(model.mesh, _moved(was, collected, tokens))
  state = dataclasses.replace(state, **moved)
  meanwhile(state.params)
  aside = time.perf_counter()
  following = shaped.ahead() if shaped.ahead else None
  back = time.perf_counter()
  if following is not None:
    state = dataclasses.replace(state, pending=pending_rollouts.pending(model.mesh, following))
  metrics: Metrics = jax.tree.map(np.asarray, found | shaped.numbers)
  none: Metrics = {"time/sample": Sum(0.0), "time/verify": Sum(0.0)}
  times = merge(merge(none, collected.times), following.times if following else {})
  updating = time.perf_counter() - back + aside - start
  metrics |= collected.metrics | times
  metrics["rounds"], metrics["time/update"] = Sum(collected.rounds), Sum(updating)
  metrics["sampled_tokens_per_s"] = Mean(tokens, collected.seconds)
  return state, metrics


def _moved(was: dict[str, Any], collected: Collected, tokens: float) -> dict[str, Any]:
  """What of a state the host counts: its place in the data, counters, groups of past steps."""
  counters, passed = was["counters"], was["passed"]
  prompts = np.int32(collected.position - was["position"])
  counters = {
    "prompts": counters["prompts"] + prompts,
    "tokens": counters["tokens"] + np.float32(tokens),
  }
  moved: dict[str, Any] = {"position": np.int32(collected.position), "counters": counters}
  if passed is not None:
    moved["passed"] = np.concatenate([passed[1:], np.array([collected.passed], np.int32)])
  return moved


def monitored(model: Model) -> int:
  """How often stages observe, in steps; 0: never."""
  return model.settings.monitor.every * any(stage.observe for stage in model.recipe)


def make_monitor(model: Model, task: Task, rounds: Rounds) -> Callable[[TrainState], TrainState]:
  """Every `monitor.every` steps, shows stages that observe rollouts of a fixed set of prompts, as
  they were sampled: not revised, without signals."""
  s, recipe = model.settings, model.recipe
  watchers = [stage.observe for stage in recipe]
  if not monitored(model):
    return lambda state: state
  prompts = first(task.prompts, s.monitor.prompts)
  shards = math.lcm(batch_shards(model.mesh), batch_shards(rounds.mesh))
  index = np.arange(-(-len(prompts) // shards) * shards, dtype=np.int32)
  real = index[:, None] < len(prompts)  # the others are repeats that fill up the devices
  prompts = [prompts[i % len(prompts)] for i in index.tolist()]

  @partial(jax.jit, out_shardings=replicated(model.mesh))
  def observe(states, rollouts):
    rollouts = dataclasses.replace(rollouts, valid=rollouts.valid & real)
    pairs = zip(watchers, states, strict=True)
    return type(states)(*(w(state, rollouts) if w else state for w, state in pairs))

  def monitor(state: TrainState) -> TrainState:
    step = int(state.step)
    if step % s.monitor.every:
      return state
    key = jax.random.fold_in(step_key(s.seed, APART), step)
    budget = ask_budget(
      recipe, state.recipe, prompts, step=step, key=key, group_size=s.train.group_size
    )
    rollouts, _ = rounds.player.play(state.params, prompts, index, budget, key)
    return dataclasses.replace(
      state, recipe=observe(state.recipe, shard_batch(model.mesh, rollouts))
    )

  return monitor
