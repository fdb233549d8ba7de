"""Reading prompts and writing tokens: the decoder as the sampler runs it.

The sampler's copy of the parameters has one tree a layer. Query, key and value are one matrix, and
gate and up are one, because a token is a few small products and each costs a launch. Layers are
unrolled, because a stacked cache inside a scan would be copied for every token. The body of a layer
is `block.layer`, as in training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lcrl.mesh import tensor_shards
from lcrl.policies import cache as plain
from lcrl.policies import tpu_pages, triton_decode, triton_pages
from lcrl.policies.attention import attention, options_of
from lcrl.policies.block import Projections, embed, layer, rotate, rotations
from lcrl.policies.cache import Cache, Prompts, write_prompts
from lcrl.policies.config import Config
from lcrl.policies.experts import id_dtype
from lcrl.policies.modules import lift, merged, norm

PyTree = Any


class Kernel(NamedTuple):
  """How a new token attends to the cache, and what the sampler must know of it."""

  attend: Callable  # as `cache.attend`
  attend_pages: Callable  # as `cache.attend_pages`
  refusal: Callable[[Config], str | None]  # why it cannot serve a model, or None
  # Every row reads as much of the cache as the longest: the sampler keeps it short.
  reads_all_rows_alike: bool
  # The compiler cannot split it: along a tensor axis each device runs it with its own key heads.
  by_heads: bool
  # It needs an NVIDIA GPU of compute capability 8.0, so that the sampler's other kernels for these
  # (cuDNN for prompts, the fused draw, XLA's options for loops) may run beside it.
  nvidia: bool
  tpu: bool = False  # it needs a TPU, and what `tpu_pages.misfit` says


KERNELS = {  # by the name in `Config.decoding`
  "xla": Kernel(
    plain.attend,
    plain.attend_pages,
    lambda c: None,
    reads_all_rows_alike=True,
    by_heads=False,
    nvidia=False,
  ),
  "triton": Kernel(
    triton_decode.attend,
    triton_pages.attend,
    triton_decode.refusal,
    reads_all_rows_alike=False,
    by_heads=True,
    nvidia=True,
  ),
  "pallas": Kernel(
    plain.attend,  # never called: it serves slots alone
    tpu_pages.attend,
    tpu_pages.refusal,
    reads_all_rows_alike=False,
    by_heads=False,
    nvidia=False,
    tpu=True,
  ),
}

# Logical axes of a layer of the copy: K key heads, each with its queries, its key and its value.
_AXES: dict[str, dict[str, tuple[str, ...]]] = {
  "attention_norm": {"scale": ("norm",)},
  "attention_post_norm": {"scale": ("norm",)},
  "mlp_norm": {"scale": ("norm",)},
  "mlp_post_norm": {"scale": ("norm",)},
  "query_norm": {"scale": ("norm",)},
  "key_norm": {"scale": ("norm",)},
  "qkv": {"kernel": ("embed", "kv_heads", "part", "size"), "bias": ("kv_heads", "part", "size")},
  "gate_up": {"kernel": ("embed", "part", "mlp")},
  "out": {"kernel": ("heads", "embed"), "bias": ("embed",)},
  "down": {"kernel": ("mlp", "embed")},
  "sinks": {"logit": ("heads",)},
  "router": {"kernel": ("embed", "router"), "bias": ("router",)},
  "experts": {
    "gate": ("experts", "embed", "expert_mlp"),
    "up": ("experts", "embed", "expert_mlp"),
    "down": ("experts", "expert_mlp", "embed"),
    "gate_bias": ("experts", "expert_mlp"),
    "up_bias": ("experts", "expert_mlp"),
    "down_bias": ("experts", "embed"),
  },
}

_ROUTER = (jax.tree_util.DictKey("router"),)


def unstack(c: Config, params: PyTree) -> PyTree:
  """The sampler's copy: matrices in the dtype of the computation, vectors and routers in theirs."""
  layers = [_fuse(c, jax.tree.map(lambda x: x[i], params["layers"])) for i in range(c.layers)]  # noqa: B023
  cast = lambda path, x: x.astype(c.dtype) if x.ndim > 1 and path[-2:-1] != _ROUTER else x
  return jax.tree_util.tree_map_with_path(cast, params | {"layers": tuple(layers)})


def _fuse(c: Config, layer: PyTree) -> PyTree:
  layer = {name: merged(c, x) for name, x in layer.items()}
  kept = {name: x for name, x in layer.items() if name in _AXES}

  def heads(name: str):
    x = jnp.concatenate(
      [
        layer[part][name].reshape(*layer[part][name].shape[:-1], c.kv_heads, -1, c.head_dim)
        for part in ("query", "key", "value")
      ],
      axis=-2,
    )
    return x.astype(c.dtype)

  qkv = {name: heads(name) for name in layer["query"]}
  if c.experts:
    return kept | {"qkv": qkv}
  both = jnp.stack([layer["gate"]["kernel"], layer["up"]["kernel"]], axis=1)
  return kept | {"qkv": qkv, "gate_up": {"kernel": both}}


def copy_axes(axes: PyTree, copy: PyTree) -> PyTree:
  """Logical axis names for each leaf of `copy`, from those of the parameters."""
  layer = {name: {leaf: _AXES[name][leaf] for leaf in x} for name, x in copy["layers"][0].items()}
  return axes | {"layers": (layer,) * len(copy["layers"])}


def prefill(c: Config, params, tokens, lengths, cache: Cache) -> tuple[jax.Array, Cache]:
  """Reads right-padded prompts. Padding comes after every real token, so it is never seen.

  Args:
    params: from `unstack`.
    tokens: [B, P]. lengths: [B].
    cache: B rows with room for P tokens or more.
  Returns: the state of each last token [B, D], and the cache.
  """
  ropes = rotations(c, jax.lax.broadcasted_iota(jnp.int32, tokens.shape, 1))

  def attend(kind, sinks, layer_cache, _, qkv):
    window, rope = kind[0], ropes[kind[1]]
    q, k, v = rotate(_queries(qkv), rope), rotate(qkv[..., -2, :], rope), qkv[..., -1, :]
    values = attention(q, k, v, window=window, sinks=sinks, **options_of(c))
    return values, write_prompts(layer_cache, k, v)

  x, cache, _ = _through(c, params, tokens, cache, attend)
  last = jnp.maximum(lengths - 1, 0)[:, None, None]
  return jnp.take_along_axis(x, last, axis=1)[:, 0], cache


def decode(
  c: Config,
  params,
  tokens: jax.Array,
  positions: jax.Array,
  cache: Cache,
  *,
  at: jax.Array | None = None,
  live: jax.Array | None = None,
  prompts: Prompts | None = None,
  table: jax.Array | None = None,
  read_length: int | None = None,
  experts: bool = False,
) -> tuple[Any, ...]:
  """One token a row: writes its key and value, and attends to them and to all before.

  Args:
    params: from `unstack`.
    tokens: [R].
    positions: [R], where the tokens stand in their rows.
    cache: R rows.
    at: where they go in the cache, [] or [R]; None: `positions`.
    live: [R] bool, rows whose result is read; None: all.
    prompts: what stands before the cache begins; R is a multiple of their number.
    table: [R, W] int32, the pages of each row: the cache is then a pool of pages.
    read_length: places of the cache that are read, more than any live row's `at`; None: all.
    experts: gives the experts that the tokens chose, too.
  Returns: states [R, D], and the cache; and experts [R, layers, k].
  """
  at = positions if at is None else at
  live = jnp.ones(tokens.shape, bool) if live is None else live
  ropes = rotations(c, positions[:, None])
  lengths = prompts and prompts.lengths

  def attend(kind, sinks, layer_cache, prompt, qkv):
    kernel, window = KERNELS[c.decoding], kind[0]
    more = {} if sinks is None else {"sinks": sinks}  # of plain attention alone

    def of_heads(by_head, whole):
      (qkv, own, prompt), (rope, at, live, lengths, table) = by_head, whole
      if table is not None:
        return kernel.attend_pages(c, qkv, rope, own, table, at, live, window, read_length, **more)
      return kernel.attend(
        c, qkv, rope, own, at, live, prompt, lengths, window, read_length, **more
      )

    run = _over_heads(of_heads) if kernel.by_heads else of_heads
    return run((qkv, layer_cache, prompt), (ropes[kind[1]], at, live, lengths, table))

  x, cache, routings = _through(c, params, tokens, cache, attend, prompts and prompts.layers)
  if not experts:
    return x, cache
  return x, cache, jnp.stack([r.chosen for r in routings], axis=1).astype(id_dtype(c.experts))


def _over_heads(run: Callable) -> Callable:
  """`run(by_head, whole)` on each device along the tensor axis of the mesh in context, with its own
  heads: axis 1 of all arrays of `by_head` and of the result."""
  if tensor_shards() == 1:
    return run
  mesh, split = jax.sharding.get_abstract_mesh(), P(None, "tensor")
  left = set(mesh.axis_names) - set(mesh.manual_axes)
  return jax.shard_map(
    run, in_specs=(split, P()), out_specs=split, axis_names=left, check_vma=False
  )


def _through(c: Config, params, tokens, cache, attend, prompts=None):
  """All layers and the last norm; caches, and what routers say.

  `attend(kind, sinks, cache, prompt, qkv) -> (values, cache)`, of a layer each; `kind` is one of
  `Config.kinds`."""

  @partial(jax.jit, static_argnums=0)  # traced and lowered once, not once a layer
  def one_layer(kind, params, x, layer_cache, prompt):
    do = _projections(c, params)
    sinks = params["sinks"]["logit"] if c.sinks else None
    return layer(c, do, x, partial(attend, kind, sinks, layer_cache, prompt))

  prompts = prompts or (None,) * c.layers
  x, new, routings = embed(c, params, tokens), [], []
  for kind, weights, layer_cache, prompt in zip(
    c.kinds, params["layers"], cache, prompts, strict=True
  ):
    x, layer_cache, routing = one_layer(kind, weights, x, layer_cache, prompt)
    new.append(layer_cache)
    routings.append(routing)
  return _norm(c, params["norm"], x), tuple(new), routings


def _projections(c: Config, params) -> Projections:
  """Those of a layer of the copy. Heads are one array, qkv [..., K, G + 2, H]."""

  def heads(x):
    qkv = jnp.einsum("...d,dkch->...kch", x, params["qkv"]["kernel"])
    if "bias" in params["qkv"]:
      bias = params["qkv"]["bias"]
      qkv += bias.reshape((1,) * (qkv.ndim - bias.ndim) + bias.shape)
    return qkv

  def gate_up(x):
    y = jnp.einsum("...d,dcf->...cf", x, params["gate_up"]["kernel"])
    return y[..., 0, :], y[..., 1, :]

  def dense(name, x):
    y = x @ params[name]["kernel"]
    if "bias" not in params[name]:
      return y
    return y + lift(params[name]["bias"].astype(y.dtype), y.ndim)

  return Projections(
    norm=lambda name, x: _norm(c, params[name], x),
    heads=heads,
    split=lambda qkv: (qkv[..., :-2, :], qkv[..., -2:-1, :], qkv[..., -1:, :]),
    join=lambda *parts: jnp.concatenate(parts, axis=-2),
    gate_up=gate_up,
    dense=dense,
    experts=lambda: (params["router"], params["experts"]),
  )


def _norm(c: Config, params, x):
  return norm(c).apply({"params": params}, x)


def _queries(qkv):
  """[..., K, G + 2, H] -> [..., K G, H]."""
  q = qkv[..., :-2, :]
  return q.reshape(*q.shape[:-3], -1, q.shape[-1])
