"""Drawing a token from logits of a large vocabulary with little noise.

The vocabulary is cut into tiles. Gumbel noise on the tiles' masses picks one, Gumbel noise on its
logits a token: the same distribution as noise on all logits, with 2 sqrt(V) random numbers a row
instead of V. The tiles' masses also give the log-probs, so the logits are read twice in all.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

TILE = 128


def tile(logits: jax.Array) -> jax.Array:
  """[S, V] -> [S, V / 128, 128]; -inf fills the last tile, a small vocabulary is one."""
  width = min(TILE, logits.shape[-1])
  if spare := -logits.shape[-1] % width:
    logits = jnp.pad(logits, ((0, 0), (0, spare)), constant_values=-jnp.inf)
  return logits.reshape(len(logits), -1, width)


def masses(tiles: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The largest logit and log sum exp of each tile, [S, V / 128] each.

  >>> top, mass = masses(jnp.log(jnp.array([[[1.0, 3.0], [0.0, 0.0]]])))
  >>> print(jnp.exp(top), jnp.exp(mass))
  [[3. 0.]] [[4. 0.]]
  """
  top = tiles.max(axis=-1)
  some = jnp.where(top > -jnp.inf, top, 0.0)
  return top, some + jnp.log(jnp.exp(tiles - some[..., None]).sum(axis=-1))


def draw(tiles: jax.Array, keys: jax.Array, greedy: jax.Array) -> jax.Array:
  """A token a row, [S] int32.

  Args:
    tiles: [S, n, w] logits, from `tile`.
    keys: [S] typed keys, of this token.
    greedy: [S] bool, rows that take the largest logit (of equal ones the first).
  """
  (count, width), greedy = tiles.shape[1:], greedy[:, None]
  noise = jax.vmap(lambda key: jax.random.gumbel(key, (count + width,), tiles.dtype))(keys)
  top, mass = masses(tiles)
  one = jnp.argmax(jnp.where(greedy, top, mass + noise[:, :count]), axis=-1)
  inside = jnp.take_along_axis(tiles, one[:, None, None], axis=1)[:, 0]
  within = jnp.argmax(jnp.where(greedy, inside, inside + noise[:, count:]), axis=-1)
  return (one * width + within).astype(jnp.int32)


def log_probs(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  """log softmax(logits)[tokens] in float32. [S, V], [S] -> [S].

  >>> print(jnp.exp(log_probs(jnp.log(jnp.array([[1.0, 3.0]])), jnp.array([1]))))
  [0.75]
  """
  total = jax.nn.logsumexp(masses(tile(logits))[1], axis=-1)
  chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
  return (chosen - total).astype(jnp.float32)
