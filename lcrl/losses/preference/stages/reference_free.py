"""Stages of losses that compare with no reference.

The bare functions, `simpo_loss` for `simpo`, are in `lcrl/losses/preference/reference_free.py`.
"""

from __future__ import annotations

from functools import partial

from lcrl.losses.preference import reference_free as bare
from lcrl.losses.preference import rewards
from lcrl.losses.preference.stages.parts import (
  Map,
  log_probs_of,
  logistic,
  means,
  of_pairs,
  sums,
  with_likelihood,
)
from lcrl.types import Stage

__all__ = ["alphapo", "cpo", "cpo_simpo", "orpo", "simpo", "slic"]


def simpo(
  *, beta: float = 2.0, margin: float = 0.25, link: Map | None = None, likelihood: float = 0.0
) -> Stage:
  """Mean log-probs as rewards, with a margin: `simpo_loss`. Source: arXiv:2405.14734.

  `margin` is the paper's gamma / beta.
  """
  loss = partial(bare.simpo_loss, beta=beta, margin=margin, link=link or logistic())
  return with_likelihood(of_pairs(log_probs_of(means()), loss, scale=beta), likelihood)


def cpo_simpo(
  *, beta: float = 10.0, margin: float = 0.54, link: Map | None = None, likelihood: float = 0.05
) -> Stage:
  """SimPO plus likelihood, weights `token_mean` as in the released code (fe1ixxu/CPO_SIMPO)."""
  return simpo(beta=beta, margin=margin, link=link, likelihood=likelihood)


def alphapo(
  *, alpha: float = 0.25, beta: float = 2.5, margin: float = 0.04, link: Map | None = None
) -> Stage:
  """SimPO of `power_reward`: alpha bends the rewards of unlikely answers.

  Source: arXiv:2501.03884.
  """
  means_of = log_probs_of(means())
  values = lambda scores, batch: rewards.power_reward(means_of(scores, batch), alpha=alpha)
  loss = partial(bare.simpo_loss, beta=beta, margin=margin, link=link or logistic())
  return of_pairs(values, loss, scale=beta)


def cpo(*, beta: float = 0.1, link: Map | None = None, likelihood: float = 1.0) -> Stage:
  """DPO with a uniform reference, plus likelihood: `cpo_loss`. Source: arXiv:2401.08417.

  >>> cpo().needs
  ('weights',)
  """
  loss = partial(bare.cpo_loss, beta=beta, link=link or logistic())
  return with_likelihood(of_pairs(log_probs_of(sums()), loss, scale=beta), likelihood)


def orpo(*, weight: float = 0.1, likelihood: float = 1.0) -> Stage:
  """Likelihood plus a log odds ratio: `orpo_loss`. Source: arXiv:2403.07691."""
  loss = partial(bare.orpo_loss, weight=weight)
  return with_likelihood(of_pairs(log_probs_of(means()), loss, scale=weight), likelihood)


def slic(*, margin: float = 1.0, likelihood: float = 0.1) -> Stage:
  """Hinge on summed log-probs plus likelihood (weights `sequence_sum` as in SLiC-HF): `slic_loss`.

  Source: arXiv:2305.10425.

  >>> slic().needs
  ('weights',)
  """
  loss = partial(bare.slic_loss, margin=margin)
  return with_likelihood(of_pairs(log_probs_of(sums()), loss), likelihood)
