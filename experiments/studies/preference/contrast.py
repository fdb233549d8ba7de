"""What both studies share: pairs of a policy's own answers, losses that learn from them, measures.

N prompts, G answers to each, T positions of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lcrl.losses import preference as losses
from lcrl.masked import centre, masked_mean
from lcrl.training.scorer import split
from lcrl.types import PyTree, Rollouts

Array = jax.Array
Score = Callable[[PyTree, Any], Array]  # params, rows -> log-probs of their tokens


class Pairs(NamedTuple):
  """One pair a prompt, the chosen row first."""

  tokens: Array  # [N, 2, T] int32
  mask: Array  # [N, 2, T] bool
  ref: Array  # [N, 2, T] log-probs of the start
  valid: Array  # [N] bool, False where the prompt has no such pair


class Point(NamedTuple):
  """What is measured of a policy, [] each."""

  accuracy: Array
  tokens: Array
  kl: Array  # nats an answer, of the policy to the start
  slope: Array  # of log policy / start against length, nats a token, within prompts
  correlation: Array  # of the same two
  mean_correlation: Array  # of SimPO's reward, the mean log-prob, with length
  agreement: Array  # share of held-out pairs whose chosen side gained more than the other


# Which over which: verdicts of both, gap in length -> (is a pair, how good a one), [N, G, G].
KINDS: dict[str, Callable[[Array, Array, Array], tuple[Array, Array]]] = {
  "long over short": lambda right, other, gap: (right & other & (gap > 0), gap),
  "short over long": lambda right, other, gap: (right & other & (gap < 0), -gap),
  "right over wrong": lambda right, other, gap: (right & ~other, 0 * gap),
  "right over wrong, equal lengths": lambda right, other, gap: (right & ~other & (gap == 0), gap),
  "right, long over wrong, short": lambda right, other, gap: (right & ~other & (gap > 0), gap),
}


def paired(kind: Callable, r: Rollouts, ref: Array) -> Pairs:
  """The best pair of each prompt, the first of equals. `ref` [N, G, T] is what the start says."""
  here, there = r.correct[:, :, None], r.correct[:, None, :]
  ok, value = kind(here, there, r.lengths[:, :, None] - r.lengths[:, None, :])
  best = jnp.argmax(jnp.where(ok, value, -jnp.inf).reshape(len(ok), -1), axis=-1)
  both = jnp.stack(jnp.unravel_index(best, ok.shape[1:]), axis=-1)[..., None]
  take = lambda x: jnp.take_along_axis(x, both, axis=1)
  return Pairs(take(r.tokens), take(r.mask), take(ref), ok.any((1, 2)))


def ratios(weigh: Callable, log_probs: Array, pairs: Pairs) -> list[Array]:
  """log policy / start of both sides, [N] each."""
  return [
    losses.sequence_log_ratios(
      log_probs[:, side],
      pairs.ref[:, side],
      weigh(pairs.mask[:, side], pairs.mask[:, 1 - side]),
    )
    for side in (0, 1)
  ]


def _dpo(log_probs, pairs, key, *, weigh=losses.sum_weights, beta=0.1):
  return losses.dpo_loss(*ratios(weigh, log_probs, pairs), beta=beta)


def _r_dpo(log_probs, pairs, key):
  u, v = ratios(losses.sum_weights, log_probs, pairs)
  chosen, rejected = pairs.mask.sum(-1).T
  return losses.r_dpo_loss(u, v, chosen, rejected, beta=0.1, alpha=0.1)


def _sampo(log_probs, pairs, key):
  keys = jax.random.split(key, len(log_probs))
  return _dpo(log_probs, pairs, key, weigh=partial(losses.sampled_weights, keys))


def _simpo(log_probs, pairs, key):
  means = losses.sequence_log_probs(log_probs, losses.mean_weights(pairs.mask))
  return losses.simpo_loss(means[:, 0], means[:, 1], beta=2.5, margin=0.2)


Loss = Callable[[Array, Pairs, Array], Array]  # log-probs [N, 2, T], pairs, key -> [N]
LOSSES: dict[str, Loss] = {
  "DPO": _dpo,
  "R-DPO": _r_dpo,
  "LD-DPO": partial(_dpo, weigh=partial(losses.desensitized_weights, alpha=0.3)),
  "SamPO": _sampo,
  "LN-DPO": partial(_dpo, weigh=losses.mean_weights, beta=2.5),
  "SimPO": _simpo,
}


def learn(
  score: Score,
  optimizer: optax.GradientTransformation,
  choices: Mapping[str, Loss],
  carry: tuple[PyTree, PyTree],
  pairs: Pairs,
  loss: Array,
  key: Array,
  *,
  steps: int | Array,
  size: int,
  pieces: int = 1,
) -> tuple[PyTree, PyTree]:
  """(params, optimizer state) after `steps` updates on `size` drawn pairs each.

  `loss` [] says which of the choices; it may be traced, so that one program serves all.
  `pieces` go through the model one after the other.
  """
  chance = pairs.valid / jnp.maximum(pairs.valid.sum(), 1)

  def step(i, carry):
    params, opt_state = carry
    draw_key, loss_key = jax.random.split(jax.random.fold_in(key, i))
    drawn = jax.random.choice(draw_key, len(chance), (size,), p=chance)
    some = split(jax.tree.map(lambda x: x[drawn], pairs), pieces)

    def add_piece(grads, xs):
      piece, key = xs

      def mean_loss(params):
        log_probs = score(params, piece)
        return jnp.stack([f(log_probs, piece, key).mean() for f in choices.values()])[loss]

      return jax.tree.map(jnp.add, grads, jax.grad(mean_loss)(params)), None

    zero = jax.tree.map(jnp.zeros_like, params)
    grads, _ = jax.lax.scan(add_piece, zero, (some, jax.random.split(loss_key, pieces)))
    grads = jax.tree.map(lambda x: x / pieces, grads)
    changes, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, changes), opt_state

  return jax.lax.fori_loop(0, steps, step, carry)


def measure(
  score: Score,
  params: PyTree,
  own: Rollouts,
  start_own: Array,
  probe: Rollouts,
  start_probe: Array,
  held: Pairs,
) -> Point:
  """A policy on answers of its own, on the start's answers `probe`, on held-out pairs.

  `start_own` and `start_probe` [B, G, T] are what the start says of them.
  """
  gain = jnp.where(own.mask, score(params, own) - start_own, 0.0)
  log_probs = score(params, probe)
  means = losses.sequence_log_probs(log_probs, losses.mean_weights(probe.mask))
  gains = losses.sequence_log_ratios(log_probs, start_probe, losses.sum_weights(probe.mask))
  lengths, means, gains = (centre(x, probe.valid) for x in (probe.lengths, means, gains))
  dot = lambda x, y: jnp.sum(x * y)
  alike = lambda x, y: dot(x, y) / jnp.sqrt(jnp.maximum(dot(x, x) * dot(y, y), 1e-12))
  u, v = ratios(losses.sum_weights, score(params, held), held)
  return Point(
    accuracy=own.correct.mean(),
    tokens=own.lengths.mean(),
    kl=jnp.mean(jnp.sum(gain, -1)),
    slope=dot(lengths, gains) / jnp.maximum(dot(lengths, lengths), 1e-12),
    correlation=alike(lengths, gains),
    mean_correlation=alike(lengths, means),
    agreement=masked_mean(u > v, held.valid),
  )
