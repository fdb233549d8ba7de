"""The loop of every kind of run: restore or start; then step, one line, checkpoint, evaluate."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lcrl.training import runs
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.workdir import Workdir


def train(
  config: Mapping[str, Any], workdir: str | os.PathLike, *, method: str | None = None
) -> dict[str, Any]:
  """Starts or resumes the run that `config` describes in `workdir`; returns its summary.

  `method` is what reports call it, such as the name of its config; None: its reward or loss.

  Raises:
    ValueError: the config is not one, or the workdir holds a run of another config.
  """
  begin = runs.kind(config).read(config)
  out = Workdir(pathlib.Path(workdir), config, method)
  with contextlib.ExitStack() as stack:
    run = stack.enter_context(begin(out))
    checkpoints = stack.enter_context(
      contextlib.closing(Checkpoints(out.path / "checkpoints", keep=run.checkpoint.keep))
    )
    restored = checkpoints.restore(run.abstract)
    state = restored[1] if restored else run.initial()
    first, last = int(state.step), run.steps
    stack.enter_context(out.open(first, last))
    if first == 0:
      out.evaluated(0, run.judge(state.params))

    stopped = stack.enter_context(watching_for_sigterm())
    take = run.steps_from(first)
    for step in range(first + 1, last + 1):
      state, numbers, line = take(state)
      out.learned(step, numbers, line)
      if step == last or (run.evaluate_every and step % run.evaluate_every == 0):
        out.evaluated(step, run.judge(state.params))
      stop = stopped()
      if step == last or step % run.checkpoint.every == 0 or stop:
        checkpoints.save(step, state)
      if stop:
        logging.warning("stopped after step %d; the same command goes on from there.", step)
        break
    checkpoints.wait()
    return run.finish() if out.writes else {}


@contextlib.contextmanager
def watching_for_sigterm() -> Iterator[Callable[[], bool]]:
  """Inside, SIGTERM only sets a flag; the callable tells whether any process got one."""
  asked = False

  def ask(*_):
    nonlocal asked
    asked = True

  def anyone() -> bool:
    if jax.process_count() == 1:
      return asked
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(asked)).any())

  before = signal.signal(signal.SIGTERM, ask)
  try:
    yield anyone
  finally:
    signal.signal(signal.SIGTERM, before)
