"""Samples the pool of a round: answers, their rewards, and what a loss compares them with."""

from __future__ import annotations

import dataclasses
import operator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcrl import data
from lcrl.mesh import local_rows, replicate, replicated, to_global
from lcrl.preferences import group_preferences
from lcrl.registry import build
from lcrl.rollouts.worker import RolloutWorker
from lcrl.tasks.task import Prompt, Task
from lcrl.training.iterative import reference_policy
from lcrl.training.iterative.pool import (
  COMPARED,
  Pool,
  Stages,
  on_host,
  prefers,
  stages,
  with_columns,
)
from lcrl.training.iterative.refine import Refinement, columns, side_by_side
from lcrl.training.iterative.settings import Settings
from lcrl.training.iterative.teacher import Teacher
from lcrl.training.keys import step_key
from lcrl.training.pairs.learner import PairLearner
from lcrl.training.reward_model.learned import PREFERENCE, providers
from lcrl.training.rl.budgets import ask_budget, check_levels
from lcrl.training.rl.collect import pad_rows
from lcrl.training.rl.pipeline import RolloutPipeline
from lcrl.types import PyTree, TrainState


class Round:
  """state -> the pool of the round that starts there, sampled `train.prompts` prompts at a time."""

  def __init__(
    self, s: Settings, model: PairLearner, task: Task, worker: RolloutWorker, base: PyTree
  ):
    self._settings, self._model, self._worker, self._base = s, model, worker, base
    self._stages = stages(s)
    needs = [name for stage in self._stages for name in stage.needs]
    learned = providers(s.built.get("learned", {}), model, worker.tokenizer, needs)
    self._pipeline = RolloutPipeline(worker, providers=learned)
    self._pipeline.check(self._stages)  # type: ignore[arg-type]
    check_levels(task, self._stages.budget)
    self._teacher = Teacher(s.built["teacher"], worker) if "teacher" in s.built else None
    self._refinement = Refinement(s.refine.instruction, worker) if s.refine else None
    self._stream = data.prompts(task, seed=s.seed)
    self._size = s.train.prompts
    self._starts = range(0, s.round.prompts, self._size)
    self._compared = reference_policies(s, model)
    self._cut = jax.jit(partial(_part, size=self._size))
    self._join = jax.jit(lambda parts: jax.tree.map(lambda *x: jnp.concatenate(x), *parts))
    self._gather = jax.jit(lambda x: x, out_shardings=replicated(model.mesh))
    self._reward = jax.jit(self._stages.reward.apply)
    self._chances = jax.jit(lambda r: group_preferences(r.signals[PREFERENCE]).astype(jnp.float32))

  def __call__(self, state: TrainState) -> Pool:
    s, model = self._settings, self._model
    step, position = int(state.step), int(state.position)
    key, states = step_key(s.seed, step), state.pending.states
    index = np.arange(position, position + s.round.prompts, dtype=np.int32)
    prompts = [self._stream[i] for i in index.tolist()]
    options = {"step": step, "key": key, "group_size": s.round.group_size}
    budget = ask_budget(self._stages, states, prompts, **options)  # type: ignore[arg-type]
    params = model.merge(self._base, state.params)
    rollouts = self._rolled_out(params, prompts, index, budget, key)
    if self._refinement is not None:
      rollouts, rows_of_turns = self._refined(params, rollouts, prompts, index, budget, key)
    pool = self._pool(rollouts, states, options | {"step": jnp.int32(step)})
    if self._refinement is not None:
      pool = replicate(model.mesh, with_columns(on_host(pool), *rows_of_turns))
    if self._teacher is not None:
      pool = replicate(model.mesh, self._teacher.joined(on_host(pool), prompts))
    rows = dataclasses.replace(pool, states=Stages((), ()))
    signals = {
      name: self._log_probs(policy_of(params), rows) for name, policy_of in self._compared.items()
    }
    return dataclasses.replace(pool, signals=self._gather(signals))

  def _pool(self, rollouts: Any, states: Stages, options: dict[str, Any]) -> Pool:
    """The policy's answers with their rewards, before anything is compared with them."""
    budget = self._stages.budget
    values, reward_state = self._reward(states.reward, rollouts)
    learned = budget.learn(states.budget, rollouts) if budget.learn else states.budget
    _, budget_state = budget.apply(learned, rollouts.prompt_ids, **options)
    return self._gather(
      Pool(
        tokens=rollouts.tokens,
        mask=rollouts.written,  # a pair is of whole answers, with what a control forced
        correct=rollouts.correct,
        rewards=values.astype(jnp.float32),
        teacher=jnp.zeros(values.shape, bool),
        prompt_ids=rollouts.prompt_ids,
        signals={},
        states=Stages(budget_state, reward_state),
        preferences=self._chances(rollouts) if prefers(self._stages) else None,
      )
    )

  def _log_probs(self, params: PyTree, rows: Pool) -> jax.Array:
    scores = [self._model.score(params, self._cut(rows, i)) for i in self._starts]
    return self._join([score.log_probs for score in scores])

  def _rolled_out(
    self, params: PyTree, prompts: list[Prompt], index: np.ndarray, budget: Any, key: jax.Array
  ):
    parts = []
    for i in self._starts:
      part = slice(i, i + self._size)
      caps = jax.tree.map(operator.itemgetter(part), budget)
      local = self._worker.render(prompts[part], index[part], caps)
      rollouts, _ = self._pipeline.result(self._worker.start(params, local, key))
      parts.append(pad_rows(self._pipeline.add_signals(params, rollouts), self._settings.window))
    return self._join(parts)

  def _refined(self, params: PyTree, first: Any, prompts, index, budget, key):
    """Both turns as one group of rollouts, and their tokens, masks and `refines` by column."""
    assert self._refinement is not None
    host = lambda rollouts: on_host(self._gather(rollouts))
    first = host(first)

    def sample(asked: list[Prompt], g: int):
      own = jax.tree.map(lambda x: np.asarray(x)[:, g : g + 1], budget)
      return host(self._rolled_out(params, asked, index, own, jax.random.fold_in(key, g + 1)))

    turns = self._refinement.sampled(first, prompts, sample)
    direct = self._refinement.direct(first, turns)
    local = local_rows(self._model.mesh, self._size)

    def scored_from(start: int):
      part = jax.tree.map(lambda x: x[start : start + self._size][local], direct)
      return self._pipeline.add_signals(params, to_global(self._model.mesh, part))

    scored = self._join([scored_from(i) for i in self._starts])
    both = replicate(self._model.mesh, side_by_side(first, host(scored)))
    return both, columns(first, direct, turns)


def reference_policies(
  s: Settings, model: PairLearner
) -> dict[str, reference_policy.ReferencePolicy]:
  """Signal of the log-probs that the loss compares with -> the policy that gives them."""
  policies = {}
  if "ref" in model.stage.needs:
    reference = build(reference_policy, s.built["reference"], field="reference")
    policies[COMPARED["ref"]] = reference(model)
  if "previous" in model.stage.needs:
    policies[COMPARED["previous"]] = reference_policy.latest()(model)
  return policies


def _part(tree: PyTree, start: jax.Array, *, size: int) -> PyTree:
  """`size` entries of the first axis of every leaf, from `start` on."""
  return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), tree)
