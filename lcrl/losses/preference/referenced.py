"""Pair losses against a reference model: two log-ratios in, one value a pair out.

`chosen_log_ratios` is u, `rejected_log_ratios` is v (`sequence_log_ratios`), [B] each, or [] for
one pair; h = u - v. Log-ratios of tokens, [B, T], are refused: how tokens are weighted and summed
is up to the caller. The stages, `dpo` for `dpo_loss`, are in `stages/referenced.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lcrl.checks import one_or_each, positive
from lcrl.losses.preference.links import logistic_link
from lcrl.losses.preference.sequences import aligned, aligned_pairs
from lcrl.sharding import ordered

__all__ = [
  "aot_loss",
  "apo_down_loss",
  "apo_zero_loss",
  "bco_loss",
  "dpo_loss",
  "dpop_loss",
  "inpo_reference",
  "ipo_loss",
  "nca_loss",
  "r_dpo_loss",
  "sppo_hard_loss",
  "sppo_loss",
]

Array = jax.Array
Link = Callable[[Array], Array]


def _ratios(chosen_log_ratios: Array, rejected_log_ratios: Array, **scales) -> list[Array]:
  positive(**scales)
  return aligned_pairs(chosen_log_ratios=chosen_log_ratios, rejected_log_ratios=rejected_log_ratios)


def dpo_loss(
  chosen_log_ratios: Array,
  rejected_log_ratios: Array,
  *,
  beta: float | Array = 0.1,
  link: Link = logistic_link,
) -> Array:
  """Direct preference optimisation: link(beta * h), -log sigmoid(beta * h) by default.

  Every token of a pair gets the same gradient, so long answers move most: the root of DPO's length
  bias. `mean_weights` remove it (LN-DPO; wants beta of 2 to 5), `desensitized_weights` shrink it.

  Source: arXiv:2305.18290; over means: arXiv:2407.15229.

  Args:
    chosen_log_ratios, rejected_log_ratios: [...].
    beta: inverse strength of the tie to the reference.
    link: loss of a scaled margin.
  Returns: [...].

  >>> print(f"{dpo_loss(jnp.array(10.0), jnp.array(0.0)):.3f}")
  0.313
  """
  u, v = _ratios(chosen_log_ratios, rejected_log_ratios, beta=beta)
  one_or_each(dict(chosen_log_ratios=u), beta=beta)
  return link(beta * (u - v))


def r_dpo_loss(
  chosen_log_ratios: Array,
  rejected_log_ratios: Array,
  chosen_lengths: Array,
  rejected_lengths: Array,
  *,
  beta: float = 0.1,
  alpha: float = 0.05,
  link: Link = logistic_link,
) -> Array:
  """DPO for the reward r - alpha * length: a longer chosen answer trains less, a shorter one more.

    loss = link(beta * h + alpha * (chosen length - rejected length))

  alpha * length saturates the link for answers that differ by hundreds of tokens.
  Source: R-DPO, Park et al. 2024, arXiv:2403.19159. [...] each -> [...].

  >>> ratios, lengths = jnp.zeros(2), jnp.array([100, 60])
  >>> print(r_dpo_loss(ratios, ratios, lengths, jnp.array([60, 100])).round(3))
  [0.127 2.127]
  """
  positive(beta=beta)
  u, v, chosen, rejected = aligned_pairs(
    chosen_log_ratios=chosen_log_ratios,
    rejected_log_ratios=rejected_log_ratios,
    chosen_lengths=chosen_lengths,
    rejected_lengths=rejected_lengths,
  )
  return link(beta * (u - v) + alpha * (chosen - rejected))


def ipo_loss(chosen_log_ratios: Array, rejected_log_ratios: Array, *, tau: float = 0.1) -> Array:
  """(h - 1 / (2 tau))^2: a margin to reach, not to exceed. [...] each -> [...].

  Over `sum_weights` this is the paper's form, over `mean_weights` the one its authors use (the
  target then is per token). Source: IPO, arXiv:2310.12036.

  >>> print(ipo_loss(jnp.array([5.0]), jnp.array([0.0]), tau=0.1))
  [0.]
  """
  u, v = _ratios(chosen_log_ratios, rejected_log_ratios, tau=tau)
  return (u - v - 1 / (2 * tau)) ** 2


def inpo_reference(
  ref_log_probs: Array, previous_log_probs: Array, *, tau: float = 2.5e-3, eta: float = 7.5e-3
) -> Array:
  """INPO is `ipo_loss(tau=eta)` against a geometric mixture of reference and previous iterate.

    log_prob = (tau / eta) * reference + (1 - tau / eta) * previous

  Source: INPO, arXiv:2407.00617 (there is no official code). [..., T] each -> [..., T].

  >>> print(inpo_reference(jnp.array([-3.0]), jnp.array([0.0])))
  [-1.]
  """
  if not 0 < tau <= eta:
    raise ValueError(f"tau must be in (0, eta], got tau {tau}, eta {eta}.")
  ref, previous = aligned(ref_log_probs=ref_log_probs, previous_log_probs=previous_log_probs)
  return tau / eta * ref + (1 - tau / eta) * previous


def dpop_loss(
  chosen_log_ratios: Array,
  rejected_log_ratios: Array,
  *,
  beta: float = 0.1,
  penalty: float = 50.0,
  link: Link = logistic_link,
) -> Array:
  """DPO whose margin suffers where the chosen answer became less likely than it was.

    loss = link(beta * (h - penalty * max(0, -u)))

  Source: DPO-Positive (Smaug), arXiv:2402.13228. [...] each -> [...].

  >>> chosen, rejected = jnp.array([1.0, -1.0]), jnp.array([-1.0, -3.0])
  >>> print(dpop_loss(chosen, rejected, beta=1.0, penalty=2.0).round(3))
  [0.127 0.693]
  """
  u, v = _ratios(chosen_log_ratios, rejected_log_ratios, beta=beta)
  return link(beta * (u - v - penalty * jnp.maximum(0.0, -u)))


def nca_loss(chosen_log_ratios: Array, rejected_log_ratios: Array, *, beta: float = 0.01) -> Array:
  """-log s(beta u) - (log s(-beta u) + log s(-beta v)) / 2, s the sigmoid. [...] each -> [...].

  Holds the chosen answer's likelihood up. Source: NCA, arXiv:2402.05369; Light-R1's loss at 0.3.

  >>> print(nca_loss(jnp.zeros(1), jnp.zeros(1)).round(3))
  [1.386]
  """
  u, v = _ratios(chosen_log_ratios, rejected_log_ratios, beta=beta)
  log_s = jax.nn.log_sigmoid
  return -log_s(beta * u) - (log_s(-beta * u) + log_s(-beta * v)) / 2


def bco_loss(
  chosen_log_ratios: Array,
  rejected_log_ratios: Array,
  *,
  beta: float = 0.1,
  shift: float | Array = 0.0,
) -> Array:
  """A classifier of single answers: -log s(beta u - shift) - log s(shift - beta v).

  The paper's shift is the running mean of all rewards; TRL's pair form has none.
  Source: BCO, arXiv:2404.04656. [...] each -> [...].

  >>> print(bco_loss(jnp.array([20.0]), jnp.array([-20.0])).round(3))
  [0.254]
  """
  u, v = _ratios(chosen_log_ratios, rejected_log_ratios, beta=beta)
  one_or_each(dict(chosen_log_ratios=u), shift=shift)
  return -jax.nn.log_sigmoid(beta * u - shift) - jax.nn.log_sigmoid(shift - beta * v)


def apo_zero_loss(
  chosen_log_ratios: Array, rejected_log_ratios: Array, *, beta: float = 0.1
) -> Array:
  """s(-beta u) + s(beta v): chosen up, rejected down; for answers better than the model's.

  Source: APO, arXiv:2408.06266. [...] each -> [...].

  >>> print(apo_zero_loss(jnp.zeros(1), jnp.zeros(1)))
  [1.]
  """
  u, v = _ratios(chosen_log_ratios, rejected_log_ratios, beta=beta)
  return jax.nn.sigmoid(-beta * u) + jax.nn.sigmoid(beta * v)


def apo_down_loss(
  chosen_log_ratios: Array, rejected_log_ratios: Array, *, beta: float = 0.1
) -> Array:
  """s(beta u) + s(-beta h): both down, rejected further; for answers worse than the model's.

  Source: APO, arXiv:2408.06266. [...] each -> [...].

  >>> print(apo_down_loss(jnp.zeros(1), jnp.zeros(1)))
  [1.]
  """
  u, v = _ratios(chosen_log_ratios, rejected_log_ratios, beta=beta)
  return jax.nn.sigmoid(beta * u) + jax.nn.sigmoid(-beta * (u - v))


def sppo_loss(
  chosen_log_ratios: Array,
  rejected_log_ratios: Array,
  chosen_win_rates: Array,
  rejected_win_rates: Array,
  *,
  beta: float = 1e-3,
) -> Array:
  """Each answer's log-ratio is drawn to its win rate against the policy's own samples.

    loss = ((u - (p_chosen - 1/2) / beta)^2 + (v - (p_rejected - 1/2) / beta)^2) / 2

  Source: SPPO, Wu et al. 2024, arXiv:2405.00675. With one comparison, p_rejected = 1 - p_chosen.
  [...] each -> [...].

  >>> print(sppo_loss(jnp.zeros(1), jnp.zeros(1), jnp.array([0.75]), jnp.array([0.25]), beta=0.5))
  [0.25]
  """
  positive(beta=beta)
  u, v, p_chosen, p_rejected = aligned_pairs(
    chosen_log_ratios=chosen_log_ratios,
    rejected_log_ratios=rejected_log_ratios,
    chosen_win_rates=chosen_win_rates,
    rejected_win_rates=rejected_win_rates,
  )
  return ((u - (p_chosen - 0.5) / beta) ** 2 + (v - (p_rejected - 0.5) / beta) ** 2) / 2


def sppo_hard_loss(
  chosen_log_ratios: Array, rejected_log_ratios: Array, *, beta: float = 1e-3
) -> Array:
  """(u - 1 / (2 beta))^2 + (v + 1 / (2 beta))^2: win rates 1 and 0, and no half (TRL's form).

  [...] each -> [...].

  >>> print(sppo_hard_loss(jnp.array([1.0]), jnp.array([0.0]), beta=0.5))
  [1.]
  """
  u, v = _ratios(chosen_log_ratios, rejected_log_ratios, beta=beta)
  return (u - 0.5 / beta) ** 2 + (v + 0.5 / beta) ** 2


def aot_loss(
  values: Array, baselines: Array, *, beta: float = 0.1, link: Link = logistic_link
) -> Array:
  """The distribution of values shall dominate that of baselines: both sorted over the batch.

    loss = link(beta * (sort(values) - sort(baselines)))

  Paired: the policy's chosen minus rejected log-probs against the reference's. Unpaired:
  chosen_log_ratios against rejected_log_ratios. Couples the batch; entry i is of rank i. Inside
  `jax.shard_map`, gather the batch first.

  Source: AOT, arXiv:2406.05882. [N] each -> [N].

  >>> print(aot_loss(jnp.array([3.0, 1.0]), jnp.array([1.0, 4.0]), beta=1.0, link=jnp.negative))
  [-0.  1.]
  """
  positive(beta=beta)
  values, baselines = aligned_pairs(values=values, baselines=baselines)
  return link(beta * (ordered(values) - ordered(baselines)))
