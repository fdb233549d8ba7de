"""Programs lowered for a GPU that need not be there."""

import jax
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

H100 = AbstractDevice("NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
MESH = AbstractMesh((1,), ("x",), axis_types=(AxisType.Auto,), abstract_device=H100)


def lowered(f, *args, mesh=MESH) -> str:
  """The text of jitted `f` for arguments that may be abstract."""
  with jax.sharding.use_abstract_mesh(mesh):
    return jax.jit(f).trace(*args).lower(lowering_platforms=("cuda",)).as_text()
