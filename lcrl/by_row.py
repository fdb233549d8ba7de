"""States with one number a row of the data set: [rows] float32, inf where nothing is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.masked import as_float, masked_mean
from lcrl.sharding import left_to_xla
from lcrl.types import Rollouts


def unknown(rows: int) -> jax.Array:
  """The state before anything is known."""
  return jnp.full(rows, jnp.inf, jnp.float32)


def of_rows(state: jax.Array, prompt_ids: jax.Array) -> jax.Array:
  """[rows] -> [B]; a prompt beyond the rows has nothing."""
  get = lambda state, ids: state.at[ids].get(mode="fill", fill_value=jnp.inf)
  return left_to_xla(get, prompt_ids, jnp.asarray(state), prompt_ids)


def of_prompts(state: jax.Array, r: Rollouts) -> jax.Array:
  """[rows] -> [B, G], as `of_rows`."""
  return jnp.broadcast_to(of_rows(state, r.prompt_ids)[:, None], r.lengths.shape)


def put_rows(state: jax.Array, r: Rollouts, new: jax.Array) -> jax.Array:
  """The state with `new` [B]. Rows of padding, which have no valid rollout, change nothing; a
  prompt that stands in a batch twice takes the smaller of its new numbers."""
  ids = jnp.where(jnp.any(r.valid, -1), r.prompt_ids, len(state))
  new = new.astype(state.dtype)
  put = lambda x, ids, new: x.at[ids].set(jnp.inf, mode="drop").at[ids].min(new, mode="drop")
  return left_to_xla(put, state, state, ids, new)


def lower_rows(state: jax.Array, prompt_ids: jax.Array, new: jax.Array) -> jax.Array:
  """The state with the minimum of itself and `new` [B]."""
  lower = lambda x, ids, new: x.at[ids].min(new, mode="drop")
  return left_to_xla(lower, state, state, prompt_ids, new)


def add_to_rows(state: jax.Array, prompt_ids: jax.Array, new: jax.Array) -> jax.Array:
  """The state with `new` [B] added."""
  add = lambda x, ids, new: x.at[ids].add(new, mode="drop")
  return left_to_xla(add, state, state, prompt_ids, new)


def known_rows(name: str, state: jax.Array, what: str = "length") -> dict[str, jax.Array]:
  """The share of rows of which something is known, and their mean `what`; nan without any."""
  known = jnp.isfinite(state)
  mean = jnp.where(jnp.any(known), masked_mean(state, known), jnp.nan)
  return {f"{name}/rows_known": jnp.mean(as_float(known)), f"{name}/{what}": mean}
