"""samples-*.jsonl: what the policy wrote, with everything its advantage came from."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np

from lcrl.masked import masked_mean
from lcrl.mesh import on_host, to_local
from lcrl.training.metrics import drop_after, json_line
from lcrl.types import Batch, Outcome


class Samples:
  """A few rollouts of every step as JSON lines, one part file a checkpoint interval.

  Lines past `step` are dropped: a resumed run writes them again.
  """

  def __init__(self, workdir: pathlib.Path, tokenizer: Any, *, step: int, every: int, count: int):
    self._folder, self._tokenizer = workdir / "samples", tokenizer
    self._every, self._count = every, count
    self._folder.mkdir(exist_ok=True)
    for part in self._folder.glob("*.jsonl"):
      drop_after(part, step)

  def write(self, step: int, batch: Batch) -> None:
    """The first rollout of `count` groups, evenly spread over the batch."""
    r = batch.rollouts
    local = jax.tree.map(to_local, {"tokens": r.tokens, "mask": r.mask, **_numbers(batch)})
    if local["advantage"].ndim == 3:
      with on_host():  # devices are busy
        mean = masked_mean(local["advantage"], local["mask"], axis=-1)
      local["advantage"] = np.asarray(mean)
    last = len(local["tokens"]) - 1
    groups = [int(b) for b in np.linspace(0, last, self._count)]
    part = self._folder / f"{(step - 1) // self._every * self._every + 1:08d}.jsonl"
    with part.open("a") as file:
      for b in dict.fromkeys(groups):
        file.write(json_line({"step": step, **self._row(local, b, g=0)}))

  def _row(self, local, b: int, g: int) -> dict[str, Any]:
    tokens, mask = local["tokens"][b, g], local["mask"][b, g]
    sampled = np.flatnonzero(mask)
    first = int(sampled[0]) if sampled.size else len(tokens)
    last = int(sampled[-1]) + 1 if sampled.size else first
    numbers = {name: x[b, g].item() for name, x in local.items() if name not in ("tokens", "mask")}
    numbers["outcome"] = Outcome(numbers["outcome"]).name.lower()
    return {
      "prompt": self._tokenizer.decode(tokens[:first].tolist()),
      "response": self._tokenizer.decode(tokens[first:last].tolist()),
      **numbers,
    }


def _numbers(batch: Batch) -> dict[str, jax.Array]:
  r = batch.rollouts
  return {
    "score": r.scores,
    "correct": r.correct,
    "outcome": r.outcome,
    "length": r.lengths,
    "truncated": r.truncated,
    "target": r.budget.target,
    "cap": r.budget.cap,
    "reward": batch.rewards,
    "advantage": batch.advantages,
    "keep": batch.keep,
  }
