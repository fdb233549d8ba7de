"""The parameters of a layer: flax.linen gives them names, axes and initial values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lcrl.policies.config import Config


class Norm(nn.Module):
  """x / rms(x) * (offset + scale) over the last axis, in float32 or wider."""

  eps: float
  offset: float = 0.0

  @nn.compact
  def __call__(self, x):
    start = nn.initializers.constant(1.0 - self.offset) if self.offset else nn.initializers.ones
    named: Any = nn.with_logical_partitioning(start, ("norm",))
    wide = x.astype(at_least_float32(x.dtype))
    scale: jax.Array = self.param("scale", named, x.shape[-1:], wide.dtype)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
    scale = scale.astype(wide.dtype) + self.offset if self.offset else scale
    return (wide * lift(scale, x.ndim)).astype(x.dtype)


def norm(c: Config, **options) -> Norm:
  """A norm of this model."""
  return Norm(c.norm_eps, c.norm_offset, **options)


class Dense(nn.Module):
  """x @ kernel + bias over the last axis, in x's dtype."""

  features: int
  names: tuple[str, str]
  bias: bool = False
  gain: float = 1.0

  @nn.compact
  def __call__(self, x):
    dtype = at_least_float32(x.dtype)
    normal = nn.initializers.variance_scaling(self.gain, "fan_in", "normal")
    named: Any = nn.with_logical_partitioning(normal, self.names)
    kernel: jax.Array = self.param("kernel", named, (x.shape[-1], self.features), dtype)
    y = _product(x, kernel.astype(x.dtype))
    if self.has_variable("params", "a"):  # adapters, see `lora.with_adapters`
      pair: list[jax.Array] = [self.get_variable("params", name) for name in "ab"]
      a, b = (matrix.astype(x.dtype) for matrix in pair)
      y += _product(_product(x, a), b)
    if self.bias:
      named = nn.with_logical_partitioning(nn.initializers.zeros, self.names[1:])
      bias: jax.Array = self.param("bias", named, (self.features,), dtype)
      y += lift(bias.astype(x.dtype), y.ndim)
    return y


def merged(c: Config, dense):
  """The parameters of a `Dense` without adapters: kernel + a b in the dtype of the computation."""
  if "a" not in dense:
    return dense
  a, b, kernel = dense["a"], dense["b"], dense["kernel"]
  rest = {name: x for name, x in dense.items() if name not in ("a", "b")}
  return rest | {"kernel": (kernel.astype(b.dtype) + a @ b).astype(c.dtype)}


def _product(x, kernel):
  """x @ kernel, of rows under each other: XLA for CPUs is slow where a gradient sums two axes."""
  narrows = kernel.shape[0] > kernel.shape[1]
  y = x.reshape(-1, x.shape[-1]) @ (as_it_lies(kernel.T).T if narrows else kernel)
  return y.reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def as_it_lies(x):
  """x [narrow, wide]. On CPUs a transpose around it stays out of the product that is its gradient:
  XLA would compute that one as [wide, narrow], in twice the time."""
  return x


as_it_lies.defvjp(
  lambda x: (x, None),
  lambda _, g: (
    jax.lax.platform_dependent(g, cpu=jax.lax.optimization_barrier, default=lambda g: g),
  ),
)


class Router(nn.Module):
  """The matrix [D, E] that chooses experts. It stays in its own dtype: a small error changes which
  experts are chosen."""

  experts: int
  bias: bool

  @nn.compact
  def __call__(self, x) -> dict[str, jax.Array]:
    dtype = at_least_float32(x.dtype)
    normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    named: Any = nn.with_logical_partitioning(normal, ("embed", "router"))
    router = {"kernel": self.param("kernel", named, (x.shape[-1], self.experts), dtype)}
    if self.bias:
      named = nn.with_logical_partitioning(nn.initializers.zeros, ("router",))
      router["bias"] = self.param("bias", named, (self.experts,), dtype)
    return router


class Sinks(nn.Module):
  """A logit for each head, which takes part in the softmax of attention and has no value."""

  heads: int

  @nn.compact
  def __call__(self, x) -> jax.Array:
    named: Any = nn.with_logical_partitioning(nn.initializers.zeros, ("heads",))
    return self.param("logit", named, (self.heads,), at_least_float32(x.dtype))


class Experts(nn.Module):
  """The matrices of E gated MLPs, stacked, and their biases."""

  experts: int
  features: int
  gain: float
  bias: bool

  @nn.compact
  def __call__(self, x) -> dict[str, jax.Array]:
    shape = self.experts, x.shape[-1], self.features
    wide, narrow = ("experts", "embed", "expert_mlp"), ("experts", "expert_mlp", "embed")

    def kernel(name, names, shape, gain=1.0):
      normal = nn.initializers.variance_scaling(gain, "fan_in", "normal", batch_axis=(0,))
      named: Any = nn.with_logical_partitioning(normal, names)
      return self.param(name, named, shape, at_least_float32(x.dtype))

    def bias(name, names, size):
      named: Any = nn.with_logical_partitioning(nn.initializers.zeros, names)
      return self.param(name, named, (self.experts, size), at_least_float32(x.dtype))

    down = kernel("down", narrow, (shape[0], shape[2], shape[1]), self.gain)
    weights = {name: kernel(name, wide, shape) for name in ("gate", "up")} | {"down": down}
    for name, names in (("gate", wide), ("up", wide), ("down", narrow)) if self.bias else ():
      weights[f"{name}_bias"] = bias(f"{name}_bias", names[::2], weights[name].shape[-1])
    return weights


def lift(x, ndim: int):
  """A vector with leading axes of 1."""
  return x.reshape((1,) * (ndim - 1) + x.shape)


def at_least_float32(dtype):
  """The dtype of parameters, norms and logits around a computation in `dtype`."""
  return jnp.promote_types(dtype, jnp.float32)
