"""What adapters share: flat arrays with a group label a row <-> padded groups [B, G], and jit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


class Groups:
  """Groups of unequal size, in ascending order of their labels; row order is kept inside them."""

  def __init__(self, labels):
    self.labels, self._group = np.unique(labels, return_inverse=True)
    members = [np.flatnonzero(self._group == g) for g in range(len(self.labels))]
    self._slot = np.zeros(len(labels), int)
    for rows in members:
      self._slot[rows] = np.arange(len(rows))
    self.valid = self(np.ones(len(labels), bool))

  def __call__(self, rows):
    """[N, ...] -> [B, G, ...], padded with zeros."""
    rows = np.asarray(rows)
    shape = (len(self.labels), self._slot.max() + 1, *rows.shape[1:])
    grouped = np.zeros(shape, rows.dtype)
    grouped[self._group, self._slot] = rows
    return jnp.asarray(grouped)

  def rows(self, grouped):
    """[B, G, ...] -> [N, ...]."""
    return grouped[self._group, self._slot]


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
