"""Length held at a limit by an adaptive price: Lagrange multipliers.

Source: Constrained RLHF, arXiv:2310.04373, and its code. Mean returns are those of the global
batch. With several updates a batch the same violation counts several times: divide the step size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.checks import one_or_each, per_row, same_shape
from lcrl.masked import as_float, masked_mean, standardize
from lcrl.rewards.base import shaped, shaped_with_state, with_levels
from lcrl.types import PyTree, Rollouts, Stage

__all__ = [
  "Multipliers",
  "component_mix",
  "dual_price",
  "kl_penalty",
  "kl_penalty_reward",
  "lagrangian",
  "length_dual",
  "priced_reward",
  "update_multipliers",
]


class Multipliers(NamedTuple):
  """The weights of the constraints and their momentum."""

  raw: jax.Array  # [N] float, before squashing
  velocity: jax.Array  # [N] float


def update_multipliers(
  state: Multipliers,
  returns: jax.Array,
  targets: jax.Array,
  *,
  squash: Callable[[jax.Array], jax.Array] | None = jnp.tanh,
  learning_rate: float = 0.1,
  momentum: float = 0.1,
  max_norm: float = 0.5,
) -> Multipliers:
  """One step down sum_i squash(raw_i) (return_i - target_i): a multiplier rises below its target.

    velocity = momentum * velocity + clipped gradient;   raw = raw - learning_rate * velocity

  `jnp.tanh` holds returns at the targets, `jax.nn.sigmoid` above them; None means no squashing and
  projection to raw >= 0. State from the caller; [N] each.

  >>> start = Multipliers(jnp.zeros(2), jnp.zeros(2))
  >>> moved = update_multipliers(start, jnp.array([0.5, 1.0]), jnp.array([0.8, 0.8]))
  >>> print(moved.raw.round(3))
  [ 0.03 -0.02]
  """
  same_shape(raw=state.raw, returns=returns, targets=targets)
  violation = jax.lax.stop_gradient(as_float(returns) - as_float(targets))
  multiplier = squash or (lambda raw: raw)
  gradient = jax.grad(lambda raw: jnp.sum(multiplier(raw) * violation))(as_float(state.raw))
  norm = jnp.sqrt(jnp.sum(gradient**2))
  gradient = gradient * jnp.minimum(1.0, max_norm / (norm + 1e-6))
  velocity = momentum * state.velocity + gradient
  raw = state.raw - learning_rate * velocity
  return Multipliers(raw if squash else jnp.maximum(raw, 0.0), velocity)


def dual_price(
  price: jax.Array,
  mean_length: jax.Array,
  *,
  target: float,
  scale: float,
  step_size: float = 0.1,
  max_price: float = 1.0,
) -> jax.Array:
  """clip(price + step_size * (mean length - target) / scale, 0, max_price). [], [] -> [].

  >>> print(dual_price(jnp.array(0.0), jnp.array(30.0), target=20, scale=20))
  0.05
  """
  one_or_each({"the run": jnp.zeros(())}, price=price, mean_length=mean_length)
  return jnp.clip(price + step_size * (mean_length - target) / scale, 0.0, max_price)


def priced_reward(
  rewards: jax.Array, lengths: jax.Array, price: jax.Array, *, scale: float
) -> jax.Array:
  """r - price * length / scale, right or wrong. [...], [...], [] -> [...].

  >>> print(priced_reward(jnp.ones(2), jnp.array([0, 50]), jnp.array(0.5), scale=100.0))
  [1.   0.75]
  """
  same_shape(rewards=rewards, lengths=lengths)
  one_or_each({"the run": jnp.zeros(())}, price=price)
  return as_float(rewards) - price * as_float(lengths) / scale


def length_dual(
  *,
  target: float,
  scale: float | None = None,
  step_size: float = 0.1,
  max_price: float = 1.0,
  base: Stage | None = None,
) -> Stage:
  """A price per `scale` tokens (the target, by default) that climbs while the mean is above it.

  Projected dual ascent in the manner of arXiv:2310.04373, ours; a batch pays the price from before
  its update. State: the price.
  """
  scale = target if scale is None else scale

  def shape(price, rewards, r: Rollouts):
    mean = masked_mean(r.lengths, r.valid)
    options = dict(target=target, scale=scale, step_size=step_size, max_price=max_price)
    new = dual_price(price, mean, **options).astype(price.dtype)
    return priced_reward(rewards, r.lengths, price, scale=scale), new

  return shaped_with_state(
    base,
    lambda: jnp.zeros((), jnp.float32),
    shape,
    targets=lambda price, r: {"length_dual": jnp.full(r.lengths.shape, target)},
    numbers=lambda price: {"length_dual/price": price},
  )


def kl_penalty_reward(
  rewards: jax.Array,
  log_probs: jax.Array,
  ref_log_probs: jax.Array,
  mask: jax.Array,
  *,
  beta: float,
) -> jax.Array:
  """r - beta * sum over tokens of (log_prob - ref_log_prob): the KL penalty in the reward.

  The k1 estimate, whose expectation over responses is KL(policy || ref). Source: PPO for language
  models, arXiv:1909.08593. [...], [..., T] three times -> [...].

  >>> mask = jnp.array([True, False])
  >>> print(kl_penalty_reward(jnp.array(1.0), -jnp.ones(2), -2 * jnp.ones(2), mask, beta=0.25))
  0.75
  """
  per_row(dict(log_probs=log_probs, ref_log_probs=ref_log_probs, mask=mask), rewards=rewards)
  gap = jnp.where(mask, as_float(log_probs), 0.0) - jnp.where(mask, as_float(ref_log_probs), 0.0)
  return as_float(rewards) - beta * jnp.sum(gap, -1)


def kl_penalty(*, beta: float, base: Stage | None = None) -> Stage:
  """`kl_penalty_reward` of the tokens that the sampler drew, under its log-probs; the signal
  `ref_log_probs` is [B, G, T]."""

  def shape(rewards, r: Rollouts):
    ref = r.signals["ref_log_probs"]
    return kl_penalty_reward(rewards, r.sampler_log_probs, ref, r.drawn, beta=beta)

  return shaped(base, shape, needs=("ref_log_probs",))


def component_mix(
  main: jax.Array,
  components: jax.Array,
  multipliers: jax.Array,
  valid: jax.Array,
  *,
  ddof: int = 1,
  eps: float = 1e-8,
) -> jax.Array:
  """(K - sum of multipliers) * main + sum of multiplier * component, in deviations of the batch.

  The weight that the constraints leave goes to the main reward. Source: as above; there main is the
  negated KL, and advantages of critics are mixed. Inside `jax.shard_map`, gather the batch first.
  [...], [K, ...], [K], [...] -> [...].

  >>> main, parts = jnp.array([[1.0, -1.0]]), jnp.array([[[5.0, 7.0]]])
  >>> print(component_mix(main, parts, jnp.array([1.0]), jnp.ones((1, 2), bool), ddof=0, eps=0.0))
  [[-1.  1.]]
  """
  same_shape(main=main, valid=valid)
  if jnp.shape(components)[1:] != main.shape or jnp.shape(multipliers) != (len(components),):
    raise ValueError(
      f"components must be [K, *{main.shape}] as main is, and multipliers [K], got "
      f"{jnp.shape(components)} and {jnp.shape(multipliers)}."
    )
  flat = jnp.concatenate([main[None], components]).reshape(len(components) + 1, -1)
  mask = jnp.broadcast_to(valid.reshape(-1), flat.shape)
  parts = standardize(flat, mask, ddof=ddof, eps=eps)
  weights = jnp.concatenate([len(components) - jnp.sum(multipliers, keepdims=True), multipliers])
  return jnp.sum(weights[:, None] * parts, 0).reshape(valid.shape)


class LagrangianState(NamedTuple):
  multipliers: Multipliers
  main: PyTree  # the states of the mixed rewards
  components: tuple[PyTree, ...]


def lagrangian(
  *,
  components: Sequence[Stage],
  targets: Sequence[float],
  main: Stage,
  two_sided: bool = True,
  start: float = 0.0,
  learning_rate: float = 0.1,
  momentum: float = 0.1,
  max_norm: float = 0.5,
) -> Stage:
  """`component_mix`, with multipliers that hold each component's mean at its target
  (`two_sided`) or above it (`update_multipliers`).

  The rewards are comparable over the batch: the advantage is `raw` or `group_centered`. A batch
  is paid with the multipliers from before its update. The paper draws the initial raw multipliers
  from N(0, 0.01).
  """
  if len(components) != len(targets):
    raise ValueError(
      f"targets must be one a component, got {len(targets)} for {len(components)} components."
    )
  squash = jnp.tanh if two_sided else jax.nn.sigmoid
  step = partial(
    update_multipliers,
    squash=squash,
    learning_rate=learning_rate,
    momentum=momentum,
    max_norm=max_norm,
  )
  stages = (main, *components)

  def init():
    raw = jnp.full(len(targets), start, jnp.float32)
    first, *rest = (stage.init() for stage in stages)
    return LagrangianState(Multipliers(raw, jnp.zeros_like(raw)), first, tuple(rest))

  def apply(state: LagrangianState, r: Rollouts):
    pairs = zip(stages, (state.main, *state.components), strict=True)
    rewards, new = zip(*(stage.apply(below, r) for stage, below in pairs), strict=True)
    components = jnp.stack([as_float(x) for x in rewards[1:]])
    mixed = component_mix(rewards[0], components, squash(state.multipliers.raw), r.valid)
    means = jax.vmap(masked_mean, (0, None))(components, r.valid)
    multipliers = step(state.multipliers, means, jnp.asarray(targets, means.dtype))
    multipliers = jax.tree.map(lambda x: x.astype(jnp.float32), multipliers)
    return mixed, LagrangianState(multipliers, new[0], new[1:])

  def observe(state: LagrangianState, monitor: Rollouts):
    pairs = zip(stages, (state.main, *state.components), strict=True)
    first, *rest = (s.observe(below, monitor) if s.observe else below for s, below in pairs)
    return LagrangianState(state.multipliers, first, tuple(rest))

  def of_all(name: str, state: LagrangianState, *inputs) -> dict[str, jax.Array]:
    """The merged results of the field `name` of the mixed rewards."""
    pairs = zip(stages, (state.main, *state.components), strict=True)
    results = [getattr(s, name)(below, *inputs) for s, below in pairs if getattr(s, name)]
    return {key: x for one in results for key, x in one.items()}

  def numbers(state: LagrangianState):
    multipliers = enumerate(squash(state.multipliers.raw))
    own = {f"lagrangian/multiplier_{i}": x for i, x in multipliers}
    return of_all("numbers", state) | own

  mixed = Stage(
    init,
    apply,
    needs=tuple(name for stage in stages for name in stage.needs),
    observe=observe if any(stage.observe for stage in stages) else None,
    rows=min((stage.rows for stage in stages if stage.rows), default=0),
    targets=partial(of_all, "targets") if any(stage.targets for stage in stages) else None,
    numbers=numbers,
  )
  counts = [stage.levels for stage in stages if stage.levels]
  return reduce(with_levels, counts, mixed)
