"""The loss of a run whose rollouts are a step older than what trains."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from lcrl.losses import policy as losses
from lcrl.registry import resolve

CORRECTION = {"fn": "truncated", "high": 2.0}


def corrected(slots: Mapping[str, Any]) -> dict[str, Any]:
  """The sections of a recipe with a correction in every loss: its own, else weights cut at 2.

  >>> corrected({"loss": {"fn": "cispo", "upper": 3.0}})["loss"]["correction"]
  {'fn': 'truncated', 'high': 2.0}

  Raises:
    ValueError: a loss takes none.
  """
  found = {**slots, "loss": _corrected(slots["loss"], "loss")}
  if slots.get("then"):
    found["then"] = [
      {**phase, "loss": _corrected(phase["loss"], f"then[{i}].loss")} if "loss" in phase else phase
      for i, phase in enumerate(slots["then"])
    ]
  return found


def _corrected(loss: Mapping[str, Any], field: str) -> dict[str, Any]:
  takes = inspect.signature(resolve(losses, loss, field=field).func).parameters  # type: ignore[attr-defined]
  if "base" in takes and "base" in loss:
    return {**loss, "base": _corrected(loss["base"], f"{field}.base")}
  if "correction" not in takes:
    raise ValueError(
      f"train.steps_ahead=1 trains on rollouts of an older policy, and {field}.fn={loss['fn']!r} "
      "takes no correction for that."
    )
  return {**loss, "correction": loss.get("correction") or CORRECTION}
