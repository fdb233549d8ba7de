"""The summary of every kind of run, finished or stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcrl import evaluation
from lcrl.training.workdir import Workdir

UNKNOWN: dict[str, Any] = {"accuracy": None, "tokens": None, "by_difficulty": {}}
UNKNOWN |= {"accuracy_ci": [None, None], "tokens_ci": [None, None]}


Record = dict[str, Any]


def ends(out: Workdir) -> tuple[Record | None, Record | None]:
  """The evaluation before the first step and the last one after it; None where there is none."""
  lines = out.evaluations()
  start = next((line for line in lines if line["step"] == 0), None)
  later = [line for line in lines if line["step"] > 0]
  return start, later[-1] if later else None


def summary_of(
  out: Workdir, *, reward: str, seed: int, steps: int, setup: Mapping[str, Any]
) -> dict[str, Any]:
  """`evaluation.summary` of the run folder, with method and evaluation setup.

  "asked" and "following" stand there if prompts ask for budgets (`lcrl.evaluation.obedience`),
  "curve" if they ask for efforts (`lcrl.evaluation.effort_curve`), and "tasks" if there are further
  sets: name -> numbers, start, evaluation setup.
  "stopped" is the last step of a run that ended before `steps`, else None. While only the start has
  been evaluated, the numbers of the trained policy are None.
  """
  start, final = ends(out)
  steps_taken = out.steps()
  done = steps_taken[-1]["step"] if steps_taken else 0
  summary = evaluation.summary(
    final or UNKNOWN,
    start or UNKNOWN,
    reward=reward,
    seed=seed,
    wall_s=sum(step["time/step"] for step in steps_taken),
    device=evaluation.device(),
    commit=evaluation.commit(),
  )
  setup = dict(setup)
  setups = setup.pop("tasks", {})
  tasks = {name: _task(name, setups[name], start, final) for name in setups}
  asked = {name: final[name] for name in ("asked", "following", "curve") if final and name in final}
  return (
    summary
    | asked
    | ({"tasks": tasks} if tasks else {})
    | {
      "method": out.method or reward,
      "stopped": done if done < steps else None,
      "evaluated_at": final and final["step"],
      "evaluation": dict(setup),
    }
  )


def _task(
  name: str, setup: Mapping[str, Any], start: Record | None, final: Record | None
) -> dict[str, Any]:
  """A further set of prompts: its last numbers, its first ones, and its setup."""
  before, after = (
    ((record or {}).get("tasks") or {}).get(name, UNKNOWN) for record in (start, final)
  )
  return {
    **after,
    "start": {key: before[key] for key in evaluation.POINT},
    "evaluation": dict(setup),
  }
