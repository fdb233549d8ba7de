"""The device mesh, and the shardings of parameters and batches on it."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

PyTree = Any
AXES = ("data", "fsdp", "sequence", "tensor")
BATCH = P(("data", "fsdp"))  # rows of a batch, along B

# Logical axis of a parameter -> mesh axis that it is split over; fsdp stands for both of FSDP.
RULES = {
  "vocab": "tensor",
  "heads": "tensor",
  "kv_heads": "tensor",
  "mlp": "tensor",
  "experts": "tensor",
  "embed": "fsdp",
}

FSDP = ("fsdp", "sequence")  # devices along either hold other tokens, and share the parameters


def first_devices(count: int, devices=None) -> list[jax.Device]:
  """The first `count` devices; all for 0.

  Raises:
    ValueError: there are fewer, or several processes share the run.
  """
  available = list(jax.devices() if devices is None else devices)
  if count > len(available):
    raise ValueError(f"mesh.devices={count} is more than the {len(available)} devices here.")
  if 0 < count < len(available) and jax.process_count() > 1:
    raise ValueError(f"mesh.devices={count} works in one process, not in several.")
  return available[:count] if count else available


def make_mesh(
  *, data: int = 1, fsdp: int = -1, tensor: int = 1, sequence: int = 1, devices=None
) -> Mesh:
  """A mesh of all devices. One axis may be -1 and gets the devices that the others leave.

  Where the hardware is a grid, neighbours on the mesh are neighbours in hardware.

  Raises:
    ValueError: the product of the axes is not the number of devices.
  """
  devices = np.asarray(jax.devices() if devices is None else devices).reshape(-1)
  sizes = axis_sizes(devices.size, data=data, fsdp=fsdp, tensor=tensor, sequence=sequence)
  near = create_device_mesh(tuple(sizes.values()), devices, allow_split_physical_axes=True)
  return Mesh(near, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_sampling_devices(count: int) -> None:
  """Raises ValueError if several processes share the run and `count` devices shall only sample."""
  if count and jax.process_count() > 1:
    raise ValueError(
      f"sampling.devices={count} works in one process, not in {jax.process_count()}: with 0, every "
      "device samples and trains, also with train.steps_ahead=1."
    )


def axis_sizes(devices: int, **axes: int) -> dict[str, int]:
  """The sizes of all AXES for so many devices; one may be -1. Raises as `make_mesh` does.

  >>> axis_sizes(8, data=1, fsdp=-1, tensor=2, sequence=1)
  {'data': 1, 'fsdp': 4, 'sequence': 1, 'tensor': 2}
  """
  sizes = {name: axes[name] for name in AXES}
  free = [name for name, size in sizes.items() if size == -1]
  fixed = math.prod(size for size in sizes.values() if size != -1)
  if len(free) > 1 or fixed < 1 or devices % fixed or (not free and fixed != devices):
    raise ValueError(
      f"mesh {sizes} does not cover {devices} devices exactly: one axis may be -1 and takes "
      "what the others leave, or mesh.devices takes the first so many."
    )
  return sizes | dict.fromkeys(free, devices // fixed)


def sampler_mesh(mesh: Mesh, count: int) -> Mesh:
  """A mesh of the last `count` devices of this process, for sampling while those of `mesh` train;
  those of `mesh` itself for 0. Its tensor axis is as long as that of `mesh`, and it has no sequence
  axis: what samples splits rows over all other axes.

  Raises:
    ValueError: there are several processes, or too few devices.
  """
  check_sampling_devices(count)
  if not count:
    return _rows_over_sequence(mesh)
  taken = set(mesh.devices.flat)
  free = [device for device in jax.devices() if device not in taken][-count:]
  tensor = mesh.shape["tensor"]
  if len(free) < count or count % tensor:
    raise ValueError(
      f"sampling.devices must be a multiple of mesh.tensor={tensor} and at most the {len(free)} "
      f"devices that do not train, got {count}."
    )
  return make_mesh(data=-1, fsdp=1, tensor=tensor, devices=free)


def _rows_over_sequence(mesh: Mesh) -> Mesh:
  """The devices of a mesh in the same order, those along the sequence axis along fsdp."""
  if mesh.shape["sequence"] == 1:
    return mesh
  data, fsdp, sequence, tensor = mesh.devices.shape
  devices = mesh.devices.reshape(data, fsdp * sequence, 1, tensor)
  return Mesh(devices, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def default_mesh(mesh: Mesh) -> contextlib.AbstractContextManager:
  """Makes a device of this mesh the default, so that creating a key waits for no busy device."""
  if jax.local_devices()[0] in mesh.devices:
    return contextlib.nullcontext()
  return jax.default_device(mesh.local_devices[0])


def on_host() -> contextlib.AbstractContextManager:
  """Makes the host's processor the default device, where JAX has one, so that the host reads small
  results without waiting for busy devices."""
  try:
    return jax.default_device(jax.local_devices(backend="cpu")[0])
  except RuntimeError:
    return contextlib.nullcontext()


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
  """The number of pieces that a batch is split into along B."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def round_up_rows(mesh: Mesh, rows: int) -> int:
  """`rows` rounded up, so that every shard gets the same number."""
  return -(-rows // batch_shards(mesh)) * batch_shards(mesh)


def tensor_shards() -> int:
  """The devices along the tensor axis of the mesh in context; 1 where there is none, or where a
  `shard_map` around has split it."""
  mesh = jax.sharding.get_abstract_mesh()
  left = set(mesh.axis_names) - set(mesh.manual_axes)
  return mesh.shape["tensor"] if "tensor" in left else 1


def check_divides(
  mesh: Mesh,
  *,
  prompts: int,
  pieces: int = 1,
  field: str = "train.prompts",
  of: str = "train.micro_batches * train.updates",
) -> None:
  """Raises ValueError unless every piece of a batch gives every shard the same number of rows."""
  unit = batch_shards(mesh) * pieces
  if prompts % unit:
    low = prompts // unit * unit
    near = f"{low} or {low + unit}" if low else str(unit)
    raise ValueError(
      f"{field} must be a multiple of mesh.data * mesh.fsdp * {of}, got {prompts} for "
      f"{mesh.shape['data']} * {mesh.shape['fsdp']} * {pieces}; {near} would do."
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, P())


def param_shardings(mesh: Mesh, axes: PyTree, params: PyTree) -> PyTree:
  """A sharding per parameter from its logical axis names. What does not divide is replicated."""

  def split(size, name):
    axis = RULES.get(name)
    if axis == "fsdp" and mesh.shape["sequence"] > 1:
      return FSDP if not size % (mesh.shape["fsdp"] * mesh.shape["sequence"]) else None
    return axis if axis and not size % mesh.shape[axis] else None

  def sharding(leaf, names):
    return NamedSharding(mesh, P(*map(split, leaf.shape, names)))

  return jax.tree.map(sharding, params, axes)


def optimizer_shardings(mesh: Mesh, optimizer, params: PyTree, shardings: PyTree) -> PyTree:
  """Moments get the shardings of their parameters; everything else is replicated."""
  import optax

  abstract = jax.eval_shape(optimizer.init, params)
  return optax.tree_utils.tree_map_params(
    optimizer,
    lambda _, sharding: sharding,
    abstract,
    shardings,
    transform_non_params=lambda _: replicated(mesh),
  )


def processes(mesh: Mesh) -> list[int]:
  """The processes that have devices on this mesh."""
  return sorted({device.process_index for device in mesh.devices.flat})


def sharing_processes(mesh: Mesh) -> list[int]:
  """The processes that hold the same rows of a batch as this one, itself included: several where a
  tensor or sequence group spans processes."""
  held: dict[int, set[int]] = {}
  for shard, devices in enumerate(mesh.devices.reshape(batch_shards(mesh), -1)):
    for device in devices:
      held.setdefault(device.process_index, set()).add(shard)
  own = held.get(jax.process_index())
  return sorted(process for process, shards in held.items() if shards == own)


def to_global(mesh: Mesh, local: PyTree) -> PyTree:
  """The rows of each process (numpy, along B) -> global arrays split over the batch axes."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), local)


def same_devices(a: Mesh, b: Mesh) -> bool:
  return a.devices.flatten().tolist() == b.devices.flatten().tolist()


def shard_batch(mesh: Mesh, rows: PyTree) -> PyTree:
  """Moves rows of a batch to this mesh, if they lie on another one of this process."""
  on_mesh = jax.tree.leaves(rows)[0].sharding.device_set == set(mesh.devices.flat)
  return rows if on_mesh else jax.device_put(rows, batch_sharding(mesh))


def replicate(mesh: Mesh, values: PyTree) -> PyTree:
  """Values that every process has -> global arrays, whole on every device."""
  put = lambda x: jax.make_array_from_process_local_data(replicated(mesh), np.asarray(x))
  return jax.tree.map(put, values)


def local_rows(mesh: Mesh, rows: int) -> np.ndarray:
  """Indices of the rows that this process holds of a batch of `rows`, in order. Processes of one
  tensor group hold the same rows."""
  parts = batch_sharding(mesh).addressable_devices_indices_map((rows,))
  return np.unique([i for part in parts.values() if part for i in range(rows)[part[0]]])


def to_local(array: jax.Array) -> np.ndarray:
  """This process's rows of an array split along its first axis only, in order, once each."""
  if array.is_fully_addressable:
    return np.asarray(array)
  rows = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
  return np.concatenate([np.asarray(rows[start]) for start in sorted(rows)])
