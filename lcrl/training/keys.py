"""Random keys of a run: each derives from the run's seed and the number of a step."""

from __future__ import annotations

import jax

# Takes the place of a step, so that evaluations and monitors draw from a stream of their own.
EVAL_STREAM = 2**31 - 1


def step_key(seed: int | jax.Array, step: int | jax.Array) -> jax.Array:
  """The key that all randomness of a step derives from."""
  return jax.random.fold_in(jax.random.key(seed), step)
