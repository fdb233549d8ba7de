"""train.steps_ahead=1: while a step trains, the devices sample the rollouts of the next one.

The parameters before the update sample them. So all steps but the first train on rollouts of a
policy that is one update older; importance weights in the loss correct for that
(`lcrl.losses.correction`). Between steps the rollouts are a part of the training state, as nested
dicts of arrays. Only a checkpoint knows their shapes.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lcrl.mesh import replicate, shard_batch
from lcrl.training.metrics import Mean
from lcrl.training.rl.collect import Collected
from lcrl.types import Budget, Rollouts

PyTree = Any


def to_state(mesh: Mesh, c: Collected) -> PyTree:
  """The rollouts as a part of the training state, on the devices that train."""
  r = shard_batch(mesh, c.rollouts)
  sampled, trained = c.passed
  numbers = {
    "position": np.int32(c.position),
    "rounds": np.int32(c.rounds),
    "sampled": np.int32(sampled),
    "trained": np.int32(trained),
    "seconds": np.float32(c.seconds),
    "marked": np.bool_(r.undrawn is not None),
    "metrics": {name: mean._asdict() for name, mean in c.metrics.items()},
  }
  rows = {name: x for name, x in vars(r).items() if x is not None} | {"budget": vars(r.budget)}
  return {"rollouts": rows, **replicate(mesh, numbers)}


def from_state(pending: PyTree) -> Collected:
  """The inverse of `to_state`."""
  rows, n = pending["rollouts"], jax.tree.map(np.asarray, {**pending, "rollouts": None})
  if "marked" not in n:  # in older checkpoints tokens that were not drawn have a log-prob of 0
    rows = rows | {"undrawn": rows["mask"] & (rows["sampler_log_probs"] == 0)}
  return Collected(
    Rollouts(**{**rows, "budget": Budget(**rows["budget"])}),
    int(n["position"]),
    int(n["rounds"]),
    (int(n["sampled"]), int(n["trained"])),
    {name: Mean(**mean) for name, mean in n["metrics"].items()},
    float(n["seconds"]),
    {},
  )
