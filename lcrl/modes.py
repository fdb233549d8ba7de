"""Two modes of thinking in one group, and which of them it should use: for reward and loss."""

from __future__ import annotations

import jax

from lcrl.checks import same_groups
from lcrl.masked import masked_mean

__all__ = [
  "mode_accuracy",
  "mode_is_preferred",
]


def __dir__() -> list[str]:
  return __all__


def mode_accuracy(correct: jax.Array, mode: jax.Array, valid: jax.Array) -> jax.Array:
  """Share of right answers among the group's rollouts in the mode. [..., G] each -> [...].

  >>> correct, mode = jnp.array([[True, False, True]]), jnp.array([[True, True, False]])
  >>> print(mode_accuracy(correct, mode, jnp.ones((1, 3), bool)))
  [0.5]
  """
  same_groups(correct=correct, mode=mode, valid=valid)
  return masked_mean(correct, valid & mode, -1)


def mode_is_preferred(
  correct: jax.Array, long: jax.Array, valid: jax.Array, *, threshold: float = 0.3
) -> jax.Array:
  """Rollouts in the mode that their group should use: long if more accurate by over `threshold`.

  [..., G] each -> [..., G] bool.

  >>> correct = long = jnp.array([[True, True, False, False]])
  >>> print(mode_is_preferred(correct, long, jnp.ones((1, 4), bool)))
  [[ True  True False False]]
  """
  same_groups(correct=correct, long=long, valid=valid)
  gain = mode_accuracy(correct, long, valid) - mode_accuracy(correct, ~long, valid)
  return long == (gain > threshold)[..., None]
