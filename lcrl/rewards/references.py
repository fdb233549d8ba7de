"""References of prompts: lengths in tokens, which an effort is a share of (`lcrl.rewards.effort`),
and accuracies of the start policy (`lcrl.rewards.adapt_think`).

A reference is read before the rollouts of a step change it; at the first visit of a prompt it is
what these rollouts give, and inf if they give none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.by_row import known_rows, of_rows, put_rows, unknown
from lcrl.checks import positive
from lcrl.masked import as_float, masked_mean
from lcrl.modes import mode_accuracy
from lcrl.rewards.steered import right_length_quantile
from lcrl.types import PyTree, Rollouts

__all__ = [
  "Reference",
  "first_accuracy_reference",
  "first_mean_reference",
  "fixed_reference",
  "group_mean_reference",
  "right_percentile_reference",
  "running_mean_reference",
  "signal_reference",
]


class Reference(NamedTuple):
  """How a reference of each prompt is kept."""

  init: Callable[[], PyTree]
  read: Callable[[PyTree, Rollouts], jax.Array]  # -> [B], inf where there is none
  update: Callable[[PyTree, Rollouts], PyTree]
  rows: int = 0  # of the data set that the state has room for; 0: it keeps nothing by row
  numbers: Callable[[PyTree], dict[str, jax.Array]] = lambda state: {}  # `Stage.numbers`
  needs: tuple[str, ...] = ()  # signals


def fixed_reference(*, tokens: float) -> Reference:
  """The same length for every prompt. Source: the effort levels of NVIDIA's NeMo-RL."""
  positive(tokens=tokens)
  read = lambda state, r: jnp.full(r.prompt_ids.shape, tokens, jnp.float32)
  return Reference(lambda: (), read, lambda state, r: state)


def group_mean_reference() -> Reference:
  """The mean length of the group itself: what the policy spends on the prompt now.

  Source: T_avg of adaptive effort control, arXiv:2510.27042.
  """

  def read(state, r: Rollouts):
    del state
    return _mean(r.lengths, r.valid)

  return Reference(lambda: (), read, lambda state, r: state)


def first_mean_reference(*, rows: int) -> Reference:
  """The mean length of the first group of each prompt, for that group and from then on: nearly that
  of the start policy for prompts that are sampled early. State: [rows] float32.

  Source: b0 of K3's effort training, arXiv:2607.24653, which is that of the start.
  """
  return _by_row(rows, lambda old, r: jnp.where(jnp.isfinite(old), old, _mean(r.lengths, r.valid)))


def first_accuracy_reference(*, rows: int, level: int = 0) -> Reference:
  """The accuracy of the first group of each prompt, of its rollouts at this level of the budget.

  For that group and from then on: nearly the start policy's for prompts that are sampled early.
  State: [rows] float32.

  >>> first_accuracy_reference(rows=3).init()
  Array([inf, inf, inf], dtype=float32)
  """

  def change(old, r: Rollouts):
    mode = r.budget.level == level
    some = jnp.any(r.valid & mode, -1)
    new = jnp.where(some, mode_accuracy(r.correct, mode, r.valid), jnp.inf)
    return jnp.where(jnp.isfinite(old), old, new)

  return _by_row(rows, change)


def signal_reference(*, name: str) -> Reference:
  """A signal of the task, equal for all rollouts of a prompt: `task.signals.fn="row_numbers"`.

  Source: AdaptThink, arXiv:2505.13417, draws 16 answers to each prompt before training.
  """
  read = lambda state, r: masked_mean(r.signals[name], r.valid, -1)
  return Reference(lambda: (), read, lambda state, r: state, needs=(name,))


def running_mean_reference(*, rows: int, decay: float = 0.5) -> Reference:
  """decay * old + (1 - decay) * mean of the group; the mean of the first group at first.

  State: [rows] float32.

  >>> print(running_mean_reference(rows=2, decay=0.9).init())
  [inf inf]
  """
  if not 0 <= decay < 1:
    raise ValueError(f"decay must be in [0, 1), got {decay}.")

  def change(old, r: Rollouts):
    new = _mean(r.lengths, r.valid)
    mixed = decay * jnp.where(jnp.isfinite(old), old, new) + (1 - decay) * new
    return jnp.where(jnp.isfinite(new), mixed, old)

  return _by_row(rows, change)


def right_percentile_reference(
  *, rows: int, percentile: float = 0.5, keep: bool = True
) -> Reference:
  """The percentile of the lengths of the right answers of a group: of the first one with a right
  answer (`keep`), or of the latest. State: [rows] float32.

  Source: budget(x) of Toggle, Kimi K2.5, arXiv:2602.02276, fixed at the start.

  >>> print(right_percentile_reference(rows=2).init())
  [inf inf]
  """

  def change(old, r: Rollouts):
    new = right_length_quantile(r.correct, r.lengths, r.valid, quantile=percentile)
    return jnp.where(jnp.isfinite(old) & keep | ~jnp.isfinite(new), old, new)

  if not 0 <= percentile <= 1:
    raise ValueError(f"percentile must be between 0 and 1, got {percentile}.")
  return _by_row(rows, change)


def _mean(lengths: jax.Array, valid: jax.Array) -> jax.Array:
  """[B, G] -> [B], inf for a group without a valid rollout."""
  return jnp.where(jnp.any(valid, -1), masked_mean(as_float(lengths), valid, -1), jnp.inf)


def _by_row(rows: int, change: Callable[[jax.Array, Rollouts], jax.Array]) -> Reference:
  """One number a row of the data set (`lcrl.by_row`): `change(old [B], rollouts) -> new [B]`."""
  positive(rows=rows)

  def read(state, r: Rollouts):
    old = of_rows(state, r.prompt_ids)
    return jnp.where(jnp.isfinite(old), old, change(old, r))

  def update(state, r: Rollouts):
    return put_rows(state, r, change(of_rows(state, r.prompt_ids), r))

  numbers = partial(known_rows, "effort", what="reference")
  return Reference(lambda: unknown(rows), read, update, rows, numbers)
