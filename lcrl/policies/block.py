"""The layer of the decoder, and the embedding and the logits around the layers.

`layer` is the body of a layer for training, which runs it as `Block` on the parameters as they are
stored, and for `decoding`, which runs it on fused matrices. What distinguishes a model family
belongs here, so that both have it. flax.linen gives initialisation and names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lcrl.policies import experts
from lcrl.policies.config import Config, Rope
from lcrl.policies.experts import Routing


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
    return (wide * _lift(scale, x.ndim)).astype(x.dtype)


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
      y += _lift(bias.astype(x.dtype), y.ndim)
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


# Of the MLP's gate, by the name in `Config.activation`.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "silu": nn.silu,
  "gelu_tanh": nn.gelu,
  "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
}


class Projections(NamedTuple):
  """The operations of a layer that have parameters. `heads` is whatever `split` understands."""

  norm: Callable  # name, x -> x
  heads: Callable  # x [..., D] -> heads: queries, keys and values
  split: Callable  # heads -> q, k, v
  join: Callable  # q, k, v -> heads
  gate_up: Callable  # x [..., D] -> gate, up [..., F] each
  dense: Callable  # name, x -> [..., D], for "out" and "down"
  experts: Callable  # () -> router: kernel [D, E] and bias [E]?; and `experts.Experts`


def layer(
  c: Config, do: Projections, x: jax.Array, attend: Callable, replayed: jax.Array | None = None
) -> tuple[jax.Array, Any, Routing | None]:
  """One layer, [..., D] -> [..., D], what `attend` keeps, and what a router says.

    x += out(attend(heads(norm(x))));  x += down(act(gate(norm(x))) * up(norm(x)))

  `Config.norms` says whether it is so, or what is added has a norm, or both. `attend(heads) ->
  (values, kept)` rotates queries and keys and decides what the queries see. `replayed`: as in
  `experts.route`.
  """
  before = lambda name, y: y if c.norms == "post" else do.norm(name, y)
  after = lambda name, y: y if c.norms == "pre" else do.norm(name, y)
  heads = do.heads(before("attention_norm", x))
  if c.qk_norm:
    q, k, v = do.split(heads)
    whole = c.qk_norm_over == "projection"
    flat = lambda y: y.reshape(*x.shape[:-1], -1) if whole else y
    q, k = (do.norm(f"{of}_norm", flat(y)).reshape(y.shape) for of, y in (("query", q), ("key", k)))
    heads = do.join(q, k, v)
  values, kept = attend(heads)
  x = x + after("attention_post_norm", do.dense("out", values.reshape(*x.shape[:-1], -1)))
  added, routing = mlp(c, do, before("mlp_norm", x), replayed)
  return x + after("mlp_post_norm", added), kept, routing


def mlp(
  c: Config, do: Projections, x: jax.Array, replayed: jax.Array | None = None
) -> tuple[jax.Array, Routing | None]:
  """What the gated MLP adds to tokens [..., D], or the experts that the router chooses."""
  if not c.experts:
    return do.dense("down", gated(c, *do.gate_up(x))), None
  router, weights = do.experts()
  routing = experts.route(
    x,
    router["kernel"],
    count=c.experts_per_token,
    normalize=c.normalize_gates,
    replayed=replayed,
    bias=router.get("bias"),
  )
  return experts.mix(x, routing, weights, partial(gated, c)).astype(x.dtype), routing


def gated(c: Config, gate, up):
  """What the MLP's second matrix reads."""
  if c.mlp_limit is not None:
    gate, up = jnp.minimum(gate, c.mlp_limit), jnp.clip(up, -c.mlp_limit, c.mlp_limit)
  return ACTIVATIONS[c.activation](gate) * (up + c.up_offset if c.up_offset else up)


def embed(c: Config, params, tokens):
  """tokens [...] -> [..., D] in the dtype of the computation."""
  x = params["embed"][tokens].astype(c.dtype)
  return x if c.embed_scale == 1 else x * c.embed_scale


def head_logits(c: Config, hidden, head):
  """[..., D], [D, V] -> [..., V] in float32 or wider, soft-capped if the model is."""
  wide = at_least_float32(hidden.dtype)
  logits = jnp.matmul(hidden, head.astype(hidden.dtype), preferred_element_type=wide)
  return logits if c.logit_softcap is None else c.logit_softcap * jnp.tanh(logits / c.logit_softcap)


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


class Block(nn.Module):
  """`layer` for training. `attend(q, k, v, sinks) -> (values, kept)` gets rotated queries and keys;
  sinks are None for a model without."""

  config: Config

  @nn.compact
  def __call__(self, x, rope, attend, replayed=None):
    c = self.config
    depth_gain = 1 / (2 * c.layers)  # keeps the variance of the residual stream at 1

    def project(name, heads, axis, y):
      y = Dense(heads * c.head_dim, ("embed", axis), c.qkv_bias, name=name)(y)
      return y.reshape(*y.shape[:-1], heads, c.head_dim)

    def heads(y):
      q = project("query", c.heads, "heads", y)
      k = project("key", c.kv_heads, "kv_heads", y)
      return q, k, project("value", c.kv_heads, "kv_heads", y)

    def dense(name, y):
      rows = {"out": "heads", "down": "mlp"}[name]
      bias = c.out_bias and name == "out"
      return Dense(c.hidden_size, (rows, "embed"), bias, depth_gain, name=name)(y)

    def router_and_experts():
      router = Router(c.experts, c.expert_bias, name="router")(x)
      return router, Experts(c.experts, c.mlp_size, depth_gain, c.expert_bias, name="experts")(x)

    do = Projections(
      norm=lambda name, y: norm(c, name=name)(y),
      heads=heads,
      split=lambda heads: heads,
      join=lambda *heads: heads,
      gate_up=lambda y: [Dense(c.mlp_size, ("embed", "mlp"), name=n)(y) for n in ("gate", "up")],
      dense=dense,
      experts=router_and_experts,
    )
    sinks = Sinks(c.heads, name="sinks")(x) if c.sinks else None
    rotated = lambda qkv: attend(*(rotate(y, rope) for y in qkv[:2]), qkv[2], sinks)
    return layer(c, do, x, rotated, replayed)


def rotation(c: Config, positions, rope: Rope | None = None):
  """cos and sin of `rope` or of the model's, [..., T, 1, head_dim / 2] in float32 or wider."""
  rope, dtype = rope or c.rope, at_least_float32(jnp.dtype(c.dtype))
  frequencies = jnp.asarray(rope.frequencies(c.head_dim), dtype)
  angles = positions[..., None, None].astype(dtype) * _lift(frequencies, positions.ndim + 2)
  return jnp.cos(angles) * rope.amplitude(), jnp.sin(angles) * rope.amplitude()


def rotations(c: Config, positions) -> dict[Rope, tuple[jax.Array, jax.Array]]:
  """`rotation` for each kind of rotary positions that layers have."""
  return {rope: rotation(c, positions, rope) for rope in dict.fromkeys(rope for _, rope in c.kinds)}


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
