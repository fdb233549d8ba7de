"""Mixtures of experts: a router chooses k of a layer's E gated MLPs for each token.

    y = sum of g_i down_i(act(gate_i(x)) * up_i(x)) over the chosen i

No expert has a capacity and no token is dropped: tokens are sorted by expert, and a matrix product
of groups of different sizes computes as many rows for an expert as chose it: `jax.lax.ragged_dot`,
on NVIDIA GPUs the kernels of `triton_experts`.

Along a mesh's tensor axis each device has its share of the experts. Activations are whole on every
device of that axis, so that a device computes what its experts add to its tokens, and a sum over
the axis is the result: tokens need not travel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from lcrl.mesh import BATCH
from lcrl.policies import triton_experts
from lcrl.policies.attention.choice import Device

# The signal of rollouts with the experts that the sampler chose for the token before each token,
# [B, G, T, layers, k]; below 0 where it did not say.
CHOSEN = "chosen_experts"
PRODUCT = "product of experts"  # what checkpoints of the forward pass know it by
# "gate" and "up" [E, D, F], "down" [E, F, D]; and "gate_bias" ... without the middle axis, or none
Experts = Mapping[str, jax.Array]
Gated = Callable[[jax.Array, jax.Array], jax.Array]  # gate, up -> what the MLP's last matrix reads


class Routing(NamedTuple):
  """What the router says of tokens [...]."""

  probs: jax.Array  # [..., E], in float32 or wider
  chosen: jax.Array  # [..., k] int32, experts; the most probable first
  gates: jax.Array  # [..., k], what their results are multiplied with


def route(
  x: jax.Array,
  router: jax.Array,
  *,
  count: int,
  normalize: bool,
  replayed: jax.Array | None = None,
  bias: jax.Array | None = None,
) -> Routing:
  """The `count` most probable experts of each token: softmax(x router + bias), in float32 or wider.

  Args:
    x: [..., D].
    router: [D, E].
    count: experts of a token.
    normalize: gates are the probabilities of the chosen divided by their sum; else as they are.
    replayed: [..., k] int, experts that are taken in place of the most probable where they are not
      below 0; gates are of this router's probabilities (R3, arXiv:2510.11370).
    bias: [E]; None: 0.
  """
  wide = jnp.promote_types(x.dtype, jnp.float32)
  highest = jax.lax.Precision.HIGHEST
  logits = jnp.matmul(x.astype(wide), router.astype(wide), precision=highest)
  if bias is not None:
    logits += jnp.broadcast_to(bias.astype(wide), logits.shape)
  probs = jax.nn.softmax(logits)
  gates, chosen = jax.lax.top_k(probs, count)
  if replayed is not None:
    chosen = jnp.where(replayed < 0, chosen, replayed)
    gates = jnp.take_along_axis(probs, chosen, axis=-1)
  return Routing(probs, chosen, gates / gates.sum(-1, keepdims=True) if normalize else gates)


def id_dtype(experts: int) -> jnp.dtype:
  """The smallest in which rollouts keep indices of so many experts, and -1."""
  return jnp.dtype("int8" if experts <= 128 else "int16")


def mix(x: jax.Array, routing: Routing, experts: Experts, gated: Gated) -> jax.Array:
  """What the chosen experts add to tokens, [..., D] -> [..., D] in float32 or wider.

  On a mesh in context, rows (the first axis) are split over its batch axes, experts over its tensor
  axis if they divide; an axis that a `shard_map` around it has split is left alone.
  """
  mesh = jax.sharding.get_abstract_mesh()
  left = set(mesh.axis_names) - set(mesh.manual_axes)
  run = partial(dropless, gated=gated)
  if not left or mesh.size == 1:
    return run(x, routing.chosen, routing.gates, experts)
  cut = "tensor" in left and len(experts["gate"]) % mesh.shape["tensor"] == 0

  def local(x, chosen, gates, experts):
    if not cut:
      return run(x, chosen, gates, experts)
    first = jax.lax.axis_index("tensor") * len(experts["gate"])
    return jax.lax.psum(run(x, chosen - first, gates, experts, devices=devices), "tensor")

  rows, share = P(_row_axes(mesh, left, len(x))), P("tensor") if cut else P()
  devices = mesh.shape["tensor"] if cut else 1
  return jax.shard_map(
    local,
    in_specs=(rows, rows, rows, share),
    out_specs=rows,
    axis_names=left,
    check_vma=False,
  )(x, routing.chosen, routing.gates, experts)


def balance(routing: Routing, counted: jax.Array) -> jax.Array:
  """What each token adds to the load-balance loss of a layer.

    mean over counted tokens of balance = E sum over experts of f_i p_i

  f_i counted tokens that chose expert i, as a share of all; p_i the mean of its probability. It is
  k if all experts are chosen equally often, and larger if those that are chosen more often are more
  probable. No gradient reaches f. Source: Switch Transformers, arXiv:2101.03961, in the scale of
  transformers, which however takes f and p over all layers together.

  Args:
    counted: [...] bool, tokens that count; padding does not.
  Returns: [...].
  """
  count = routing.probs.shape[-1]
  hits = jax.nn.one_hot(routing.chosen, count, dtype=routing.probs.dtype).sum(-2)
  hits = jnp.where(counted[..., None], hits, 0).reshape(-1, count)
  return count * routing.probs @ (hits.sum(0) / jnp.maximum(counted.sum(), 1))


class Arranged(NamedTuple):
  """Pairs of a token and an expert that it chose, as rows in the order of experts."""

  source: jax.Array  # [R] int32, the pair in each row; the number of pairs where it only fills up
  place: jax.Array  # [pairs] int32, the row of each pair; R where another device has the expert
  sizes: jax.Array  # [E] int32, rows of each expert, those that fill up included


def arrange(chosen: jax.Array, count: int, block: int) -> Arranged:
  """The order in which `count` experts, each in whole blocks of rows, take up pairs.

  >>> arrange(jnp.array([[1, 0], [1, 7]]), count=2, block=2).source.tolist()
  [1, 4, 0, 2, 4, 4]
  """
  at = chosen.reshape(-1)
  pairs = len(at)
  at = jnp.where((at >= 0) & (at < count), at, count)  # those of other devices come last
  order = jnp.argsort(at)
  own = jnp.bincount(at, length=count + 1)[:count].astype(jnp.int32)
  sizes = -(-own // block) * block
  moved = jnp.cumsum(sizes - own) - (sizes - own)  # by as much as earlier experts fill up
  rows = (pairs + min(count, pairs) * (block - 1)) // block * block  # whatever is chosen
  at = at[order]
  to = jnp.where(at < count, jnp.arange(pairs) + moved[jnp.minimum(at, count - 1)], rows)
  place = jnp.zeros_like(order).at[order].set(to, unique_indices=True)
  source = jnp.full(rows, pairs, order.dtype).at[to].set(order, mode="drop")
  return Arranged(source, place, sizes)


@jax.custom_vjp
def permuted(x: jax.Array, index: jax.Array, inverse: jax.Array) -> jax.Array:
  """x[index], zeros where an index is the length of x. The gradient gathers by `inverse`, where
  JAX's own would add up by atomic operations, in no certain order."""
  del inverse
  return x.at[index].get(mode="fill", fill_value=0)


permuted.defvjp(
  lambda x, index, inverse: (permuted(x, index, inverse), (index, inverse)),
  lambda kept, d: (permuted(d, kept[1], kept[0]), None, None),
)


def dropless(
  x: jax.Array,
  chosen: jax.Array,
  gates: jax.Array,
  experts: Experts,
  gated: Gated,
  *,
  devices: int = 1,
) -> jax.Array:
  """What these experts add to tokens, in float32 or wider; an index outside of them adds nothing.

  Args:
    x: [..., D].
    chosen, gates: [..., k].
    devices: that share the experts, each with as many as are given.
  Returns: [..., D].
  """
  (count, hidden, mlp), k = experts["gate"].shape, chosen.shape[-1]
  tokens = x.reshape(-1, hidden), chosen.reshape(-1, k), gates.reshape(-1, k)
  run = partial(_dropless, experts=experts, gated=gated)
  if not Device.here().triton or triton_experts.refusal(count, hidden, mlp):
    return run(*tokens).reshape(*gates.shape[:-1], hidden)
  tiles = triton_experts.tiles(chosen.size / (count * devices))
  numbers = (chosen.size + count * tiles.own) * max(hidden, mlp)
  parts = [jnp.array_split(y, -(-numbers // triton_experts.MOST)) for y in tokens]
  done = [run(*part, tiles=tiles) for part in zip(*parts, strict=True)]
  return jnp.concatenate(done).reshape(*gates.shape[:-1], hidden)


def _dropless(x, chosen, gates, experts, gated, tiles: triton_experts.Tiles | None = None):
  """`dropless` of tokens [N, D]; `tiles`: by the kernels."""
  source, place, sizes = arrange(chosen, len(experts["gate"]), tiles.own if tiles else 1)

  def product(y, name):
    weights = experts[name].astype(y.dtype)
    if tiles:
      y = triton_experts.product(tiles, y, weights, sizes)
    else:
      y = jax.lax.ragged_dot(y, weights, sizes)
    if (bias := experts.get(f"{name}_bias")) is not None:
      # A product, whose gradient is one, too: that of indexing would add up by atomic operations.
      expert = chosen.reshape(-1).at[source].get(mode="fill", fill_value=-1)  # of each row
      y += jax.nn.one_hot(expert, len(bias), dtype=y.dtype) @ bias.astype(y.dtype)
    return checkpoint_name(y, PRODUCT)

  rows = permuted(jnp.repeat(x, chosen.shape[-1], axis=0), source, place)
  inner = gated(product(rows, "gate"), product(rows, "up"))
  added = permuted(product(inner, "down"), place, source).reshape(*chosen.shape, -1)
  return jnp.einsum("nkd,nk->nd", added.astype(gates.dtype), gates)


def plain(x: jax.Array, routing: Routing, experts: Experts, gated: Gated) -> jax.Array:
  """The plain twin of `mix`: every expert computes every token."""

  def product(subscripts, y, name):
    y = jnp.einsum(subscripts, y, experts[name].astype(y.dtype))
    bias = experts.get(f"{name}_bias")
    return y if bias is None else y + jnp.broadcast_to(bias.astype(y.dtype), y.shape)

  inner = gated(*(product("...d,edf->...ef", x, name) for name in ("gate", "up")))
  each = product("...ef,efd->...ed", inner, "down")
  hit = jax.nn.one_hot(routing.chosen, each.shape[-2], dtype=routing.gates.dtype)
  gates = jnp.einsum("...ke,...k->...e", hit, routing.gates)
  return jnp.einsum("...ed,...e->...d", each.astype(gates.dtype), gates)


def _row_axes(mesh, left: set[str], rows: int) -> tuple[str, ...]:
  """The mesh axes that `rows` rows are split over: as many as divide them."""
  axes = [name for name in (*BATCH[0], "sequence") if name in left]
  while axes and rows % math.prod(mesh.shape[name] for name in axes):
    axes.pop()
  return tuple(axes)
