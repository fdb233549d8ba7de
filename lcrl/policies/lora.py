"""Low-rank adapters (arXiv:2106.09685) as a tree beside the params: kernel + alpha / rank * a b.

Train the adapters through `merge`; the merged tree is an ordinary one, to sample from or to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lcrl.policies.transformer import Policy

PyTree = Any
EVERYWHERE = ("query", "key", "value", "out", "gate", "up", "down")


def init(key: jax.Array, policy: Policy, *, rank: int, targets: Sequence[str] = EVERYWHERE):
  """(adapters, their logical axes) for the kernels of `targets`; they change nothing yet.

  Adapters hold, per target, a: [layers, in, rank], normal with variance 1 / in, and b: [layers,
  rank, out], zero.

  >>> from lcrl.policies import make, tiny
  >>> adapters, axes = init(jax.random.key(0), make(tiny(16)), rank=4, targets=("query",))
  >>> adapters["query"]["a"].shape, axes["query"]["b"]
  ((2, 64, 4), ('layers', 'rank', 'heads'))
  """
  if unknown := [name for name in targets if name not in EVERYWHERE]:
    raise ValueError(f"targets has {unknown[0]!r}, which is not one of {', '.join(EVERYWHERE)}.")
  if rank < 1:
    raise ValueError(f"rank={rank} must be at least 1.")
  layers = jax.eval_shape(policy.init, key)["layers"]
  adapters, axes = {}, {}
  for name, name_key in zip(targets, jax.random.split(key, len(targets)), strict=True):
    kernel, (_, rows, columns) = layers[name]["kernel"], policy.axes["layers"][name]["kernel"]
    depth, wide, out = kernel.shape
    a = jax.random.normal(name_key, (depth, wide, rank), kernel.dtype) * wide**-0.5
    adapters[name] = {"a": a, "b": jnp.zeros((depth, rank, out), kernel.dtype)}
    axes[name] = {"a": ("layers", rows, "rank"), "b": ("layers", "rank", columns)}
  return adapters, axes


def merge(params: PyTree, adapters: PyTree, *, alpha: float) -> PyTree:
  """Params with the adapters added; no gradient reaches `params`."""
  params = jax.lax.stop_gradient(params)
  layers = dict(params["layers"])
  for name, adapter in adapters.items():
    a, b, kernel = adapter["a"], adapter["b"], layers[name]["kernel"]
    change = (alpha / a.shape[-1]) * (a @ b)
    layers[name] = layers[name] | {"kernel": kernel + change.astype(kernel.dtype)}
  return params | {"layers": layers}
