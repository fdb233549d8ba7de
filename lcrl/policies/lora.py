"""Low-rank adapters (arXiv:2106.09685) as a tree beside the params: kernel + alpha / rank * a b.

To train, `with_adapters` puts them into the params' tree, and gradients reach the adapters alone.
`merge` adds them to the kernels, which gives an ordinary tree to sample from or to save.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from lcrl.policies.transformer import Policy

PyTree = Any
EVERYWHERE = ("query", "key", "value", "out", "gate", "up", "down")


def adapters(policy: Policy, *, rank: int, targets: Sequence[str] = EVERYWHERE):
  """(init, axes) of adapters for the kernels of `targets`: key -> adapters, their logical axes.

  Adapters hold, per target, a: [layers, in, rank], normal with variance 1 / in, and b: [layers,
  rank, out], zero; so that at first they change nothing. They are float32 whatever the kernels are.

  >>> from lcrl.policies import make, tiny
  >>> init, axes = adapters(make(tiny(16)), rank=4, targets=("query",))
  >>> init(jax.random.key(0))["query"]["a"].shape, axes["query"]["b"]
  ((2, 64, 4), ('layers', 'rank', 'heads'))
  """
  if unknown := [name for name in targets if name not in EVERYWHERE]:
    raise ValueError(f"targets has {unknown[0]!r}, which is not one of {', '.join(EVERYWHERE)}.")
  layers = jax.eval_shape(policy.init, jax.random.key(0))["layers"]
  if missing := [name for name in targets if name not in layers]:
    raise ValueError(
      f"targets has {missing[0]!r}, but MLPs of this model are mixtures of experts, for which "
      "there are no adapters: let targets be some of query, key, value and out."
    )
  if rank < 1:
    raise ValueError(f"rank={rank} must be at least 1.")
  shapes = {name: layers[name]["kernel"].shape for name in targets}

  def init(key: jax.Array) -> PyTree:
    keys = jax.random.split(key, len(targets))
    start = {}
    for (name, (depth, wide, out)), its_key in zip(shapes.items(), keys, strict=True):
      a = jax.random.normal(its_key, (depth, wide, rank), jnp.float32) * wide**-0.5
      start[name] = {"a": a, "b": jnp.zeros((depth, rank, out), jnp.float32)}
    return start

  kernels = {name: policy.axes["layers"][name]["kernel"] for name in targets}
  axes = {
    name: {"a": ("layers", rows, "rank"), "b": ("layers", "rank", columns)}
    for name, (_, rows, columns) in kernels.items()
  }
  return init, axes


def multiplier(alpha: float, rank: int, *, rank_stabilized: bool = False) -> float:
  """What a b is multiplied with: alpha / rank, or alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732)."""
  return alpha / (rank**0.5 if rank_stabilized else rank)


def change(a: Any, b: Any, *, scale: float = 1.0) -> Any:
  """scale * a b: what an adapter adds to its kernel. [..., in, rank], [..., rank, out].

  >>> print(change(jnp.ones((2, 1)), jnp.array([[1.0, 2.0]]), scale=0.5))
  [[0.5 1. ]
   [0.5 1. ]]
  """
  return scale * (a @ b)


def allora_scale(b: jax.Array, *, eta: float) -> jax.Array:
  """ALLoRA's factor of the gradient of each output: 1 / sqrt(||b_o|| + 1 / eta^2).

  An output whose adapter is 0 learns eta times as fast, and slower as the norm over the rank
  grows. It takes the place of dropout and of alpha / rank: let alpha be the rank.
  Source: ALLoRA, arXiv:2410.09692; the formula is from secondary notes.

  Args:
    b: [..., rank, out].
    eta: the factor at 0, above 0.
  Returns: [..., out].

  >>> print(allora_scale(jnp.array([[0.0, 3.75]]), eta=2.0))
  [2.  0.5]
  """
  if not eta > 0:
    raise ValueError(f"eta must be above 0, got {eta}.")
  return 1 / jnp.sqrt(jnp.linalg.norm(b, axis=-2) + eta**-2)


def allora_gradients(adapted: PyTree, gradients: PyTree, *, eta: float) -> PyTree:
  """The gradients of adapters, those of every b times its `allora_scale`; a's stay."""
  return {
    name: {**own, "b": own["b"] * allora_scale(adapted[name]["b"], eta=eta)[..., None, :]}
    for name, own in gradients.items()
  }


def with_adapters(
  params: PyTree, adapted: PyTree, *, alpha: float, rank_stabilized: bool = False
) -> PyTree:
  """Params whose layers hold the adapters, too, for `hidden` and `apply`: x kernel + x a b.

  No kernel is changed or copied, and no gradient reaches `params`, so that the way back is as small
  as the adapters are. The kernels may be bfloat16: a small change is not rounded away.
  """
  params = jax.lax.stop_gradient(params)
  layers = dict(params["layers"])
  for name, adapter in adapted.items():
    a, b = adapter["a"], adapter["b"]
    scale = multiplier(alpha, a.shape[-1], rank_stabilized=rank_stabilized)
    layers[name] = layers[name] | {"a": a, "b": scale * b}
  return params | {"layers": layers}


def merge(
  params: PyTree, adapted: PyTree, *, alpha: float, rank_stabilized: bool = False
) -> PyTree:
  """Params with the adapters added; no gradient reaches `params`."""
  params = jax.lax.stop_gradient(params)
  layers = dict(params["layers"])
  for name, adapter in adapted.items():
    a, b, kernel = adapter["a"], adapter["b"], layers[name]["kernel"]
    scale = multiplier(alpha, a.shape[-1], rank_stabilized=rank_stabilized)
    merged = (kernel + change(a, b, scale=scale)).astype(kernel.dtype)
    layers[name] = layers[name] | {"kernel": merged}
  return params | {"layers": layers}
