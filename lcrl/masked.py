"""Masked reductions. The package's stabilisers live here.

A mask selects with `where`, so nothing behind it, nan included, reaches a value or a gradient.
Inside `jax.shard_map`, `axis_name` makes a sum, and all that is made of sums, that of all devices
along these mesh axes; `axis` then must hold every axis of the array that is cut.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from lcrl.sharding import along, ordered

__all__ = [
  "as_float",
  "centre",
  "exponent_limit",
  "finite_exp",
  "masked_mean",
  "masked_quantile",
  "masked_std",
  "masked_sum",
  "masked_var",
  "standardize",
  "total",
]


def __dir__() -> list[str]:
  return __all__


Axis = int | tuple[int, ...] | None
AxisName = str | tuple[str, ...] | None


def as_float(x: jax.Array) -> jax.Array:
  """`x` in float32 or wider: bool and integers become the default float, bfloat16 float32.

  >>> as_float(jnp.array([True])).dtype, as_float(jnp.ones(1, jnp.bfloat16)).dtype
  (dtype('float32'), dtype('float32'))
  """
  x = jnp.asarray(x)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    return x.astype(jnp.result_type(float))
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def exponent_limit(dtype) -> float:
  """8 below the logarithm of the type's largest number, 80.7 in float32: room for a factor.

  >>> f"{exponent_limit(jnp.float32):.1f}"
  '80.7'
  """
  return math.log(jnp.finfo(dtype).max) - 8


def finite_exp(x: jax.Array) -> jax.Array:
  """exp(x) up to `exponent_limit`, constant beyond.

  There the gradient is 0, and so is 0 times it, where exp itself would give inf and 0 * inf = nan.

  >>> print(f"{finite_exp(jnp.array(1e4)):.1e}")
  1.1e+35
  """
  x = as_float(x)
  return jnp.exp(jnp.minimum(x, exponent_limit(x.dtype)))


def total(x: jax.Array, axis_name: AxisName = None) -> jax.Array:
  """The sum of x over the devices along mesh axes; x itself without any.

  >>> print(total(jnp.array([1.0, 2.0])))
  [1. 2.]
  """
  return x if axis_name is None else jax.lax.psum(x, axis_name)


def masked_sum(
  x, mask, axis: Axis = None, *, keepdims: bool = False, axis_name: AxisName = None
) -> jax.Array:
  """Sum of x where mask.

  >>> print(masked_sum(jnp.array([1.0, jnp.nan, 2.0]), jnp.array([True, False, True])))
  3.0
  """
  local = jnp.sum(jnp.where(mask, as_float(x), 0.0), axis=axis, keepdims=keepdims)
  return total(local, axis_name)


def masked_mean(
  x, mask, axis: Axis = None, *, keepdims: bool = False, axis_name: AxisName = None
) -> jax.Array:
  """Mean of x where mask; 0 where nothing is selected.

  >>> print(masked_mean(jnp.array([1.0, 9.0, 2.0]), jnp.array([True, False, True])))
  1.5
  """
  x, mask = jnp.broadcast_arrays(as_float(x), mask)
  count = total(jnp.sum(mask, axis=axis, keepdims=keepdims).astype(x.dtype), axis_name)
  whole = masked_sum(x, mask, axis, keepdims=keepdims, axis_name=axis_name)
  return whole / jnp.maximum(count, 1)


def masked_var(
  x, mask, axis: Axis = None, *, ddof: int = 0, keepdims: bool = False, axis_name: AxisName = None
) -> jax.Array:
  """Variance of x where mask, sum((x - mean)^2) / max(count - ddof, 1); 0 for one value or none.

  >>> print(masked_var(jnp.array([1.0, 9.0, 3.0]), jnp.array([True, False, True]), ddof=1))
  2.0
  """
  x, mask = jnp.broadcast_arrays(as_float(x), mask)
  mean = masked_mean(x, mask, axis, keepdims=True, axis_name=axis_name)
  centred = jnp.where(mask, x - mean, 0.0)
  count = total(jnp.sum(mask, axis=axis, keepdims=keepdims).astype(x.dtype), axis_name)
  squares = total(jnp.sum(centred**2, axis=axis, keepdims=keepdims), axis_name)
  return squares / jnp.maximum(count - ddof, 1)


def masked_std(
  x, mask, axis: Axis = None, *, ddof: int = 0, keepdims: bool = False, axis_name: AxisName = None
) -> jax.Array:
  """Square root of `masked_var`, with gradient 0 where the variance is 0.

  >>> print(masked_std(jnp.array([1.0, 9.0, 3.0]), jnp.array([True, False, True])))
  1.0
  """
  var = masked_var(x, mask, axis, ddof=ddof, keepdims=keepdims, axis_name=axis_name)
  return jnp.where(var > 0, jnp.sqrt(jnp.where(var > 0, var, 1.0)), 0.0)


def masked_quantile(x, mask, q: float, *, empty: float = 0.0, keepdims: bool = False) -> jax.Array:
  """Quantile along the last axis of x where mask, linear between values; `empty` where nothing is.

  >>> print(masked_quantile(jnp.array([4.0, 9.0, 0.0, 1.0]), jnp.array([1, 0, 1, 1]) > 0, 0.75))
  2.5
  """
  if not 0 <= q <= 1:
    raise ValueError(f"q must be between 0 and 1, got {q}.")
  x, mask = jnp.broadcast_arrays(as_float(x), mask)
  ascending = ordered(jnp.where(mask, x, jnp.inf))
  last = jnp.maximum(jnp.sum(mask, -1, keepdims=True) - 1, 0)
  position = q * last.astype(x.dtype)
  below = jnp.floor(position).astype(jnp.int32)
  low = along(ascending, below)
  high = along(ascending, jnp.minimum(below + 1, last))
  some = jnp.any(mask, -1, keepdims=True)
  low, high = jnp.where(some, low, 0.0), jnp.where(some, high, 0.0)
  value = jnp.where(some, low + (position - below) * (high - low), empty)
  return value if keepdims else value[..., 0]


def centre(x, mask, *, lone_raw: bool = False) -> jax.Array:
  """x minus its mean along the last axis, 0 where masked and exactly 0 where all values are equal.

  A value alone is its own mean and becomes 0; `lone_raw` takes mean 0 for it, as verl does.

  >>> print(centre(jnp.array([1.0, 9.0, 3.0]), jnp.array([True, False, True])))
  [-1.  0.  1.]
  """
  x, mask = jnp.broadcast_arrays(as_float(x), mask)
  x = jnp.where(mask, x, 0.0)
  # The mean of equal numbers may round to another number; that of equal zeros does not.
  shifted = x - jnp.max(jnp.where(mask, x, -jnp.inf), -1, keepdims=True, initial=-1e30)
  centred = shifted - masked_mean(shifted, mask, -1, keepdims=True)
  if lone_raw:
    centred = jnp.where(jnp.sum(mask, -1, keepdims=True) == 1, x, centred)
  return jnp.where(mask, centred, 0.0)


def standardize(
  x, mask, *, ddof: int = 1, eps: float = 1e-6, var_eps=0.0, min_std=0.0, lone_raw: bool = False
) -> jax.Array:
  """Distance from the mean in standard deviations, along the last axis; 0 where masked.

    z = (x - mean) / (max(sqrt(var + var_eps), min_std) + eps)

  The three stabilisers are those found in released code; most add `eps` to the deviation and leave
  the others at 0. `lone_raw` takes mean 0 and deviation 1 for a value alone in its group.

  >>> print(standardize(jnp.array([1.0, 9.0, 3.0]), jnp.array([True, False, True]), eps=0.0))
  [-0.70710677  0.          0.70710677]
  """
  centred = centre(x, mask)
  var = masked_var(centred, mask, -1, ddof=ddof, keepdims=True) + var_eps
  std = jnp.where(var > 0, jnp.sqrt(jnp.where(var > 0, var, 1.0)), 0.0)
  if lone_raw:
    centred = centre(x, mask, lone_raw=True)
    std = jnp.where(jnp.sum(mask, -1, keepdims=True) == 1, 1.0, std)
  divisor = jnp.maximum(std, min_std) + eps
  return centred / jnp.where(divisor > 0, divisor, 1.0)
