"""Optimizers by name: a chain of clipping, the rule and a learning-rate schedule.

The schedule counts train steps, whatever the number of optimizer updates in a step. `update` of an
optimizer takes the step as `step=`; without it every call counts as a step.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lcrl.policies import lora
from lcrl.registry import build

__all__ = ["adamw", "allora", "lamb", "sgd"]

LARGEST = float(np.finfo(np.float32).max)
Moments = Literal["float32", "bfloat16"]
MOMENTS = get_args(Moments)
RENAMED = {"warmup": "warmup_steps", "decay": "decay_steps"}


class Scheduled(optax.GradientTransformationExtraArgs):
  """An optimizer that also exposes its learning rate."""

  rate: optax.Schedule  # train steps done -> learning rate of the next one


def from_config(spec: Mapping[str, Any]) -> optax.GradientTransformation:
  """The optimizer of the section `optimizer` of a config.

  Raises:
    ValueError: a value is out of range, or a field has been renamed; the message names the field.
  """
  for old, new in RENAMED.items():
    if old in spec and spec.get("fn") in __all__:
      raise ValueError(
        f"optimizer.{old} is called optimizer.{new} and counts train steps (the unit of "
        f"train.steps), not optimizer updates; got optimizer.{old}={spec[old]!r}."
      )
  return build(sys.modules[__name__], spec, field="optimizer", gives=optax.GradientTransformation)


def adamw(
  *,
  learning_rate: float,
  clip_norm: float = 1.0,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  warmup_steps: int = 0,
  decay_steps: int = 0,
  moments: Moments = "float32",
) -> optax.GradientTransformation:
  """AdamW after clipping the global gradient norm (arXiv:1711.05101); see `schedule`.

  Args:
    moments: of both moments as they are stored; bfloat16 takes half the memory (`stored_in`).
  """
  rule = _adam(b1, b2, eps, weight_decay, moments)
  return _chain(clip_norm, rule, learning_rate, warmup_steps, decay_steps)


def lamb(
  *,
  learning_rate: float,
  clip_norm: float = 1.0,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-6,
  weight_decay: float = 0.0,
  warmup_steps: int = 0,
  decay_steps: int = 0,
  moments: Moments = "float32",
) -> optax.GradientTransformation:
  """LAMB after clipping the global gradient norm (arXiv:1904.00962); see `schedule`.

  The update has AdamW's direction. Its norm for each tensor is set to that of the tensor, unless
  one of them is 0. As in optax, the paper's bounds on that norm are left out.

  Args:
    moments: as in `adamw`.

  >>> rule = lamb(learning_rate=0.5)
  >>> update, _ = rule.update(jnp.ones(2), rule.init(jnp.ones(2)), jnp.ones(2))
  >>> print(update.round(3))
  [-0.5 -0.5]
  """
  rule = *_adam(b1, b2, eps, weight_decay, moments), optax.scale_by_trust_ratio()
  return _chain(clip_norm, rule, learning_rate, warmup_steps, decay_steps)


def sgd(
  *,
  learning_rate: float,
  clip_norm: float = 1.0,
  momentum: float = 0.0,
  warmup_steps: int = 0,
  decay_steps: int = 0,
) -> optax.GradientTransformation:
  """Gradient descent after clipping the global gradient norm; see `schedule`.

  >>> rule = sgd(learning_rate=0.5)
  >>> update, _ = rule.update(jnp.ones(1), rule.init(jnp.ones(1)))
  >>> print(update)
  [-0.5]
  """
  _check_share("momentum", momentum)
  rule = (optax.trace(momentum) if momentum else optax.identity(),)
  return _chain(clip_norm, rule, learning_rate, warmup_steps, decay_steps)


def allora(*, eta: float, base: optax.GradientTransformation) -> optax.GradientTransformation:
  """ALLoRA (arXiv:2410.09692): the rate of each output of an adapter falls as its change grows.

  The updates of `base` to every b of a section lora are multiplied by `allora_scale` of b, with the
  largest factor `eta` where b is 0. The paper scales gradients, which Adam would undo: scaling its
  update is the same for `sgd`, and keeps the meaning for `adamw`. It replaces dropout and alpha /
  rank: let lora.alpha be lora.rank.

  Args:
    eta: the factor where an output has no change yet, above 0.
    base: the rule, such as dict(fn="adamw", learning_rate=1e-4).
  """
  _check("eta", eta, lambda x: 0 < x <= LARGEST, "above 0 and finite")

  def update(grads, state, params=None, **others):
    updates, state = base.update(grads, state, params, **others)
    adapters = {k: x for k, x in (params or {}).items() if isinstance(x, Mapping) and "b" in x}
    if not adapters or any(set(x) != {"a", "b"} for x in adapters.values()):
      raise ValueError("optimizer.fn='allora' trains adapters: the config needs a section lora.")
    own = {name: updates[name] for name in adapters}
    return {**updates, **lora.allora_gradients(adapters, own, eta=eta)}, state

  optimizer = Scheduled(base.init, update)
  optimizer.rate = base.rate  # type: ignore[attr-defined]
  return optimizer


def _adam(b1, b2, eps, weight_decay, moments) -> tuple[optax.GradientTransformation, ...]:
  _check_share("b1", b1)
  _check_share("b2", b2)
  _check_size("weight_decay", weight_decay)
  _check("eps", eps, lambda x: 0 < x <= LARGEST, "above 0 and finite")
  if moments not in MOMENTS:
    raise ValueError(f"optimizer.moments={moments!r} is not one of {', '.join(MOMENTS)}.")
  rule = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
  return stored_in(moments, rule), optax.add_decayed_weights(weight_decay)


def stored_in(dtype: str, rule: optax.GradientTransformation) -> optax.GradientTransformation:
  """`rule` with the floats of its state stored in `dtype`; it computes in float32 or wider.

  In bfloat16, 1 - b2 of a second moment is less than half of a last digit: rounded to the nearest
  number, the moment would never fall. So every float is rounded up or down at random, and is right
  on average (`round_randomly`). The randomness depends on the state's `count` alone.

  Args:
    dtype: "float32" (of wider parameters: theirs) or "bfloat16".
    rule: its state has a `count` of updates.
  """

  def wide(tree):
    return _floats(lambda _, x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), tree)

  def init(params):
    state = wide(rule.init(params))
    return state if dtype == "float32" else _floats(lambda _, x: x.astype(dtype), state)

  def update(updates, state, params=None):
    updates, new = rule.update(wide(updates), wide(state), params)
    if dtype == "float32":
      return updates, new
    key = jax.random.fold_in(jax.random.key(0), new.count)
    return updates, _floats(lambda i, x: round_randomly(jax.random.fold_in(key, i), x), new)

  return optax.GradientTransformation(init, update)


def _floats(f: Callable[[int, jax.Array], jax.Array], tree: Any) -> Any:
  """f(index, leaf) of every leaf that is a float."""
  leaves, names = jax.tree.flatten(tree)
  is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
  return jax.tree.unflatten(names, [f(i, x) if is_float(x) else x for i, x in enumerate(leaves)])


def round_randomly(key: jax.Array, x: jax.Array) -> jax.Array:
  """One of the two bfloat16 numbers around x, the nearer more often: the mean is x.

  Stochastic rounding: 16 random bits are added to a float32 before its last 16 bits are cut off.

  >>> x = jnp.full(10_000, 1.0 + 2**-9)  # its neighbours are 1 and 1 + 2**-7
  >>> y = round_randomly(jax.random.key(0), x).astype(jnp.float32)
  >>> sorted(set(y.tolist())), round(float(y.mean()), 3)
  ([1.0, 1.0078125], 1.002)
  """
  bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
  noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
  cut = jax.lax.bitcast_convert_type((bits + noise) >> 16 << 16, jnp.float32)
  return jnp.where(jnp.isfinite(x), cut, x).astype(jnp.bfloat16)


def _chain(clip_norm, rule, learning_rate, warmup_steps, decay_steps) -> Scheduled:
  _check("clip_norm", clip_norm, lambda x: x > 0, "above 0 (infinity: nothing is clipped)")
  rate = schedule(learning_rate, warmup_steps=warmup_steps, decay_steps=decay_steps)
  whole = optax.chain(optax.clip_by_global_norm(clip_norm), optax.chain(*rule, _descend(rate)))
  optimizer = Scheduled(whole.init, whole.update)
  optimizer.rate = rate
  return optimizer


def _descend(rate: optax.Schedule) -> optax.GradientTransformationExtraArgs:
  """Multiplies updates by minus the rate at `step`; the state is that of `scale_by_schedule`."""

  def init(params):
    del params
    return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

  def update(updates, state, params=None, *, step=None, **others):
    del params, others
    factor = -rate(state.count if step is None else step)
    updates = jax.tree.map(lambda x: jnp.asarray(factor, x.dtype) * x, updates)
    return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

  return optax.GradientTransformationExtraArgs(init, update)


def schedule(
  learning_rate: float, *, warmup_steps: int = 0, decay_steps: int = 0
) -> optax.Schedule:
  """Train steps done -> learning rate of the next step: linear from 0 to the full rate after
  `warmup_steps`, then constant, or a cosine to 0 that ends after `decay_steps`, warm-up included.

  All optimizer updates of a step share one rate.

  >>> rate = schedule(1.0, warmup_steps=2, decay_steps=6)
  >>> print([round(float(rate(t)), 3) for t in (0, 1, 2, 4, 6)])
  [0.0, 0.5, 1.0, 0.5, 0.0]
  """
  _check_size("learning_rate", learning_rate)
  for name, steps in (("warmup_steps", warmup_steps), ("decay_steps", decay_steps)):
    _check(name, steps, lambda x: x >= 0 and x.is_integer(), "a whole number of at least 0")
  if decay_steps and decay_steps <= warmup_steps:
    raise ValueError(
      "optimizer.decay_steps must be above optimizer.warmup_steps, got "
      f"{decay_steps} and {warmup_steps}."
    )
  if decay_steps:
    return optax.warmup_cosine_decay_schedule(
      0.0 if warmup_steps else learning_rate, learning_rate, warmup_steps, decay_steps
    )
  return optax.join_schedules(
    [
      optax.linear_schedule(0.0, learning_rate, max(warmup_steps, 1)),
      optax.constant_schedule(learning_rate),
    ],
    [warmup_steps],
  )


def _check(name: str, value: Any, fits: Callable[[float], bool], wanted: str) -> None:
  """Raises ValueError, with the field of the config, unless `value` is a number that fits."""
  if isinstance(value, bool) or not isinstance(value, numbers.Real) or not fits(float(value)):
    raise ValueError(f"optimizer.{name} must be {wanted}, got {value!r}.")


def _check_share(name: str, value: Any) -> None:
  _check(name, value, lambda x: 0 <= x < 1, "at least 0 and below 1")


def _check_size(name: str, value: Any) -> None:
  _check(name, value, lambda x: 0 <= x <= LARGEST, "at least 0 and finite in float32")
