"""What a decoder is: sizes, rotary positions, windows. Frozen, hashable, no arrays."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np

from lcrl.values import Count, Whole


@dataclasses.dataclass(frozen=True)
class Rope:
  """Rotary positions, and the trick that stretches them past the length of pre-training.

  `scaling` is "default", "linear" (every frequency divided by `factor`), "llama3" (only the slow
  ones) or "yarn" (arXiv:2309.00071, also scales the attention through cos and sin). "none" turns
  nothing: such a layer does not know where its keys stand.
  """

  theta: float = 10_000.0
  scaling: str = "default"
  factor: float = 1.0
  original_length: int = 0  # context of pre-training; llama3 and yarn
  low_freq: float = 1.0  # llama3: fewer turns than this over the context, and factor applies
  high_freq: float = 4.0  # llama3: more turns than this, and nothing changes
  beta_fast: float = 32.0  # yarn's ramp, in turns over the context
  beta_slow: float = 1.0
  attention_factor: float | None = None  # yarn; None: 0.1 ln(factor) + 1
  truncate: bool = True  # yarn: the ends of the ramp fall on whole channels

  def frequencies(self, head_dim: int) -> np.ndarray:
    """Radians a token for each channel pair, float64 [head_dim / 2]."""
    base = self.theta ** -(np.arange(0, head_dim, 2) / head_dim)
    if self.scaling == "default":
      return base
    if self.scaling == "none":
      return 0 * base
    if self.scaling == "linear":
      return base / self.factor
    if self.scaling == "llama3":
      turns = self.original_length * base / (2 * np.pi)
      keep = (turns - self.low_freq) / (self.high_freq - self.low_freq)
    elif self.scaling == "yarn":
      low, high = (self._channel(turns, head_dim) for turns in (self.beta_fast, self.beta_slow))
      if self.truncate:
        low, high = math.floor(low), math.ceil(high)
      low, high = max(low, 0), min(high, head_dim - 1)
      keep = 1 - (np.arange(head_dim / 2) - low) / max(high - low, 1e-3)
    else:
      raise ValueError(
        f"Unknown rope scaling {self.scaling!r}: default, linear, llama3, yarn or none."
      )
    keep = np.clip(keep, 0, 1)
    return keep * base + (1 - keep) * base / self.factor

  def amplitude(self) -> float:
    """What cos and sin are multiplied with: 1 except for yarn."""
    if self.scaling != "yarn":
      return 1.0
    if self.attention_factor is not None:
      return self.attention_factor
    return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0

  def _channel(self, turns: float, head_dim: int) -> float:
    """The channel pair that turns this often over the original context."""
    turns = self.original_length / (turns * 2 * math.pi)
    return head_dim * math.log(turns) / (2 * math.log(self.theta))


NO_ROPE = Rope(scaling="none")
NORMS = ("pre", "post", "sandwich")


def softmax_scale(head_dim: int, scale: float | None = None) -> float:
  """What attention multiplies q k^T with: `scale`, or 1 / sqrt(head_dim) for None."""
  return head_dim**-0.5 if scale is None else scale


OPTIONS = ("dtype", "remat", "unroll", "attention", "decoding")  # fields of Config that no file has


@dataclasses.dataclass(frozen=True)
class Config:
  """One decoder with grouped queries, rotary positions and gated MLPs.

  All families differ in these fields only.
  """

  vocab_size: Count
  hidden_size: Count
  layers: Count
  heads: Count
  kv_heads: Count
  head_dim: Count
  mlp_size: Count
  family: str = "llama"  # the architecture's name in a Hugging Face folder
  rope: Rope = Rope()
  norm_eps: float = 1e-6
  qkv_bias: bool = False
  out_bias: bool = False  # of attention's last matrix
  expert_bias: bool = False  # of the router, and of each expert's matrices
  sinks: bool = False  # a learned logit a head, in the softmax of attention beside those of keys
  qk_norm: bool = False
  tied: bool = True  # the embedding is the head
  activation: str = "silu"  # of the MLP's gate, a name in block.ACTIVATIONS
  mlp_limit: float | None = None  # gate is at most that, and up between -that and that
  up_offset: float = 0.0  # added to up, after the limit
  experts: Whole = 0  # MLPs of a layer, each of mlp_size; 0: one MLP that all tokens pass
  experts_per_token: Whole = 0  # that a token's router chooses
  normalize_gates: bool = True  # probabilities of chosen experts are divided by their sum
  query_scale: float | None = None  # of products of queries and keys; None: 1 / sqrt(head_dim)
  windows: tuple[int | None, ...] | None = None  # per layer: a query sees that many keys; None: all
  ropes: tuple[Rope, ...] | None = None  # per layer, where they differ; None: all have `rope`
  norms: str = "pre"  # of what attention and MLP read ("pre"), of what they add ("post"), or both
  norm_offset: float = 0.0  # added to the scale of every norm
  qk_norm_over: str = "head"  # or "projection": all queries, or all keys, of a token have one norm
  embed_scale: float = 1.0  # of embeddings as the first layer reads them
  attention_softcap: float | None = None
  logit_softcap: float | None = None
  max_length: int = 2048
  dtype: str = "float32"  # of the computation; parameters have their own
  # "auto": a run chooses by devices, lengths and memory; without a run, all is kept in a scan
  remat: str = "auto"  # what the backward pass keeps: none (all), full (nothing), dots, attention
  unroll: bool | Literal["auto"] = "auto"  # no scan: keeps without copies, compiles longer
  attention: str = "auto"  # a name in attention.BACKENDS
  decoding: str = "xla"  # a name in decoding.KERNELS

  @property
  def mlps(self) -> int:
    """MLPs of a layer."""
    return self.experts or 1

  @property
  def active_mlps(self) -> int:
    """MLPs of a layer that a token passes."""
    return self.experts_per_token or 1

  @property
  def attention_scale(self) -> float:
    return softmax_scale(self.head_dim, self.query_scale)

  @property
  def kinds(self) -> tuple[tuple[int | None, Rope], ...]:
    """The window and the rotary positions of each layer."""
    windows, ropes = self.windows or (None,) * self.layers, self.ropes or (self.rope,) * self.layers
    return tuple(zip(windows, ropes, strict=True))

  def __post_init__(self):
    for name in (
      "vocab_size",
      "hidden_size",
      "layers",
      "heads",
      "kv_heads",
      "head_dim",
      "mlp_size",
    ):
      size = getattr(self, name)
      if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"{name}={size!r} is not a whole number above 0.")
    if self.heads % self.kv_heads:
      raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}.")
    if self.head_dim % 2:
      raise ValueError(f"head_dim={self.head_dim} must be even for rotary positions.")
    for name in ("windows", "ropes"):
      per_layer = getattr(self, name)
      if per_layer is None:
        continue
      if len(per_layer) != self.layers:
        raise ValueError(f"{name} has {len(per_layer)} entries for layers={self.layers}.")
      object.__setattr__(self, name, tuple(per_layer))  # a list has no hash
    if self.norms not in NORMS:
      raise ValueError(f"norms={self.norms!r} is not one of {', '.join(NORMS)}.")
    if self.qk_norm_over not in ("head", "projection"):
      raise ValueError(f"qk_norm_over={self.qk_norm_over!r} is neither head nor projection.")
    if not 0 <= self.experts_per_token <= self.experts or (
      self.experts and not self.experts_per_token
    ):
      raise ValueError(
        f"experts_per_token={self.experts_per_token} must be from 1 to experts={self.experts}."
      )
    if not self.embed_scale > 0:
      raise ValueError(f"embed_scale={self.embed_scale} must be above 0.")
    if self.query_scale is not None and not self.query_scale > 0:
      raise ValueError(f"query_scale={self.query_scale} must be above 0.")
    if self.mlp_limit is not None and not self.mlp_limit > 0:
      raise ValueError(f"mlp_limit={self.mlp_limit} must be above 0.")
    if self.expert_bias and not self.experts:
      raise ValueError("expert_bias=True needs experts, of which there are none.")
    if not jnp.issubdtype(jnp.dtype(self.dtype), jnp.floating):
      raise ValueError(f"dtype={self.dtype!r} is not a floating point type.")


def tiny(vocab_size: int, **overrides) -> Config:
  """A decoder of 100 k parameters that trains on a laptop.

  >>> tiny(vocab_size=32, layers=1).heads
  4
  """
  sizes = {"hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16}
  return Config(vocab_size, **{"mlp_size": 192, "max_length": 256, **sizes, **overrides})
