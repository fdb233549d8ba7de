"""What depends on the devices: a kernel on a mesh, and blocks that suit them."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec as P

from lcrl.mesh import BATCH
from lcrl.policies.attention import sequence
from lcrl.policies.attention.spans import Spans, Window


def per_device(attend: Callable) -> Callable:
  """`attend` of rows [R, ..., T, N, H], for a kernel that the compiler cannot split by itself.

  R is split over the batch axes of the mesh in context (`jax.sharding.use_abstract_mesh`), heads
  over its tensor axis where the kv heads divide; without a mesh it is `attend` itself. An axis that
  a `shard_map` around it has split is left alone. With `parts` above 1 the rows are
  dealt over the sequence axis (`sequence.deal`), and spans are those of whole rows.
  """

  def split(
    q, k, v, *, index, spans: Spans | None, window: Window, parts: int = 1, sinks=None, **options
  ):
    own = {} if sinks is None else {"sinks": sinks}  # kernels know none
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or set(mesh.manual_axes) == set(mesh.axis_names):
      return attend(q, k, v, index=index, spans=spans, window=window, **options, **own)
    heads = None if k.shape[-2] % mesh.shape["tensor"] else "tensor"
    batch = P(None) if mesh.manual_axes else BATCH
    rows = P(*(batch if parts == 1 else sequence.CUT), *(None,) * (q.ndim - 3), heads)
    fixed = None if isinstance(window, jax.Array) else window
    traced = window if isinstance(window, jax.Array) else None

    def local(q, k, v, spans, traced, own):
      window = fixed if traced is None else traced
      index = None
      if parts > 1:
        index = sequence.positions(q.shape[1], parts)
        k, v = (sequence.gather(x, parts) for x in (k, v))
      return attend(q, k, v, index=index, spans=spans, window=window, **options, **own)

    specs = (rows, rows, rows, batch, P(), P(heads))
    left = set(mesh.axis_names) - set(mesh.manual_axes)
    run = jax.shard_map(local, in_specs=specs, out_specs=rows, axis_names=left, check_vma=False)
    return run(q, k, v, spans, traced, own)

  return split


def in_parts(attend: Callable) -> Callable:
  """`attend`, which the compiler splits by itself except along the sequence axis."""

  def split(*args, parts: int, **options):
    return (
      per_device(attend)(*args, parts=parts, **options) if parts > 1 else attend(*args, **options)
    )

  return split


def block_width() -> tuple[int, int]:
  """Of blocks in plain JAX, and up to which length rows are not cut: on CPUs a block stays in a
  core's cache, elsewhere it must be worth its launches. Of the mesh in context, which may be one to
  compile for, or of the default backend."""
  described = jax.sharding.get_abstract_mesh().abstract_device
  kind = described.device_kind if described else jax.default_backend()
  return (64, 128) if kind == "cpu" else (512, 2048)
