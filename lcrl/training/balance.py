"""The load-balance loss of a policy with experts, and its metric.

    loss + coefficient * sum over tokens of weight * balance

The weights are those of the tokens that train: so the sum adds over pieces of a batch, in each of
which the experts' loads are counted anew.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from lcrl.policies import Policy
from lcrl.training.metrics import Mean
from lcrl.types import Batch, Stage, TokenScores

BALANCE = "balance"  # the field of TokenScores


def fields(policy: Policy, coefficient: float) -> tuple[str, ...]:
  """What the scorer of an update gives besides what its loss needs.

  Raises:
    ValueError: there is a coefficient, and the policy has no experts.
  """
  if coefficient and not policy.config.experts:
    raise ValueError(f"train.balance={coefficient} balances experts, of which the policy has none.")
  return (BALANCE,) if policy.config.experts else ()


def balanced(loss: Stage, coefficient: float) -> Stage:
  """The loss with the load-balance loss of `experts.balance`; itself for 0."""
  if not coefficient:
    return loss

  def apply(state: Any, scores: TokenScores, batch: Any):
    assert scores.balance is not None  # the scorer was asked for it
    value, state = loss.apply(state, scores, batch)
    return value + coefficient * jnp.sum(shares(batch) * scores.balance), state

  return loss._replace(apply=apply)


def metrics(scores: Any, batch: Any) -> dict[str, Mean]:
  """ "router/balance", the mean over what trains; nothing without experts."""
  if getattr(scores, BALANCE, None) is None:  # a reward model's scores are an array
    return {}
  weights = shares(batch)
  return {"router/balance": Mean(jnp.sum(weights * scores.balance), weights.sum())}


def shares(batch: Any) -> jax.Array:
  """Each token's weight [B, G, T]: that of a Batch; or a mean over pairs, sides and tokens."""
  if isinstance(batch, Batch):
    return batch.weights
  mask = batch.pairs.mask
  each = batch.weights[:, None] / (mask.shape[1] * jnp.maximum(mask.sum(-1), 1))
  return jnp.where(mask, each[..., None], 0.0)
