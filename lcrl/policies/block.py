"""The layer of the decoder, and the embedding and the logits around the layers.

`layer` is the body of a layer for training, which runs it as `Block` on the parameters as they are
stored, and for `decoding`, which runs it on fused matrices. What distinguishes a model family
belongs here, so that both have it.
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
from lcrl.policies.modules import (
  Dense,
  Experts,
  Router,
  Sinks,
  at_least_float32,
  lift,
  norm,
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
  angles = positions[..., None, None].astype(dtype) * lift(frequencies, positions.ndim + 2)
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
