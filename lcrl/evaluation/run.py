"""One evaluation: plays prompts and measures verdicts and lengths. Never reads a shaped reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lcrl.evaluation.measures import measure
from lcrl.mesh import replicated
from lcrl.sampling.verified import Player
from lcrl.tasks.task import Prompt
from lcrl.types import Budget

FIELDS = ("correct", "lengths", "truncated", "valid", "outcome")


def play_all(
  player: Player,
  params: Any,
  prompts: Sequence[Prompt],
  *,
  samples: int,
  cap: int,
  target: int | None = None,
  level: int = 0,
  batch: int,
  key: jax.Array,
) -> dict[str, np.ndarray]:
  """Verdicts and lengths of `samples` answers to each prompt, on every process.

  Args:
    player: plays prompts.
    params: of the policy.
    prompts: N of them, the same on every process.
    samples: answers to each.
    cap: tokens at which an answer is cut.
    target: tokens that the prompt may ask for; None: `cap`.
    level: the prompt template.
    batch: prompts that are played at a time; the last batch is filled up with repeats.
    key: of the randomness; the same key gives the same answers.
  Returns: correct, lengths, truncated, valid, outcome [N, samples] and difficulty [N].
  """
  if not prompts:
    raise ValueError("there are no prompts to evaluate on.")

  def full(value: int) -> Any:
    return np.full((batch, samples), value, np.int32)

  budget = Budget(full(cap if target is None else target), full(cap), full(level))
  gather = jax.jit(lambda x: x, out_shardings=replicated(player.mesh))
  parts: list[dict[str, np.ndarray]] = []
  for start in range(0, len(prompts), batch):
    index = np.arange(start, start + batch, dtype=np.int32)
    here = [prompts[i % len(prompts)] for i in index.tolist()]
    rollouts, _ = player.play(params, here, index, budget, key)
    whole = gather({name: getattr(rollouts, name) for name in FIELDS})
    parts.append(jax.tree.map(np.asarray, whole))
  answers = {name: np.concatenate([p[name] for p in parts])[: len(prompts)] for name in FIELDS}
  return {**answers, "difficulty": np.array([p.difficulty for p in prompts])}


def evaluate(player: Player, params: Any, prompts: Sequence[Prompt], **how: Any) -> dict[str, Any]:
  """`measure` of what `play_all` gives."""
  answers = play_all(player, params, prompts, **how)
  answers.pop("outcome")
  return measure(**answers)
