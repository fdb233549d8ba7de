"""Revisions that break off thinking at several places and have an answer given at each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lcrl import hosts
from lcrl.checks import ascending
from lcrl.mesh import to_local
from lcrl.rollouts.grader import LocalRollouts, RolloutGrader
from lcrl.training.rl.revision import Revision

DRAWS = 2**30  # equally likely places that a share of the thinking is drawn from


def _thinking(r: LocalRollouts, grader: RolloutGrader, close: str) -> np.ndarray:
  """[b, G] int32, tokens of each response before its thinking ends; all without an end."""
  before = lambda response: response.tokens_to(len(response.text.partition(close)[0]))
  return np.array([[before(x) for x in group] for group in grader.responses(r)], np.int32)


def answer_at_budgets(
  *, force: str, cap: int, budgets: Sequence[int], samples: int = 4, close: str = "</think>"
) -> Revision:
  """How often answers are right that are given when a budget of thinking runs out; the response
  stays.

  Thinking that ended before a budget is answered from its end. Source: AnytimeReasoner,
  arXiv:2505.13438 (4 budgets, 4 answers).

  Signals: budget_scores, [B, G, S] float32, the share of right ones of `samples` answers.

  Args:
    force: put where thinking is broken off; it ends the thinking and begins an answer.
    cap: tokens of an answer, at most.
    budgets: S of them, ascending, in tokens of the response.
    samples: answers at each budget.
    close: ends the thinking; a response without it is all thinking.
  """
  ascending(**{"revise.budgets": budgets})
  if samples < 1:
    raise ValueError(f"revise.samples must be at least 1, got {samples}.")

  def apply(r: LocalRollouts, grader: RolloutGrader) -> LocalRollouts:
    thinking = _thinking(r, grader, close)
    answered = lambda kept: grader.success_rate(r, kept, force=force, samples=samples, cap=cap)
    scores = np.stack([answered(np.minimum(thinking, budget)) for budget in budgets], -1)
    return dataclasses.replace(r, signals=r.signals | {"budget_scores": scores})

  return Revision(apply, supplies=("budget_scores",))


def serial_exits(
  *, force: str, cap: int, close: str = "</think>", train_forced: bool = True
) -> Revision:
  """All rollouts of a group but the first become the first one, broken off in its thinking and
  answered there.

  The places are drawn anew for each rollout, uniformly over the tokens of thinking that leave room
  for `force` and an answer below the first rollout's cap. Source: S-GRPO, arXiv:2505.07686, whose
  sum goes over the whole response; it does not say whether the forced text trains.

  Signals: exit_at, [B, G] int32, tokens of thinking before the answer.

  Args:
    force: put where thinking is broken off; it ends the thinking and begins an answer.
    cap: tokens of an answer, at most.
    close: ends the thinking; a response without it is all thinking.
    train_forced: `force` trains and counts towards the length.
  """
  if cap < 1:
    raise ValueError(f"revise.cap must be at least 1, got {cap}.")

  def apply(r: LocalRollouts, grader: RolloutGrader) -> LocalRollouts:
    forced = len(grader.worker.tokenizer.encode(force))
    starts = grader.starts
    if (starts != starts[:, :1]).any():
      raise ValueError('revise.fn="serial_exits" needs one prompt for all rollouts of a group.')
    first = _first_of_groups(r)
    room = np.asarray(first.budget.cap)[:, :1] - forced - cap
    if any(hosts.gather("revise.room", bool((room < 1).any()))):
      raise ValueError(
        f"revise.cap={cap} and {forced} tokens of revise.force leave nothing of a budget of "
        f"{room.min() + forced + cap} tokens to think."
      )
    whole = _thinking(r, grader, close)[:, :1]
    most = np.minimum(whole, room)
    kept = np.minimum(1 + grader.random_index(DRAWS) / DRAWS * most, most).astype(np.int32)
    answered = grader.continued(first, kept, force=force, samples=1, cap=cap)
    how: Any = {"train_forced": train_forced, "pad_id": grader.worker.tokenizer.pad_id}
    exits = _joined(first, jax.tree.map(to_local, answered), starts, kept, forced, **how)
    exit_at = np.where(np.arange(kept.shape[1]) == 0, whole, kept)
    return dataclasses.replace(_with_first(exits, r), signals=r.signals | {"exit_at": exit_at})

  return Revision(apply, supplies=("exit_at",))


def _first_of_groups(r: LocalRollouts) -> LocalRollouts:
  """The first rollout of a group in all its places."""
  spread = lambda x: x if x.ndim == 1 else np.broadcast_to(x[:, :1], x.shape)
  return dataclasses.replace(jax.tree.map(spread, r), valid=r.valid)


def _joined(
  r: LocalRollouts,
  answered: LocalRollouts,
  starts: np.ndarray,
  kept: np.ndarray,
  forced: int,
  *,
  train_forced: bool,
  pad_id: int,
) -> LocalRollouts:
  """`kept` [b, G] tokens of each response, what was forced behind them, and the answers."""
  width = r.tokens.shape[-1]
  at = np.arange(width) - (starts + kept)[..., None]
  own, force = at < 0, (at >= 0) & (at < forced)

  def cut(x, fill=0):  # a continuation may be narrower, or wider
    x = np.asarray(x)[..., :width]
    return np.pad(x, (*[(0, 0)] * 2, (0, width - x.shape[-1])), constant_values=fill)

  mask = np.where(own, r.mask, cut(answered.mask) | (force & train_forced))
  undrawn = mask & np.where(own, ~np.asarray(r.drawn), force)
  return dataclasses.replace(
    answered,
    tokens=cut(answered.tokens, pad_id),
    mask=mask,
    sampler_log_probs=np.where(own, r.sampler_log_probs, cut(answered.sampler_log_probs)),
    lengths=mask.sum(-1, dtype=np.int32),
    undrawn=undrawn,
    forced=None if r.forced is None else r.forced & own,
    thinking_cut=None if r.thinking_cut is None else r.thinking_cut & False,
    end=None if r.end is None else np.asarray(answered.end_reasons),
    valid=r.valid,
    budget=r.budget,
  )


def _with_first(exits: LocalRollouts, r: LocalRollouts) -> LocalRollouts:
  """The exits, with the first rollout of each group as it was sampled."""
  r = dataclasses.replace(r, signals={}, undrawn=r.mask & ~np.asarray(r.drawn), budget=exits.budget)

  def restored(x, original):
    return x if x.ndim == 1 else np.concatenate([original[:, :1], x[:, 1:]], 1)

  return jax.tree.map(restored, dataclasses.replace(exits, signals={}), r)
