"""Options of XLA that programs run faster with, by device, and how long it compiles."""

from __future__ import annotations

import os
import shlex

import jax
from jax.sharding import Mesh

# Products by cuBLAS. XLA's own in Triton took 6.6 us instead of 5.1 of few rows, as long of many,
# and a quarter of the time to compile for trying them out (135 M, on an H100).
CUBLAS: dict[str, bool | int | str] = {"xla_gpu_enable_triton_gemm": False}
# A loop of many small kernels as CUDA graphs, the loop itself included: 145 ms instead of 149.
GRAPHS: dict[str, bool | int | str] = {
  "xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,WHILE,CONDITIONAL",
  "xla_gpu_graph_min_graph_size": 1,
}


def options(mesh: Mesh | None, *, loops: bool = False) -> dict[str, bool | int | str]:
  """For `compiler_options` of `jax.jit`, of a program on this mesh, or on the default device.

  What the environment variable XLA_FLAGS sets is left to it.
  """
  if nvidia(mesh) is None:
    return {}
  flags = shlex.split(os.environ.get("XLA_FLAGS", ""))
  given = {flag.lstrip("-").partition("=")[0] for flag in flags}
  wanted = CUBLAS | (GRAPHS if loops else {})
  return {name: value for name, value in wanted.items() if name not in given}


def nvidia(mesh: Mesh | None) -> tuple[int, int] | None:
  """The compute capability of the mesh's devices, or of the default one: (9, 0) of an H100. None if
  NVIDIA did not make them; (0, 0) if they do not say."""
  device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
  if "NVIDIA" not in device.device_kind:
    return None
  major, minor = getattr(device, "compute_capability", "0.0").split(".")
  return int(major), int(minor)


def seconds() -> float:
  """Seconds that XLA has compiled in this process since this module was imported."""
  return _compiled


_compiled = 0.0


def _add(event: str, duration_secs: float, **_) -> None:
  global _compiled
  if event == "/jax/core/compile/backend_compile_duration":
    _compiled += duration_secs


jax.monitoring.register_event_duration_secs_listener(_add)
