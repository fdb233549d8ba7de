"""Logs each step: metrics, samples and alarms; checks the run before its first update."""

from __future__ import annotations

import logging
from typing import Any

from lcrl.tasks.task import Task
from lcrl.training.clock import told
from lcrl.training.metrics import values
from lcrl.training.rl.collect import Collected
from lcrl.training.rl.phases import Shaped
from lcrl.training.rl.samples import Samples
from lcrl.training.rl.settings import Settings
from lcrl.training.rl.step_metrics import CollapseAlarm, TruncationAlarm, preflight, step_metrics
from lcrl.training.workdir import Workdir


class StepLogger:
  """Logs the batches of a run, from the step after `first` on."""

  def __init__(self, out: Workdir, tokenizer: Any, s: Settings, first: int, task: Task):
    self.numbers: dict[str, float] = {}  # metrics of the last batch
    self._out, self._alarm, self._checked = out, CollapseAlarm(), not out.writes
    self._taught = s.teachers is not None
    if out.writes:
      past = out.steps()[-1:]  # of a run that resumes
      self._cut = TruncationAlarm(above=any(row.get("alarm/truncated") for row in past))
      every, count = s.checkpoint.every, s.log.samples
      self._samples = Samples(out.path, tokenizer, step=first, every=every, count=count, task=task)

  def preflight(self, shaped: Shaped, collected: Collected) -> None:
    """Checks the first batch, before the first update only."""
    if self._checked:
      return
    block, warnings = preflight(
      shaped.host_stats,
      rounds=collected.rounds,
      sampling_s=collected.seconds,
      taught=self._taught,
    )
    self._out.note(block)
    for warning in warnings:
      logging.warning("%s", warning)
    self._checked = True

  def log(self, step: int, shaped: Shaped) -> None:
    """Logs a step on the host while the devices run the update."""
    if not self._out.writes:
      return
    numbers = values(step_metrics(shaped.host_stats))
    self._samples.write(step, shaped.batch)
    if self._alarm(numbers["accuracy"], numbers["length/mean"]):
      logging.warning("step %d: accuracy and length are collapsing together.", step)
    if self._cut(numbers["truncated"]):
      logging.warning(
        "step %d: %.1f%% of the answers were cut at their cap.", step, 100 * numbers["truncated"]
      )
    self.numbers = numbers | {
      "alarm/collapse": float(self._alarm.rung),
      "alarm/truncated": float(self._cut.above),
    }


def line(numbers: dict[str, float]) -> str:
  """One step for the console; a run with teachers says how far they are."""
  teacher = numbers.get("teacher_kl")
  aim = f"reward {numbers['reward']:7.3f}" if teacher is None else f"teacher KL {teacher:7.4f}"
  return (
    f"right {numbers['accuracy']:6.1%}  tokens {numbers['length/mean']:7.1f}  {aim}  "
    f"{told(numbers)}"
  )
