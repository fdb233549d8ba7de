"""What every kind of run says of itself in the end, whether it came there or was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcrl import evaluation
from lcrl.training.workdir import Workdir

UNKNOWN: dict[str, Any] = {"accuracy": None, "tokens": None, "by_difficulty": {}}
UNKNOWN |= {"accuracy_ci": [None, None], "tokens_ci": [None, None]}


Found = dict[str, Any]


def ends(out: Workdir) -> tuple[Found | None, Found | None]:
  """The evaluation before the first step and the last one after it, where there are any."""
  lines = out.evaluations()
  start = next((line for line in lines if line["step"] == 0), None)
  later = [line for line in lines if line["step"] > 0]
  return start, later[-1] if later else None


def summary_of(
  out: Workdir, *, reward: str, seed: int, steps: int, setup: Mapping[str, Any]
) -> dict[str, Any]:
  """`evaluation.summary` of what the folder holds, with what tells this run from others.

  A run that was stopped before `steps` says so: "stopped" is its last step, else None. As long as
  only its start has been evaluated, its own numbers are None.
  """
  start, final = ends(out)
  taken = out.steps()
  done = taken[-1]["step"] if taken else 0
  found = evaluation.summary(
    final or UNKNOWN,
    start or UNKNOWN,
    reward=reward,
    seed=seed,
    wall_s=sum(step["time/step"] for step in taken),
    device=evaluation.device(),
    commit=evaluation.commit(),
  )
  return found | {
    "method": out.method or reward,
    "stopped": done if done < steps else None,
    "evaluated_at": final and final["step"],
    "evaluation": dict(setup),
  }
