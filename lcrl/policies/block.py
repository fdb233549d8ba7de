"""One layer of the decoder, and what it is made of. flax.linen gives initialisation and names."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lcrl.policies.config import Config


class Norm(nn.Module):
  """x / rms(x) * scale over the last axis, in float32 or wider."""

  eps: float

  @nn.compact
  def __call__(self, x):
    named: Any = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
    wide = x.astype(at_least_float32(x.dtype))
    scale: jax.Array = self.param("scale", named, x.shape[-1:], wide.dtype)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
    return (wide * _lift(scale, x.ndim)).astype(x.dtype)


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
      y += _lift(bias.astype(x.dtype), y.ndim)
    return y


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


class Block(nn.Module):
  """One layer. `attend(q, k, v) -> (values, kept)` decides what the queries see."""

  config: Config

  @nn.compact
  def __call__(self, x, rope, attend):
    c = self.config
    depth_gain = 1 / (2 * c.layers)  # keeps the variance of the residual stream at 1

    def project(name, heads, axis, y):
      y = Dense(heads * c.head_dim, ("embed", axis), c.qkv_bias, name=name)(y)
      return y.reshape(*y.shape[:-1], heads, c.head_dim)

    y = Norm(c.norm_eps, name="attention_norm")(x)
    q = project("query", c.heads, "heads", y)
    k = project("key", c.kv_heads, "kv_heads", y)
    v = project("value", c.kv_heads, "kv_heads", y)
    if c.qk_norm:
      q = Norm(c.norm_eps, name="query_norm")(q)
      k = Norm(c.norm_eps, name="key_norm")(k)
    y, kept = attend(rotate(q, rope), rotate(k, rope), v)
    y = y.reshape(*x.shape[:-1], -1)
    x = x + Dense(c.hidden_size, ("heads", "embed"), gain=depth_gain, name="out")(y)

    y = Norm(c.norm_eps, name="mlp_norm")(x)
    gate = Dense(c.mlp_size, ("embed", "mlp"), name="gate")(y)
    y = nn.silu(gate) * Dense(c.mlp_size, ("embed", "mlp"), name="up")(y)
    return x + Dense(c.hidden_size, ("mlp", "embed"), gain=depth_gain, name="down")(y), kept


def rotation(c: Config, positions):
  """cos and sin, [..., T, 1, head_dim / 2] in float32 or wider."""
  dtype = at_least_float32(jnp.dtype(c.dtype))
  frequencies = jnp.asarray(c.rope.frequencies(c.head_dim), dtype)
  angles = positions[..., None, None].astype(dtype) * _lift(frequencies, positions.ndim + 2)
  return jnp.cos(angles) * c.rope.amplitude(), jnp.sin(angles) * c.rope.amplitude()


def rotate(x, rope):
  """Turns the pairs (i, i + H / 2) of [..., T, N, H] by the angles of their positions."""
  cos, sin = rope
  first, second = jnp.split(x.astype(cos.dtype), 2, axis=-1)
  turned = (first * cos - second * sin, second * cos + first * sin)
  return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def _lift(x, ndim: int):
  """A vector with leading axes of 1."""
  return x.reshape((1,) * (ndim - 1) + x.shape)


def at_least_float32(dtype):
  """The dtype of parameters, norms and logits around a computation in `dtype`."""
  return jnp.promote_types(dtype, jnp.float32)
