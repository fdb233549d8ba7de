"""train.steps_ahead=1: while a step trains, the rollouts of the next one are sampled.

They come from the parameters before the update, so that all steps but the first train on rollouts
of a policy one update older than themselves; importance weights in the loss correct for that
(`lcrl.losses.correction`). Between steps the rollouts are a part of the training state, as nested
dicts of arrays: their shapes are known to a checkpoint only.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lcrl.mesh import batch_on, everywhere
from lcrl.training.collect import Collected
from lcrl.training.metrics import Mean
from lcrl.training.rounds import Rounds
from lcrl.types import Budget, Recipe, Rollouts, Stage

PyTree = Any


def check(rounds: Rounds, recipe: Recipe[Stage], *, chooses: bool) -> None:
  """Raises ValueError where groups are chosen by what only the policy that trains can tell."""
  for slot in ("reward", "filter"):
    if chooses and (late := rounds.read_of([getattr(recipe, slot)])):
      raise ValueError(
        f"{slot} needs {sorted(late)}, which with train.steps_ahead=1 is known only when a batch "
        "trains; with train.max_rounds or train.window its groups are chosen a step before."
      )


def pending(mesh: Mesh, c: Collected) -> PyTree:
  """What the state keeps of rollouts until they train, on the devices that train."""
  r = batch_on(mesh, c.rollouts)
  sampled, trained = c.passed
  numbers = {
    "position": np.int32(c.position),
    "rounds": np.int32(c.rounds),
    "sampled": np.int32(sampled),
    "trained": np.int32(trained),
    "seconds": np.float32(c.seconds),
    "metrics": {name: mean._asdict() for name, mean in c.metrics.items()},
  }
  return {"rollouts": vars(r) | {"budget": vars(r.budget)}, **everywhere(mesh, numbers)}


def collected(pending: PyTree) -> Collected:
  """The inverse of `pending`."""
  rows, n = pending["rollouts"], jax.tree.map(np.asarray, {**pending, "rollouts": None})
  return Collected(
    Rollouts(**{**rows, "budget": Budget(**rows["budget"])}),
    int(n["position"]),
    int(n["rounds"]),
    (int(n["sampled"]), int(n["trained"])),
    {name: Mean(**mean) for name, mean in n["metrics"].items()},
    float(n["seconds"]),
    {},
  )
