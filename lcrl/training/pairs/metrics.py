"""Metrics of a run on pairs: accuracy, margins, and correlations with length."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lcrl.masked import masked_mean, masked_sum
from lcrl.training.metrics import Mean, known
from lcrl.types import PairBatch, Stage, TokenScores

Array = jax.Array


def compare(rewards: Array, lengths: Array, valid: Array) -> dict[str, Array]:
  """Statistics of pairs under the implicit rewards of a policy.

    accuracy                    share of pairs whose chosen side has the higher reward, a tie half
    margin, margin_per_token    mean of r_c - r_w, and of r_c / length - r_w / length
    reward_length_correlation   Pearson, reward against length, over all answers
    margin_length_correlation   r_c - r_w against the difference of lengths, over pairs
    longer_preferred            share of pairs of unlike length whose longer side is preferred

  A correlation is nan where nothing varies.

  Args: rewards, lengths [N, 2]; valid [N] bool.
  """
  lengths = lengths.astype(rewards.dtype)
  margin, longer = rewards[:, 0] - rewards[:, 1], lengths[:, 0] - lengths[:, 1]
  per_token = rewards / jnp.maximum(lengths, 1)
  wins = (1 + jnp.sign(margin)) / 2
  both = jnp.broadcast_to(valid[:, None], rewards.shape)
  return {
    "accuracy": masked_mean(wins, valid),
    "margin": masked_mean(margin, valid),
    "margin_per_token": masked_mean(per_token[:, 0] - per_token[:, 1], valid),
    "reward_length_correlation": correlation(rewards, lengths, both),
    "margin_length_correlation": correlation(margin, longer, valid),
    "longer_preferred": masked_mean((1 + jnp.sign(margin * longer)) / 2, valid & (longer != 0)),
    "chosen_reward": masked_mean(rewards[:, 0], valid),
    "rejected_reward": masked_mean(rewards[:, 1], valid),
    "chosen_length": masked_mean(lengths[:, 0], valid),
    "rejected_length": masked_mean(lengths[:, 1], valid),
  }


def correlation(x: Array, y: Array, mask: Array) -> Array:
  """Pearson's correlation over the entries of `mask`; nan if x or y is constant.

  >>> x = jnp.array([1.0, 2.0, 4.0, 9.0])
  >>> print(f"{correlation(x, -x, x < 9):.2f}")
  -1.00
  """
  x, y = (jnp.where(mask, v - masked_mean(v, mask), 0.0) for v in (x, y))
  return jnp.sum(x * y) / jnp.sqrt(jnp.sum(x**2) * jnp.sum(y**2))


def pair_metrics(stage: Stage, scores: TokenScores, batch: PairBatch) -> dict[str, Array]:
  """The numbers of an evaluation for each side [B, G]: rewards, mean -log-prob, lengths, valid."""
  pairs = batch.pairs
  sides = min(pairs.mask.shape[1], 2)
  mask = pairs.mask[:, :sides]
  assert stage.rewards is not None
  return {
    "rewards": stage.rewards(scores, batch),
    "nll": -masked_mean(scores.log_probs[:, :sides], mask, -1),
    "lengths": mask.sum(-1),
    "valid": pairs.valid,
  }


def update_measure(stage: Stage):
  """(loss, grads, scores, batch) -> the metrics of a step."""

  def measure(loss, grads, scores: TokenScores, batch: PairBatch) -> dict[str, Mean]:
    mask = batch.pairs.mask[:, 0]
    metrics = {
      "loss": Mean(loss, 1.0),
      "grad_norm": Mean(optax.tree.norm(grads), 1.0),
      "nll": Mean(-masked_sum(scores.log_probs[:, 0], mask), mask.sum()),
      "pairs": Mean(batch.pairs.valid.sum(), 1.0),
      "tokens": Mean(batch.pairs.mask.sum(), 1.0),
    }
    sides = pair_metrics(stage, scores, batch)
    lengths, valid = sides["lengths"], sides["valid"]
    if lengths.shape[1] == 1:
      return metrics | {"length": Mean(masked_sum(lengths[:, 0], valid), valid.sum())}
    return metrics | step_means(compare(sides["rewards"], lengths, valid))

  return measure


def step_means(statistics: dict[str, Array]) -> dict[str, Mean]:
  """Metrics of a step. Those that may be undefined count only where they are finite."""
  may_lack = lambda name: name.endswith(("correlation", "score_error"))
  return {
    f"pairs/{name}": known(x) if may_lack(name) else Mean(x, 1.0) for name, x in statistics.items()
  }


def by_length(seen: dict[str, np.ndarray], *, parts: int = 8) -> dict[str, list[float]]:
  """Mean length and mean reward of all answers, in `parts` quantiles of length.

  >>> seen = {"lengths": np.array([[9, 1], [3, 7]]), "rewards": np.array([[4.0, 1], [2, 3]])}
  >>> by_length(seen | {"valid": np.array([True, True])}, parts=2)
  {'length': [2.0, 8.0], 'reward': [1.5, 3.5]}
  """
  lengths, rewards = (
    np.asarray(seen[name])[seen["valid"]].ravel() for name in ("lengths", "rewards")
  )
  cut = np.array_split(np.argsort(lengths, kind="stable"), min(parts, len(lengths)))
  means = [[float(x[at].mean()) for at in cut] for x in (lengths, rewards)]
  return dict(zip(("length", "reward"), means, strict=True))


def numbers(seen: dict[str, np.ndarray]) -> dict[str, Any]:
  """The statistics of all pairs of an evaluation as JSON numbers; None where one is undefined.

  likelihood_length_correlation relates an answer's mean log-prob to its length. Unlike correlations
  of rewards it is defined before training, when all implicit rewards are 0.
  """
  valid = seen["valid"]
  statistics: dict[str, Any] = {
    "nll": masked_mean(seen["nll"][:, 0], valid),
    "pairs": valid.sum(),
  }
  lengths = jnp.asarray(seen["lengths"], jnp.float32)
  every = jnp.broadcast_to(valid[:, None], lengths.shape)
  likelihood = -jnp.asarray(seen["nll"])
  statistics["likelihood_length_correlation"] = correlation(likelihood, lengths, every)
  if lengths.shape[1] == 2:
    statistics |= compare(*(jnp.asarray(seen[name]) for name in ("rewards", "lengths", "valid")))
  else:
    statistics["length"] = masked_mean(seen["lengths"][:, 0], valid)
  plain = {name: float(x) for name, x in statistics.items()}
  return {name: x if np.isfinite(x) else None for name, x in plain.items()}
