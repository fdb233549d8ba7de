"""Revisions of rollouts on the host, between sampling and `shape`: `revise=dict(fn=...)`.

A revision gets one process's share of a round as numpy arrays with whole groups, and a grader that
verifies changed responses again. It runs before signals, entropy and the choice of groups, so that
all of them read the revised responses. A factory's docstring names the signals that it supplies;
they take precedence over a task's signals of the same name.
"""

from __future__ import annotations

import dataclasses
import math
import re
from functools import partial

import jax
import numpy as np

from lcrl.registry import resolve
from lcrl.rewards.difficulty import tiered_limit
from lcrl.rollouts.grader import LocalRollouts, RolloutGrader
from lcrl.tasks import extract as extractors
from lcrl.tasks.signals import stands_alone
from lcrl.tasks.task import Response
from lcrl.training.rl.cropping import cropped, outlier_kept_length
from lcrl.training.rl.early_exits import answer_at_budgets as answer_at_budgets
from lcrl.training.rl.early_exits import serial_exits as serial_exits
from lcrl.training.rl.revision import Revision

__all__ = [
  "answer_at_budgets",
  "crop_thinking",
  "cut_outliers",
  "cut_to_target",
  "cut_to_tier",
  "force_answers",
  "serial_exits",
]


# One program for each shape of a round; without jit every operation would be compiled for each.
crop = jax.jit(cropped)


def cut(r: LocalRollouts, kept: np.ndarray, grader: RolloutGrader) -> LocalRollouts:
  """Keeps the first `kept` [b, G] sampled tokens, and verifies the shortened responses again."""
  short = jax.tree.map(np.asarray, crop(r, kept))
  return grader.reverify(short, short.lengths < r.lengths)


def cut_outliers(*, alpha: float = 3.0, success: float = 1.0, margin: float = 32) -> Revision:
  """Cuts far too long responses of solved groups: `outlier_kept_length` (DOT).

  Most of them lose their answer and become the only wrong ones of their group. The filter that goes
  with it is `nonconstant_reward`.
  """

  keep = jax.jit(partial(outlier_kept_length, alpha=alpha, success=success, margin=margin))

  def apply(r: LocalRollouts, grader: RolloutGrader) -> LocalRollouts:
    group = r.lengths.shape[1]
    if alpha >= (group - 1) / math.sqrt(group):
      raise ValueError(
        f"revise.alpha={alpha} never cuts in groups of {group}: no value lies further than "
        f"(G - 1) / sqrt(G) = {(group - 1) / math.sqrt(group):.2f} deviations from the mean."
      )
    return cut(r, np.asarray(keep(r.correct, r.lengths, r.valid)), grader)

  return Revision(apply)


def cut_to_target(*, keep_tail: bool = False) -> Revision:
  """The verdict is that of the first `budget.target` tokens, where sampling went on to the cap.

  Source: SIRI, arXiv:2509.25176: right if the answer can be read from the first L tokens.

  Args:
    keep_tail: the tokens behind the target train, too; otherwise they are cut off.
  """

  def apply(r: LocalRollouts, grader: RolloutGrader) -> LocalRollouts:
    short = cut(r, r.budget.target, grader)
    if not keep_tail:
      return short
    return dataclasses.replace(r, scores=short.scores, correct=short.correct, outcome=short.outcome)

  return Revision(apply)


def cut_to_tier(
  *, thresholds: tuple[float, ...] = (0.5,), limits: tuple[int, ...] = (4000, 2000)
) -> Revision:
  """Cuts each group at the `tiered_limit` of its accuracy, which becomes its target and cap.

  Source: DA-DLER, arXiv:2510.15110; accuracy is measured at the cap that was sampled to.
  """

  tier = jax.jit(partial(tiered_limit, thresholds=thresholds, limits=limits))

  def apply(r: LocalRollouts, grader: RolloutGrader) -> LocalRollouts:
    tiers = np.asarray(tier(r.correct, r.valid))[:, None]
    limit = np.minimum(tiers, r.budget.cap).astype(np.int32)
    budget = dataclasses.replace(r.budget, target=limit, cap=limit)
    return dataclasses.replace(cut(r, limit, grader), budget=budget)

  return Revision(apply)


def crop_thinking(*, extract: str = "boxed", close: str = "</think>") -> Revision:
  """Takes out of a right response what it thinks after it has reached its answer.

  Source: LC-R1, arXiv:2506.14755, where a small model says how much is needed. Stand-in: up to the
  first place in the thinking where the final answer stands by itself. Tokens that move are
  `undrawn`: nobody drew them after what now precedes them.

  Signals: needed, tokens up to that place, 0 if there is none or the answer is wrong; think_length,
  tokens of the thinking before anything was taken out (all of it without an end). [B, G] int32.

  Args:
    extract: where the final answer is, a name in `lcrl.tasks.extract`.
    close: ends the thinking.
  """
  find = resolve(extractors, {"fn": extract}, field="revise.extract")

  def places(response: Response, right: bool) -> tuple[int, int, int, int]:
    """The two signals, and the tokens of the response from which and up to which it is cropped."""
    thinking, closing, _ = response.text.partition(close)
    border = response.tokens_to(len(thinking) + 1) - 1 if closing else len(response.tokens)
    end = stands_alone(find(response.text), thinking) if right and closing else None
    if end is None:
      return 0, response.counted(border), 0, 0
    reached = response.tokens_to(end)
    return response.counted(reached), response.counted(border), reached, max(reached, border)

  def apply(r: LocalRollouts, grader: RolloutGrader) -> LocalRollouts:
    pairs = zip(grader.responses(r), r.correct, strict=True)
    found = [[places(*pair) for pair in zip(*group, strict=True)] for group in pairs]
    needed, whole, first, last = np.moveaxis(np.array(found, np.int32), -1, 0)
    signals = r.signals | {"needed": needed, "think_length": whole}
    shorter = dataclasses.replace(_taken_out(r, first, last, grader), signals=signals)
    return grader.reverify(shorter, first < last)

  return Revision(apply, supplies=("needed", "think_length"))


def _taken_out(
  r: LocalRollouts, first: np.ndarray, last: np.ndarray, grader: RolloutGrader
) -> LocalRollouts:
  """Responses without their tokens from `first` up to `last` [b, G]; what follows moves up."""
  at = np.arange(r.tokens.shape[-1])
  gap, moved = (last - first)[..., None], at >= (grader.starts + first)[..., None]
  source = np.where(moved, at + gap, at)
  there = source < len(at)
  take = lambda x: np.take_along_axis(x, np.minimum(source, len(at) - 1), -1)
  mask = take(r.mask) & there
  undrawn = mask & ((moved & (gap > 0)) | take(~np.asarray(r.drawn)))
  return dataclasses.replace(
    r,
    tokens=np.where(there, take(r.tokens), grader.worker.tokenizer.pad_id).astype(np.int32),
    mask=mask,
    sampler_log_probs=np.where(undrawn | ~mask, 0, r.sampler_log_probs).astype(np.float32),
    lengths=(take(r.counted) & there).sum(-1, dtype=np.int32),
    undrawn=undrawn,
    forced=None if r.forced is None else take(r.forced) & there,
  )


def force_answers(
  *,
  force: str,
  cap: int,
  episodes: int = 4,
  samples: int = 8,
  close: str = "</think>",
  separator: str = "\n\n",
  dense: bool = False,
) -> Revision:
  """What one episode of the thinking adds to the chance of a right answer; the response stays.

  The thinking is broken off before and after an episode, drawn for each rollout; `samples` answers
  are sampled from either place, with the same randomness, and the shares of right ones are the
  values. Source: MRT, arXiv:2503.07572, which publishes no sampling of prefixes; one episode a
  rollout is ours. An episode without tokens adds nothing.

  Signals: value_before and value_after, [B, G] float32; of `dense`, progress [B, G, T] float32 in
  their place: at every token of an episode what that episode adds to the value.

  Args:
    force: put where thinking is broken off; it ends the thinking and begins an answer.
    cap: tokens of an answer, at most.
    episodes: of a response; its pieces between separators are shared out among them.
    samples: answers from each place.
    close: ends the thinking; a response without it is all thinking.
    separator: stands between pieces.
    dense: the values at the borders of all episodes are sampled, (episodes + 1) / 2 times as many.
  """
  if episodes < 1 or samples < 1:
    raise ValueError(f"episodes and samples must be at least 1, got {episodes} and {samples}.")

  def apply(r: LocalRollouts, grader: RolloutGrader) -> LocalRollouts:
    borders = np.array(
      [
        [_borders(response, close, separator, episodes) for response in group]
        for group in grader.responses(r)
      ],
      np.int32,
    )
    at = lambda kept: grader.success_rate(r, kept, force=force, samples=samples, cap=cap)
    if dense:
      reached = np.stack([at(borders[..., j]) for j in range(episodes + 1)], -1)
      progress = _at_tokens(np.diff(reached), borders, r.tokens.shape[-1], grader.starts)
      return dataclasses.replace(r, signals=r.signals | {"progress": progress})
    chosen = grader.random_index(episodes)
    values = {}
    for later, name in enumerate(("value_before", "value_after")):
      kept = np.take_along_axis(borders, chosen[..., None] + later, -1)[..., 0]
      values[name] = at(kept)
    return dataclasses.replace(r, signals=r.signals | values)

  return Revision(apply, supplies=("progress",) if dense else ("value_before", "value_after"))


def _at_tokens(values: np.ndarray, borders: np.ndarray, width: int, starts: np.ndarray):
  """The value of its episode at each token of a response, 0 elsewhere. [b, G, K], borders
  [b, G, K + 1] in tokens of the response -> [b, G, width] float32."""
  places = np.arange(width) - starts[..., None]
  inside = (places[..., None, :] >= borders[..., :-1, None]) & (
    places[..., None, :] < borders[..., 1:, None]
  )
  return np.einsum("bgk,bgkt->bgt", values, inside).astype(np.float32)


def _borders(response: Response, close: str, separator: str, episodes: int) -> list[int]:
  """Tokens of the response up to the start of the first episode and to the end of each."""
  thinking = response.text.partition(close)[0]
  ends = [found.end() for found in re.finditer(re.escape(separator), thinking)]
  ends = [0, *(end for end in ends if end < len(thinking)), len(thinking)]
  chosen = [ends[j * (len(ends) - 1) // episodes] for j in range(episodes + 1)]
  return [response.tokens_to(characters) for characters in chosen]
