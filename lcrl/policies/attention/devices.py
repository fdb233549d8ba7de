"""What depends on the devices: a kernel on a mesh, and blocks that suit them."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec as P

from lcrl.mesh import BATCH
from lcrl.policies.attention.spans import Spans, Window


def per_device(attend: Callable) -> Callable:
  """`attend` of rows [R, ..., T, N, H], for a kernel that the compiler cannot split by itself.

  R is split over the batch axes of the mesh in context (`jax.sharding.use_abstract_mesh`), heads
  over its tensor axis where the kv heads divide; without a mesh it is `attend` itself. An axis that
  a `shard_map` around it has split is left alone.
  """

  def split(q, k, v, *, index, spans: Spans | None, window: Window, **options):
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or set(mesh.manual_axes) == set(mesh.axis_names):
      return attend(q, k, v, index=index, spans=spans, window=window, **options)
    heads = None if k.shape[-2] % mesh.shape["tensor"] else "tensor"
    batch = P(None) if mesh.manual_axes else BATCH
    rows = P(*batch, *(None,) * (q.ndim - 3), heads)
    fixed = None if isinstance(window, jax.Array) else window
    traced = window if isinstance(window, jax.Array) else None

    def local(q, k, v, spans, traced):
      window = fixed if traced is None else traced
      return attend(q, k, v, index=None, spans=spans, window=window, **options)

    specs = (rows, rows, rows, batch, P())
    left = set(mesh.axis_names) - set(mesh.manual_axes)
    run = jax.shard_map(local, in_specs=specs, out_specs=rows, axis_names=left, check_vma=False)
    return run(q, k, v, spans, traced)

  return split


def block_width() -> tuple[int, int]:
  """Of blocks in plain JAX, and up to which length rows are not cut: on CPUs a block stays in a
  core's cache, elsewhere it must be worth its launches. Of the mesh in context, which may be one to
  compile for, or of the default backend."""
  described = jax.sharding.get_abstract_mesh().abstract_device
  kind = described.device_kind if described else jax.default_backend()
  return (64, 128) if kind == "cpu" else (512, 2048)
