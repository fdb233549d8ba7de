"""What stages are put together of: which tokens count, links, divergences, sums of losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from lcrl.losses.preference import links, rewards
from lcrl.losses.preference import sequences as seq
from lcrl.losses.preference.reference_free import nll_loss
from lcrl.losses.preference.rewards import implicit_reward
from lcrl.masked import as_float, masked_sum
from lcrl.types import PairBatch, Stage, TokenScores

__all__ = [
  "alpha_divergence",
  "combined",
  "common_length",
  "desensitized",
  "discopop",
  "exo",
  "forward_kl",
  "hinge",
  "js",
  "logistic",
  "means",
  "nll",
  "robust",
  "sampled",
  "sums",
]

Array = jax.Array
Tokens = Callable[[Array, Array], Array]  # mask [B, 2, T], keys [B] -> weights [B, 2, T]
Map = Callable[[Array], Array]  # element by element
Values = Callable[[TokenScores, PairBatch], Array]  # -> [B, 2]
SIDES = 2


def sums() -> Tokens:
  """Every token counts 1.

  >>> mask, keys = jnp.array([[[1, 1], [1, 0]]]) > 0, jax.random.split(jax.random.key(0), 1)
  >>> print(sums()(mask, keys))
  [[[1. 1.]
    [1. 0.]]]
  """
  return lambda mask, keys: seq.sum_weights(mask)


def means() -> Tokens:
  """Every token counts 1 / length of its side.

  >>> mask, keys = jnp.array([[[1, 1], [1, 0]]]) > 0, jax.random.split(jax.random.key(0), 1)
  >>> print(means()(mask, keys))
  [[[0.5 0.5]
    [1.  0. ]]]
  """
  return lambda mask, keys: seq.mean_weights(mask)


def desensitized(*, alpha: float = 0.5) -> Tokens:
  """LD-DPO: what a side has beyond the shorter side's length counts alpha.

  >>> mask, keys = jnp.array([[[1, 1], [1, 0]]]) > 0, jax.random.split(jax.random.key(0), 1)
  >>> print(desensitized(alpha=0.5)(mask, keys))
  [[[1.  0.5]
    [1.  0. ]]]
  """
  return lambda mask, keys: seq.desensitized_weights(mask, _other(mask), alpha=alpha)


def sampled(*, draw: int = 0) -> Tokens:
  """SamPO: as many tokens of either side as the shorter one has. `draw` numbers the draw: policy
  and reference share number 0 unless the reference is given another.

  >>> mask, keys = jnp.array([[[1, 1], [1, 0]]]) > 0, jax.random.split(jax.random.key(0), 1)
  >>> print(sampled()(mask, keys).sum(-1))
  [[1. 1.]]
  """

  def weigh(mask, keys):
    keys = jax.vmap(partial(jax.random.fold_in, data=draw))(keys)
    side = lambda own, other: seq.sampled_weights(keys, own, other)
    return jax.vmap(side, in_axes=1, out_axes=1)(mask, _other(mask))

  return weigh


def common_length() -> Tokens:
  """Each side's mean times the mean length of the two: SamPO without a draw.

  >>> mask, keys = jnp.array([[[1, 1], [1, 0]]]) > 0, jax.random.split(jax.random.key(0), 1)
  >>> print(common_length()(mask, keys))
  [[[0.75 0.75]
    [1.5  0.  ]]]
  """
  return lambda mask, keys: seq.common_length_weights(mask, _other(mask))


def logistic(*, label_smoothing: float = 0.0) -> Map:
  """-log sigmoid(z), with a share of labels taken for wrong: `logistic_link`.

  >>> print(logistic()(jnp.array([0.0])).round(3))
  [0.693]
  """
  return partial(links.logistic_link, label_smoothing=label_smoothing)


def robust(*, label_smoothing: float = 0.1) -> Map:
  """The link of robust DPO: `robust_link`.

  >>> print(robust(label_smoothing=0.0)(jnp.array([0.0])).round(3))
  [0.693]
  """
  return partial(links.robust_link, label_smoothing=label_smoothing)


def hinge() -> Map:
  """max(0, 1 - z): `hinge_link`.

  >>> print(hinge()(jnp.array([0.0, 2.0])))
  [1. 0.]
  """
  return links.hinge_link


def exo(*, label_smoothing: float = 1e-3) -> Map:
  """The link of EXO for pairs: `exo_link`.

  >>> print(f"{exo()(jnp.array(0.0)):.3f}")
  2.761
  """
  return partial(links.exo_link, label_smoothing=label_smoothing)


def discopop(*, temperature: float = 0.05) -> Map:
  """The link of DiscoPOP: `discopop_link`.

  >>> print(discopop()(jnp.array([2.0])).round(3))
  [0.135]
  """
  return partial(links.discopop_link, temperature=temperature)


def forward_kl() -> Map:
  """f-DPO of the forward KL: `forward_kl_reward`.

  >>> print(forward_kl()(jnp.array([0.0])))
  [0.]
  """
  return rewards.forward_kl_reward


def js() -> Map:
  """f-DPO of the Jensen-Shannon divergence: `js_reward`.

  >>> print(js()(jnp.array([0.0])))
  [0.]
  """
  return rewards.js_reward


def alpha_divergence(*, alpha: float = 0.5) -> Map:
  """f-DPO of an alpha divergence: `alpha_divergence_reward`.

  >>> print(alpha_divergence(alpha=1.0)(jnp.array([2.0])))
  [2.]
  """
  return partial(rewards.alpha_divergence_reward, alpha=alpha)


def nll() -> Stage:
  """Likelihood of the chosen answers, or of the only ones: SFT. Each token counts as the config's
  section weights says: `token_mean` as most trainers, `sequence_mean` as iterative RPO."""

  def apply(state, scores: TokenScores, batch: PairBatch):
    losses = nll_loss(scores.log_probs[:, 0], batch.token_weights)
    return jnp.sum(losses), state

  return Stage(init=lambda: (), apply=apply, needs=("weights",), rewards=log_probs_of(means()))


def combined(*, by: Mapping[str, float], **terms: Stage) -> Stage:
  """sum of by[name] * loss of that name; the first term's rewards are logged.

  A config writes `dict(fn="combined", dpo=dict(fn="dpo"), nll=dict(fn="nll"), by=dict(dpo=1.0,
  nll=0.1))`. DPO with likelihood (RPO, arXiv:2405.16436; iterative RPO, arXiv:2404.19733) is one.
  """
  if by.keys() != terms.keys() or not terms:
    raise ValueError(f"combined weighs {sorted(by)}, but its terms are {sorted(terms)}.")
  for name, stage in terms.items():
    if not isinstance(stage, Stage):
      raise ValueError(f"combined.{name} is not a loss.")

  def apply(state, scores, batch):
    total, states = jnp.zeros(()), {}
    for name, stage in terms.items():
      loss, states[name] = stage.apply(state[name], scores, batch)
      total = total + by[name] * loss
    return total, states

  def init() -> dict[str, Any]:
    return {name: stage.init() for name, stage in terms.items()}

  return Stage(
    init=init,
    apply=apply,
    needs=tuple(dict.fromkeys(need for stage in terms.values() for need in stage.needs)),
    coupled=any(stage.coupled for stage in terms.values()),
    rewards=next(iter(terms.values())).rewards,
  )


def with_likelihood(stage: Stage, weight: float) -> Stage:
  """The loss plus `weight` times `nll`; itself if that is 0."""
  if weight == 0:
    return stage
  return combined(by={"pairs": 1.0, "nll": weight}, pairs=stage, nll=nll())


def log_probs_of(tokens: Tokens) -> Values:
  """Weighted log-probs of the sides."""

  def values(scores: TokenScores, batch: PairBatch) -> Array:
    weights = tokens(batch.pairs.mask[:, :SIDES], batch.keys)
    return seq.sequence_log_probs(scores.log_probs[:, :SIDES], weights)

  return values


def log_ratios_of(tokens: Tokens, ref_tokens: Tokens | None = None) -> Values:
  """Weighted log-ratios of the sides, policy to reference."""

  def values(scores: TokenScores, batch: PairBatch) -> Array:
    mask = batch.pairs.mask[:, :SIDES]
    return seq.sequence_log_ratios(
      scores.log_probs[:, :SIDES],
      given(batch.ref_log_probs, "ref")[:, :SIDES],
      tokens(mask, batch.keys),
      None if ref_tokens is None else ref_tokens(mask, batch.keys),
    )

  return values


def given(x: Array | None, name: str) -> Array:
  """`x`, which the batch must have."""
  if x is None:
    raise ValueError(f"the batch has no {name}_log_probs, which this loss compares with.")
  return x


def mean_over_pairs(losses: Array, batch: PairBatch) -> Array:
  """Mean of losses [B] over valid pairs of the whole batch that `batch` may be a piece of."""
  return masked_sum(batch.weights * losses, batch.pairs.valid)


def signal(batch: PairBatch, name: str) -> Array:
  """A signal of the valid pairs, 0 elsewhere. [B, ...]."""
  x = as_float(batch.pairs.signals[name])
  return jnp.where(batch.pairs.valid.reshape(-1, *(1,) * (x.ndim - 1)), x, 0.0)


def of_pairs(
  values: Values,
  loss: Callable[..., Array],
  *,
  scale: float = 1.0,
  needs: tuple[str, ...] = (),
  also: Callable[[PairBatch], Array] | None = None,
) -> Stage:
  """The mean of loss(chosen values, rejected values) [B]; scale * values are logged. `also` [B, 2]
  gives the loss another two arguments."""

  def apply(state, scores, batch):
    sides = [values(scores, batch), *([] if also is None else [also(batch)])]
    return mean_over_pairs(loss(*(x[:, i] for x in sides for i in range(SIDES))), batch), state

  rewards: Values = lambda scores, batch: implicit_reward(values(scores, batch), beta=scale)
  return Stage(init=lambda: (), apply=apply, needs=needs, rewards=rewards)


def _other(mask: Array) -> Array:
  return mask[:, ::-1]
