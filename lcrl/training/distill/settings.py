"""The sections of a config with run="distill"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcrl.training.rl import settings

# No reward, so that the teachers' terms of the loss are all there is in its advantages.
UNREWARDED = {
  "reward": {"fn": "correctness", "right": 0.0},
  "filter": {"fn": "keep_all"},
  "advantage": {"fn": "raw"},
}


def read(config: Mapping[str, Any]) -> settings.Settings:
  """The settings of a run of "rl" without a reward, whose loss has the term `distill`.

  Raises:
    ValueError: as in `rl.settings.read`, or there is a reward, or no teacher.
  """
  phases = [one for one in config.get("then") or () if isinstance(one, Mapping)]
  if given := sorted(UNREWARDED.keys() & set().union(config, *phases)):
    raise ValueError(
      f"run='distill' has no section {given[0]}: its advantages are those of the teachers. Name "
      "run='rl' to add loss.distill to a reward."
    )
  if config.get("teachers") is None:
    raise ValueError("the config has no section ['teachers'].")
  return settings.read({**config, **UNREWARDED, "run": "rl"})
