"""Losses of a reward model, which gives an answer one number: of arrays, and as stages.

As a stage of a run="reward_model": apply(state, rewards [B, G], batch: PairBatch) -> (loss, state).
It `needs` "rejected", a second answer to each prompt, or "scores", what the data say all are worth.
A loss that needs "embeddings" gets those of a preference model in place of rewards, [B, G, 2K].
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lcrl.checks import one_or_each, same_shape
from lcrl.losses.preference.links import logistic_link
from lcrl.losses.preference.sequences import aligned, aligned_pairs
from lcrl.losses.preference.stages.parts import mean_over_pairs
from lcrl.preferences import preference_score
from lcrl.types import PairBatch, Stage

__all__ = [
  "bradley_terry_loss",
  "general_preference",
  "general_preference_loss",
  "pairwise",
  "regression",
  "score_regression_loss",
]

Array = jax.Array


def bradley_terry_loss(
  chosen_rewards: Array,
  rejected_rewards: Array,
  *,
  margin: float | Array = 0.0,
  centring: float = 0.0,
) -> Array:
  """The chosen answer's reward shall stand above the rejected one's.

    loss = -log sigmoid(r_c - r_w - margin) + centring * (r_c + r_w)^2

  Source: Bradley & Terry 1952; Ouyang et al. 2022, arXiv:2203.02155. It leaves a constant in the
  rewards free: `centring` holds their mean near 0 (Eisenstein et al. 2023, arXiv:2312.09244, there
  0.01). The margin is that of Llama 2, arXiv:2307.09288. [B] each -> [B].

  >>> print(f"{bradley_terry_loss(jnp.array(3.0), jnp.array(1.0), margin=2.0):.3f}")  # log 2
  0.693
  """
  chosen, rejected = aligned_pairs(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
  one_or_each(dict(chosen_rewards=chosen), margin=margin)
  return logistic_link(chosen - rejected - margin) + centring * (chosen + rejected) ** 2


def pairwise(*, margin: float = 0.0, centring: float = 0.0) -> Stage:
  """The mean of `bradley_terry_loss` over pairs."""
  loss = partial(bradley_terry_loss, margin=margin, centring=centring)

  def apply(state, rewards: Array, batch: PairBatch):
    return mean_over_pairs(loss(rewards[:, 0], rewards[:, 1]), batch), state

  return Stage(init=lambda: (), apply=apply, needs=("rejected",))


def general_preference_loss(chosen_embeddings: Array, rejected_embeddings: Array) -> Array:
  """The chosen answer shall be preferred to the rejected one, by no reward of either.

    loss = -log sigmoid(s(chosen, rejected)), s of `lcrl.preferences.preference_score`

  Preferences in a cycle, which no difference of rewards gives, cost it nothing. Source: arXiv:
  2410.02197. [B, 2K] each -> [B].

  >>> rock, paper = jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 1.0]])
  >>> print(general_preference_loss(paper, rock).round(3))  # log(1 + exp(-3))
  [0.049]
  """
  same_shape(chosen_embeddings=chosen_embeddings, rejected_embeddings=rejected_embeddings)
  return logistic_link(preference_score(chosen_embeddings, rejected_embeddings))


def general_preference() -> Stage:
  """The mean of `general_preference_loss` over pairs; the section `head` has the embeddings."""

  def apply(state, embeddings: Array, batch: PairBatch):
    return mean_over_pairs(
      general_preference_loss(embeddings[:, 0], embeddings[:, 1]), batch
    ), state

  return Stage(init=lambda: (), apply=apply, needs=("rejected", "embeddings"))


def score_regression_loss(rewards: Array, scores: Array, mask: Array) -> Array:
  """(r - score)^2, 0 where masked. [...] each -> [...].

  Source: least squares, as for the conciseness model of arXiv:2511.09158 (from secondary sources).

  >>> rewards, scores = jnp.array([[1.0, 3.0], [0.5, jnp.nan]])
  >>> print(score_regression_loss(rewards, scores, jnp.array([True, False])))
  [0.25 0.  ]
  """
  same_shape(rewards=rewards, scores=scores, mask=mask)
  rewards, scores = aligned(rewards=rewards, scores=scores)
  return jnp.where(mask, rewards - jnp.where(mask, scores, 0.0), 0.0) ** 2


def regression() -> Stage:
  """The mean of `score_regression_loss` over answers, against the `scores` of the data."""

  def apply(state, rewards: Array, batch: PairBatch):
    valid = jnp.broadcast_to(batch.pairs.valid[:, None], rewards.shape)
    errors = score_regression_loss(rewards, batch.pairs.scores, valid)
    return mean_over_pairs(errors.mean(-1), batch), state

  return Stage(init=lambda: (), apply=apply, needs=("scores",))
