"""Metrics of a reward model: the order of answers by reward, correlations with length."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lcrl.evaluation.intervals import Estimate, accuracy_estimate, mean_estimate
from lcrl.masked import masked_mean
from lcrl.preferences import preference_score
from lcrl.training.metrics import Mean
from lcrl.training.pairs.metrics import compare, correlation, step_means
from lcrl.types import PairBatch, Stage

Array = jax.Array


def pair_metrics(stage: Stage, rewards: Array, batch: PairBatch) -> dict[str, Array]:
  """The numbers of an evaluation for each answer [B, G]: rewards, data's scores, lengths, valid.

  A preference model has no rewards of single answers: half of a pair's log-odds stand for the
  chosen side's, and their negative for the rejected side's, so that margins are log-odds.
  """
  del stage
  pairs = batch.pairs
  if rewards.ndim == 3:
    half = preference_score(rewards[:, 0], rewards[:, 1]) / 2
    rewards = jnp.stack([half, -half], -1)
  lengths = pairs.mask.sum(-1)
  return {"rewards": rewards, "scores": pairs.scores, "lengths": lengths, "valid": pairs.valid}


def look(rewards: Array, scores: Array, lengths: Array, valid: Array) -> dict[str, Array]:
  """Statistics of answers under their rewards, and under the scores of the data if any.

    reward_length_correlation   Pearson, over all answers
    score_correlation           of rewards with the data's scores
    score_length_correlation    of the data's scores with length: a bias that a model can learn
    score_error                 root of the mean squared difference of rewards and scores

  Pairs add those of `pairs.metrics.compare`, and `longer_chosen`: the share of pairs of unlike
  length whose chosen side is the longer one. A perfect model has this as its `longer_preferred`.

  Args: rewards, scores, lengths [N, G]; valid [N] bool.
  """
  lengths = lengths.astype(rewards.dtype)
  every = jnp.broadcast_to(valid[:, None], rewards.shape)
  scored = every & jnp.isfinite(scores)
  scores = jnp.where(scored, scores, 0.0)
  statistics = {
    "reward": masked_mean(rewards, every),
    "length": masked_mean(lengths, every),
    "reward_length_correlation": correlation(rewards, lengths, every),
    "score_correlation": correlation(rewards, scores, scored),
    "score_length_correlation": correlation(scores, lengths, scored),
    "score_error": jnp.where(
      scored.any(), jnp.sqrt(masked_mean((rewards - scores) ** 2, scored)), jnp.nan
    ),
  }
  if rewards.shape[1] == 2:
    longer = jnp.sign(lengths[:, 0] - lengths[:, 1])
    statistics["longer_chosen"] = masked_mean((1 + longer) / 2, valid & (longer != 0))
    statistics |= compare(rewards, lengths, valid)
  return statistics


def update_measure(stage: Stage):
  """(loss, grads, rewards, batch) -> the metrics of a step."""

  def measure(loss, grads, rewards: Array, batch: PairBatch) -> dict[str, Mean]:
    statistics = look(**pair_metrics(stage, rewards, batch))
    return {
      "loss": Mean(loss, 1.0),
      "grad_norm": Mean(optax.tree.norm(grads), 1.0),
      "pairs": Mean(batch.pairs.valid.sum(), 1.0),
      "tokens": Mean(batch.pairs.mask.sum(), 1.0),
    } | step_means(statistics)

  return measure


def numbers(seen: dict[str, np.ndarray]) -> dict[str, Any]:
  """The statistics of all answers of an evaluation as JSON numbers; None where one is undefined."""
  statistics = {name: float(x) for name, x in jax.jit(look)(**seen).items()}
  return {name: x if np.isfinite(x) else None for name, x in statistics.items()}


def accuracy(seen: dict[str, np.ndarray]) -> Estimate:
  """How often the rewards order answers correctly; a tie counts half. In a pair the chosen answer
  must be above the rejected one; a single answer is compared with all others by data's scores."""
  rewards, scores = (seen[name][seen["valid"]] for name in ("rewards", "scores"))
  if rewards.shape[1] == 2:
    return accuracy_estimate((1 + np.sign(rewards[:, :1] - rewards[:, 1:])) / 2)
  return accuracy_estimate(*concordance(rewards[:, 0], scores[:, 0]))


def concordance(rewards: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """For each answer, the share of those with another score that the rewards order correctly, and
  whether there are any. [N], [N] -> [N, 1] each.

  >>> shares, there = concordance(np.array([1.0, 2.0, 0.0]), np.array([0.0, 0.0, 1.0]))
  >>> print(*shares[:, 0], there.all())
  0.0 0.0 0.0 True
  """
  order = np.sign(scores[:, None] - scores)
  right = (1 + np.sign(rewards[:, None] - rewards) * order) / 2
  others = (order != 0).sum(1)
  shares = np.where(order != 0, right, 0.0).sum(1) / np.maximum(others, 1)
  return shares[:, None], others[:, None] > 0


def preferred_length(seen: dict[str, np.ndarray]) -> Estimate:
  """Mean tokens of the preferred answers: of a pair the side with the higher reward (at a tie the
  mean of both), of single answers those with at least the median reward."""
  rewards, lengths = (seen[name][seen["valid"]] for name in ("rewards", "lengths"))
  if rewards.shape[1] == 2:
    best = rewards == rewards.max(1, keepdims=True)
    return mean_estimate((lengths * best).sum(1, keepdims=True) / best.sum(1, keepdims=True))
  return mean_estimate(lengths, rewards >= np.median(rewards))
