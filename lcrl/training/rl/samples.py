"""samples/*.jsonl: responses with all the numbers behind their advantages."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from lcrl.masked import masked_mean
from lcrl.mesh import on_host, to_local
from lcrl.policies import Tokenizer
from lcrl.tasks.task import Task
from lcrl.training.metrics import drop_after, json_line
from lcrl.types import Batch, EndReason, Outcome, end_name


class Samples:
  """Writes whole groups of every step as JSON lines, with a file for each checkpoint interval.

  Drops lines past `step`, which a resumed run writes again. `count` is the least number of rollouts
  of a step; `task` has the references and the extraction of answers.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    tokenizer: Any,
    *,
    step: int,
    every: int,
    count: int,
    task: Task | None = None,
  ):
    self._folder, self._tokenizer, self._task = workdir / "samples", tokenizer, task
    self._every, self._count = every, count
    self._folder.mkdir(exist_ok=True)
    for part in self._folder.glob("*.jsonl"):
      drop_after(part, step)

  def write(self, step: int, batch: Batch) -> None:
    """Writes all rollouts of enough groups, evenly spread over the batch."""
    r = batch.rollouts
    arrays = {"tokens": r.tokens, "mask": r.mask, "forced": r.forced, "end": r.end}
    local = jax.tree.map(to_local, arrays | _numbers(batch))
    end, cut = local.pop("end"), local["truncated"]  # computed here: a process has a share alone
    local["end_reason"] = np.where(cut, EndReason.CAP, EndReason.END_TOKEN) if end is None else end
    if local["advantage"].ndim == 3:
      with on_host():  # devices are busy
        mean = masked_mean(local["advantage"], local["mask"], axis=-1)
      local["advantage"] = np.asarray(mean)
    prompt_ids, valid = to_local(r.prompt_ids), to_local(r.valid)
    many, size = valid.shape
    groups = np.linspace(0, many - 1, min(-(-self._count // size), many)).astype(int).tolist()
    part = self._folder / f"{(step - 1) // self._every * self._every + 1:08d}.jsonl"
    with part.open("a") as file:
      for b, g in ((b, g) for b in groups for g in range(size) if valid[b, g]):
        at = {"step": step, "prompt_id": int(prompt_ids[b]), "group": b, "rollout": g}
        row = at | self._row(jax.tree.map(lambda x, b=b, g=g: x[b, g], local), at["prompt_id"])
        file.write(json_line(row))

  def _row(self, one: dict[str, Any], prompt_id: int) -> dict[str, Any]:
    tokens, mask, targets = (one.pop(name) for name in ("tokens", "mask", "targets"))
    if (forced := one.pop("forced")) is not None:
      one["forced"] = forced.sum()
      mask = mask | forced
    sampled = np.flatnonzero(mask)
    first = int(sampled[0]) if sampled.size else len(tokens)
    last = int(sampled[-1]) + 1 if sampled.size else first
    prompt, response = tokens[:first].tolist(), tokens[first:last].tolist()
    text = self._tokenizer.decode(response)
    numbers = {name: _plain(x) for name, x in one.items()}
    numbers["outcome"] = Outcome(numbers["outcome"]).name.lower()
    numbers["end_reason"] = end_name(numbers["end_reason"])
    lengths = {name: _plain(x) for name, x in targets.items()}
    return {
      "prompt": self._tokenizer.decode(prompt),
      "response": text,
      "raw_prompt": self._raw(prompt),
      "raw_text": self._raw(response),
      "reference": self._reference(prompt_id),
      "extracted": self._extracted(text),
      # What the reward compared the length with; by stage, where several did.
      "target": lengths if len(lengths) > 1 else next(iter(lengths.values()), None),
      **numbers,
    }

  def _raw(self, tokens: list[int]) -> str:
    """With special tokens."""
    whole = {"skip_special_tokens": False} if isinstance(self._tokenizer, Tokenizer) else {}
    return self._tokenizer.decode(tokens, **whole)

  def _reference(self, prompt_id: int) -> Any:
    if self._task is None:
      return None
    found = self._task.prompts[prompt_id].reference
    return found.get("answer", found) if isinstance(found, Mapping) else found

  def _extracted(self, text: str) -> str | None:
    """The part of the response that the scorer gets; None if there is none, or if it gets all."""
    find = getattr(self._task and self._task.score, "keywords", {}).get("extract")
    return find(text) if find else None


def _plain(x: np.ndarray) -> Any:
  """For JSON, which has no numbers that are not finite."""
  value = x.item()
  return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(batch: Batch) -> dict[str, Any]:
  r = batch.rollouts
  return {
    "score": r.scores,
    "correct": r.correct,
    "outcome": r.outcome,
    "length": r.lengths,
    "truncated": r.truncated,
    **({} if r.thinking_cut is None else {"thinking_cut": r.thinking_cut}),
    "budget_target": r.budget.target,
    "cap": r.budget.cap,
    "targets": batch.targets or {},
    "reward": batch.rewards,
    "advantage": batch.advantages,
    "keep": batch.keep,
  }
