"""The rollouts of each step, in order: sampled on demand, or started in advance.

A step can start the next step's rollouts at two points, so that devices never wait for the host:

- `sample_ahead`, before the update (train.steps_ahead=1): with the current policy. The rollouts are
  then a part of the training state until their step, and the loss corrects for the older policy.
- `prefetch`, after the update: with the policy that the update computes. Only the time changes.
"""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcrl import data
from lcrl.mesh import replicated
from lcrl.tasks.task import Task
from lcrl.training.metrics import Metrics, Sum
from lcrl.training.rl import pending as pending_rollouts
from lcrl.training.rl.collect import Collected, Collector, CollectRequest, PendingCollect
from lcrl.training.rl.learner import Learner
from lcrl.training.rl.pipeline import RolloutPipeline
from lcrl.types import Recipe, TrainState

PyTree = Any


class RolloutQueue:
  """Holds at most one pending collection: a step starts it, and the next step takes it."""

  def __init__(self, learner: Learner, task: Task, pipeline: RolloutPipeline):
    s = learner.settings
    self.collector = Collector(
      data.prompts(task, seed=s.seed).__getitem__,
      pipeline,
      learner.recipe,
      prompts=s.train.prompts,
      group_size=s.train.group_size,
      max_rounds=s.train.max_rounds,
      predict=s.train.window > 0,
      multiple=s.train.micro_batches,
      seed=s.seed,
    )
    self._train, self._mesh, self._pipeline = s.train, learner.mesh, pipeline
    self._acting = learner.acting
    # A program on dedicated devices may block the thread that dispatches it until it has run. So
    # these devices get a thread of their own, and the main thread goes on to the update.
    self._thread = ThreadPoolExecutor(1) if s.sampling.devices else None
    self._request: CollectRequest | None = None  # for the next step
    self.prefetched: PendingCollect | None = None
    self._prefetched_with: PyTree = None  # the trained parameters
    self._ahead: PendingCollect | Future[Collected] | None = None

  def take(self, state: TrainState) -> Collected:
    """The rollouts that `state` trains on; waits for them."""
    prefetched, self.prefetched = self.prefetched, None
    trained, self._prefetched_with = self._prefetched_with, None
    if prefetched and trained is state.params:
      self._request = prefetched.request
      return prefetched.result(launch_hidden=True)
    passed = [] if state.passed is None else np.asarray(state.passed).tolist()
    self._request = CollectRequest(state.recipe, int(state.step), int(state.position), passed)
    if state.pending is not None:
      return pending_rollouts.from_state(state.pending)
    request = self._request._replace(states=self._copied(state.recipe))
    return self.collector.start(self._acting(state.params), request).result()

  def advance(self, collected: Collected, states: Recipe[PyTree]) -> None:
    """Prepares the request of the step after the one that trains on `collected`."""
    request, self._request = self._request, None
    assert request is not None, "take comes before advance"
    if request.step + 1 < self._train.steps:
      passed = [*request.passed[1:], collected.passed] if request.passed else []
      states = self._copied(states)
      self._request = CollectRequest(states, request.step + 1, collected.position, passed)

  def sample_ahead(self, params: PyTree) -> None:
    """Before the update, with train.steps_ahead: starts the next step's rollouts, with a copy of
    the parameters, since the update donates the originals."""
    if not self._train.steps_ahead or self._request is None:
      return
    request, self._request = self._request, None
    copy = self._pipeline.worker.engine.prepared(self._acting(params))
    if self._thread is None:
      self._ahead = self.collector.start(copy, request)
    else:
      collect = lambda: self.collector.start(copy, request).result(launch_hidden=True)
      self._ahead = self._thread.submit(collect)

  def prefetch(self, params: PyTree) -> None:
    """After the update: queues the next step's sampling behind it on the devices.

    The update may still be computing `params`. The states of budget, reward and filter must not
    change before the next `take`, and only a state with these parameters takes the rollouts.
    """
    request, self._request = self._request, None
    if request is not None:
      self.prefetched = self.collector.start(self._acting(params), request)
      self._prefetched_with = params

  def store(self, state: TrainState) -> tuple[TrainState, Metrics]:
    """Waits for the rollouts that were sampled ahead and puts them into the state. Returns the
    state and the host seconds that this took."""
    ahead, self._ahead = self._ahead, None
    if ahead is None:
      return state, {}
    collected = ahead.result() if isinstance(ahead, PendingCollect) else _joined(ahead)
    pending = pending_rollouts.to_state(self._mesh, collected)
    return dataclasses.replace(state, pending=pending), collected.times

  def _copied(self, states: Recipe[PyTree]) -> Recipe[PyTree]:
    """A copy on the devices that sample. The update donates the original."""
    copy = partial(jax.tree.map, jnp.copy)
    return jax.device_put(copy(states), replicated(self._pipeline.mesh))


def _joined(running: Future[Collected]) -> Collected:
  """The collection of the thread; its times count only what the caller waited."""
  start = time.perf_counter()
  collected = running.result()
  waited = time.perf_counter() - start
  verifying = min(waited, collected.times["time/verify"].value())
  times: Metrics = {"time/sample": Sum(waited - verifying), "time/verify": Sum(verifying)}
  return dataclasses.replace(collected, times=times)
