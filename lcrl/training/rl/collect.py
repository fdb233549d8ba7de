"""The first phase of a step: collects rollouts until enough groups train.

Choosing groups reads rollouts and pure scores; it changes no state. In `shape`,
on the final batch, states advance once.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.masked import masked_sum
from lcrl.mesh import batch_sharding, batch_shards, default_mesh, on_host, replicated, to_local
from lcrl.policies.experts import CHOSEN
from lcrl.rollouts.worker import PendingRollouts
from lcrl.tasks.task import Prompt
from lcrl.training.keys import step_key
from lcrl.training.metrics import Mean, Metrics, Sum, merge
from lcrl.training.rl.budgets import ask_budget
from lcrl.training.rl.length_history import LengthHistory
from lcrl.training.rl.oversampling import oversampling_factor, prompts_to_sample
from lcrl.training.rl.pipeline import RolloutPipeline
from lcrl.training.rl.pool_metrics import PoolMetrics
from lcrl.types import Recipe, Rollouts, Stage

PyTree = Any


class CollectRequest(NamedTuple):
  """The inputs of a collection besides the parameters."""

  states: Recipe[PyTree]  # of the stages; on the devices that sample, never donated
  step: int
  position: int  # in the data stream
  passed: Sequence[tuple[int, int]] = ()  # of past steps: groups sampled, and those that train


@dataclasses.dataclass(frozen=True)
class Collected:
  """The rollouts of one step, and what the run reports about their collection."""

  rollouts: Rollouts
  position: int  # in the data stream, after the rollouts
  rounds: int
  passed: tuple[int, int]  # groups sampled, and those of them that train
  metrics: Metrics  # means: of all sampled groups, if the step chooses among them; of the pool
  seconds: float  # of sampling on the devices, over all rounds
  # Seconds that the host waited for samples and for verdicts; overlapped work is not counted.
  times: Metrics


class Collector:
  """Samples rounds until `prompts` groups train or `max_rounds` is reached.

  Args:
    stream: position -> Prompt.
    pipeline: from prompts to rollouts with signals.
    recipe: its budget sets the caps; its reward and filter decide which groups would train.
    prompts: B, groups per step.
    group_size: G.
    max_rounds: 1: every group goes into the batch, dropped ones with keep False. More: other groups
      replace those that the filter drops whole, as in DAPO's dynamic sampling (arXiv:2503.14476);
      if the rounds run out, dropped ones fill the batch and do not train.
    predict: a round takes more prompts than the batch, as many as the pass rates of past steps
      require (DOT, arXiv:2601.03969), rounded up to half batches so that few shapes are compiled.
    multiple: every data shard of a round has a multiple of this number of prompts.
    seed: the seed of the run.
  """

  def __init__(
    self,
    stream: Callable[[int], Prompt],
    pipeline: RolloutPipeline,
    recipe: Recipe[Stage],
    *,
    prompts: int,
    group_size: int,
    max_rounds: int = 1,
    predict: bool = False,
    multiple: int = 1,
    seed: int = 0,
  ):
    self._stream, self._pipeline, self._recipe = stream, pipeline, recipe
    self._prompts, self._group_size, self._max_rounds = prompts, group_size, max_rounds
    self._predict, self._multiple, self._seed = predict, multiple, seed
    self._chooses = max_rounds > 1 or predict
    # Only slots have an order: without them all rows start at once.
    self._history = LengthHistory() if getattr(pipeline.worker.engine, "slots", None) else None
    self._pool_metrics = PoolMetrics()
    mesh = pipeline.mesh
    self._would_train = jax.jit(self._groups_that_train, out_shardings=replicated(mesh))
    self._select = jax.jit(select_groups, out_shardings=batch_sharding(mesh))

  def start(self, params: PyTree, request: CollectRequest) -> PendingCollect:
    """Starts to sample the first round, and returns without waiting.

    An update may still be computing the parameters. Nothing may donate them before `result`, unless
    they are the sampler's copy.
    """
    start = time.perf_counter()
    states, step, first, passed = request
    index = np.arange(first, first + self._count(passed), dtype=np.int32)
    prompts = [self._stream(i) for i in index.tolist()]
    with on_host():  # on a device the key would wait behind all that is queued there
      key = step_key(self._seed, step)
    budget = ask_budget(
      self._recipe, states, prompts, step=step, key=key, group_size=self._group_size
    )
    worker = self._pipeline.worker
    with default_mesh(worker.mesh):
      local = worker.render(prompts, index, budget)
      if self._history is not None:
        expected = self._history.expected(local.rows.prompt_ids)
        local = local._replace(rows=dataclasses.replace(local.rows, expected=expected))
      rollouts = worker.start(params, local, step_key(self._seed, step))
    return PendingCollect(self, params, request, rollouts, time.perf_counter() - start)

  def finish(self, pending: PendingCollect, launch_s: float) -> Collected:
    """Waits for the first round, samples others while groups are missing, and chooses."""
    params, request, rollouts = pending.params, pending.request, pending.rollouts
    start_all = start = time.perf_counter()
    position, waited, sampling = request.position, 0.0, 0.0
    pool: list[Rollouts] = []
    trains: list[bool] = []
    metrics: Metrics = {}
    with default_mesh(self._pipeline.mesh):
      while True:
        r, sampled = self._pipeline.result(rollouts)
        waited += max(sampled.end - start, 0.0)
        sampling += sampled.end - sampled.start
        position += len(r.prompt_ids)
        metrics = merge(metrics, self._pool_metrics(rollouts.pool))
        if self._history is not None:
          self._history.observe(to_local(r.prompt_ids), to_local(r.lengths))
        if self._chooses:
          r, keep, round_metrics = self._choose(params, request.states, r)
          trains, metrics = trains + keep, merge(metrics, round_metrics)
        pool.append(r)
        if not self._chooses or sum(trains) >= self._prompts or len(pool) == self._max_rounds:
          break
        start = time.perf_counter()
        rollouts = self.start(params, request._replace(position=position)).rollouts
      if self._chooses:
        first = np.argsort(~np.array(trains), stable=True)[: self._prompts]  # those that train
        r = self._select(pool, first)
    count = position - request.position
    passed = count, sum(trains) if self._chooses else count
    verifying = time.perf_counter() - start_all - waited
    times: Metrics = {"time/sample": Sum(launch_s + waited), "time/verify": Sum(verifying)}
    return Collected(r, position, len(pool), passed, metrics, sampling, times)

  def _choose(
    self, params: PyTree, states: Recipe[PyTree], rollouts: Rollouts
  ) -> tuple[Rollouts, list[bool], Metrics]:
    """The round with the signals of reward and filter; which groups would train; its metrics."""
    if self._pipeline.provided_to((self._recipe.reward, self._recipe.filter)):
      rollouts = self._pipeline.add_signals(params, rollouts)
    keep, metrics = jax.tree.map(np.asarray, self._would_train(states, rollouts))
    return rollouts, keep.tolist(), metrics

  def _count(self, passed: Sequence[tuple[int, int]]) -> int:
    """Prompts of a round."""
    if not self._predict:
      return self._prompts
    passed = [(sampled, trained) for sampled, trained in passed if sampled]
    wanted = prompts_to_sample(self._prompts, oversampling_factor(passed, window=len(passed)))
    multiple = batch_shards(self._pipeline.mesh) * self._multiple
    unit = -(-self._prompts // (2 * multiple)) * multiple
    return -(-wanted // unit) * unit

  def _groups_that_train(self, states, rollouts: Rollouts) -> tuple[jax.Array, Metrics]:
    """[B] bool, whether the filter keeps any rollout of a group; and metrics of all rollouts."""
    rewards, _ = self._recipe.reward.apply(states.reward, rollouts)
    keep, _ = self._recipe.filter.apply(states.filter, rewards, rollouts)
    count = rollouts.valid.sum()
    return keep.any(axis=-1), {
      "sampled/accuracy": Mean(masked_sum(rollouts.correct, rollouts.valid), count),
      "sampled/length": Mean(masked_sum(rollouts.lengths, rollouts.valid), count),
    }


class PendingCollect(NamedTuple):
  """A collection whose first round has started."""

  collector: Collector
  params: PyTree
  request: CollectRequest
  rollouts: PendingRollouts  # of the first round
  launch_s: float  # host seconds of the start

  def result(self, *, launch_hidden: bool = False) -> Collected:
    """Waits for the whole collection. The start counts as sampling, unless an update hid it."""
    return self.collector.finish(self, 0.0 if launch_hidden else self.launch_s)


def select_groups(pool: list[Rollouts], groups: jax.Array) -> Rollouts:
  """Selects `groups` by their index in the concatenated pool."""
  widest = max(r.tokens.shape[-1] for r in pool)
  return jax.tree.map(lambda *xs: jnp.concatenate(xs)[groups], *(pad_rows(r, widest) for r in pool))


def pad_rows(rollouts: Rollouts, length: int) -> Rollouts:
  """Rollouts with rows of `length` positions; fields [B, G, T] and [B, G, T, layers, k] are padded
  with zeros, experts with -1: none."""
  short = rollouts.tokens.shape[-1]

  def pad(x):
    # Embeddings of an answer have a width of their own.
    tokens = x.ndim in (3, 5) and x.shape[2] == short
    padding = (0, 0), (0, 0), (0, length - short), *((0, 0),) * (x.ndim - 3)
    return jnp.pad(x, padding) if tokens else x

  if short == length:
    return rollouts
  padded = jax.tree.map(pad, rollouts)
  if CHOSEN in padded.signals:
    beyond = jnp.arange(length)[:, None, None] >= short
    padded.signals[CHOSEN] = jnp.where(beyond, -1, padded.signals[CHOSEN])
  return padded
