"""What adapters share: groups of one size, a group alone, and jit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def blocks(rows, size):
  """Consecutive groups of one size: [N] -> [N / size, size]; None becomes nan."""
  return jnp.asarray(np.asarray(rows, float).reshape(-1, size))


def alone(f):
  """`f` of groups [B, G], for one group: arrays [G] in, [G] or one number out."""
  row = lambda x: x[None] if isinstance(x, jax.Array | np.ndarray) else x

  def call(*arrays, **knobs):
    knobs = {name: row(x) for name, x in knobs.items()}
    return jax.tree.map(lambda x: x[0], f(*map(row, arrays), **knobs))

  return call


def compiled(adapter, **finish):
  """The adapter as one program a case: op by op, compiling takes most of the time.

  `finish` names outputs that only numpy can finish: indices of unknown number, None for inf.
  """

  def call(inputs, params):
    got = jax.jit(lambda: adapter(inputs, params))()
    return {name: finish.get(name, lambda x: x)(value) for name, value in got.items()}

  return call
