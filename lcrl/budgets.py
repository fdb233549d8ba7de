"""Slot 1: how long may this answer be?

A stage gives every rollout a target, which rewards compare with, a cap, where the sampler stops,
and a level, which selects a prompt template. `apply(state, prompt_ids, *, step, key, group_size)`
is called once to sample and once more in `shape`, with the same key, where the state advances.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.types import Budget, Stage

__all__ = ["fixed", "uniform"]


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

  return Stage(init=lambda: (), apply=apply)


def uniform(*, low: int, high: int, cap: int | None = None) -> Stage:
  """One target a group, drawn from low to high, both included, afresh every step.

  Source: L1, arXiv:2503.04697 (100 to 4000). The draw depends on key, step and prompt only.
  """
  _check(low=low, high=high, cap=high if cap is None else cap)
  if low > high:
    raise ValueError(f"budget.low must not exceed budget.high, got {low} > {high}.")

  def apply(state, prompt_ids, *, step, key, group_size):
    key = jax.random.fold_in(key, step)
    keys = jax.vmap(lambda prompt: jax.random.fold_in(key, prompt))(prompt_ids)
    target = jax.vmap(lambda k: jax.random.randint(k, (), low, high + 1))(keys)
    return _budget(target, cap, group_size), state

  return Stage(init=lambda: (), apply=apply)
