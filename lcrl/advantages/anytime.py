"""Thinking that can be stopped at several budgets: what each part of it adds to later answers."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lcrl.checks import ascending, same_groups, typed
from lcrl.masked import as_float, masked_mean
from lcrl.types import Rollouts, Stage

__all__ = ["budget_advantages", "budget_relative"]


def budget_advantages(
  scores: jax.Array, keep: jax.Array, *, weights: Sequence[float] | None = None
) -> jax.Array:
  """Advantages of the parts of a thinking that end at budgets s = 0 .. S - 1.

    R_s = sum over j >= s of p_j score_j              p: the weights, divided by their sum
    A_s = R_s - (s V_s + (S - s) mean of R_s over the group) / S
    V_s = sum of p_j over j >= s * mean of score_j over j < s, weighted by 2^j

  So the first part is compared with its group, and a later one more and more with what its own
  thinking scored before. Source: BRPO of AnytimeReasoner, arXiv:2505.13438, and its code, which
  gives a group of one the baseline 0 for its mean, where this gives no advantage.

  Args:
    scores: [..., B, G, S], how often answers at each budget are right.
    keep: [..., B, G] bool.
    weights: S of them, of the budgets; None: equal ones.
  Returns: [..., B, G, S] float, 0 without keep.

  >>> scores = jnp.array([[[0.0, 1.0], [0.0, 0.0]]])
  >>> print(budget_advantages(scores, jnp.ones((1, 2), bool)))
  [[[ 0.25   0.375]
    [-0.25  -0.125]]]
  """
  typed(scores=scores)
  same_groups(keep=keep)
  if scores.shape[:-1] != keep.shape:
    raise ValueError(f"scores must be {keep.shape}, as keep is, and budgets, got {scores.shape}.")
  count = scores.shape[-1]
  weights = [1.0] * count if weights is None else list(weights)
  if len(weights) != count or min(weights) < 0 or not sum(weights) > 0:
    raise ValueError(f"weights must be {count} numbers of at least 0, not all 0, got {weights}.")
  at = jnp.moveaxis(jnp.where(keep[..., None], as_float(scores), 0.0), -1, 0)
  share = [weight / sum(weights) for weight in weights]

  def part(s: int) -> jax.Array:
    returns = sum(p * x for p, x in zip(share[s:], at[s:], strict=True))
    group = masked_mean(returns, keep, -1, keepdims=True)
    own = sum(2.0**j * at[j] for j in range(s)) / max(2.0**s - 1, 1) * sum(share[s:])
    return returns - (s * own + (count - s) * group) / count

  compared = keep & (jnp.sum(keep, -1, keepdims=True) > 1)
  return jnp.where(compared[..., None], jnp.stack([part(s) for s in range(count)], -1), 0.0)


def budget_relative(*, budgets: Sequence[int], weights: Sequence[float] | None = None) -> Stage:
  """`budget_advantages` at the thinking's tokens of each part, with the token that ends it;
  the answer's tokens get their own verdict minus the last score. [B, G, T].

  The reward must be the verdict. A response that ends in an earlier part has no tokens in later
  ones. Source: AnytimeReasoner, arXiv:2505.13438, and its code, where the answers that are forced
  at a budget train, too, each against the mean of them; here they are only scored, and the
  response's own answer trains against that mean.

  Args:
    budgets: where the parts end, ascending; those of `revise.fn="answer_at_budgets"`, which gives
      the signal `budget_scores` [B, G, S].
    weights: see `budget_advantages`.
  """
  ascending(budgets=budgets)

  def apply(state, rewards, keep, r: Rollouts):
    scores = r.signals["budget_scores"]
    if scores.shape[-1] != len(budgets):
      raise ValueError(
        f"budget_scores are at {scores.shape[-1]} budgets, advantage.budgets={tuple(budgets)}."
      )
    parts = budget_advantages(scores, keep, weights=weights)
    part = sum((r.places >= budget).astype(jnp.int32) for budget in budgets)
    end = r.signals["think_end"][..., None]
    thinks = (end < 0) | (r.places <= end)
    thinking = jnp.take_along_axis(parts, jnp.minimum(part, len(budgets) - 1), -1)
    thinking = jnp.where(part < len(budgets), thinking, 0.0)
    answer = (as_float(rewards) - scores[..., -1])[..., None]
    trains = r.mask & keep[..., None]
    return jnp.where(trains, jnp.where(thinks, thinking, answer), 0.0), state

  return Stage(lambda: (), apply, needs=("budget_scores", "think_end", "group"))
