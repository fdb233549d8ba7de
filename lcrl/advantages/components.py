"""Several rewards, each made comparable before they are mixed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.checks import same_groups, typed
from lcrl.masked import as_float, standardize
from lcrl.types import Rollouts, Stage

__all__ = [
  "component_advantages",
  "component_average",
  "component_average_advantage",
]


def component_advantages(
  components: jax.Array, keep: jax.Array, *, ddof: int = 1, eps: float = 1e-6
) -> jax.Array:
  """Each component in standard deviations of its group, 0 where it does not vary.

  [K, ..., B, G], [..., B, G] -> [K, ..., B, G].
  """
  same_groups(keep=keep)
  typed(components=components)
  if components.shape[1:] != keep.shape:
    raise ValueError(
      f"components must be [K, *{keep.shape}] for this keep, got {components.shape}."
    )
  return standardize(components, jnp.broadcast_to(keep, components.shape), ddof=ddof, eps=eps)


def component_average_advantage(
  components: jax.Array, keep: jax.Array, *, ddof: int = 1, eps: float = 1e-6
) -> jax.Array:
  """The mean of `component_advantages`: no reward wins by its scale.

  Source: LongWriter-Zero, arXiv:2506.18841, from secondary notes. [K, ..., B, G],
  [..., B, G] -> [..., B, G].

  >>> components = jnp.array([[[1.0, 0.0]], [[300.0, 0.0]]])
  >>> print(component_average_advantage(components, jnp.ones((1, 2), bool)).round(3))
  [[ 0.707 -0.707]]
  """
  return jnp.mean(component_advantages(components, keep, ddof=ddof, eps=eps), 0)


def component_average(*, signals: tuple[str, ...], ddof: int = 1, eps: float = 1e-6) -> Stage:
  """`component_average_advantage` of the reward and of the signals named, [B, G] each; "scores" is
  the verifier's own number."""
  needs = tuple(name for name in signals if name != "scores")

  def apply(state, rewards, keep, r: Rollouts):
    read = r.signals | {"scores": r.scores}
    components = jnp.stack([as_float(rewards), *(as_float(read[name]) for name in signals)])
    return component_average_advantage(components, keep, ddof=ddof, eps=eps), state

  return Stage(init=lambda: (), apply=apply, needs=("group", *needs))
