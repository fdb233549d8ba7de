"""The first training state, and its shardings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lcrl.mesh import optimizer_shardings, param_shardings, replicated
from lcrl.types import PyTree, TrainState


def first_state(
  params: PyTree,
  optimizer: optax.GradientTransformation,
  recipe: PyTree,
  *,
  counted: str,
  passed: jax.Array | None = None,
) -> TrainState:
  """The state before the first step.

  Args:
    params: the trained parameters.
    optimizer: the optimizer whose state starts with them.
    recipe: states of the stages.
    counted: the name of the counter beside "tokens", such as "prompts".
    passed: as in `TrainState`.
  """
  return TrainState(
    step=jnp.int32(0),
    params=params,
    opt_state=optimizer.init(params),
    recipe=recipe,
    position=jnp.int32(0),
    counters={counted: jnp.int32(0), "tokens": jnp.float32(0.0)},
    passed=passed,
  )


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
  return Layout(split, shardings, abstract(shapes, shardings))


def abstract(shapes: PyTree, shardings: PyTree) -> PyTree:
  """Abstract arrays with these shardings."""
  put = lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at)
  return jax.tree.map(put, shapes, shardings)
