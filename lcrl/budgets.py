"""Slot 1: how long may this answer be?

A stage gives every rollout a target, which rewards compare with, a cap, where the sampler stops,
and a level, which selects a prompt template. `apply(state, prompt_ids, *, step, key, group_size)`
is called once to sample and once more in `shape`, with the same key, where the state advances.
A stage that learns from rollouts has `learn`, which `shape` calls before that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp

from lcrl.by_row import known_rows, of_rows, put_rows, unknown
from lcrl.masked import as_float, masked_quantile
from lcrl.sharding import look_up
from lcrl.types import Budget, Rollouts, Stage

__all__ = [
  "cosine_cycle",
  "cosine_cycle_length",
  "effort",
  "exponential_decay",
  "exponential_decay_length",
  "first_only",
  "fixed",
  "geometric_points",
  "geometric_points_length",
  "linear_points",
  "linear_points_length",
  "right_median",
  "scheduled",
  "stair",
  "stair_cosine",
  "stair_cosine_length",
  "stair_length",
  "subgroups",
  "uniform",
  "uniform_level",
]


def __dir__() -> list[str]:
  return __all__


Schedule = Callable[[jax.Array], jax.Array]


def _check(**limits: int) -> None:
  for name, limit in limits.items():
    if limit < 1:
      raise ValueError(f"budget.{name} must be at least 1, got {limit}.")


def _budget(target: jax.Array, cap: int | None, group_size: int) -> Budget:
  """Targets [B] for whole groups; a cap of None stops the sampler at the target."""
  target = jnp.broadcast_to(target.astype(jnp.int32)[:, None], (target.shape[0], group_size))
  stop = target if cap is None else jnp.full_like(target, cap)
  return Budget(target=target, cap=stop, level=jnp.zeros_like(target))


def fixed(*, target: int, cap: int | None = None) -> Stage:
  """The same target for everybody; the sampler stops at `cap`, or at the target if that is None."""
  _check(target=target, cap=target if cap is None else cap)

  def apply(state, prompt_ids, *, step, key, group_size):
    del step, key
    return _budget(jnp.full(prompt_ids.shape, target), cap, group_size), state

  return Stage(init=lambda: (), apply=apply, levels=1)


def first_only(*, target: int) -> Stage:
  """The first rollout of a group has the target; the others stop after one token.

  For a revision that puts others in their place, `revise.fn="serial_exits"`. Source: S-GRPO,
  arXiv:2505.07686, whose serial group has one full answer.
  """
  _check(target=target)

  def apply(state, prompt_ids, *, step, key, group_size):
    del step, key
    budget = _budget(jnp.full(prompt_ids.shape, target), None, group_size)
    return dataclasses.replace(budget, cap=budget.cap.at[:, 1:].set(1)), state

  return Stage(init=lambda: (), apply=apply, levels=1)


def uniform(*, low: int, high: int, cap: int | None = None) -> Stage:
  """One target a group, drawn from low to high, both included, afresh every step.

  Source: L1, arXiv:2503.04697 (100 to 4000). The draw depends on key, step and prompt only.
  """
  _check(low=low, high=high, cap=high if cap is None else cap)
  if low > high:
    raise ValueError(f"budget.low must not exceed budget.high, got {low} > {high}.")

  def apply(state, prompt_ids, *, step, key, group_size):
    return _budget(_draw(prompt_ids, step, key, low, high), cap, group_size), state

  return Stage(init=lambda: (), apply=apply, levels=1)


def _draw(prompt_ids, step, key, low, high):
  """An integer from low to high for each prompt."""
  key = jax.random.fold_in(key, step)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, prompt_ids)
  return jax.vmap(lambda k: jax.random.randint(k, (), low, high + 1, jnp.int32))(keys)


def uniform_level(*, targets: tuple[int, ...], cap: int | None = None) -> Stage:
  """One of several levels a group, each with its target, drawn afresh every step
  (TLDR, arXiv:2505.07961)."""
  _check(target=min(targets), cap=min(targets) if cap is None else cap)

  def apply(state, prompt_ids, *, step, key, group_size):
    level = _draw(prompt_ids, step, key, 0, len(targets) - 1)
    budget = _budget(look_up(jnp.asarray(targets), level), cap, group_size)
    level = jnp.broadcast_to(level[:, None], budget.target.shape)
    return dataclasses.replace(budget, level=level), state

  return Stage(init=lambda: (), apply=apply, levels=len(targets))


def subgroups(*, targets: tuple[int, ...], cap: int | None = None) -> Stage:
  """A group shared out among targets, with as many levels: rollout i of G gets i * K // G.

  Source: HBPO, arXiv:2507.15844 (512, 1024, 2048, 2560); the same for every prompt and step.
  """
  _check(target=min(targets), cap=min(targets) if cap is None else cap)

  def apply(state, prompt_ids, *, step, key, group_size):
    del step, key
    level = jnp.arange(group_size, dtype=jnp.int32) * len(targets) // group_size
    level = jnp.broadcast_to(level, (*prompt_ids.shape, group_size))
    target = jnp.asarray(targets, jnp.int32)[level]
    return Budget(target, target if cap is None else jnp.full_like(target, cap), level), state

  return Stage(init=lambda: (), apply=apply, levels=len(targets))


def effort(
  *,
  efforts: Sequence[float],
  tokens: int,
  cap: int,
  shares: Sequence[float] | None = None,
  within_groups: bool = False,
) -> Stage:
  """One of several efforts, as the level that selects the prompt template (`task.render`).

    target = max(1, round(effort * tokens))

  The target is what a template with {target} asks for; `lcrl.rewards.effort` compares with a
  reference of its own. The sampler stops at `cap`. Source: such levels are in ThinkDial,
  arXiv:2508.18773, and in what Kimi and NVIDIA tell of their models.

  Args:
    efforts: one a level, in the order of the templates.
    tokens: at an effort of 1.
    cap: where the sampler stops.
    shares: of the groups that each effort gets, drawn afresh every step by key, step and prompt
      alone; None: equal ones.
    within_groups: a group is shared out among the efforts instead: rollout i of G gets i * K // G.
  """
  _check(tokens=tokens, cap=cap, efforts=len(efforts))
  if within_groups and shares is not None:
    raise ValueError("budget.shares are of groups: with within_groups=True there are none.")
  shares = [1.0] * len(efforts) if shares is None else shares
  if min(efforts) <= 0:
    raise ValueError(f"budget.efforts must be positive, got {tuple(efforts)}.")
  if len(shares) != len(efforts) or not min(shares) >= 0 or not 0 < sum(shares) < math.inf:
    raise ValueError(
      f"budget.shares must be {len(efforts)} numbers of at least 0, not all 0, got {tuple(shares)}."
    )
  targets = jnp.asarray([max(1, round(e * tokens)) for e in efforts], jnp.int32)

  def apply(state, prompt_ids, *, step, key, group_size):
    shape = (*prompt_ids.shape, group_size)
    if within_groups:
      level = jnp.arange(group_size, dtype=jnp.int32) * len(efforts) // group_size
    else:
      keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, step), prompt_ids)
      draw = lambda k: jax.random.categorical(k, jnp.log(jnp.asarray(shares, jnp.float32)))
      level = jax.vmap(draw)(keys).astype(jnp.int32)[:, None]
    level = jnp.broadcast_to(level, shape)
    return Budget(look_up(targets, level), jnp.full(shape, cap, jnp.int32), level), state

  return Stage(init=lambda: (), apply=apply, levels=len(efforts))


def right_median(*, rows: int, fallback: int, shown_from: int, cap: int | None = None) -> Stage:
  """LAPO: a prompt's target is the median length of its right answers; later the prompt states it.

  In the first `shown_from` steps it is that of the latest group, and unknown after a group without
  a right answer; from then on it only falls. An unknown target is `fallback`. Levels: 0 the prompt
  does not show the target, 1 it does, 2 it shows the fallback. State: [rows] float32, inf where
  unknown.

  Source: LAPO, arXiv:2507.15758 (fallback 4096, the cap).

  Args:
    rows: of the data set.
    fallback: tokens.
    shown_from: steps of the first stage.
    cap: where the sampler stops; None: at `fallback`.
  """
  _check(rows=rows, fallback=fallback, cap=fallback if cap is None else cap)
  if shown_from < 0:
    raise ValueError(f"budget.shown_from must be at least 0, got {shown_from}.")

  def apply(medians, prompt_ids, *, step, key, group_size):
    del key
    median = of_rows(medians, prompt_ids)
    known = jnp.isfinite(median)
    # A median may be half a token more than a whole number, which the prompt rounds down.
    target = jnp.where(known, jnp.maximum(jnp.where(known, median, 1.0), 1.0), fallback)
    budget = _budget(target, fallback if cap is None else cap, group_size)
    level = jnp.where(step >= shown_from, jnp.where(known, 1, 2), 0).astype(jnp.int32)
    level = jnp.broadcast_to(level[:, None], budget.target.shape)
    return dataclasses.replace(budget, level=level), medians

  def learn(medians, r: Rollouts):
    right = r.correct & r.valid
    new = masked_quantile(r.lengths, right, 0.5, empty=jnp.inf)
    only_falls = r.budget.level[:, 0] > 0
    new = jnp.where(only_falls, jnp.minimum(of_rows(medians, r.prompt_ids), new), new)
    return put_rows(medians, r, new)

  return Stage(
    init=lambda: unknown(rows),
    apply=apply,
    rows=rows,
    numbers=partial(known_rows, "right_median"),
    learn=learn,
    levels=3,
  )


def scheduled(*, schedule: Schedule, cap: int | None = None) -> Stage:
  """One target for everybody that depends on the step: `schedule`, cut to an integer, at least 1.

  `schedule=dict(fn="exponential_decay", start=256, decay=0.7, interval=150)` is the curriculum of
  arXiv:2508.08940. The sampler stops at `cap`, or at the target if that is None.
  """
  _check(cap=1 if cap is None else cap)

  def apply(state, prompt_ids, *, step, key, group_size):
    del key
    # The slack keeps a length that is whole, 87 say, from becoming 86 by rounding.
    target = jnp.maximum(1, jnp.floor(schedule(step) + 1e-3)).astype(jnp.int32)
    return _budget(jnp.broadcast_to(target, prompt_ids.shape), cap, group_size), state

  return Stage(init=lambda: (), apply=apply, levels=1)


def exponential_decay_length(
  step: jax.Array, *, start: float, decay: float, interval: int
) -> jax.Array:
  """max(1, start * decay^floor(step / interval)). [...] int -> [...] float.

  Source: Train Long, Think Short, arXiv:2508.08940 (256, 0.7, 150).

  >>> print(exponential_decay_length(jnp.array([0, 150, 300]), start=256, decay=0.5, interval=150))
  [256. 128.  64.]
  """
  return jnp.maximum(1.0, start * decay ** as_float(step // interval))


def geometric_points_length(
  step: jax.Array, *, start: float, end: float, points: int, total: int
) -> jax.Array:
  """From start to end by one factor at each of `points` equally spaced steps of `total`.

  start * (end / start)^(k / points) after the k-th point, at step k * floor(total / (points + 1)).
  Source: arXiv:2508.08940. [...] int -> [...] float.

  >>> steps = jnp.array([0, 10, 20])
  >>> print(geometric_points_length(steps, start=400, end=100, points=2, total=30).round(2))
  [400. 200. 100.]
  """
  return start * (end / start) ** _points_passed(step, points, total)


def linear_points_length(
  step: jax.Array, *, start: float, end: float, points: int, total: int
) -> jax.Array:
  """From start to end by equal drops at the steps of `geometric_points_length`.

  [...] int -> [...] float.

  >>> steps = jnp.array([0, 10, 20])
  >>> print(linear_points_length(steps, start=400, end=100, points=2, total=30).round(2))
  [400. 250. 100.]
  """
  return start + (end - start) * _points_passed(step, points, total)


def _points_passed(step, points, total):
  if not 1 <= points < total:
    raise ValueError(f"points must be between 1 and total={total} - 1, got {points}.")
  return as_float(jnp.minimum(step // (total // (points + 1)), points)) / points


def cosine_cycle_length(step: jax.Array, *, low: float, high: float, period: int) -> jax.Array:
  """A cosine that starts at `high` and is at `low` in the middle of each period.

  Source: SIRI, arXiv:2509.25176 (8192, 16384, 640). [...] int -> [...] float.

  >>> print(cosine_cycle_length(jnp.array([0, 320, 640]), low=8192, high=16384, period=640))
  [16384.  8192. 16384.]
  """
  return _between(low, high, jnp.cos(_phase(step, period)))


def stair_length(step: jax.Array, *, low: float, high: float, period: int) -> jax.Array:
  """`low` in the first half of each period, `high` in the second (SIRI, arXiv:2509.25176;
  the order is our choice). [...] int -> [...] float.

  >>> print(stair_length(jnp.array([0, 5, 10]), low=100, high=200, period=10))
  [100. 200. 100.]
  """
  return jnp.where(2 * (step % period) < period, low, high) * 1.0


def stair_cosine_length(step: jax.Array, *, low: float, high: float, period: int) -> jax.Array:
  """`high`, a cosine down, `low`, a cosine up, each a quarter of the period, centred on its start
  (SIRI). [...] int -> [...] float.

  >>> steps = jnp.array([0, 25, 50, 75])
  >>> print(stair_cosine_length(steps, low=100, high=200, period=100).round(1))
  [200. 150. 100. 150.]
  """
  phase = _phase(step, period)
  quarter = math.pi / 4
  down = jnp.clip(phase, quarter, 3 * quarter) - quarter
  up = jnp.clip(phase, 5 * quarter, 7 * quarter) - 5 * quarter
  return _between(low, high, jnp.cos(2 * (down + up)))


def _phase(step, period):
  return 2 * math.pi / period * as_float(step % period)


def _between(low, high, wave):
  return (high + low) / 2 + (high - low) / 2 * wave


def exponential_decay(*, start: float, decay: float, interval: int) -> Schedule:
  """`exponential_decay_length`, for the argument `schedule`."""
  return partial(exponential_decay_length, start=start, decay=decay, interval=interval)


def geometric_points(*, start: float, end: float, points: int, total: int) -> Schedule:
  """`geometric_points_length`, for the argument `schedule`.

  >>> schedule = geometric_points(start=400, end=100, points=2, total=30)
  >>> print(schedule(jnp.array(20)).round(2))
  100.0
  """
  return partial(geometric_points_length, start=start, end=end, points=points, total=total)


def linear_points(*, start: float, end: float, points: int, total: int) -> Schedule:
  """`linear_points_length`, for the argument `schedule`.

  >>> print(linear_points(start=400, end=100, points=2, total=30)(jnp.array(20)).round(2))
  100.0
  """
  return partial(linear_points_length, start=start, end=end, points=points, total=total)


def cosine_cycle(*, low: float, high: float, period: int) -> Schedule:
  """`cosine_cycle_length`, for the argument `schedule`."""
  return partial(cosine_cycle_length, low=low, high=high, period=period)


def stair(*, low: float, high: float, period: int) -> Schedule:
  """`stair_length`, for the argument `schedule`.

  >>> print(stair(low=100, high=200, period=10)(jnp.array([0, 5])))
  [100. 200.]
  """
  return partial(stair_length, low=low, high=high, period=period)


def stair_cosine(*, low: float, high: float, period: int) -> Schedule:
  """`stair_cosine_length`, for the argument `schedule`.

  >>> print(stair_cosine(low=100, high=200, period=100)(jnp.array([0, 50])).round(1))
  [200. 100.]
  """
  return partial(stair_cosine_length, low=low, high=high, period=period)
