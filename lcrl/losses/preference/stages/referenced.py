"""Stages of losses that compare with a reference, pair by pair.

The bare functions, `dpo_loss` for `dpo`, are in `lcrl/losses/preference/referenced.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lcrl.losses.preference import adaptive
from lcrl.losses.preference import referenced as bare
from lcrl.losses.preference import sequences as seq
from lcrl.losses.preference.stages.parts import (
  SIDES,
  Map,
  Tokens,
  combined,
  desensitized,
  given,
  log_ratios_of,
  logistic,
  mean_over_pairs,
  means,
  nll,
  of_pairs,
  sampled,
  signal,
  sums,
  with_likelihood,
)
from lcrl.types import Stage

__all__ = [
  "apo_down",
  "apo_zero",
  "bco_pair",
  "dpo",
  "dpop",
  "inpo",
  "ipo",
  "ld_dpo",
  "ln_dpo",
  "longpo",
  "nca",
  "r_dpo",
  "rpo",
  "sampo",
  "sppo",
  "sppo_hard",
  "wpo",
]


def _of_ratios(loss: Callable, tokens: Tokens | None = None, *, scale: float) -> Stage:
  """The mean of loss(chosen log-ratios, rejected log-ratios)."""
  return of_pairs(log_ratios_of(tokens or sums()), loss, scale=scale, needs=("ref",))


def dpo(
  *,
  beta: float = 0.1,
  link: Map | None = None,
  tokens: Tokens | None = None,
  ref_tokens: Tokens | None = None,
  divergence: Map | None = None,
) -> Stage:
  """Direct preference optimisation: `dpo_loss`. Source: arXiv:2305.18290.

  Other links make it conservative, robust, RSO's hinge, EXO or DiscoPOP; other tokens LN-DPO,
  LD-DPO or SamPO; a divergence f-DPO (arXiv:2309.16240).

  Args:
    beta: inverse strength of the tie to the reference.
    link: loss of a scaled margin; `logistic`.
    tokens: how tokens count; `sums`.
    ref_tokens: how the reference's count; as the policy's.
    divergence: what takes the place of a log-ratio; the log-ratio.
  """
  ratios = log_ratios_of(tokens or sums(), ref_tokens)
  values = ratios if divergence is None else lambda scores, b: divergence(ratios(scores, b))
  loss = partial(bare.dpo_loss, beta=beta, link=link or logistic())
  return of_pairs(values, loss, scale=beta, needs=("ref",))


def ln_dpo(*, beta: float = 5.0, link: Map | None = None) -> Stage:
  """DPO of mean log-ratios; beta as in Tulu 3. Source: arXiv:2407.15229."""
  return dpo(beta=beta, link=link, tokens=means())


def ld_dpo(
  *, beta: float = 0.1, alpha: float = 0.5, link: Map | None = None, policy_only: bool = False
) -> Stage:
  """DPO that discounts what a side has beyond the other's length: `desensitized_weights`.

  `policy_only` leaves the reference's tokens at 1, as LLaMA-Factory and TRL before 0.29 do; a
  policy that equals its reference then has a margin. Source: arXiv:2409.06411.
  """
  ref_tokens = sums() if policy_only else None
  return dpo(beta=beta, link=link, tokens=desensitized(alpha=alpha), ref_tokens=ref_tokens)


def sampo(*, beta: float = 0.1, link: Map | None = None, two_draws: bool = False) -> Stage:
  """DPO over as many drawn tokens of the longer side as the shorter one has: `sampled_weights`.

  `two_draws` draws anew for the reference, as the released code does. Source: arXiv:2406.10957.
  """
  ref_tokens = sampled(draw=1) if two_draws else None
  return dpo(beta=beta, link=link, tokens=sampled(), ref_tokens=ref_tokens)


def r_dpo(*, beta: float = 0.1, alpha: float = 0.05, link: Map | None = None) -> Stage:
  """DPO with a price of alpha a token: `r_dpo_loss`. Source: arXiv:2403.19159."""
  loss = partial(bare.r_dpo_loss, beta=beta, alpha=alpha, link=link or logistic())
  lengths = lambda batch: batch.pairs.mask[:, :SIDES].sum(-1)
  return of_pairs(log_ratios_of(sums()), loss, scale=beta, needs=("ref",), also=lengths)


def ipo(*, tau: float = 0.1, tokens: Tokens | None = None) -> Stage:
  """A margin to reach and not to exceed, of means as its authors have it; of `sums` as the paper
  prints it: `ipo_loss`. Source: arXiv:2310.12036.

  >>> ipo(tau=0.05).needs
  ('ref',)
  """
  return _of_ratios(partial(bare.ipo_loss, tau=tau), tokens or means(), scale=tau)


def nca(*, beta: float = 0.01) -> Stage:
  """Holds the chosen answer up: `nca_loss`. Source: arXiv:2402.05369; Light-R1 has beta 0.3."""
  return _of_ratios(partial(bare.nca_loss, beta=beta), scale=beta)


def bco_pair(*, beta: float = 0.1) -> Stage:
  """BCO without its running shift, TRL's pair form: `bco_loss`. Source: arXiv:2404.04656.

  >>> bco_pair().needs
  ('ref',)
  """
  return _of_ratios(partial(bare.bco_loss, beta=beta), scale=beta)


def apo_zero(*, beta: float = 0.1) -> Stage:
  """Chosen up, rejected down: `apo_zero_loss`. Source: arXiv:2408.06266.

  >>> apo_zero().needs
  ('ref',)
  """
  return _of_ratios(partial(bare.apo_zero_loss, beta=beta), scale=beta)


def apo_down(*, beta: float = 0.1) -> Stage:
  """Both down, rejected further: `apo_down_loss`. Source: arXiv:2408.06266.

  >>> apo_down().needs
  ('ref',)
  """
  return _of_ratios(partial(bare.apo_down_loss, beta=beta), scale=beta)


def dpop(*, beta: float = 0.1, penalty: float = 50.0, link: Map | None = None) -> Stage:
  """DPO that minds a falling chosen likelihood: `dpop_loss`. Source: arXiv:2402.13228.

  >>> dpop(penalty=5.0).needs
  ('ref',)
  """
  loss = partial(bare.dpop_loss, beta=beta, penalty=penalty, link=link or logistic())
  return _of_ratios(loss, scale=beta)


def rpo(*, beta: float = 0.01, link: Map | None = None, likelihood: float = 0.005) -> Stage:
  """DPO plus likelihood: RPO (arXiv:2405.16436) with weights `token_mean`; iterative RPO
  (arXiv:2404.19733) with `sequence_mean`, beta 0.1 and likelihood 1."""
  return with_likelihood(dpo(beta=beta, link=link), likelihood)


def longpo(*, beta: float = 0.01, weight: float = 0.01, link: Map | None = None) -> Stage:
  """Likelihood plus DPO whose reference read a short context. Source: arXiv:2502.13922.

  The data show the reference the short prompt: signals reference_tokens and reference_mask.
  """
  terms = {"dpo": dpo(beta=beta, link=link), "nll": nll()}
  stage = combined(by={"dpo": weight, "nll": 1.0}, **terms)
  return stage._replace(needs=(*stage.needs, "reference_tokens"))


def wpo(*, beta: float = 0.01, link: Map | None = None, most: float | None = 1.0) -> Stage:
  """DPO weighted by how much a pair looks like the policy's own: `wpo_weights`.

  Source: arXiv:2406.11827.
  """
  plain, ratios = dpo(beta=beta), log_ratios_of(sums())
  loss = partial(bare.dpo_loss, beta=beta, link=link or logistic())

  def apply(state, scores, batch):
    fields = (scores.log_probs, scores.log_sum_sq, batch.pairs.mask)
    weights = adaptive.wpo_weights(*(x[:, i] for x in fields for i in range(SIDES)), most=most)
    sides = ratios(scores, batch)
    return mean_over_pairs(weights * loss(sides[:, 0], sides[:, 1]), batch), state

  return plain._replace(apply=apply, needs=("ref", "log_sum_sq"))


def sppo(*, beta: float = 1e-3) -> Stage:
  """Log-ratios are drawn to win rates, signal win_rates [B, 2]: `sppo_loss`.

  Source: arXiv:2405.00675.
  """
  loss, wins = partial(bare.sppo_loss, beta=beta), lambda batch: signal(batch, "win_rates")
  needs = ("ref", "win_rates")
  return of_pairs(log_ratios_of(sums()), loss, scale=beta, needs=needs, also=wins)


def sppo_hard(*, beta: float = 1e-3) -> Stage:
  """SPPO with win rates 1 and 0: `sppo_hard_loss`.

  >>> sppo_hard().needs
  ('ref',)
  """
  return _of_ratios(partial(bare.sppo_hard_loss, beta=beta), scale=beta)


def inpo(*, tau: float = 2.5e-3, eta: float = 7.5e-3) -> Stage:
  """IPO against a mixture of reference and previous iterate: `inpo_reference`.

  Source: arXiv:2407.00617.
  """
  weigh = sums()

  def values(scores, batch):
    mixed = bare.inpo_reference(
      given(batch.ref_log_probs, "ref"),
      given(batch.previous_log_probs, "previous"),
      tau=tau,
      eta=eta,
    )
    weights = weigh(batch.pairs.mask[:, :SIDES], batch.keys)
    return seq.sequence_log_ratios(scores.log_probs[:, :SIDES], mixed[:, :SIDES], weights)

  return of_pairs(values, partial(bare.ipo_loss, tau=eta), scale=eta, needs=("ref", "previous"))
