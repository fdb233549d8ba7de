"""Stops a run after several steps in a row without an update: loss or gradient were not finite."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lcrl.mesh import to_local
from lcrl.training.remote import origin
from lcrl.training.workdir import Workdir

PATIENCE = 3  # such steps in a row


class Skips:
  """Reads the metric `skipped_updates` of every step of a run."""

  def __init__(self, out: Workdir, *, steps: int, updates: int = 1):
    """The run has `steps` steps with `updates` optimizer updates each."""
    self._out, self._updates = out, updates
    self._most, self._row = min(PATIENCE, steps), 0
    for numbers in out.steps():  # the earlier steps of a resumed run
      self._count(numbers)

  def __call__(self, step: int, numbers: dict[str, float], line: str, batch: Any) -> None:
    """Runs after a step on `batch`, before its metrics are written.

    Raises:
      FloatingPointError: too many steps in a row were skipped. The metrics and the batch of this
        step are in the run folder.
    """
    skipped = self._count(numbers)
    if not skipped:
      return
    reason = f"loss {numbers['loss']:g}, gradient norm {numbers['grad_norm']:g}"
    logging.warning(
      "step %d: %.0f of %d updates skipped, %s.", step, skipped, self._updates, reason
    )
    if self._row < self._most:
      return
    self._out.learned(step, numbers, line)
    path = save_batch(self._out.path, step, batch)
    raise FloatingPointError(
      f"step {step}: {reason}. The updates of {self._row} steps in a row were skipped, so the run "
      f"stops; {_newest(self._out.path)}. The batch is in {origin(path)}."
    )

  def _count(self, numbers: Mapping[str, float]) -> float:
    skipped = numbers.get("skipped_updates", 0.0)
    self._row = self._row + 1 if skipped >= self._updates else 0
    return skipped


def save_batch(folder: pathlib.Path, step: int, batch: Any) -> pathlib.Path:
  """Writes every array of a batch under its name, such as rollouts.tokens, rollouts.mask, rewards
  or advantages. Each process writes its own rows."""
  process = f".{jax.process_index()}" if jax.process_count() > 1 else ""
  path = folder / f"skipped_step_{step:08d}{process}.npz"
  leaves = jax.tree_util.tree_leaves_with_path(batch)
  is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
  plain = lambda x: to_local(jax.random.key_data(x) if is_key(x) else x)
  name = lambda key_path: jax.tree_util.keystr(key_path, simple=True, separator=".")
  arrays: dict[str, Any] = {name(key_path): plain(x) for key_path, x in leaves}
  np.savez_compressed(path, **arrays)
  return path


def _newest(folder: pathlib.Path) -> str:
  checkpoints = origin(folder / "checkpoints")
  steps = [int(p.name) for p in checkpoints.glob("*") if p.name.isdigit()]
  return (
    f"the newest checkpoint is that of step {max(steps)}" if steps else "no checkpoint is there"
  )
