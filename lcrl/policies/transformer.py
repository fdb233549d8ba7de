"""The decoder as a record of pure functions.

Training scans over stacked layers and rematerialises. Decoding unrolls them over one cache each: a
stacked cache inside a scan would be copied for every token.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lcrl.policies.attention import attention
from lcrl.policies.block import Block, Norm, at_least_float32, rotation
from lcrl.policies.config import Config

PyTree = Any
Cache = tuple[dict[str, jax.Array], ...]  # per layer k, v: [rows, length, kv_heads, head_dim]

REMAT: dict[str, Callable[[Callable], Callable]] = {
  "none": lambda f: f,
  "full": jax.checkpoint,
  "dots": partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
  """A model that acts. Every function is pure: jit, vmap, differentiate it.

  T tokens, D hidden size, V vocabulary, R rows, P prompt positions.
  """

  config: Config
  axes: PyTree  # a tuple of logical axis names for each leaf of params
  init: Callable[[jax.Array], PyTree]  # key -> params, layers stacked along axis 0
  hidden: Callable[..., jax.Array]  # params, tokens, positions?, segment_ids? -> [..., T, D]
  head: Callable[[PyTree], jax.Array]  # params -> [D, V]
  apply: Callable[..., jax.Array]  # as hidden -> logits [..., T, V] in float32 or wider
  unstack: Callable[[PyTree], PyTree]  # params -> the same for decoding: once a rollout
  init_cache: Callable[..., Cache]  # rows, length, dtype? -> Cache
  prefill: Callable[..., tuple[jax.Array, Cache]]  # params, tokens [R, P], lengths [R], cache
  decode: Callable[..., tuple[jax.Array, Cache]]  # params, tokens [R], positions [R], cache


def make(config: Config) -> Policy:
  """The policy that `config` describes.

  >>> from lcrl.policies.config import tiny
  >>> policy = make(tiny(vocab_size=16))
  >>> params = policy.init(jax.random.key(0))
  >>> policy.apply(params, jnp.arange(6)).shape
  (6, 16)
  """
  if config.remat not in REMAT:
    raise ValueError(f"Unknown remat policy {config.remat!r}: {', '.join(REMAT)}.")
  boxed = jax.eval_shape(partial(_init_boxed, config), jax.random.key(0))
  axes = _map_boxes(lambda box: box.names, boxed)
  axes["layers"] = _map_boxes(lambda box: ("layers", *box.names), boxed["layers"])

  def init(key):
    return _map_boxes(lambda box: box.value, _init_boxed(config, key))

  def apply(params, tokens, positions=None, segment_ids=None):
    hidden = _hidden(config, params, tokens, positions, segment_ids)
    return _logits(config, hidden, _head(params))

  return Policy(
    config=config,
    axes=axes,
    init=jax.jit(init),
    hidden=jax.jit(partial(_hidden, config)),
    head=_head,
    apply=jax.jit(apply),
    unstack=jax.jit(partial(_unstack, config)),
    init_cache=partial(_init_cache, config),
    prefill=jax.jit(partial(_prefill, config)),
    decode=jax.jit(partial(_decode, config)),
  )


def _init_boxed(c: Config, key):
  """Random parameters in boxes that name their axes (the layers' axis 0 has no name yet)."""
  keys = jax.random.split(key, 3)
  dtype = jnp.dtype(c.dtype)
  x = jnp.zeros((1, c.hidden_size), dtype)
  turn = rotation(c, jnp.zeros((1,), jnp.int32))
  init = lambda key: Block(c).init(key, x, turn, lambda q, k, v: (q, None))["params"]
  table = nn.initializers.normal(c.hidden_size**-0.5)
  rows = nn.with_logical_partitioning(table, ("vocab", "embed"))
  columns = nn.with_logical_partitioning(table, ("embed", "vocab"))
  params = {
    "embed": rows(keys[0], (c.vocab_size, c.hidden_size), at_least_float32(dtype)),
    "layers": jax.vmap(init)(jax.random.split(keys[1], c.layers)),
    "norm": Norm(c.norm_eps).init(key, x)["params"],
  }
  if not c.tied:
    params["head"] = columns(keys[2], (c.hidden_size, c.vocab_size), at_least_float32(dtype))
  return params


def _map_boxes(f, tree):
  return jax.tree.map(f, tree, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def _hidden(c: Config, params, tokens, positions=None, segment_ids=None):
  """Final-normed states [..., T, D]. Tokens of one segment are neighbours and see each other."""
  if positions is None:
    positions = jax.lax.broadcasted_iota(jnp.int32, tokens.shape, tokens.ndim - 1)
  turn = rotation(c, positions)
  options = {"segments": segment_ids, "softcap": c.attention_softcap, "backend": c.attention}
  windows, uniform = _windows(c)

  def layer(x, inputs):
    params, window = inputs
    window = uniform if window is None else window
    attend = lambda q, k, v: (attention(q, k, v, window=window, **options), None)
    return Block(c).apply({"params": params}, x, turn, attend)

  x = _embed(c, params, tokens)
  x, _ = jax.lax.scan(REMAT[c.remat](layer), x, (params["layers"], windows))
  return Norm(c.norm_eps).apply({"params": params["norm"]}, x)


def _prefill(c: Config, params, tokens, lengths, cache):
  """Reads right-padded prompts. Padding comes after every real token, so it is never seen."""
  positions = jax.lax.broadcasted_iota(jnp.int32, tokens.shape, 1)

  def attend(slot, window, q, k, v):
    write = lambda old, new: old.at[:, : new.shape[1]].set(new.astype(old.dtype))
    slot = {"k": write(slot["k"], k), "v": write(slot["v"], v)}
    out = attention(q, k, v, window=window, softcap=c.attention_softcap, backend=c.attention)
    return out, slot

  x, cache = _through_caches(c, params, tokens, positions, cache, attend)
  last = jnp.maximum(lengths - 1, 0)[:, None, None]
  return jnp.take_along_axis(x, last, axis=1)[:, 0], cache


def _decode(c: Config, params, tokens, positions, cache):
  """One token a row: writes it at its position and attends to what stands there and before."""
  rows = jnp.arange(tokens.shape[0])

  def attend(slot, window, q, k, v):
    write = lambda old, new: old.at[rows, positions].set(new[:, 0].astype(old.dtype))
    slot = {"k": write(slot["k"], k), "v": write(slot["v"], v)}
    k, v = (slot[name].astype(q.dtype) for name in ("k", "v"))
    index = positions[:, None]
    return attention(q, k, v, index=index, window=window, softcap=c.attention_softcap), slot

  x, cache = _through_caches(c, params, tokens[:, None], positions[:, None], cache, attend)
  return x[:, 0], cache


def _through_caches(c: Config, params, tokens, positions, cache, attend):
  """All layers, unrolled. `attend(slot, window, q, k, v) -> (values, slot)`."""
  turn = rotation(c, positions)
  windows = c.windows or (None,) * c.layers
  x, slots = _embed(c, params, tokens), []
  for layer, slot, window in zip(params["layers"], cache, windows, strict=True):
    x, slot = Block(c).apply({"params": layer}, x, turn, partial(attend, slot, window))
    slots.append(slot)
  return Norm(c.norm_eps).apply({"params": params["norm"]}, x), tuple(slots)


def _init_cache(c: Config, rows: int, length: int, dtype=None) -> Cache:
  shape = (rows, length, c.kv_heads, c.head_dim)
  zeros = lambda: jnp.zeros(shape, dtype or c.dtype)
  return tuple({"k": zeros(), "v": zeros()} for _ in range(c.layers))


def _unstack(c: Config, params):
  """Layers as a tuple; matrices in the dtype of the computation, vectors in their own."""
  layers = [jax.tree.map(lambda x: x[i], params["layers"]) for i in range(c.layers)]  # noqa: B023
  cast = lambda x: x.astype(c.dtype) if x.ndim > 1 else x
  return jax.tree.map(cast, params | {"layers": tuple(layers)})


def _embed(c: Config, params, tokens):
  return params["embed"][tokens].astype(c.dtype)


def _head(params):
  return params["head"] if "head" in params else params["embed"].T


def _logits(c: Config, hidden, head):
  wide = at_least_float32(hidden.dtype)
  logits = jnp.matmul(hidden, head.astype(hidden.dtype), preferred_element_type=wide)
  return logits if c.logit_softcap is None else c.logit_softcap * jnp.tanh(logits / c.logit_softcap)


def _windows(c: Config):
  """(one window a layer to scan over, or None; the window that all layers share, or None)."""
  if c.windows is None or len(set(c.windows)) == 1:
    return None, c.windows and c.windows[0]
  everything = jnp.iinfo(jnp.int32).max
  return jnp.array([everything if w is None else w for w in c.windows], jnp.int32), None
