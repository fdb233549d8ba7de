"""Rewards that read signals besides verdict and length: phases, entropy, a second model's score.

The signals, [B, G] unless noted: `think_end`, the position of the end-of-thinking tag among the
tokens that the length counts, -1 without one; `entropy` [B, G, T], nats, over the whole vocabulary
under the policy that sampled; `conciseness`, a reward model's score in [0, 1]; `answer_length`,
counted tokens up to the end of the answer.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import one_or_each, per_row, same_groups, same_shape
from lcrl.masked import as_float, masked_mean
from lcrl.rewards.base import budget_target, shaped, with_levels
from lcrl.rewards.target import truncated_reward
from lcrl.sharding import look_up, running_sum
from lcrl.types import Rollouts, Stage

__all__ = [
  "answer_truncation",
  "conciseness",
  "conciseness_reward",
  "difficulty_factor",
  "entropy_gap",
  "level_penalty",
  "level_penalty_reward",
  "pear",
  "pear_reward",
  "phase_entropy",
]


def level_penalty_reward(
  rewards: jax.Array,
  correct: jax.Array,
  lengths: jax.Array,
  levels: jax.Array,
  *,
  penalty_by_level: tuple[float, ...],
  max_length: float,
  only_correct: bool = False,
) -> jax.Array:
  """r - penalty_by_level[level] * min(length / max_length, 1), for right and wrong answers alike.

  Source: the structure of TLDR, arXiv:2505.07961 (levels short, moderate, long in the prompt); the
  formula is ours, NOT verified against the paper. [...] each -> [...].

  >>> right, lengths, levels = jnp.ones(2), jnp.array([50, 50]), jnp.array([0, 1])
  >>> prices = dict(penalty_by_level=(1.0, 0.5), max_length=100)
  >>> print(level_penalty_reward(right, right, lengths, levels, **prices))
  [0.5  0.75]
  """
  same_shape(rewards=rewards, correct=correct, lengths=lengths, levels=levels)
  share = jnp.minimum(as_float(lengths) / max_length, 1.0)
  penalty = look_up(jnp.asarray(penalty_by_level, share.dtype), levels) * share
  return as_float(rewards) - jnp.where(correct.astype(bool) | (not only_correct), penalty, 0.0)


def level_penalty(
  *,
  penalty_by_level: tuple[float, ...],
  max_length: float,
  only_correct: bool = False,
  base: Stage | None = None,
) -> Stage:
  """`level_penalty_reward` by `budget.level` (TLDR, formula unverified)."""
  reward = partial(
    level_penalty_reward,
    penalty_by_level=tuple(penalty_by_level),
    max_length=max_length,
    only_correct=only_correct,
  )
  stage = shaped(base, lambda rewards, r: reward(rewards, r.correct, r.lengths, r.budget.level))
  return with_levels(stage, len(penalty_by_level))


def difficulty_factor(correct: jax.Array, valid: jax.Array) -> jax.Array:
  """exp(share of the group that is right): e for the easiest prompts. [..., G], [..., G] ->
  [...].

  >>> print(difficulty_factor(jnp.array([[True, False]]), jnp.ones((1, 2), bool)).round(3))
  [1.649]
  """
  same_groups(correct=correct, valid=valid)
  return jnp.exp(masked_mean(correct, valid, -1))


def conciseness_reward(
  correct: jax.Array,
  scores: jax.Array,
  valid: jax.Array,
  anneal: jax.Array | float,
  *,
  alpha: float,
) -> jax.Array:
  """A right answer earns a bonus for a reward model's conciseness score; a wrong one stays at 0.

    r = correct * (1 + alpha * score * (anneal + exp(share of the group right)))

  Source: CRF, arXiv:2511.09158, from secondary sources; alpha and the schedule of `anneal` are not
  published. [..., G] each but `anneal` [] -> [..., G].

  >>> correct, scores = jnp.array([[True, False]]), jnp.ones((1, 2))
  >>> found = conciseness_reward(correct, scores, jnp.ones((1, 2), bool), 0.0, alpha=1.0)
  >>> print([f"{x:.2f}" for x in found[0]])
  ['2.65', '0.00']
  """
  same_groups(correct=correct, scores=scores, valid=valid)
  one_or_each({"a step": jnp.zeros(())}, anneal=anneal)
  bonus = anneal + difficulty_factor(correct, valid)[..., None]
  return as_float(correct) * (1.0 + alpha * as_float(scores) * bonus)


def conciseness(*, alpha: float = 0.1, anneal_steps: int) -> Stage:
  """`conciseness_reward` (CRF) with `anneal` falling from 1 to 0 in `anneal_steps` steps, ours.

  State: steps taken.
  """

  anneal = lambda step: jnp.maximum(1.0 - as_float(step) / anneal_steps, 0.0)

  def apply(step, r: Rollouts):
    scores = r.signals["conciseness"]
    return conciseness_reward(r.correct, scores, r.valid, anneal(step), alpha=alpha), step + 1

  return Stage(
    lambda: jnp.zeros((), jnp.int32),
    apply,
    needs=("conciseness",),
    numbers=lambda step: {"conciseness/anneal": anneal(step)},
  )


def phase_entropy(
  entropy: jax.Array, mask: jax.Array, think_end: jax.Array, *, places: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
  """Mean entropy before and after the end-of-thinking tag, which belongs to neither; 0 if empty.

  Without a tag (-1) everything is thinking. `places` [..., T] are those of tokens in the response
  (`Rollouts.places`); None: the mask is all of it. [..., T], [..., T], [...] -> [...], [...].

  >>> entropy, mask = jnp.array([0.5, 0.25, 9.0, 0.125]), jnp.ones(4, bool)
  >>> print(*phase_entropy(entropy, mask, jnp.array(2)))
  0.375 0.125
  """
  per_row(dict(entropy=entropy, mask=mask), think_end=think_end)
  position = running_sum(mask) - 1 if places is None else places
  end = think_end[..., None]
  thinking = mask & ((position < end) | (end < 0))
  answer = mask & (position > end) & (end >= 0)
  return masked_mean(entropy, thinking, -1), masked_mean(entropy, answer, -1)


def entropy_gap(thinking: jax.Array, answer: jax.Array, *, alpha: float = 1.0) -> jax.Array:
  """max(0, thinking entropy - alpha * answer entropy). [...], [...] -> [...].

  >>> print(entropy_gap(jnp.array([1.5, 0.5]), jnp.array([1.0, 1.0])))
  [0.5 0. ]
  """
  same_shape(thinking=thinking, answer=answer)
  return jnp.maximum(0.0, as_float(thinking) - alpha * as_float(answer))


def pear_reward(
  correct: jax.Array,
  gap: jax.Array,
  *,
  scale: float = 1.0,
  wrong: float = 0.0,
  floor: float = -math.inf,
) -> jax.Array:
  """A right answer pays for entropy of its thinking above that of its answer:
  clip(scale - gap, floor, 1).

  Source: PEAR, arXiv:2510.08026, from secondary notes; `scale` and `wrong` are not published there.
  Without a floor a right answer can score below a wrong one. [...], [...] -> [...].

  >>> print(pear_reward(jnp.array([True, True, False]), jnp.array([0.0, 0.5, 0.0])))
  [1.  0.5 0. ]
  """
  same_shape(correct=correct, gap=gap)
  right = jnp.clip(scale - as_float(gap), floor, 1.0)
  return jnp.where(correct.astype(bool), right, wrong)


def pear(
  *, alpha: float = 1.0, scale: float = 1.0, wrong: float = 0.0, floor: float = -math.inf
) -> Stage:
  """`pear_reward` of the `entropy_gap` between thinking and answer."""

  def apply(state, r: Rollouts):
    phases = phase_entropy(r.signals["entropy"], r.mask, r.signals["think_end"], places=r.places)
    gap = entropy_gap(*phases, alpha=alpha)
    return pear_reward(r.correct, gap, scale=scale, wrong=wrong, floor=floor), state

  return Stage(init=lambda: (), apply=apply, needs=("entropy", "think_end"))


def answer_truncation(*, base: Stage | None = None) -> Stage:
  """The reward counts if the answer ends within `budget.target` tokens: SIRI, arXiv:2509.25176.

  >>> answer_truncation().needs
  ('answer_length',)
  """
  return shaped(
    base,
    lambda rewards, r: truncated_reward(rewards, r.signals["answer_length"], r.budget.target),
    needs=("answer_length",),
    targets=budget_target("answer_truncation"),
  )
