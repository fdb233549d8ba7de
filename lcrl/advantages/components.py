"""Several rewards, each made comparable before they are mixed."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lcrl.advantages.group import whitened
from lcrl.checks import same_groups, typed
from lcrl.masked import AxisName, as_float, standardize
from lcrl.types import Rollouts, Stage

__all__ = [
  "component_advantages",
  "component_average",
  "component_average_advantage",
  "gdpo",
  "gdpo_advantage",
]


def component_advantages(
  components: jax.Array, keep: jax.Array, *, ddof: int = 1, eps: float = 1e-6
) -> jax.Array:
  """Each component in standard deviations of its group, 0 where it does not vary.

  [K, ..., B, G], [..., B, G] -> [K, ..., B, G].

  >>> parts = jnp.array([[[1.0, 0.0, 0.5]], [[7.0, 7.0, 7.0]]])  # verdict and length of one group
  >>> print(component_advantages(parts, jnp.ones((1, 3), bool), eps=0.0)[:, 0])
  [[ 1. -1.  0.]
   [ 0.  0.  0.]]
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


def gdpo_advantage(
  components: jax.Array,
  keep: jax.Array,
  lengths: jax.Array | None = None,
  *,
  weights: Sequence[float] | None = None,
  ddof: int = 1,
  eps: float = 1e-6,
  axis_name: AxisName = None,
) -> jax.Array:
  """GDPO: every reward in deviations of its group, their weighted sum whitened over the batch.

    A = whitened(sum_k weight_k * (r_k - mean of the group) / (std of the group + eps))

  Source: Liu et al. 2026, arXiv:2601.05242, which whitens rollouts; verl whitens tokens, which
  `lengths` does here. TRL has eps 1e-4. Inside `jax.shard_map` the batch is that of all devices
  along `axis_name`; groups are whole.

  Args:
    components: [K, ..., B, G], the rewards.
    keep: [..., B, G] bool, the rollouts that train.
    lengths: [..., B, G] int, tokens of each rollout; None counts each rollout once.
    weights: K numbers; None means that all are 1.
  Returns: [..., B, G] float, 0 where not kept and where no reward varies.

  >>> right, within = jnp.array([[1.0, 1.0, 0.0]]), jnp.array([[1.0, 0.0, 0.0]])
  >>> print(gdpo_advantage(jnp.stack([right, within]), jnp.ones((1, 3), bool)).round(3))
  [[ 1.  0. -1.]]
  """
  same_groups(keep=keep, **({} if lengths is None else {"lengths": lengths}))
  parts = component_advantages(components, keep, ddof=ddof, eps=eps)
  weights = (1.0,) * len(parts) if weights is None else weights
  if len(weights) != len(parts):
    raise ValueError(f"weights must be one a component, got {len(weights)} for {len(parts)}.")
  mixed = sum(weight * part for weight, part in zip(weights, parts, strict=True))
  counts = jnp.where(keep, 1 if lengths is None else lengths, 0)
  return whitened(mixed, counts, ddof=ddof, axis_name=axis_name)


def component_average(*, signals: tuple[str, ...], ddof: int = 1, eps: float = 1e-6) -> Stage:
  """`component_average_advantage` of the reward and of the signals named, [B, G] each; "scores" is
  the verifier's own number."""
  needs = tuple(name for name in signals if name != "scores")

  def apply(state, rewards, keep, r: Rollouts):
    read = r.signals | {"scores": r.scores}
    components = jnp.stack([as_float(rewards), *(as_float(read[name]) for name in signals)])
    return component_average_advantage(components, keep, ddof=ddof, eps=eps), state

  return Stage(init=lambda: (), apply=apply, needs=("group", *needs))


def gdpo(
  *,
  components: tuple[str, ...] = ("reward", "within_target"),
  weights: tuple[float, ...] | None = None,
  per_token: bool = False,
  ddof: int = 1,
  eps: float = 1e-6,
) -> Stage:
  """`gdpo_advantage` of the rewards that `components` names; `per_token` whitens tokens.

  "reward" is that of the run, "correct" the verdict, "scores" the verifier's own number,
  "within_target" 1 for a right answer that ended by `budget.target`; other names are signals.
  """
  if weights is not None and len(weights) != len(components):
    raise ValueError(f"weights must be one a component, got {weights} for {components}.")
  known = ("reward", "correct", "scores", "within_target")
  needs = tuple(name for name in components if name not in known)
  needs += ("truncated",) * ("within_target" in components)

  def apply(state, rewards, keep, r: Rollouts):
    ended = ~r.truncated if "truncated" in needs else True
    within = r.correct & ended & (r.lengths <= r.budget.target)
    own = {"reward": rewards, "correct": r.correct, "scores": r.scores, "within_target": within}
    values = jnp.stack([as_float((r.signals | own)[name]) for name in components])
    lengths = r.lengths if per_token else None
    advantages = gdpo_advantage(values, keep, lengths, weights=weights, ddof=ddof, eps=eps)
    return advantages, state

  return Stage(init=lambda: (), apply=apply, needs=("group", *needs))
