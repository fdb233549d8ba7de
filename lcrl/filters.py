"""Slot 3: which rollouts train. A filter never keeps a row that only pads the batch.

Two rules that look alike differ where it matters. `mixed_correctness` drops groups that are all
right or all wrong. `nonconstant_reward` drops groups of equal reward, and so keeps an all-right
group whose lengths differ: methods that mean to shorten those need it. With a continuous length
reward it drops almost nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.checks import one_or_each, same_groups, same_shape, typed
from lcrl.masked import as_float, masked_mean, masked_quantile
from lcrl.sharding import left_to_xla, look_up, ranks, running_sum
from lcrl.types import Rollouts, Stage

__all__ = [
  "adaptive_shortest",
  "all_right",
  "difficulty_count",
  "easy_share",
  "easy_share_groups",
  "keep_all",
  "lowest",
  "mixed_correctness",
  "most_efficient",
  "nonconstant_groups",
  "nonconstant_reward",
  "positive_reward",
  "shortest",
  "untruncated",
]


def __dir__() -> list[str]:
  return __all__


def nonconstant_groups(metric: jax.Array, valid: jax.Array, *, keep_lone: bool = True) -> jax.Array:
  """The rollouts of groups whose metric varies; a group of one rollout is kept, as in verl,
  unless `keep_lone=False`.

  Tests max > min: the floating-point deviation of equal values need not be 0.
  Source: DAPO's dynamic sampling, arXiv:2503.14476.

  Args:
    metric: [..., G].
    valid: [..., G] bool.
  Returns: [..., G] bool.

  >>> metric = jnp.array([[1.0, 0.0], [1.0, 1.0]])
  >>> print(nonconstant_groups(metric, jnp.ones((2, 2), bool)))
  [[ True  True]
   [False False]]
  """
  same_groups(metric=metric, valid=valid)
  metric = as_float(metric)
  high = jnp.max(jnp.where(valid, metric, -jnp.inf), -1, keepdims=True)
  low = jnp.min(jnp.where(valid, metric, jnp.inf), -1, keepdims=True)
  lone = jnp.sum(valid, -1, keepdims=True) == 1
  return valid & ((high > low) | (lone & keep_lone))


def _stage(keep) -> Stage:
  return Stage(init=lambda: (), apply=lambda state, rewards, r: (keep(rewards, r), state))


def keep_all() -> Stage:
  """Every valid rollout trains."""
  return _stage(lambda rewards, r: r.valid)


def mixed_correctness() -> Stage:
  """Drops groups whose verdicts all agree: nothing can be learnt there from correctness.

  Source: DAPO, arXiv:2503.14476 (dynamic sampling, with `train.max_rounds` above 1).
  """
  return _stage(lambda rewards, r: nonconstant_groups(r.correct, r.valid))


def nonconstant_reward() -> Stage:
  """Drops groups whose shaped rewards are all equal: their advantage would be 0 anyway.

  Source: dynamic sampling of DAPO, arXiv:2503.14476, by the shaped reward.
  """
  return _stage(lambda rewards, r: nonconstant_groups(rewards, r.valid))


def positive_reward() -> Stage:
  """Rollouts with a reward above 0, and nothing of the others: what supervised training on one's
  own answers takes. Source: on-policy SFT, arXiv:2602.13407."""
  return _stage(lambda rewards, r: r.valid & (rewards > 0))


def all_right() -> Stage:
  """Only groups that are right throughout: what a length term trains on (ConciseR's second stage,
  should mixed groups be dropped there).

  >>> all_right().needs
  ()
  """
  return _stage(lambda rewards, r: r.valid & jnp.all(r.correct | ~r.valid, -1, keepdims=True))


def untruncated(*, base: Stage | None = None) -> Stage:
  """Of what `base` keeps (all by default), drops rollouts cut at their cap: DAPO's overlong filter.

  DAPO lets them take part in the group's mean: give the advantage `over_valid=True` for that.

  >>> untruncated().needs
  ('truncated',)
  """
  base = keep_all() if base is None else base

  def apply(state, rewards, r):
    keep, state = base.apply(state, rewards, r)
    return keep & ~r.truncated, state

  return base._replace(apply=apply, needs=(*base.needs, "truncated"))


def lowest(metric: jax.Array, valid: jax.Array, count: jax.Array | int) -> jax.Array:
  """The `count` rollouts of a group with the lowest metric, ties in order of sampling.

  Source: GFPO, arXiv:2508.09726: by length, or by -reward / length; its advantage is
  `group_normalized` with ddof 0. [..., G], [..., G], [...] or a number -> [..., G] bool.

  >>> print(lowest(jnp.array([[5, 2, 3, 2]]), jnp.ones((1, 4), bool), 2))
  [[False  True False  True]]
  """
  same_groups(metric=metric, valid=valid)
  one_or_each({"a group": jnp.any(valid, -1)}, count=count)
  count = jnp.broadcast_to(jnp.asarray(count), valid.shape[:-1])[..., None]
  return valid & (ranks(jnp.where(valid, as_float(metric), jnp.inf)) < count)


def shortest(*, count: int) -> Stage:
  """GFPO (arXiv:2508.09726): the `count` shortest rollouts of each group, right or wrong."""
  return _stage(lambda rewards, r: lowest(r.lengths, r.valid, count))


def most_efficient(*, count: int) -> Stage:
  """GFPO (arXiv:2508.09726): the `count` rollouts with the highest reward per token.

  Of negative rewards that takes the longest responses first.
  """
  return _stage(lambda rewards, r: lowest(-as_float(rewards) / r.lengths, r.valid, count))


def difficulty_count(
  mean_rewards: jax.Array,
  history: jax.Array,
  seen: jax.Array,
  *,
  counts: tuple[int, int, int, int] = (8, 8, 6, 4),
  warmup: int = 1,
) -> jax.Array:
  """How many rollouts to keep by the quartile of a prompt's mean reward, from hardest to easiest.

  The first of `counts` while the history holds fewer than `warmup` means. Source: adaptive GFPO,
  which keeps a t-digest where this takes exact quartiles. [...], [N], [N] bool -> [...] int32.

  >>> means, history = jnp.array([0.1, 0.9]), jnp.array([0.2, 0.4, 0.6, 0.8])
  >>> print(difficulty_count(means, history, jnp.ones(4, bool)))
  [8 4]
  """
  same_shape(history=history, seen=seen)
  typed(mean_rewards=mean_rewards)
  limits = [masked_quantile(history, seen, q) for q in (0.25, 0.5, 0.75)]
  quartile = sum((as_float(mean_rewards) >= limit).astype(jnp.int32) for limit in limits)
  kept = look_up(jnp.asarray(counts, jnp.int32), quartile)
  return jnp.where(jnp.sum(seen) < warmup, counts[0], kept)


class MeanRewards(NamedTuple):
  ring: jax.Array  # [window] float32, mean rewards of past prompts
  filled: jax.Array  # [] int32, how many were ever written


def adaptive_shortest(
  *, counts: tuple[int, int, int, int] = (8, 8, 6, 4), window: int = 4096, warmup: int = 256
) -> Stage:
  """`shortest` with `difficulty_count` as the count. State: the last `window` mean rewards."""

  def init():
    return MeanRewards(jnp.zeros(window, jnp.float32), jnp.zeros((), jnp.int32))

  def apply(state, rewards, r: Rollouts):
    means, real = masked_mean(rewards, r.valid, -1), jnp.any(r.valid, -1)
    seen = jnp.arange(window) < state.filled
    count = difficulty_count(means, state.ring, seen, counts=counts, warmup=warmup)
    index = (state.filled + running_sum(real) - 1) % window
    put = lambda ring, index, means: ring.at[index].set(means, mode="drop")
    places, means = jnp.where(real, index, window), means.astype(state.ring.dtype)
    ring = left_to_xla(put, state.ring, state.ring, places, means)
    state = MeanRewards(ring, state.filled + jnp.sum(real, dtype=jnp.int32))
    return lowest(r.lengths, r.valid, count), state

  def numbers(state):
    seen = jnp.arange(window) < state.filled
    quartiles = {
      f"quartile_{i + 1}": masked_quantile(state.ring, seen, (i + 1) / 4) for i in range(3)
    }
    values = quartiles | {"means": jnp.sum(seen)}
    return {f"adaptive_shortest/{name}": x for name, x in values.items()}

  return Stage(init=init, apply=apply, numbers=numbers)


def easy_share_groups(correct: jax.Array, valid: jax.Array, share: jax.Array) -> jax.Array:
  """Mixed groups, and of the all-right ones as many as make up `share` of what is kept.

    all-right groups kept = floor(share / (1 - share) * mixed groups), the first of the batch

  All-wrong groups are dropped. The order is that of the whole batch. Source: the curriculum of
  DECS, arXiv:2509.25827, whose code draws the all-right groups. [B, G], [B, G], [] -> [B, G] bool.

  >>> correct = jnp.array([[1, 0], [1, 1], [0, 0], [1, 1]])
  >>> print(easy_share_groups(correct, jnp.ones((4, 2), bool), jnp.array(0.5))[:, 0])
  [ True  True False False]
  """
  same_groups(correct=correct, valid=valid)
  one_or_each({"the batch": jnp.zeros(())}, share=share)
  right = correct.astype(bool)
  easy = jnp.any(valid, -1) & jnp.all(right | ~valid, -1)
  mixed = jnp.any(right & valid, -1) & ~easy
  # The slack keeps a number that is whole from becoming the one below it by rounding.
  most = jnp.floor(share / jnp.maximum(1.0 - share, 1e-6) * jnp.sum(mixed) + 1e-4)
  return valid & (mixed | (easy & (running_sum(easy) <= most)))[:, None]


class EasyShare(NamedTuple):
  share: jax.Array  # [] float32, kappa
  needed: jax.Array  # [] float32, mean over right answers of needed / think_length


def easy_share(*, step_size: float = 0.2, needed: float = 0.5, most: float = 0.9) -> Stage:
  """DECS's curriculum: `easy_share_groups`, with more easy prompts the less right answers waste.

    share <- clip(share + step_size * (needed - needed a step before), 0, most), 0 at first

  `needed` is the mean over right answers of the share of their thinking up to the answer (signals
  `needed` and `think_length`, [B, G] tokens; an answer that never stands there does not count), and
  the argument is what it starts with. The paper clips at the share of all-right groups that were
  sampled, which is unknown where groups are replaced; its code does not clip, and counts chunks.
  """
  if not 0 <= most < 1:
    raise ValueError(f"most must be in [0, 1), got {most}.")

  def apply(state: EasyShare, rewards, r: Rollouts):
    tokens = as_float(r.signals["needed"])
    counted = r.correct & r.valid & (tokens > 0)
    part = tokens / jnp.maximum(r.signals["think_length"], 1)
    new = jnp.where(jnp.any(counted), masked_mean(part, counted), state.needed)
    share = jnp.clip(state.share + step_size * (new - state.needed), 0.0, most)
    keep = easy_share_groups(r.correct, r.valid, state.share)
    return keep, EasyShare(*(x.astype(jnp.float32) for x in (share, new)))

  return Stage(
    init=lambda: EasyShare(jnp.zeros((), jnp.float32), jnp.asarray(needed, jnp.float32)),
    apply=apply,
    needs=("needed", "think_length"),
    numbers=lambda s: {"easy_share/share": s.share, "easy_share/needed": s.needed},
  )
