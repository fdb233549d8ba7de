"""The policy that a run folder holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lcrl.training.checkpoint import Checkpoints
from lcrl.training.remote import origin
from lcrl.training.sections import Mesh


def anywhere(settings: Any, *, prompts: int) -> Any:
  """The settings for the devices of this machine, with `prompts` rows at a time."""
  new = {"prompts": prompts, "micro_batches": 1, "updates": 1}
  known = {name: value for name, value in new.items() if hasattr(settings.train, name)}
  train = dataclasses.replace(settings.train, **known)
  sampling = settings.sampling
  if getattr(sampling, "devices", 0):
    sampling = dataclasses.replace(sampling, devices=0)
  return dataclasses.replace(settings, mesh=Mesh(), train=train, sampling=sampling)


def restore(workdir: Path, model: Any, step: int | None = None) -> tuple[int, Any]:
  """(step, params of the policy) of a checkpoint of the run, with merged adapters."""
  checkpoints = Checkpoints(workdir / "checkpoints")
  try:
    restored = checkpoints.restore(model.abstract, step)
  finally:
    checkpoints.close()
  if restored is None:
    raise ValueError(f"{origin(workdir)} holds no checkpoint.")
  return restored[0], model.policy_params(restored[1].params)
