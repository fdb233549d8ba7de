"""Effort: a target that is a share of a reference length, and what a reward makes of it.

  target = efforts[level] * reference,   reward = term(reward of base, length, target)

The level is that of the budget (`lcrl.budgets.effort`), which the prompt shows. The terms are bare
functions, too. A cut answer has not ended within its target (`ended_length`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.checks import positive, same_shape
from lcrl.masked import as_float, masked_mean
from lcrl.rewards.base import ended_length, shaped_with_state, with_levels
from lcrl.rewards.constraint import dual_price
from lcrl.rewards.references import Reference
from lcrl.rewards.suite import band_factor
from lcrl.sharding import look_up
from lcrl.types import PyTree, Rollouts, Stage

__all__ = [
  "Term",
  "effort",
  "length_gate",
  "length_gate_reward",
  "length_multiplier",
  "length_ratio",
  "length_ratio_reward",
  "level_price",
  "level_price_reward",
  "target_band",
  "target_band_reward",
]


def length_gate_reward(
  rewards: jax.Array, lengths: jax.Array, targets: jax.Array, *, outside: float = 0.0
) -> jax.Array:
  """The reward within the target, at most `outside` beyond it. [...] each -> [...].

  A wrong answer that pays less than `outside` does not gain by being long.

  Sources: adaptive effort control, arXiv:2510.27042 (right * 1{length <= e * T_avg}); K3's effort
  training, arXiv:2607.24653 (outside -1).

  >>> print(length_gate_reward(jnp.ones(2), jnp.array([8, 9]), jnp.full(2, 8.0), outside=-1.0))
  [ 1. -1.]
  """
  same_shape(rewards=rewards, lengths=lengths, targets=targets)
  rewards = as_float(rewards)
  return jnp.where(as_float(lengths) <= targets, rewards, jnp.minimum(rewards, outside))


def length_ratio_reward(
  rewards: jax.Array,
  lengths: jax.Array,
  targets: jax.Array,
  *,
  weight: float = 0.1,
  penalty: float = 1.0,
) -> jax.Array:
  """A bonus of a share of the reward below the target, a penalty above it, by length / target.

    s = min(1, weight * (1 - length / target))
    r + max(r, 0) * max(s, 0) + penalty * min(s, 0)

  Source: Nemotron's effort levels in NeMo-RL (weight 0.1, penalty 1). [...] each -> [...].

  >>> lengths, targets = jnp.array([0, 20]), jnp.full(2, 10.0)
  >>> print(length_ratio_reward(jnp.ones(2), lengths, targets, weight=0.5))
  [1.5 0.5]
  """
  same_shape(rewards=rewards, lengths=lengths, targets=targets)
  rewards = as_float(rewards)
  score = jnp.minimum(1.0, weight * (1 - as_float(lengths) / targets))
  bonus = jnp.maximum(rewards, 0.0) * jnp.maximum(score, 0.0)
  return rewards + bonus + penalty * jnp.minimum(score, 0.0)


def target_band_reward(
  rewards: jax.Array,
  lengths: jax.Array,
  targets: jax.Array,
  *,
  free: float = 1.0,
  full: float = 2.0,
  least: float = 0.0,
) -> jax.Array:
  """A factor of 1 up to `free` targets, which falls to `least` at `full` targets.

  Only positive rewards shrink: a wrong answer does not gain by being long. [...] each -> [...].

  Source: the band of NeMo-RL's length penalties.

  >>> lengths = jnp.array([10, 15, 30])
  >>> print(target_band_reward(jnp.ones(3), lengths, jnp.full(3, 10.0)))
  [1.  0.5 0. ]
  """
  check_band(free, full)
  same_shape(rewards=rewards, lengths=lengths, targets=targets)
  rewards, share = as_float(rewards), as_float(lengths) / targets
  return jnp.where(
    rewards > 0, rewards * band_factor(share, low=free, high=full, floor=least), rewards
  )


def check_band(free: float, full: float) -> None:
  """Raises ValueError unless a band ends above where it begins."""
  if not free < full:
    raise ValueError(f"free must be below full, got {free} and {full}.")


def level_price_reward(rewards: jax.Array, lengths: jax.Array, prices: jax.Array) -> jax.Array:
  """r - price * length, with the price of the rollout's effort. [...] each -> [...].

  Source: R = R_task - lambda(e) * tokens, as Inkling describes its continuous effort.

  >>> print(level_price_reward(jnp.ones(2), jnp.full(2, 16), jnp.array([0.0, 1 / 64])))
  [1.   0.75]
  """
  same_shape(rewards=rewards, lengths=lengths, prices=prices)
  return as_float(rewards) - as_float(prices) * as_float(lengths)


class Term(NamedTuple):
  """What a reward makes of lengths and targets."""

  init: Callable[[], PyTree]
  # (state, rewards [B, G], rollouts, targets [B, G], known [B, G]) -> rewards, state. A target that
  # is not known is some finite number, and the reward there is not used.
  apply: Callable[[PyTree, jax.Array, Rollouts, jax.Array, jax.Array], tuple[jax.Array, PyTree]]
  levels: int = 0  # that it has numbers for; 0: any
  numbers: Callable[[PyTree], dict[str, jax.Array]] = lambda state: {}  # `Stage.numbers`
  needs: tuple[str, ...] = ()  # `Stage.needs`


def _stateless(reward: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]) -> Term:
  def apply(state, rewards, r: Rollouts, targets, known):
    del known
    return reward(rewards, ended_length(r.lengths, targets, r.truncated), targets), state

  return Term(lambda: (), apply, needs=("truncated",))


def length_gate(*, outside: float = 0.0) -> Term:
  """`length_gate_reward`, for the argument `term` of `effort`."""
  return _stateless(partial(length_gate_reward, outside=outside))


def length_ratio(*, weight: float = 0.1, penalty: float = 1.0) -> Term:
  """`length_ratio_reward`, for the argument `term` of `effort`."""
  return _stateless(partial(length_ratio_reward, weight=weight, penalty=penalty))


def target_band(*, free: float = 1.0, full: float = 2.0, least: float = 0.0) -> Term:
  """`target_band_reward`, for the argument `term` of `effort`.

  >>> target_band(full=3.0).levels
  0
  """
  check_band(free, full)
  return _stateless(partial(target_band_reward, free=free, full=full, least=least))


def level_price(*, prices: Sequence[float]) -> Term:
  """`level_price_reward` with one price a level, for the argument `term` of `effort`."""

  def apply(state, rewards, r: Rollouts, targets, known):
    del targets, known
    price = look_up(jnp.asarray(prices, jnp.float32), r.budget.level)
    return level_price_reward(rewards, r.lengths, price), state

  return Term(lambda: (), apply, len(prices))


def length_multiplier(*, levels: int, step_size: float = 0.1, most: float = 1.0) -> Term:
  """A price of each level that climbs while its answers are longer than their targets on average.

    r - price * length / target,   price <- `dual_price` of the level's mean of length / target

  Projected dual ascent on length / target <= 1; a batch pays the prices from before its update.
  State: [levels] float32.

  >>> length_multiplier(levels=2).init()
  Array([0., 0.], dtype=float32)
  """
  positive(step_size=step_size, most=most)
  step = partial(dual_price, target=1.0, scale=1.0, step_size=step_size, max_price=most)

  def apply(price, rewards, r: Rollouts, targets, known):
    share = as_float(ended_length(r.lengths, targets, r.truncated)) / targets
    paid = rewards - look_up(price, r.budget.level) * share

    def moved(price, level):
      own = (r.budget.level == level) & r.valid & known
      return jnp.where(jnp.any(own), step(price, masked_mean(share, own)), price)

    return paid, jax.vmap(moved)(price, jnp.arange(levels)).astype(price.dtype)

  numbers = lambda price: {f"effort/price_{k}": price[k] for k in range(levels)}
  zeros = lambda: jnp.zeros(levels, jnp.float32)
  return Term(zeros, apply, levels, numbers, needs=("truncated",))


class EffortState(NamedTuple):
  reference: PyTree
  term: PyTree
  applied: jax.Array  # [] int32, how often the reward was given


def effort(
  *,
  efforts: Sequence[float] | Sequence[Sequence[float]],
  reference: Reference,
  term: Term,
  at: Sequence[int] = (),
  base: Stage | None = None,
) -> Stage:
  """Rewards by the effort that each rollout's prompt asked for: see the top of this module.

  Args:
    efforts: shares of the reference, one a level of the budget; with `at`, several such rows.
    reference: a length of each prompt, such as `fixed_reference` or `first_mean_reference`.
    term: what becomes of lengths and targets, such as `length_gate`.
    at: steps after which the next row of efforts holds. State of reference and term stays, unlike
      that of a reward which `then` replaces.
    base: the reward that the term changes; None: plain correctness.
  Raises:
    ValueError: an effort is not positive, the term has numbers for other levels, or the rows are
      not one more than the steps, which must ascend.
  """
  rows_of = [tuple(row) if isinstance(row, Sequence) else (row,) for row in efforts]
  table = rows_of if at else [tuple(x for row in rows_of for x in row)]
  if not table[0] or min(map(min, table)) <= 0:
    raise ValueError(f"efforts must be positive, got {tuple(efforts)}.")
  ascends = list(at) == sorted({*at}) and min(at, default=1) >= 1
  if len(table) != len(at) + 1 or len({*map(len, table)}) > 1 or not ascends:
    raise ValueError(
      f"{len(at)} ascending steps `at` from 1 on need {len(at) + 1} rows of as many efforts, got "
      f"{tuple(efforts)} and {tuple(at)}."
    )
  if term.levels not in (0, len(table[0])):
    raise ValueError(f"the term has {term.levels} levels; there are {len(table[0])} efforts.")

  def targets(state: EffortState, r: Rollouts) -> jax.Array:
    row = jnp.sum(state.applied >= jnp.asarray(at, jnp.int32), dtype=jnp.int32)
    share = look_up(jnp.asarray(table, jnp.float32)[row], r.budget.level)
    return share * reference.read(state.reference, r)[:, None]

  def shape(state: EffortState, rewards, r: Rollouts):
    aimed = targets(state, r)
    known = jnp.isfinite(aimed)
    finite = jnp.where(known, aimed, as_float(r.lengths) + 1)
    changed, own = term.apply(state.term, rewards, r, finite, known)
    rewards = jnp.where(known, changed, rewards)
    return rewards, EffortState(reference.update(state.reference, r), own, state.applied + 1)

  def numbers(state: EffortState) -> dict[str, jax.Array]:
    own = reference.numbers(state.reference) | term.numbers(state.term)
    return own | {"effort/applied": state.applied}

  stage = shaped_with_state(
    base,
    lambda: EffortState(reference.init(), term.init(), jnp.zeros((), jnp.int32)),
    shape,
    needs=tuple(dict.fromkeys((*term.needs, *reference.needs))),
    targets=lambda state, r: {"effort": targets(state, r)},
    numbers=numbers,
  )
  rows = [n for n in (stage.rows, reference.rows) if n]
  return with_levels(stage._replace(rows=min(rows, default=0)), len(table[0]))
