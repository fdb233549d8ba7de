"""Pair losses without a reference model, and the likelihood term that keeps them in place.

`chosen_means` and `rejected_means` are mean token log-probs (`sequence_log_probs` over
`mean_weights`), `chosen_sums` and `rejected_sums` their sums, [...] each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lcrl.checks import one_or_each, positive
from lcrl.losses.preference.links import logistic_link
from lcrl.losses.preference.sequences import aligned_pairs, sequence_log_probs

__all__ = ["combined_loss", "cpo_loss", "nll_loss", "orpo_loss", "simpo_loss", "slic_loss"]

Array = jax.Array
Link = Callable[[Array], Array]


def simpo_loss(
  chosen_means: Array,
  rejected_means: Array,
  *,
  beta: float = 2.0,
  margin: float | Array = 0.25,
  link: Link = logistic_link,
) -> Array:
  """The mean log-prob itself as reward, with a margin to win by.

    loss = link(beta * (chosen mean - rejected mean - margin))

  `margin` is the paper's gamma / beta; TRL's and LLaMA-Factory's `gamma` is beta * margin. Plus
  `nll_loss` it is CPO-SimPO; over `power_reward` of the means, AlphaPO.

  Source: SimPO, Meng et al. 2024, arXiv:2405.14734. [...] each -> [...].

  >>> print(simpo_loss(jnp.array([-1.0]), jnp.array([-1.5]), link=jnp.negative))
  [-0.5]
  """
  positive(beta=beta)
  chosen, rejected = aligned_pairs(chosen_means=chosen_means, rejected_means=rejected_means)
  one_or_each(dict(chosen_means=chosen), margin=margin)
  return link(beta * (chosen - rejected - margin))


def cpo_loss(
  chosen_sums: Array, rejected_sums: Array, *, beta: float = 0.1, link: Link = logistic_link
) -> Array:
  """link(beta * (chosen sum - rejected sum)): DPO with a uniform reference.

  The paper adds `nll_loss` of the chosen answers, weight 1. Source: CPO, arXiv:2401.08417.
  [...] each -> [...].

  >>> print(cpo_loss(jnp.array([-4.0]), jnp.array([-9.0]), beta=1.0).round(4))
  [0.0067]
  """
  positive(beta=beta)
  chosen, rejected = aligned_pairs(chosen_sums=chosen_sums, rejected_sums=rejected_sums)
  return link(beta * (chosen - rejected))


def slic_loss(chosen_sums: Array, rejected_sums: Array, *, margin: float = 1.0) -> Array:
  """max(0, margin - chosen sum + rejected sum); SLiC-HF adds `nll_loss` over `sum_weights`.

  Source: SLiC-HF, arXiv:2305.10425. [...] each -> [...].

  >>> print(slic_loss(jnp.array([-4.0, -4.0]), jnp.array([-9.0, -4.5])))
  [0.  0.5]
  """
  chosen, rejected = aligned_pairs(chosen_sums=chosen_sums, rejected_sums=rejected_sums)
  return jnp.maximum(0.0, margin - chosen + rejected)


def orpo_loss(chosen_means: Array, rejected_means: Array, *, weight: float = 0.1) -> Array:
  """Log odds ratio of the two answers; ORPO adds `nll_loss` of the chosen one, weight 1.

    loss = -weight * log sigmoid(logit(chosen) - logit(rejected)),  logit(a) = a - log(1 - exp(a))

  Means are held below -1e-7: an answer of certain tokens has infinite odds.
  Source: ORPO, arXiv:2403.07691. [...] each -> [...].

  >>> even = jnp.log(jnp.array([0.5]))
  >>> print(orpo_loss(even, even, weight=1.0).round(3))
  [0.693]
  """
  chosen, rejected = aligned_pairs(chosen_means=chosen_means, rejected_means=rejected_means)
  return -weight * jax.nn.log_sigmoid(_log_odds(chosen) - _log_odds(rejected))


def _log_odds(log_p: Array) -> Array:
  log_p = jnp.minimum(log_p, -1e-7)
  near = log_p > -0.6931472  # close to 1, where 1 - exp(log_p) cancels
  few = jnp.log(-jnp.expm1(jnp.where(near, log_p, -1.0)))
  many = jnp.log1p(-jnp.exp(jnp.where(near, -1.0, log_p)))
  return log_p - jnp.where(near, few, many)


def nll_loss(log_probs: Array, weights: Array) -> Array:
  """Negative weighted log-likelihood of each answer. [..., T] each -> [...].

  Weights choose the norm: `mean_weights` (iterative RPO, LongPO), `batch_mean_weights` (RPO, CPO
  and ORPO as in TRL: long answers count more), `sum_weights` (SLiC-HF).

  >>> print(nll_loss(jnp.array([-1.0, -3.0]), jnp.array([0.5, 0.5])))
  2.0
  """
  return -sequence_log_probs(log_probs, weights)


def combined_loss(*terms: tuple[float, Array]) -> Array:
  """Sum of weight * loss over terms, [...] each.

  RPO, iterative RPO: (1, dpo_loss), (weight, nll_loss). CPO, ORPO, SLiC-HF: with their `nll_loss`.
  LongPO: (1, nll_loss), (0.01, dpo_loss) of the long context, its reference on the short one.

  >>> print(combined_loss((1.0, jnp.ones(2)), (0.5, jnp.array([2.0, 4.0]))))
  [2. 3.]
  """
  if not terms:
    raise ValueError("combined_loss needs at least one (weight, loss).")
  losses = aligned_pairs(**{f"loss {i}": loss for i, (_, loss) in enumerate(terms)})
  return functools.reduce(jnp.add, [w * x for (w, _), x in zip(terms, losses, strict=True)])
