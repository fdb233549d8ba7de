"""The shardings of a training state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from lcrl.mesh import optimizer_shardings, param_shardings, replicated
from lcrl.types import PyTree, TrainState


class Layout(NamedTuple):
  params: PyTree  # shardings of the trained parameters
  shardings: TrainState
  abstract: TrainState  # shapes, dtypes and shardings


def lay_out(
  mesh: Mesh,
  optimizer: optax.GradientTransformation,
  begin: Callable[[PyTree], TrainState],
  init: Callable[[jax.Array], PyTree],
  axes: PyTree,
) -> Layout:
  """Shards params and the optimizer's moments by their logical axes, and replicates all else.

  Args:
    mesh: the devices.
    optimizer: the optimizer whose state `begin` makes.
    begin: params -> the state before the first step.
    init: key -> params; never run, only their shapes are used.
    axes: logical names of the axes of every parameter.
  """
  params = jax.eval_shape(init, jax.random.key(0))
  split = param_shardings(mesh, axes, params)
  shapes = jax.eval_shape(begin, params)
  shardings = dataclasses.replace(
    jax.tree.map(lambda _: replicated(mesh), shapes),
    params=split,
    opt_state=optimizer_shardings(mesh, optimizer, params, split),
  )
  abstract = jax.tree.map(
    lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, shardings
  )
  return Layout(split, shardings, abstract)
