"""Attention: one function, several back ends, each of which says what it can do.

Shapes: T queries of N heads, S keys of K heads, N a multiple of K, head size H. What a query may
see is in `spans`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from lcrl.policies.attention import choice, cudnn, splash, triton, xla
from lcrl.policies.attention.choice import AUTO, FUSED_HEAD_DIMS, Device
from lcrl.policies.attention.devices import in_parts, per_device
from lcrl.policies.attention.spans import Spans, Window, segment_spans
from lcrl.policies.config import Config, softmax_scale

__all__ = [
  "AUTO",
  "BACKENDS",
  "FUSED_HEAD_DIMS",
  "Backend",
  "Device",
  "Spans",
  "attention",
  "chosen",
  "options_of",
  "segment_spans",
  "shares_prompts",
]


class Backend(NamedTuple):
  """An implementation, and what it supports besides causal attention."""

  attend: Callable
  supports: frozenset[str]


def attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  *,
  index: jax.Array | None = None,
  spans: Spans | None = None,
  window: Window = None,
  softcap: float | None = None,
  scale: float | None = None,
  sinks: jax.Array | None = None,
  backend: str = "xla",
  parts: int = 1,
) -> jax.Array:
  """Causal softmax(scale * q k^T) v; each group of N / K heads shares its keys and values.

  Args:
    q: [..., T, N, H]. k, v: [..., S, K, H].
    index: [..., T] int, where each query stands among the keys, ascending; None: query t is key t.
    spans: `segment_spans` of [..., S] segment ids, and of branches: a query sees only keys of its
      own segment, and none of another branch.
    window: a query sees the last `window` keys, itself included; None: all. May be traced.
    softcap: logits become softcap * tanh(logits / softcap).
    scale: of q k^T, before the soft-cap; None: 1 / sqrt(H).
    sinks: [N], a logit of each head that takes part in the softmax and has no value (`sinks`).
    backend: a name in BACKENDS, or "auto": the fastest that can, on the devices of the mesh in
      context.
    parts: above 1, q, k and v are rows dealt over the mesh's sequence axis to as many devices
      (`sequence.deal`); spans are of whole rows.
  Returns: [..., T, N, H] in q's dtype.

  >>> x = jnp.ones((1, 2, 1, 4))
  >>> print(attention(x, x, jnp.arange(8.0).reshape(1, 2, 1, 4))[0, :, 0, 0])
  [0. 2.]
  """
  check_name(backend)
  asked = {
    "offset queries": index is not None or parts > 1,
    "segment ids": spans is not None,
    "branches": spans is not None and spans.stem is not None,
    "grouped queries": q.shape[-2] != k.shape[-2],
    "window": window is not None,
    "window per layer": isinstance(window, jax.Array),
    "soft-cap": softcap is not None,
    "sinks": sinks is not None,
    f"head size {q.shape[-1]}": q.shape[-1] not in FUSED_HEAD_DIMS,
    str(q.dtype): True,
  }
  wanted = frozenset(name for name, on in asked.items() if on)
  if backend == AUTO:
    backend = _fastest(Device.here(), wanted, q.shape[-3])
  supports = BACKENDS[backend].supports
  missing = wanted - supports
  if "any head size" in supports:
    missing -= {f"head size {q.shape[-1]}"}
  if missing:
    raise ValueError(
      f"Attention back end {backend!r} does not support {', '.join(sorted(missing))}."
    )
  options = {"window": window, "softcap": softcap, "scale": softmax_scale(q.shape[-1], scale)}
  options |= {} if sinks is None else {"sinks": sinks}
  return BACKENDS[backend].attend(q, k, v, index=index, spans=spans, parts=parts, **options)


def options_of(c: Config) -> dict[str, Any]:
  """The arguments of `attention` that a model says for all its layers.

  >>> from lcrl.policies import tiny
  >>> options_of(tiny(16))
  {'softcap': None, 'scale': 0.25, 'backend': 'auto'}
  """
  return {"softcap": c.attention_softcap, "scale": c.attention_scale, "backend": c.attention}


def chosen(device: Device, c: Config, *, packed: bool, length: int, parts: int = 1) -> str:
  """The back end that trains a model on rows of `length` tokens: the one that it names, or what
  its "auto" stands for. Where a kernel has no branches, packed rows do without.

  Raises:
    ValueError: the rows are cut in `parts` by mesh.sequence, and the one that is named cannot.
  """
  if c.attention == AUTO:
    return _fastest(device, choice.features(c, packed=packed, cut=parts > 1), length)
  if parts > 1 and "offset queries" not in BACKENDS[c.attention].supports:
    able = [name for name, b in BACKENDS.items() if "offset queries" in b.supports]
    raise ValueError(
      f"policy.attention={c.attention!r} cannot cut rows over mesh.sequence={parts}: "
      f"{' and '.join(able)} can."
    )
  return c.attention


def _fastest(device: Device, asked: frozenset[str], length: int) -> str:
  supports = {name: backend.supports for name, backend in BACKENDS.items()}
  return choice.choose(device, asked, length, supports)


def check_name(backend: str) -> None:
  """Raises ValueError unless a config may name this back end."""
  if backend not in (AUTO, *BACKENDS):
    raise ValueError(f"Unknown attention back end {backend!r}: {', '.join(BACKENDS)} or {AUTO}.")


def shares_prompts(backend: str) -> bool:
  """Can the sequences of a segment share a stem? "auto" takes a back end in which they can.

  >>> shares_prompts("xla"), shares_prompts("cudnn")
  (True, False)
  """
  return backend == AUTO or "branches" in BACKENDS[backend].supports


_HALF = {"bfloat16", "float16"}
_ALL = {"grouped queries", "window", "window per layer", "segment ids", "branches", "soft-cap"}
_ALL |= {"offset queries"}
BACKENDS = {
  "xla": Backend(
    in_parts(xla.attend),
    frozenset(_ALL | _HALF | {"float32", "float64", "any head size", "sinks"}),
  ),
  "cudnn": Backend(cudnn.attend, frozenset(_HALF | {"grouped queries", "window"})),
  "triton": Backend(per_device(triton.attend), frozenset(_ALL | _HALF)),
  "splash": Backend(
    per_device(splash.attend),
    frozenset({"bfloat16", "float32", "grouped queries", "segment ids", "window"}),
  ),
}
