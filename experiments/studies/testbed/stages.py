"""What the study adds to the library's stages: a choice by number, and signals read off tokens.

A method is a row of numbers here, so that one compiled program serves all of them: every stage is
evaluated for every run, which costs little beside the model, and the run's own is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from experiments import testbed
from lcrl import rewards
from lcrl.advantages import component_average_advantage
from lcrl.masked import as_float, masked_sum
from lcrl.rewards.references import Reference
from lcrl.tasks.sums import ANSWER, EQUALS, LABEL, PLUS, ZERO, Sums
from lcrl.training.rl import cropping
from lcrl.training.scorer import Score
from lcrl.types import Outcome, PyTree, Rollouts, Stage

UNIT = 128  # a token here stands for that many of a language model's


def chosen(stages: Sequence[Stage], index: jax.Array) -> Stage:
  """All the stages, and the output of number `index`, which may be traced."""

  def apply(states, *inputs, **named):
    pairs = [s.apply(t, *inputs, **named) for s, t in zip(stages, states, strict=True)]
    outputs, new = zip(*pairs, strict=True)
    return pick(outputs, index), new

  def observe(states, monitor):
    return tuple(
      stage.observe(state, monitor) if stage.observe else state
      for stage, state in zip(stages, states, strict=True)
    )

  return Stage(
    init=lambda: tuple(stage.init() for stage in stages),
    apply=apply,
    needs=tuple(dict.fromkeys(name for stage in stages for name in stage.needs)),
    observe=observe,
    coupled=any(stage.coupled for stage in stages),
  )


def pick(outputs: Sequence[PyTree], index: jax.Array) -> PyTree:
  """Number `index` of equal trees of arrays."""
  return jax.tree.map(lambda *xs: jnp.stack(xs)[index], *outputs)


def tokenwise(stage: Stage) -> Stage:
  """An advantage stage that gives one number a token, [B, G, T]."""

  def apply(state, reward, keep, r: Rollouts):
    advantages, state = stage.apply(state, reward, keep, r)
    if advantages.ndim == 2:
      advantages = jnp.where(r.mask, advantages[..., None], 0.0)
    return advantages, state

  return stage._replace(apply=apply)


def magnified(stage: Stage) -> Stage:
  """A reward stage that sees every length `UNIT` times as long, as LASER-D's thresholds ask for."""
  longer = lambda r: dataclasses.replace(r, lengths=UNIT * r.lengths)
  observe = stage.observe
  return stage._replace(
    apply=lambda state, r: stage.apply(state, longer(r)),
    observe=observe and (lambda state, monitor: observe(state, longer(monitor))),
  )


# -- Stages that the library has as bare functions only, or whose signal the study stands in for.


def _stateless(apply: Callable) -> Stage:
  return Stage(init=lambda: (), apply=lambda state, *inputs: (apply(*inputs), state))


def o1_pruner(*, accuracy_weight: float) -> Stage:
  """`rewards.o1_pruner_reward` against answers of the start policy, drawn once before training."""
  return _stateless(
    lambda r: rewards.o1_pruner_reward(
      r.correct,
      r.lengths,
      r.signals["ref_correct"],
      r.signals["ref_lengths"],
      accuracy_weight=accuracy_weight,
      low=-2.0,
      high=4.0,
    )
  )


def in_range(*, low: int, high: float, max_length: float) -> Stage:
  """LongWriter-Zero: advantages of the verdict and of a length range, averaged; one range for all
  stands in for the judge's."""

  def apply(reward, keep, r: Rollouts):
    bounds = (jnp.full(r.lengths.shape, bound, jnp.float32) for bound in (low, high))
    ranged = rewards.length_range_reward(r.lengths, *bounds, max_length=max_length)
    return component_average_advantage(jnp.stack([as_float(reward), ranged]), keep)

  return _stateless(apply)


# -- What the task tells about a response, as pure functions of its tokens.


def signals(rollouts: Rollouts, sums: Sums) -> dict[str, jax.Array]:
  """Where thinking ends, what is formed well, what repeats, how much was needed; [B, G] each."""
  said, lengths = testbed.responses(rollouts)
  at = jnp.arange(said.shape[-1]).reshape(1, 1, -1)
  marks = (said == ANSWER) & (at < lengths[..., None])
  ends = jnp.any(marks, -1)
  think_end = jnp.where(ends, jnp.argmax(marks, -1), -1)
  has_think = jnp.any((said == EQUALS) & (at < lengths[..., None]), -1)
  repeated = rewards.repetition_reward(rollouts.tokens, rollouts.mask, ngram=5, max_penalty=1.0)
  answered = jnp.where(ends, jnp.minimum(think_end + 1 + sums.width, lengths), lengths)
  return {
    "think_end": think_end,
    "has_think": has_think & ends,
    "has_answer": rollouts.outcome != Outcome.BAD_FORMAT,
    "answer_length": answered,
    "unrepeated": repeated == 0,
    "brief": lengths <= sums.response_length // 3,
    "conciseness": 1.0 - repeated,  # stands in for a reward model's score
    "needed": needed(said, lengths, rollouts.difficulty[:, None], sums),
  }


def needed(said: jax.Array, lengths: jax.Array, difficulty: jax.Array, sums: Sums) -> jax.Array:
  """Tokens of thinking up to the end of the first step that took the last operand, 0 if none did.

  [B, G, T], [B, G], [B, 1] -> [B, G].
  """
  at = jnp.arange(said.shape[-1]).reshape(1, 1, -1)
  label = said >= LABEL
  step = jax.lax.cummax(jnp.where(label, at, -1), axis=2)  # where the step began
  first = jnp.take_along_axis(said, jnp.maximum(step, 0), -1) - LABEL
  pluses = jnp.cumsum(said == PLUS, -1)
  taken = pluses - jnp.take_along_axis(pluses, jnp.maximum(step, 0), -1)
  there = (said == EQUALS) & (step >= 0) & (at + sums.width < lengths[..., None])
  covers = there & (first + taken >= difficulty[..., None])
  end = jnp.argmax(covers, -1) + 1 + sums.width
  return jnp.where(jnp.any(covers, -1), end, 0)


def step_cuts(r: Rollouts, sums: Sums) -> jax.Array:
  """Tokens up to the start and to the end of one step of each response.

  Rollout g of prompt i takes step i + g, modulo its steps. [B, G, 2] int32; 0 without a step.
  """
  said, lengths = testbed.responses(r)
  ends = (said == EQUALS) & (_positions(said) + 1 < lengths[..., None])
  count = jnp.cumsum(ends, -1)
  steps = count[..., -1]
  place = r.prompt_ids[:, None] + jnp.arange(steps.shape[1])[None]
  after = jnp.where(steps > 0, place % jnp.maximum(steps, 1) + 1, 0)
  after = jnp.stack([jnp.maximum(after - 1, 0), after], -1)  # the number of steps that are kept
  here = ends[:, :, None] & (count[:, :, None] == after[..., None])
  return jnp.where(after > 0, jnp.argmax(here, -1) + 1 + sums.width, 0)


def budget_cuts(r: Rollouts, think_end: jax.Array, budgets: Sequence[int]) -> jax.Array:
  """Tokens of thinking that each budget leaves. [B, G], [B, G] -> [B, G, S]."""
  thinking = jnp.where(think_end < 0, r.lengths, think_end)
  return jnp.stack([jnp.minimum(thinking, budget) for budget in budgets], -1)


def prefix_values(
  score: Score, params: PyTree, r: Rollouts, answers: jax.Array, kept: jax.Array, sums: Sums
) -> jax.Array:
  """Chance of the right answer, given at once after `kept` [B, G, K] tokens. [B, G, K]; 0 where a
  row has no room for it."""
  if sums.width != 1:
    raise ValueError(f"answers must have one digit, got {sums.width}.")
  at, start = _positions(r.tokens), jnp.argmax(r.mask, -1)
  place = at[:, :, None] - (start[..., None] + kept)[..., None]  # [B, G, K, T], from the cut on
  tokens = jnp.where(place == 0, ANSWER, jnp.broadcast_to(r.tokens[:, :, None], place.shape))
  tokens = jnp.where(place == 1, ZERO + answers[..., None, None], tokens)
  mask = place == 1
  rows = testbed.Demonstrations(jnp.where(place > 1, sums.pad_id, tokens), mask)
  flat = jax.tree.map(lambda x: x.reshape(x.shape[0], -1, x.shape[-1]), rows)
  log_probs = score(params, flat).log_probs.reshape(place.shape)  # type: ignore[arg-type]
  return jnp.where(mask.any(-1), jnp.exp(masked_sum(log_probs, mask, -1)), 0.0)


def _positions(tokens: jax.Array) -> jax.Array:
  return jax.lax.broadcasted_iota(jnp.int32, tokens.shape, 2)


# -- What changes rollouts after they were verified, and verifies them again.

Revise = Callable[[Rollouts, jax.Array], Rollouts]  # rollouts, right answers [B, G]


def as_sampled(rollouts: Rollouts, answers: jax.Array) -> Rollouts:
  del answers
  return rollouts


def outliers_cut(*, alpha: float, sums: Sums, margin: float = 2) -> Revise:
  """DOT: the longest of a group that is all right lose their end, and with it their verdict."""

  def revise(r: Rollouts, answers):
    kept = cropping.outlier_kept_length(r.correct, r.lengths, r.valid, alpha=alpha, margin=margin)
    return testbed.verified(cropping.cropped(r, kept), answers, sums=sums)

  return revise


def waste_cut(*, sums: Sums) -> Revise:
  """LC-R1: right answers lose the thinking after the step that reached the answer."""

  def revise(r: Rollouts, answers):
    told = signals(r, sums)
    waste = jnp.where(told["needed"] > 0, told["think_end"] - told["needed"], 0)
    waste = jnp.where(r.correct & (told["think_end"] >= 0), jnp.maximum(waste, 0), 0)
    place = jnp.cumsum(r.mask, -1) - 1
    beyond = (place >= told["needed"][..., None]) & r.mask
    at = jax.lax.broadcasted_iota(jnp.int32, r.tokens.shape, 2)
    source = jnp.minimum(at + jnp.where(beyond, waste[..., None], 0), r.tokens.shape[-1] - 1)
    there = r.mask & (place < (r.lengths - waste)[..., None])
    take = lambda x: jnp.take_along_axis(x, source, -1)
    prompt = at < jnp.argmax(r.mask, -1, keepdims=True)
    shorter = dataclasses.replace(
      r,
      tokens=jnp.where(there | prompt, take(r.tokens), sums.pad_id),
      mask=there,
      sampler_log_probs=jnp.where(there, take(r.sampler_log_probs), 0.0),
      lengths=jnp.sum(there, -1, dtype=r.lengths.dtype),
    )
    return testbed.verified(shorter, answers, sums=sums)

  return revise


def scaled(reference: Reference, scale) -> Reference:
  """`scale`, which may be traced, times the reference."""
  return reference._replace(read=lambda state, r: scale * reference.read(state, r))
