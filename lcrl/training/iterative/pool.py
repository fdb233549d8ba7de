"""One round: the policy's answers with their scores and log-probs, and the pairs made of them.

A pool is part of the training state. So a run that stops between two steps of a round resumes with
the same pairs, and needs no copy of the policy that answered. A pool has N prompts with G answers
each; if the run has a teacher, one of them is the teacher's. Where answers are refined, they have
four columns (`lcrl.training.iterative.refine`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from lcrl import budgets, rewards
from lcrl.data import pair_builders
from lcrl.data.pair_builders import Samples, preferences_of
from lcrl.data.sources import Encoded
from lcrl.mesh import replicate
from lcrl.registry import build, resolve
from lcrl.training.iterative.refine import in_columns
from lcrl.training.iterative.settings import Settings
from lcrl.training.pairs.learner import PairLearner
from lcrl.training.reward_model.learned import PREFERENCE
from lcrl.types import PyTree, Stage

COMPARED = {"ref": "ref_log_probs", "previous": "previous_log_probs"}  # a loss's need -> signal
Pairing = Callable[[Samples], list[tuple[int, int]]]


class Stages(NamedTuple):
  """The stages of a round, or their states."""

  budget: Any
  reward: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pool:
  """The answers of a round, the same on every process."""

  tokens: Any  # [N, G, T] int32
  mask: Any  # [N, G, T] bool
  correct: Any  # [N, G] bool
  rewards: Any  # [N, G] float32
  teacher: Any  # [N, G] bool, True for a teacher's answer
  prompt_ids: Any  # [N] int32
  signals: dict[str, Any]  # log-probs that the loss compares with, [N, G, T] float32 each
  states: Stages  # of the stages, after this round
  preferences: Any = None  # [N, G, G] float32, chance that i is preferred to j; None: no such model
  refines: Any = None  # [N, G] int32, the answer that it refines, -1: none; None: one turn


def stages(s: Settings) -> Stages:
  """The stages of the sections budget and reward."""
  both = Stages(
    build(budgets, s.built["budget"], field="budget", gives=Stage),
    build(rewards, s.built["reward"], field="reward", gives=Stage),
  )
  if both.reward.observe:
    raise ValueError(
      f"reward.fn={s.built['reward']['fn']!r} learns from a monitor set of prompts, which a run "
      "with run='iterative' does not have."
    )
  return both


def empty(s: Settings, model: PairLearner) -> Pool:
  """The pool before the first round: zeros in the shape of every round."""
  groups = (s.round.prompts, s.columns + ("teacher" in s.built))
  rows = (*groups, s.window)
  needs = [need for need in COMPARED if need in model.stage.needs]
  scoring = stages(s)
  if prefers(scoring) and "teacher" in s.built:
    raise ValueError("the stage `preferred` compares the policy's own answers: no teacher with it.")
  if prefers(scoring) and s.refine:
    raise ValueError("the stage `preferred` compares answers of one turn: no refine with it.")
  pool = Pool(
    tokens=np.zeros(rows, np.int32),
    mask=np.zeros(rows, bool),
    correct=np.zeros(groups, bool),
    rewards=np.zeros(groups, np.float32),
    teacher=np.zeros(groups, bool),
    prompt_ids=np.zeros(groups[0], np.int32),
    signals={COMPARED[need]: np.zeros(rows, np.float32) for need in needs},
    states=Stages(*(stage.init() for stage in scoring)),
    preferences=np.zeros((*groups, groups[1]), np.float32) if prefers(scoring) else None,
    refines=np.zeros(groups, np.int32) if s.refine else None,
  )
  return replicate(model.mesh, jax.tree.map(np.asarray, pool))


def prefers(scoring: Stages) -> bool:
  """True if a preference model compares the answers of a prompt."""
  return PREFERENCE in scoring.reward.needs


def pairing(s: Settings) -> Pairing:
  """The function that chooses the pairs of a prompt."""
  return resolve(pair_builders, s.built["pairing"], field="pairing")


def pairs_of(pool: Pool, choose: Pairing) -> list[Encoded]:
  """The pairs of a round, in the order of their prompts; equal answers make no pair.

  Signals: how often each side beats an answer of its group, by the preference model or else by the
  rewards (`win_rates`), and those of the pool. A builder reads all the comparisons as the signal
  `preferences` [n, n], and which answers are refined as `refines` [n].
  """
  p, pairs = on_host(pool), list[Encoded]()
  lengths = p.mask.sum(-1)
  for b, prompt_id in enumerate(p.prompt_ids.tolist()):
    present = np.flatnonzero(lengths[b])  # a teacher's answer may be missing
    values = p.rewards[b, present]
    chances = preferences_of(values)
    if p.preferences is not None:
      chances = p.preferences[b][np.ix_(present, present)]
    rates, signals = chances.mean(1), {"teacher": p.teacher[b, present], "preferences": chances}
    if p.refines is not None:
      own = p.refines[b, present]
      signals["refines"] = np.where(own < 0, -1, np.searchsorted(present, own))
    samples = Samples(lengths[b, present], p.correct[b, present], values, (), prompt_id, signals)
    for both in choose(samples):
      take = present[list(both)]
      spans = [_span(p.mask[b, g]) for g in take]
      sides = [p.tokens[b, g, span] for g, span in zip(take, spans, strict=True)]
      prompts = [p.tokens[b, g, : span.start] for g, span in zip(take, spans, strict=True)]
      if not np.array_equal(*prompts):
        raise ValueError(f"the answers to prompt {prompt_id} do not begin alike: no pair.")
      if np.array_equal(*sides):
        continue
      scores = tuple(p.rewards[b, take].tolist())
      signals = {name: x[b, take] for name, x in p.signals.items()}
      signals["win_rates"] = rates[list(both)].astype(np.float32)
      pairs.append(Encoded(len(pairs), prompts[0], tuple(sides), scores, signals=signals))
  return pairs


def with_columns(pool: Pool, tokens: np.ndarray, mask: np.ndarray, refines: np.ndarray) -> Pool:
  """The pool of both turns, in numpy, with the four columns of `lcrl.training.iterative.refine`."""
  return dataclasses.replace(
    pool,
    tokens=tokens,
    mask=mask,
    refines=refines,
    correct=in_columns(pool.correct),
    rewards=in_columns(pool.rewards),
    teacher=in_columns(pool.teacher),
  )


def on_host(tree: PyTree) -> PyTree:
  """A pool, or rollouts, as numpy arrays."""
  return jax.tree.map(np.asarray, tree)


def _span(mask: np.ndarray) -> slice:
  """From the first token of a response to its last."""
  at = np.flatnonzero(mask)
  return slice(int(at[0]), int(at[-1]) + 1)
