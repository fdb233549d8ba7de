"""General preferences: a skew-symmetric score of two embeddings, which need not be transitive.

Source: the General Preference Model, arXiv:2410.02197, and its code.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.checks import same_shape
from lcrl.masked import as_float

__all__ = ["group_preferences", "preference_score"]


def __dir__() -> list[str]:
  return __all__


def preference_score(first: jax.Array, second: jax.Array) -> jax.Array:
  """The log-odds that the first answer is preferred to the second; swapped, the sign changes.

    s = sum_k a[2k + 1] b[2k] - a[2k] b[2k + 1]

  A difference of rewards r_a - r_b is the case of the embeddings (1, r). [..., 2K] each -> [...].

  >>> rock, paper = jnp.array([1.0, 0.0]), jnp.array([-0.5, 0.866])
  >>> print(preference_score(paper, rock), preference_score(rock, paper))
  0.866 -0.866
  """
  same_shape(first=first, second=second)
  if not first.ndim or first.shape[-1] % 2 or not first.shape[-1]:
    raise ValueError(f"embeddings must be [..., 2K], got {first.shape}.")
  a, b = as_float(first), as_float(second)
  return jnp.sum(a[..., 1::2] * b[..., ::2] - a[..., ::2] * b[..., 1::2], -1)


def group_preferences(embeddings: jax.Array) -> jax.Array:
  """Chance that answer i of a group is preferred to answer j: sigmoid of `preference_score`, 1/2
  against itself. [..., G, 2K] -> [..., G, G].

  >>> chances = group_preferences(jnp.array([[1.0, 0.0], [1.0, 2.0]]))
  >>> print(f"{chances[1, 0]:.3f}")  # of rewards 2 and 0
  0.881
  """
  first, second = jnp.broadcast_arrays(embeddings[..., :, None, :], embeddings[..., None, :, :])
  return jax.nn.sigmoid(preference_score(first, second))
