"""The decoder as a record of pure functions.

Training scans over stacked layers, or unrolls them, and rematerialises; `decoding` unrolls them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lcrl.policies import cache, decoding, experts
from lcrl.policies.attention import attention, check_name, options_of, segment_spans, sequence
from lcrl.policies.block import (
  ACTIVATIONS,
  Block,
  embed,
  head_logits,
  rotation,
  rotations,
)
from lcrl.policies.cache import Cache
from lcrl.policies.config import Config
from lcrl.policies.modules import as_it_lies, at_least_float32, norm

PyTree = Any


def _of_attention(primitive, *_, **params) -> bool:
  """Is this a residual of attention? Kernels name theirs with `checkpoint_name`, cuDNN does not."""
  return params.get("name") == "attention" or primitive.name.startswith("dot_product_attention_fwd")


def _of_experts(primitive, *_, **params) -> bool:
  """Is this a product of experts?"""
  return params.get("name") == experts.PRODUCT


_save_both = jax.checkpoint_policies.save_from_both_policies
_dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
_dots_too = _save_both(_save_both(_dots, _of_attention), _of_experts)
REMAT: dict[str, Callable[[Callable], Callable]] = {  # by what the forward pass keeps
  "none": lambda f: f,  # everything: the backward pass recomputes nothing
  "dots": partial(jax.checkpoint, policy=_dots_too),  # products and attention
  "attention": partial(jax.checkpoint, policy=_of_attention),
  "full": jax.checkpoint,  # nothing but the input of each layer
}
REMAT["auto"] = REMAT["none"]  # a run has replaced it


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
  """A model that acts. Every function is pure: jit, vmap, differentiate it.

  T tokens, D hidden size, V vocabulary, R rows, P prompt positions.
  """

  config: Config
  axes: PyTree  # a tuple of logical axis names for each leaf of params
  init: Callable[[jax.Array], PyTree]  # key -> params, layers stacked along axis 0
  # params, tokens, positions?, segment_ids?, branch_ids? (see `segment_spans`) -> [..., T, D]
  hidden: Callable[..., jax.Array]
  head: Callable[[PyTree], jax.Array]  # params -> [D, V]
  # as hidden, and counted [..., T] bool, chosen [..., T, layers, k] int? -> what hidden gives, with
  # the chosen experts in place of the most probable where they are not below 0; and what each token
  # adds to the load-balance loss, a mean over layers, [..., T]. See `experts.route`, `.balance`
  hidden_and_balance: Callable[..., tuple[jax.Array, jax.Array]]
  apply: Callable[..., jax.Array]  # as hidden -> logits [..., T, V] in float32 or wider
  # params -> the same for `hidden` and `head`, ready for several passes: where layers are unrolled,
  # a tree for each, matrices in the dtype of the computation
  unstack_for_grad: Callable[[PyTree], PyTree]
  unstack: Callable[[PyTree], PyTree]  # params -> the same for decoding: once a rollout
  copy_axes: Callable[[PyTree], PyTree]  # what `unstack` gives -> its axes
  init_cache: Callable[..., Cache]  # rows, length, dtype? -> Cache
  prefill: Callable[..., tuple[jax.Array, Cache]]  # see `decoding.prefill`
  decode: Callable[..., tuple[jax.Array, Cache]]  # see `decoding.decode`


@lru_cache(maxsize=64)
def make(config: Config) -> Policy:
  """The policy that `config` describes; of equal configs the same one, with its compiled programs.

  >>> from lcrl.policies.config import tiny
  >>> policy = make(tiny(vocab_size=16))
  >>> params = policy.init(jax.random.key(0))
  >>> policy.apply(params, jnp.arange(6)).shape
  (6, 16)
  """
  if config.decoding not in decoding.KERNELS:
    raise ValueError(f"Unknown decoding {config.decoding!r}: {', '.join(decoding.KERNELS)}.")
  # What a kernel does not read it would leave out in silence.
  if (why := decoding.KERNELS[config.decoding].refusal(config)) in ("sinks", "soft-cap", "window"):
    raise ValueError(f"decoding={config.decoding!r} cannot serve a model with {why}.")
  check_name(config.attention)
  if config.activation not in ACTIVATIONS:
    raise ValueError(f"Unknown activation {config.activation!r}: {', '.join(ACTIVATIONS)}.")
  if config.remat not in REMAT:
    raise ValueError(f"Unknown remat policy {config.remat!r}: {', '.join(REMAT)}.")
  boxed = jax.eval_shape(partial(_init_boxed, config), jax.random.key(0))
  axes = _map_boxes(lambda box: box.names, boxed)
  axes["layers"] = _map_boxes(lambda box: ("layers", *box.names), boxed["layers"])

  def init(key):
    return _map_boxes(lambda box: box.value, _init_boxed(config, key))

  def apply(params, tokens, positions=None, segment_ids=None, branch_ids=None):
    hidden = _hidden(config, params, tokens, positions, segment_ids, branch_ids)
    return head_logits(config, hidden, _head(params))

  return Policy(
    config=config,
    axes=axes,
    init=jax.jit(init),
    hidden=jax.jit(partial(_hidden, config)),
    hidden_and_balance=jax.jit(partial(_forward, config)),
    head=_head,
    apply=jax.jit(apply),
    unstack_for_grad=partial(_unstack_for_grad, config),
    unstack=jax.jit(partial(decoding.unstack, config)),
    copy_axes=partial(decoding.copy_axes, axes),
    init_cache=partial(cache.init_cache, config),
    prefill=jax.jit(partial(decoding.prefill, config)),
    decode=jax.jit(partial(decoding.decode, config), static_argnames=("read_length", "experts")),
  )


def _init_boxed(c: Config, key):
  """Random parameters in boxes that name their axes (the layers' axis 0 has no name yet)."""
  keys = jax.random.split(key, 3)
  dtype = jnp.dtype(c.dtype)
  x = jnp.zeros((1, c.hidden_size), dtype)
  rope = rotation(c, jnp.zeros((1,), jnp.int32))
  init = lambda key: Block(c).init(key, x, rope, lambda q, *_: (q, None))["params"]
  table = nn.initializers.normal(c.hidden_size**-0.5)
  rows = nn.with_logical_partitioning(table, ("vocab", "embed"))
  columns = nn.with_logical_partitioning(table, ("embed", "vocab"))
  params = {
    "embed": rows(keys[0], (c.vocab_size, c.hidden_size), at_least_float32(dtype)),
    "layers": jax.vmap(init)(jax.random.split(keys[1], c.layers)),
    "norm": norm(c).init(key, x)["params"],
  }
  if not c.tied:
    params["head"] = columns(keys[2], (c.hidden_size, c.vocab_size), at_least_float32(dtype))
  return params


def _map_boxes(f, tree):
  return jax.tree.map(f, tree, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def _hidden(*args, **options):
  """Final-normed states [..., T, D]. Tokens of one segment are neighbours and see each other.

  On a mesh with a sequence axis, rows of segments are dealt over it, and so is the result:
  [R * n, W / n, D] for rows of W on n devices (`sequence.deal`)."""
  return _forward(*args, **options)[0]


def _forward(
  c: Config,
  params,
  tokens,
  positions=None,
  segment_ids=None,
  branch_ids=None,
  *,
  counted=None,
  chosen=None,
):
  """What `_hidden` gives; and each token's balance [..., T], None without `counted`."""
  if positions is None:
    positions = jax.lax.broadcasted_iota(jnp.int32, tokens.shape, tokens.ndim - 1)
  spans = None if segment_ids is None else segment_spans(segment_ids, branch_ids)
  parts = 1 if spans is None else sequence.shards()
  tokens, positions = (sequence.deal(x, parts) for x in (tokens, positions))
  counted, chosen = (x if x is None else sequence.deal(x, parts) for x in (counted, chosen))
  ropes = rotations(c, positions)
  options = options_of(c) | {"spans": spans, "parts": parts}

  def layer(x, own, window, rope):
    attend = lambda q, k, v, sinks: (
      attention(q, k, v, window=window, sinks=sinks, **options),
      None,
    )
    params, replayed = own
    found: Any = Block(c).apply({"params": params}, x, rope, attend, replayed)
    x, _, routing = found
    return x, None if counted is None else experts.balance(routing, counted)

  x = embed(c, params, tokens)
  if c.unroll is True:
    layers = _unstack_for_grad(c, params)["layers"]
    each = [None if chosen is None else chosen[..., i, :] for i in range(c.layers)]
    x, balance = _unrolled(c, layer, x, [*zip(layers, each, strict=True)], ropes)
  else:
    layers = _compute_dtype(c, params["layers"])  # cast once, not in each pass
    replayed = None if chosen is None else jnp.moveaxis(chosen, -2, 0)
    x, balance = _scanned(c, layer, x, (layers, replayed), ropes)
  return norm(c).apply({"params": params["norm"]}, x), None if counted is None else balance.mean(0)


def _scanned(c: Config, layer, x, layers, ropes):
  windows, uniform = _windows(c)
  kinds, tables = list(ropes), list(ropes.values())
  which, table = None, tables[0]
  if len(kinds) > 1:
    which = jnp.array([kinds.index(rope) for _, rope in c.kinds])
    table = jax.tree.map(lambda *x: jnp.stack(x), *tables)

  def one(x, inputs):
    params, window, which = inputs
    rope = table if which is None else jax.tree.map(lambda x: x[which], table)
    return layer(x, params, uniform if window is None else window, rope)

  return jax.lax.scan(REMAT[c.remat](one), x, (layers, windows, which))


def _unrolled(c: Config, layer, x, layers, ropes):
  # jit, so that a layer is traced and lowered once, and not once for each layer
  run = {
    kind: jax.jit(REMAT[c.remat](partial(layer, window=kind[0], rope=ropes[kind[1]])))
    for kind in dict.fromkeys(c.kinds)
  }
  found = []
  for kind, params in zip(c.kinds, layers, strict=True):
    x, balance = run[kind](x, params)
    found.append(balance)
  return x, None if found[0] is None else jnp.stack(found)


def _unstack_for_grad(c: Config, params):
  if c.unroll is not True or isinstance(params["layers"], tuple):
    return params
  # The gradient of `split` is one concatenation; that of indexing is a padded array for each layer.
  split = lambda w: [y[0] for y in jax.lax.split(w, (1,) * c.layers)]
  # Gradients in float16 would lose what is small; `Dense` casts anyway.
  layers = params["layers"] if c.dtype == "float16" else _compute_dtype(c, params["layers"])
  leaves, names = jax.tree.flatten(layers)
  layers = tuple(jax.tree.unflatten(names, one) for one in zip(*map(split, leaves), strict=True))
  return {**params, "layers": layers}


def _compute_dtype(c: Config, stacked):
  """Stacked layers, their matrices in the dtype of the computation; vectors and routers in their
  own."""
  cast = lambda x: x.astype(c.dtype) if x.ndim > 2 else x
  return {n: x if n == "router" else jax.tree.map(cast, x) for n, x in stacked.items()}


def _head(params):
  return params["head"] if "head" in params else as_it_lies(params["embed"].T)


def _windows(c: Config):
  """(one window a layer to scan over, or None; the window that all layers share, or None)."""
  if c.windows is None or len(set(c.windows)) == 1:
    return None, c.windows and c.windows[0]
  everything = jnp.iinfo(jnp.int32).max
  return jnp.array([everything if w is None else w for w in c.windows], jnp.int32), None
