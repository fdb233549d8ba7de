"""The first phase of a step: rollouts of enough groups that train.

Choosing groups reads rollouts and pure scores; it changes no state. That happens in `shape`, once,
on the final batch.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.filters import oversampling_factor, prompts_to_sample
from lcrl.masked import masked_sum
from lcrl.mesh import batch_sharding, batch_shards, default_mesh, on_host, replicated
from lcrl.tasks.task import Prompt
from lcrl.training.metrics import Mean, Metrics, Sum, merge
from lcrl.training.rl.rounds import Round, Rounds
from lcrl.types import Budget, Recipe, Rollouts, Stage

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Collected:
  """The rollouts of one step, and what the run reports of how they came about."""

  rollouts: Rollouts
  position: int  # in the data stream, after them
  rounds: int
  passed: tuple[int, int]  # groups sampled, and those of them that train
  metrics: Metrics  # of all that was sampled, where groups were chosen among it
  seconds: float  # from the start of sampling until all was there, of all rounds
  times: Metrics  # of the host: until all was there, and after that; what it did meanwhile left out


class Collector:
  """Plays prompts until `prompts` groups train or `max_rounds` is reached.

  Args:
    stream: position -> Prompt.
    rounds: plays prompts.
    recipe: its budget is asked; its reward and filter say which groups would train.
    prompts: B, groups per step.
    group_size: G.
    max_rounds: 1: every group goes into the batch, those that the filter drops with keep False.
      More: groups that the filter drops whole are replaced by others, as DAPO's dynamic sampling
      (arXiv:2503.14476) does; if the rounds run out, dropped ones fill the batch and do not train.
    predict: a round takes more prompts than the batch, as many as past steps say that it needs
      (DOT, arXiv:2601.03969), rounded up to half batches so that few shapes are compiled.
    multiple: every data shard of a round has a multiple of so many prompts.
    seed: of the run.
    apart: rounds are played on devices that do nothing else, driven by a thread of their own, which
      a program may keep until it has run.
  """

  def __init__(
    self,
    stream: Callable[[int], Prompt],
    rounds: Rounds,
    recipe: Recipe[Stage],
    *,
    prompts: int,
    group_size: int,
    max_rounds: int = 1,
    predict: bool = False,
    multiple: int = 1,
    seed: int = 0,
    apart: bool = False,
  ):
    self._stream, self._rounds, self._recipe = stream, rounds, recipe
    self._prompts, self._group_size, self._max_rounds = prompts, group_size, max_rounds
    self._predict, self._multiple, self._seed = predict, multiple, seed
    self._thread = ThreadPoolExecutor(1) if apart else None
    self._look = jax.jit(self._would_train, out_shardings=replicated(rounds.mesh))
    self._take = jax.jit(take, out_shardings=batch_sharding(rounds.mesh))

  def __call__(
    self,
    params: PyTree,
    states: Recipe[PyTree],
    step: int,
    position: int,
    passed: Sequence[tuple[int, int]] = (),
  ) -> Collected:
    """`passed`: groups sampled and those of them that train, of past steps."""
    return self.launch(params, self.kept(states), step, position, passed)()

  def launch(
    self,
    params: PyTree,
    states: Recipe[PyTree],
    step: int,
    position: int,
    passed: Sequence[tuple[int, int]] = (),
  ) -> Callable[[], Collected]:
    """The same begun, without waiting; to be finished by a call of what is returned.

    Meanwhile an update may use up the states if they are `kept`, and the parameters if they are the
    sampler's copy. Parameters may still be computed. The time of the launch counts as sampling,
    unless that call says `spent=0.0`.
    """
    start = time.perf_counter()
    begin = partial(self._begin, params, states, step, self._count(passed))
    if self._thread is not None:
      run = lambda: self._finish(begin(position), begin, params, states, position, spent=0.0)
      return partial(_joined, self._thread.submit(run))
    first = begin(position)
    spent = time.perf_counter() - start
    return partial(self._finish, first, begin, params, states, position, spent=spent)

  def kept(self, states: Recipe[PyTree]) -> Recipe[PyTree]:
    """A copy where rounds are sampled, which no update uses up."""
    return jax.device_put(jax.tree.map(jnp.copy, states), replicated(self._rounds.mesh))

  def _begin(self, params, states, step: int, count: int, position: int) -> Round:
    """One round, of the `count` prompts from `position` on."""
    index, size = np.arange(position, position + count, dtype=np.int32), self._group_size
    prompts = [self._stream(i) for i in index.tolist()]
    with on_host():
      key = step_key(self._seed, step)  # lest it is computed behind what devices do
    budget = ask_budget(self._recipe, states, prompts, step=step, key=key, group_size=size)
    with default_mesh(self._rounds.mesh):
      return self._rounds.launch(params, prompts, index, budget, step_key(self._seed, step))

  def _finish(
    self, first: Round, begin, params, states, position: int, *, spent: float
  ) -> Collected:
    """Waits for the first round, plays others as long as groups are missing, and chooses."""
    begun = start = time.perf_counter()
    round_, end, waited, sampling = first, position, 0.0, 0.0
    pool: list[Rollouts] = []
    trains: list[bool] = []
    metrics: Metrics = {}
    with default_mesh(self._rounds.mesh):
      while True:
        rollouts, (began, arrived) = round_.finish()
        waited, sampling = waited + max(arrived - start, 0.0), sampling + arrived - began
        end += len(rollouts.prompt_ids)
        if self._chooses:
          rollouts, keep, sampled = self._judged(params, states, rollouts)
          trains, metrics = trains + keep, merge(metrics, sampled)
        pool.append(rollouts)
        if not self._chooses or sum(trains) >= self._prompts or len(pool) == self._max_rounds:
          break
        start = time.perf_counter()
        round_ = begin(end)
      if self._chooses:
        chosen = np.argsort(~np.array(trains), stable=True)[: self._prompts]  # those that train
        rollouts = self._take(pool, chosen)
    passed = end - position, sum(trains) if self._chooses else end - position
    after = time.perf_counter() - begun - waited
    times: Metrics = {"time/sample": Sum(spent + waited), "time/verify": Sum(after)}
    return Collected(rollouts, end, len(pool), passed, metrics, sampling, times)

  def _judged(self, params, states, rollouts: Rollouts) -> tuple[Rollouts, list[bool], Metrics]:
    """A round with what choosing needs, which groups would train, and what all were like."""
    if self._rounds.read_of((self._recipe.reward, self._recipe.filter)):
      rollouts = self._rounds.read(params, rollouts)
    keep, sampled = jax.tree.map(np.asarray, self._look(states, rollouts))
    return rollouts, keep.tolist(), sampled

  @property
  def _chooses(self) -> bool:
    return self._max_rounds > 1 or self._predict

  def _count(self, passed: Sequence[tuple[int, int]]) -> int:
    """Prompts of a round."""
    if not self._predict:
      return self._prompts
    passed = [(sampled, trained) for sampled, trained in passed if sampled]
    wanted = prompts_to_sample(self._prompts, oversampling_factor(passed, window=len(passed)))
    multiple = batch_shards(self._rounds.mesh) * self._multiple
    unit = -(-self._prompts // (2 * multiple)) * multiple
    return -(-wanted // unit) * unit

  def _would_train(self, states, rollouts: Rollouts) -> tuple[jax.Array, Metrics]:
    """Which groups [B] the filter leaves anything of, and what all of them were like."""
    rewards, _ = self._recipe.reward.apply(states.reward, rollouts)
    keep, _ = self._recipe.filter.apply(states.filter, rewards, rollouts)
    count = rollouts.valid.sum()
    return keep.any(axis=-1), {
      "sampled/accuracy": Mean(masked_sum(rollouts.correct, rollouts.valid), count),
      "sampled/length": Mean(masked_sum(rollouts.lengths, rollouts.valid), count),
    }


def _joined(running: Future[Collected]) -> Collected:
  """What the thread has collected; the times are those that one waits for it."""
  start = time.perf_counter()
  collected = running.result()
  waited = time.perf_counter() - start
  verifying = min(waited, collected.times["time/verify"].value())
  times: Metrics = {"time/sample": Sum(waited - verifying), "time/verify": Sum(verifying)}
  return dataclasses.replace(collected, times=times)


def take(pool: list[Rollouts], groups: jax.Array) -> Rollouts:
  """The given groups of all rollouts in the pool, one after the other."""
  widest = max(r.tokens.shape[-1] for r in pool)
  return jax.tree.map(lambda *xs: jnp.concatenate(xs)[groups], *(pad_rows(r, widest) for r in pool))


def step_key(seed: int | jax.Array, step: int | jax.Array) -> jax.Array:
  """The key that all randomness of a step derives from."""
  return jax.random.fold_in(jax.random.key(seed), step)


def ask_budget(
  recipe: Recipe[Stage],
  states: Recipe[PyTree],
  prompts: Sequence[Prompt],
  *,
  step: int,
  key: jax.Array,
  group_size: int,
) -> Budget:
  """Budgets of the prompts, numpy [B, G], alike on every process. The stage's state stays."""
  ids = np.array([p.id for p in prompts], np.int32)
  state = jax.tree.map(np.asarray, states.budget)
  with on_host():
    budget, _ = recipe.budget.apply(
      state, jnp.asarray(ids), step=jnp.int32(step), key=key, group_size=group_size
    )
    budget = jax.tree.map(np.asarray, budget)
  for name, least in (("cap", budget.cap.min()), ("target", budget.target.min())):
    if least < 1:
      raise ValueError(f"the budget stage gave a {name} of {least} tokens; it must be at least 1.")
  return budget


def check_budgets(
  stage: Stage,
  *,
  steps: int,
  prompts: int,
  group_size: int,
  most: int,
  seed: int,
  forced: Callable[[int, int], int] = lambda target, level: 0,
) -> None:
  """Raises ValueError for a cap that some step of the run will ask for and no response may have.

  Schedules and sections that come later are known before the first step; random draws are tried.
  `forced`: target, level -> tokens that a response begins with and that count in its cap.
  """

  @jax.jit
  def caps():
    def one(state, step):
      budget, state = stage.apply(
        state, jnp.arange(prompts), step=step, key=step_key(seed, step), group_size=group_size
      )
      flat = jax.tree.map(jnp.ravel, budget)
      tightest = jax.tree.map(lambda x: x[flat.cap.argmin()], flat)
      return state, (budget.cap.max(), budget.target.min(), tightest)

    return jax.lax.scan(one, stage.init(), jnp.arange(steps, dtype=jnp.int32))[1]

  with on_host():
    longest, target, tightest = jax.tree.map(np.asarray, caps())
  for name, values in (("cap", tightest.cap), ("target", target)):
    if (under := values < 1).any():
      step = int(under.argmax())
      raise ValueError(
        f"budget: the {name} after {step} steps is {values[step]} tokens; it must be at least 1."
      )
  at = int(tightest.cap.argmin())
  begun = forced(int(tightest.target[at]), int(tightest.level[at]))
  if begun >= tightest.cap[at]:
    raise ValueError(
      f"budget: the cap after {at} steps is {tightest.cap[at]} tokens, and task.render forces a "
      f"response to begin with {begun} that count."
    )
  if (over := longest > most).any():
    step = int(over.argmax())
    raise ValueError(
      f"budget: the cap after {step} steps is {longest[step]}; train.max_tokens={most} allows less."
    )


def pad_rows(rollouts: Rollouts, length: int) -> Rollouts:
  """Rollouts with rows of `length` positions; every [B, G, T] field is padded with zeros."""
  short = rollouts.tokens.shape[-1]

  def pad(x):
    return jnp.pad(x, ((0, 0), (0, 0), (0, length - short))) if x.ndim == 3 else x

  return rollouts if short == length else jax.tree.map(pad, rollouts)
