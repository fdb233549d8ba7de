"""Stages of losses that couple the pairs of a batch, or remember batches before."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.losses.preference import adaptive
from lcrl.losses.preference import referenced as bare
from lcrl.losses.preference.reference_free import simpo_loss
from lcrl.losses.preference.rewards import implicit_reward
from lcrl.losses.preference.sequences import sequence_log_ratios
from lcrl.losses.preference.stages.parts import (
  SIDES,
  Map,
  given,
  log_probs_of,
  log_ratios_of,
  logistic,
  mean_over_pairs,
  means,
  sums,
)
from lcrl.losses.preference.unpaired import kto_baseline, kto_loss
from lcrl.masked import as_float, masked_mean, masked_sum
from lcrl.types import Stage, TokenScores

__all__ = ["aot", "bco", "beta_dpo", "kto", "lmpo"]

Array = jax.Array


def aot(*, beta: float = 0.01, link: Map | None = None, paired: bool = True) -> Stage:
  """Sorted over the batch, good values shall dominate: `aot_loss`. Source: arXiv:2406.05882.

  Paired: margins of the policy against those of the reference; else chosen log-ratios against
  rejected ones.

  >>> aot().needs, aot().coupled
  (('ref',), True)
  """
  ratios, values = log_ratios_of(sums()), log_probs_of(sums())

  def apply(state, scores, batch):
    u, v = ratios(scores, batch).T
    if paired:
      ref = TokenScores(given(batch.ref_log_probs, "ref"))
      u, v = (x[:, 0] - x[:, 1] for x in (values(scores, batch), values(ref, batch)))
    valid = batch.pairs.valid
    u, v = (jnp.where(valid, x, jnp.finfo(x.dtype).max) for x in (u, v))  # to the end of the order
    losses = bare.aot_loss(u, v, beta=beta, link=link or logistic())
    return masked_mean(losses, jnp.arange(len(losses)) < valid.sum()), state

  return _of_ratios(apply, scale=beta)


class Shift(NamedTuple):
  mean: Array  # [] float, of all rewards so far
  answers: Array  # [] int32, how many


def bco(*, beta: float = 0.1) -> Stage:
  """A classifier of single answers, around the mean of all rewards so far: `bco_loss`.

  Source: arXiv:2404.04656.

  >>> bco().needs, bco().coupled
  (('ref',), True)
  """
  ratios = log_ratios_of(sums())

  def apply(state: Shift, scores, batch):
    sides = ratios(scores, batch)
    rewards, valid = implicit_reward(sides, beta=beta), batch.pairs.valid[:, None]
    answers = state.answers + SIDES * valid.sum()
    total = state.mean * state.answers + masked_sum(rewards, valid)
    state = Shift(total / jnp.maximum(answers, 1), answers)
    losses = bare.bco_loss(sides[:, 0], sides[:, 1], beta=beta, shift=state.mean)
    return mean_over_pairs(losses, batch), state

  stage = _of_ratios(apply, scale=beta, init=lambda: Shift(jnp.zeros(()), jnp.int32(0)))
  return stage._replace(numbers=lambda state: {"bco/shift": state.mean})


def beta_dpo(
  *,
  beta: float = 0.1,
  scale: float = 0.6,
  drop: float = 0.2,
  decay: float = 0.9,
  least: float = 1e-3,
) -> Stage:
  """DPO with a beta of each batch, over its usual pairs: `dynamic_beta`, `typical_pairs`.

  Source: arXiv:2407.08639.
  """
  ratios = log_ratios_of(sums())

  def apply(state: adaptive.Moments, scores, batch):
    u, v = ratios(scores, batch).T
    valid = batch.pairs.valid
    state = adaptive.updated_moments(state, u - v, valid, decay=decay)
    keep = adaptive.typical_pairs(batch.keys[0], u - v, state, valid, drop=drop)
    scaled_beta = adaptive.dynamic_beta(u - v, keep, state, beta=beta, scale=scale, least=least)
    return mean_over_pairs(keep * bare.dpo_loss(u, v, beta=scaled_beta), batch), state

  stage = _of_ratios(apply, scale=beta, init=_moments)
  return stage._replace(numbers=_numbers("beta_dpo"))


def lmpo(
  *,
  beta: float = 2.0,
  margin: float = 0.25,
  weight: float = 0.2,
  power: int = 5,
  decay: float = 0.9,
) -> Stage:
  """SimPO with a margin that knows both lengths: `lmpo_margins`. Source: arXiv:2502.14643."""
  values = log_probs_of(means())

  def apply(state: adaptive.Moments, scores, batch):
    chosen, rejected = values(scores, batch).T
    lengths = batch.pairs.mask[:, :SIDES].sum(-1)
    term, state = adaptive.lmpo_margins(
      chosen,
      rejected,
      lengths[:, 0],
      lengths[:, 1],
      state,
      batch.pairs.valid,
      weight=weight,
      power=power,
      decay=decay,
    )
    losses = simpo_loss(chosen, rejected, beta=beta, margin=margin + term / beta)
    return mean_over_pairs(losses, batch), state

  rewards = lambda scores, batch: implicit_reward(values(scores, batch), beta=beta)
  return Stage(init=_moments, apply=apply, coupled=True, rewards=rewards, numbers=_numbers("lmpo"))


def kto(
  *, beta: float = 0.1, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Stage:
  """Chosen answers as good ones, rejected as bad: `kto_loss`. Source: arXiv:2402.01306.

  The baseline comes from a third side, another pair's answer to the prompt ("mismatched").
  """
  ratios = log_ratios_of(sums())

  def apply(state, scores, batch):
    ref, valid = given(batch.ref_log_probs, "ref"), batch.pairs.valid
    weights = as_float(batch.pairs.mask[:, SIDES])
    others = sequence_log_ratios(scores.log_probs[:, SIDES], ref[:, SIDES], weights)
    losses = kto_loss(
      ratios(scores, batch).reshape(-1),
      kto_baseline(others, valid),
      jnp.tile(jnp.array([True, False]), len(valid)),
      beta=beta,
      desirable_weight=desirable_weight,
      undesirable_weight=undesirable_weight,
    )
    return mean_over_pairs(losses.reshape(-1, SIDES).mean(-1), batch), state

  return _of_ratios(apply, scale=beta, needs=("ref", "mismatched"))


def _moments() -> adaptive.Moments:
  return adaptive.Moments(jnp.zeros(()), jnp.zeros(()))


def _numbers(name: str):
  return lambda moments: {f"{name}/{field}": x for field, x in moments._asdict().items()}


def _of_ratios(apply, *, scale: float, init=lambda: (), needs=("ref",)) -> Stage:
  values = log_ratios_of(sums())
  rewards = lambda scores, batch: implicit_reward(values(scores, batch), beta=scale)
  return Stage(init=init, apply=apply, needs=needs, coupled=True, rewards=rewards)
