"""Length methods of 2025 and 2026 that the first two lists do not have."""

from __future__ import annotations

import jax.numpy as jnp

from lcrl import advantages
from tests.golden_adapters.groups import blocks, compiled


def gdpo(inputs, params):
  components = jnp.stack([blocks(rows, params["group"]) for rows in inputs["components"]])
  lengths, keep = blocks(inputs["lengths"], params["group"]), jnp.ones(components.shape[1:], bool)
  knobs = {"weights": params["weights"], "eps": params["eps"]}
  tokens = advantages.gdpo_advantage(components, keep, lengths, **knobs)
  rollouts = advantages.gdpo_advantage(components, keep, **knobs)
  return {"by_tokens": tokens.reshape(-1), "by_rollouts": rollouts.reshape(-1)}


ADAPTERS = {f"rl_2026/{f.__name__}": compiled(f) for f in [gdpo]}
