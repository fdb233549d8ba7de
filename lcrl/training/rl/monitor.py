"""The monitor: some stages observe rollouts of a fixed set of prompts every few steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from lcrl.data.choosing import first
from lcrl.mesh import batch_shards, replicated, shard_batch
from lcrl.rollouts.worker import RolloutWorker
from lcrl.tasks.task import Task
from lcrl.training.keys import EVAL_STREAM, step_key
from lcrl.training.rl.budgets import ask_budget
from lcrl.training.rl.learner import Learner
from lcrl.types import TrainState


def monitor_interval(learner: Learner) -> int:
  """Steps between two observations; 0: no stage observes."""
  return learner.settings.monitor.every * any(stage.observe for stage in learner.recipe)


def make_monitor(
  learner: Learner, task: Task, worker: RolloutWorker
) -> Callable[[TrainState], TrainState]:
  """state -> state: every `monitor.every` steps, updates the states of stages that observe.

  They observe rollouts without revision and without signals.
  """
  s, recipe = learner.settings, learner.recipe
  observers = [stage.observe for stage in recipe]
  if not monitor_interval(learner):
    return lambda state: state
  prompts = first(task.prompts, s.monitor.prompts)
  shards = math.lcm(batch_shards(learner.mesh), batch_shards(worker.mesh))
  index = np.arange(-(-len(prompts) // shards) * shards, dtype=np.int32)
  real = index[:, None] < len(prompts)  # the others are repeats that fill the devices
  prompts = [prompts[i % len(prompts)] for i in index.tolist()]

  @partial(jax.jit, out_shardings=replicated(learner.mesh))
  def observe(states, rollouts):
    rollouts = dataclasses.replace(rollouts, valid=rollouts.valid & real)
    pairs = zip(observers, states, strict=True)
    return type(states)(*(f(state, rollouts) if f else state for f, state in pairs))

  def monitor(state: TrainState) -> TrainState:
    step = int(state.step)
    if step % s.monitor.every:
      return state
    key = jax.random.fold_in(step_key(s.seed, EVAL_STREAM), step)
    budget = ask_budget(
      recipe, state.recipe, prompts, step=step, key=key, group_size=s.train.group_size
    )
    local = worker.render(prompts, index, budget)
    rollouts, _ = worker.start(learner.acting(state.params), local, key).result()
    rollouts = shard_batch(learner.mesh, rollouts)
    return dataclasses.replace(state, recipe=observe(state.recipe, rollouts))

  return monitor
