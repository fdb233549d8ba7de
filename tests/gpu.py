"""Programs lowered for a GPU that need not be there."""

from unittest import mock

import jax
from jax._src.pallas.triton import lowering as triton
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

H100 = AbstractDevice("NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
MESH = AbstractMesh((1,), ("x",), axis_types=(AxisType.Auto,), abstract_device=H100)


def lowered(f, *args, mesh=MESH) -> str:
  """The text of jitted `f` for arguments that may be abstract. Triton's modules are verified, which
  JAX leaves to the GPU's compiler."""
  lower = triton.lower_jaxpr_to_triton_module

  def verified(*args, **kwargs):
    result = lower(*args, **kwargs)
    result.module.operation.verify()
    return result

  checked = mock.patch.object(triton, "lower_jaxpr_to_triton_module", verified)
  with checked, jax.sharding.use_abstract_mesh(mesh):
    return jax.jit(f).trace(*args).lower(lowering_platforms=("cuda",)).as_text()
