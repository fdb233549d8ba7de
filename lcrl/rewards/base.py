"""The reward of the verdict alone, prices for length without a target, and composition."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.masked import as_float
from lcrl.types import Outcome, PyTree, Rollouts, Stage

__all__ = [
  "correctness",
  "length_penalty",
  "length_penalty_reward",
  "soft_overlong",
  "soft_overlong_reward",
  "verdict_reward",
]


def ended_length(lengths: jax.Array, targets: jax.Array, truncated: jax.Array | None) -> jax.Array:
  """Lengths to compare with targets: a truncated response did not end within its target.

  It counts as one token longer than the longer of the two. `truncated=None`: nothing was cut.
  [...] each -> [...].

  >>> print(ended_length(jnp.array([8, 8, 5]), jnp.full(3, 8), jnp.array([False, True, True])))
  [8 9 9]
  """
  if truncated is None:
    return lengths
  same_shape(lengths=lengths, targets=targets, truncated=truncated)
  return jnp.where(truncated, jnp.maximum(lengths, targets) + 1, lengths)


def verdict_reward(
  correct: jax.Array,
  unread: jax.Array | None = None,
  *,
  right: float = 1.0,
  wrong: float = 0.0,
  bad_format: float = 0.0,
) -> jax.Array:
  """One number for a right answer, one for a wrong one, one for an unreadable one.

  Args:
    correct: [...] bool or 0/1.
    unread: [...] bool, where no answer could be read; None if that counts as wrong.
  Returns: [...] float.

  >>> print(verdict_reward(jnp.array([True, False]), wrong=-0.5))
  [ 1.  -0.5]
  """
  same_shape(correct=correct, **({} if unread is None else {"unread": unread}))
  rewards = as_float(jnp.where(correct.astype(bool), right, wrong))
  return rewards if unread is None else jnp.where(unread, bad_format, rewards)


def correctness(
  *, right: float = 1.0, wrong: float = 0.0, bad_format: float | None = None
) -> Stage:
  """`verdict_reward`; `bad_format=None` counts an unreadable answer as wrong.

  LASER: right 1, wrong -0.5, bad_format -1.
  """

  def apply(state, r: Rollouts):
    if bad_format is None:
      return verdict_reward(r.correct, right=right, wrong=wrong), state
    unread = r.outcome == Outcome.BAD_FORMAT
    reward = partial(verdict_reward, right=right, wrong=wrong, bad_format=bad_format)
    return reward(r.correct, unread), state

  return Stage(init=lambda: (), apply=apply)


def terms_of(stage: Stage) -> Callable[[PyTree, Rollouts], dict[str, jax.Array]]:
  """`Stage.terms`; of a stage that has none, its whole reward."""
  whole = lambda state, r: {name_of(stage.apply): as_float(stage.apply(state, r)[0])}
  return stage.terms or whole


def name_of(function: Callable) -> str:
  """The outermost function that a function was defined in: the factory of a stage."""
  function = getattr(function, "func", function)  # of a partial
  return getattr(function, "__qualname__", type(function).__qualname__).partition(".")[0]


def with_term(terms: dict[str, jax.Array], name: str, rewards: jax.Array) -> dict[str, jax.Array]:
  """The terms with one more, which brings their sum to `rewards`."""
  own = as_float(rewards) - sum(terms.values())
  return terms | {name: terms.get(name, 0.0) + own}


Targets = Callable[[PyTree, Rollouts], dict[str, jax.Array]]  # `Stage.targets`


def shaped(
  base: Stage | None,
  shape: Callable[[jax.Array, Rollouts], jax.Array],
  needs: tuple[str, ...] = (),
  *,
  targets: Callable[[Rollouts], dict[str, jax.Array]] | None = None,
) -> Stage:
  """The stage whose reward is `shape(rewards of base, rollouts)`; the state is the base's.

  `targets`: name -> the lengths that it compares with, [B] or [B, G]; see `Stage.targets`.
  """
  base = correctness() if base is None else base

  def apply(state, r: Rollouts):
    rewards, state = base.apply(state, r)
    return shape(rewards, r), state

  own: Targets | None = None
  if targets is not None:
    own = lambda state, r: compared(targets(r), r)
  return base._replace(
    apply=apply,
    needs=(*base.needs, *needs),
    targets=both_targets(base.targets, own),
    terms=lambda state, r: with_term(terms_of(base)(state, r), name_of(shape), apply(state, r)[0]),
  )


def compared(targets: dict[str, jax.Array], r: Rollouts) -> dict[str, jax.Array]:
  """Targets of groups or rollouts as [B, G] float32."""
  with_rollouts = lambda x: x[:, None] if jnp.ndim(x) == 1 else x
  spread = lambda x: jnp.broadcast_to(with_rollouts(jnp.asarray(x, jnp.float32)), r.lengths.shape)
  return jax.tree.map(spread, targets)


def both_targets(*parts: Targets | None) -> Targets | None:
  """The targets of several stages on one state; of equal names the last wins."""
  given = [part for part in parts if part]
  if not given:
    return None
  return lambda state, r: {name: x for part in given for name, x in part(state, r).items()}


def budget_target(name: str) -> Callable[[Rollouts], dict[str, jax.Array]]:
  """The targets of a stage of this name that compares with `budget.target`."""
  return lambda r: {name: r.budget.target}


class StateOver(NamedTuple):
  """The state of a stage and the state of its base."""

  own: PyTree
  base: PyTree


def shaped_with_state(
  base: Stage | None,
  init: Callable[[], PyTree],
  shape: Callable[[PyTree, jax.Array, Rollouts], tuple[jax.Array, PyTree]],
  *,
  observe: Callable[[PyTree, Rollouts], PyTree] | None = None,
  needs: tuple[str, ...] = (),
  targets: Targets | None = None,
  numbers: Callable[[PyTree], dict[str, jax.Array]] | None = None,
) -> Stage:
  """`shaped` with a state: `shape(own state, rewards of base, rollouts) -> rewards, own state`.

  `targets` and `numbers` read the stage's own state; see `Stage`.
  """
  base = correctness() if base is None else base
  below: Targets | None = None
  own: Targets | None = None
  if (of_base := base.targets) is not None:
    below = lambda state, r: of_base(state.base, r)
  if targets is not None:
    own = lambda state, r: compared(targets(state.own, r), r)

  def numbers_of_both(state: StateOver):
    below = base.numbers(state.base) if base.numbers else {}
    return below | (numbers(state.own) if numbers else {})

  def apply(state: StateOver, r: Rollouts):
    rewards, below = base.apply(state.base, r)
    rewards, own = shape(state.own, rewards, r)
    return rewards, StateOver(own, below)

  def observe_both(state: StateOver, monitor: Rollouts):
    own = observe(state.own, monitor) if observe else state.own
    below = base.observe(state.base, monitor) if base.observe else state.base
    return StateOver(own, below)

  def terms(state: StateOver, r: Rollouts):
    return with_term(terms_of(base)(state.base, r), name_of(shape), apply(state, r)[0])

  return Stage(
    init=lambda: StateOver(init(), base.init()),
    apply=apply,
    terms=terms,
    needs=(*base.needs, *needs),
    observe=observe_both if observe or base.observe else None,
    rows=base.rows,
    targets=both_targets(below, own),
    numbers=numbers_of_both,
    levels=base.levels,
  )


def with_levels(stage: Stage, count: int) -> Stage:
  """The stage, which has numbers for so many levels of the budget.

  Raises:
    ValueError: a stage inside has them for another count.
  """
  if stage.levels not in (0, count):
    raise ValueError(f"it has numbers for {count} levels, and its base for {stage.levels}.")
  return stage._replace(levels=count)


def length_penalty_reward(rewards: jax.Array, lengths: jax.Array, *, alpha: float) -> jax.Array:
  """A price for every token, right or wrong: r - alpha * length. [...], [...] -> [...].

  The naive form, a baseline: a wrong answer gains by being short, and once tokens
  cost more than answers pay, the policy says nothing. Source: the term that length penalties
  start from, such as that of a Lagrangian (arXiv:2310.04373).

  >>> print(length_penalty_reward(jnp.array([1.0, 0.0]), jnp.array([32, 64]), alpha=1 / 128))
  [ 0.75 -0.5 ]
  """
  same_shape(rewards=rewards, lengths=lengths)
  return as_float(rewards) - alpha * as_float(lengths)


def length_penalty(*, alpha: float, base: Stage | None = None) -> Stage:
  """The stage of `length_penalty_reward`."""
  return shaped(base, lambda rewards, r: length_penalty_reward(rewards, r.lengths, alpha=alpha))


def soft_overlong_reward(
  rewards: jax.Array,
  lengths: jax.Array,
  *,
  max_length: int,
  buffer: int,
  factor: float = 1.0,
  floor: float = -1.0,
) -> jax.Array:
  """A penalty that grows from 0 to `factor` over the last `buffer` tokens before `max_length`.

    r + factor * clip((max_length - buffer - length) / buffer, floor, 0)

  Source: DAPO, arXiv:2503.14476 (20480, 4096), as in TRL. verl and LUSPO (factor 0.3) have no
  floor, `floor=-inf`; below the cap it makes no difference. [...], [...] -> [...].

  >>> zero, lengths = jnp.zeros(3), jnp.array([80, 90, 150])
  >>> print(soft_overlong_reward(zero, lengths, max_length=100, buffer=20))
  [ 0.  -0.5 -1. ]
  """
  same_shape(rewards=rewards, lengths=lengths)
  if not 0 <= buffer <= max_length:
    raise ValueError(f"buffer must be between 0 and max_length={max_length}, got {buffer}.")
  # Without a buffer the penalty is a step: any excess, at least one token, reaches the floor.
  slack = (max_length - buffer - as_float(lengths)) / max(buffer, 1)
  return as_float(rewards) + factor * jnp.clip(slack, floor, 0.0)


def soft_overlong(
  *,
  max_length: int,
  buffer: int,
  factor: float = 1.0,
  floor: float = -1.0,
  base: Stage | None = None,
) -> Stage:
  """`soft_overlong_reward`, right and wrong answers alike."""
  reward = partial(
    soft_overlong_reward, max_length=max_length, buffer=buffer, factor=factor, floor=floor
  )
  # A truncated response exceeds the limit by a token or more; with a buffer the limit costs it all.
  excess = lambda r: 0 if buffer else r.truncated
  needs = () if buffer else ("truncated",)
  return shaped(base, lambda rewards, r: reward(rewards, r.lengths + excess(r)), needs)
