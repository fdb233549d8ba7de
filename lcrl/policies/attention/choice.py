"""The back end that `attention="auto"` stands for, by device, features of the call and length."""

from __future__ import annotations

from collections.abc import Set
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from lcrl.compiler import nvidia
from lcrl.policies.config import Config

AUTO = "auto"
FUSED_HEAD_DIMS = (64, 128)  # of the kernels; plain attention takes any
SHORTEST = 128  # tokens of a row; kernels pad a shorter one to a block of this many
LEAST_CAPABILITY = (8, 0)  # of an NVIDIA device whose tensor cores take bfloat16
PREFERRED = {"nvidia": ("cudnn", "triton"), "tpu": ("splash",)}  # the fastest first


class Device(NamedTuple):
  """A kind of device, as far as choices depend on it."""

  platform: str  # "cpu", "tpu", "nvidia", or another name of JAX
  capability: tuple[int, int] | None = None  # of NVIDIA; None: the device does not say

  @property
  def triton(self) -> bool:
    """Whether kernels for NVIDIA run there."""
    capable = (self.capability or LEAST_CAPABILITY) >= LEAST_CAPABILITY
    return self.platform == "nvidia" and capable

  @classmethod
  def of(cls, mesh: Mesh | None) -> Device:
    """The devices of a mesh, or the default one."""
    if (capability := nvidia(mesh)) is not None:
      return cls("nvidia", capability if any(capability) else None)
    return cls((jax.devices()[0] if mesh is None else mesh.devices.flat[0]).platform)

  @classmethod
  def here(cls) -> Device:
    """The devices of the mesh in context, which may be one to compile for, or the default one."""
    described = jax.sharding.get_abstract_mesh().abstract_device
    if described is None or described.platform == jax.default_backend():
      return cls.of(None)
    return cls("nvidia" if "NVIDIA" in described.device_kind else described.platform)


def choose(
  device: Device, asked: Set[str], length: int, supports: dict[str, frozenset[str]]
) -> str:
  """The fastest back end that has all features asked for, on rows of `length` tokens.

  Args:
    device: where it runs.
    asked: names of features, as in `BACKENDS`.
    length: of a row.
    supports: the features of each back end; "xla" has all of them.
  """
  able = device.platform != "nvidia" or device.triton
  names = PREFERRED.get(device.platform, ()) if able and length >= SHORTEST else ()
  return next((name for name in names if asked <= supports[name]), "xla")


def features(c: Config, *, packed: bool, cut: bool = False) -> frozenset[str]:
  """The features that a model asks for in training, on rows that may be packed and cut in parts."""
  windows = set(c.windows or (None,))
  asked = {
    "segment ids": packed,
    "offset queries": cut,
    "grouped queries": c.heads != c.kv_heads,
    "window": windows != {None},
    "window per layer": len(windows) > 1 and c.unroll is not True,
    "soft-cap": c.attention_softcap is not None,
    "sinks": c.sinks,
    f"head size {c.head_dim}": c.head_dim not in FUSED_HEAD_DIMS,
    c.dtype: True,
  }
  return frozenset(name for name, on in asked.items() if on)
