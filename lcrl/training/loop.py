"""The loop that every kind of run shares: restore or start, then step, log, evaluate and save."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcrl import hosts
from lcrl.training import kinds, remote, resume
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.lock import locked
from lcrl.training.peers import watched_peers
from lcrl.training.run import Run
from lcrl.training.stopping import asked_to_stop
from lcrl.training.workdir import Workdir
from lcrl.types import TrainState


def train(
  config: Mapping[str, Any], workdir: str | os.PathLike, *, method: str | None = None
) -> dict[str, Any]:
  """Starts or resumes the run that `config` describes in `workdir`; returns its summary.

  `workdir` may be on an object store (`lcrl.training.remote`).
  `method` names the run in reports, such as the name of its config; None: its reward or loss.

  Raises:
    ValueError: the config is invalid, or the workdir holds a run of another config or of other
      data, or is in use, or has lost its checkpoints.
    CheckpointError: there are checkpoints, but none of them is valid and fits the run.
    FloatingPointError: loss, gradient or parameters are not finite; this state is not saved.
  """
  begin, folder = kinds.kind(config).read(config), remote.copied(workdir)
  with contextlib.ExitStack() as stack:
    stack.enter_context(watched_peers())
    stopped = stack.enter_context(watching_for_sigterm())
    stack.enter_context(locked(folder))
    stack.enter_context(up_to_date(folder))
    out = Workdir(folder, config, method)
    run = stack.enter_context(begin(out))
    checkpoints = stack.enter_context(contextlib.closing(checkpoints_of(run, out)))
    restored, state = restore(run, out, checkpoints)
    last = run.steps
    stack.enter_context(out.open(restored, last))
    checkpoints.sweep(restored or 0)
    first = restored or 0
    if first == 0 or not out.evaluations():
      out.evaluated(first, run.evaluate(state.params))

    checkpoints.prepare(run.abstract)
    take_step = run.steps_from(first)
    for step in range(first + 1, last + 1):
      # The step donates `state`: the old arrays are gone, so only the new state may be used below.
      state, numbers, line = take_step(state)
      out.learned(step, numbers, line)
      refuse(step, not_finite(numbers), checkpoints)
      evaluates = step == last or (run.evaluate_every and step % run.evaluate_every == 0)
      if evaluates:
        out.evaluated(step, run.evaluate(state.params))
      stop = stopped()
      # A step that skipped its update may follow one that ruined the policy. A checkpoint of its
      # state must not push out older ones.
      due = step % run.checkpoint.every == 0 and not numbers.get("skipped_updates")
      if step == last or stop or due:
        refuse(step, not_finite_leaves(state.params), checkpoints)
        # Metrics reach the disk before the checkpoint does: a resumed run drops later lines, but it
        # cannot bring back a line that a crash lost.
        out.flush()
        checkpoints.save(step, state)
      if stop:
        logging.warning("stopped after step %d; the same command goes on from there.", step)
        break
    checkpoints.wait()
    return run.finish() if out.writes else {}


@contextlib.contextmanager
def up_to_date(folder: pathlib.Path) -> Iterator[None]:
  """Downloads the files of a folder on an object store, and uploads them in the end."""
  if remote.origin(folder) is not folder and jax.process_count() > 1:
    # The first process has the lock now: no other run changes the files any more.
    hosts.gather("locked", None)
  remote.refresh(folder)
  try:
    yield
  finally:
    remote.publish(folder)


def checkpoints_of(run: Run, out: Workdir) -> Checkpoints:
  """The checkpoints of the run, each with its config and the fingerprint of its data."""
  about = {"config": out.config, "data": run.data}
  keep = run.checkpoint.keep
  return Checkpoints(out.path / "checkpoints", keep=keep, about=about, saved=out.saved)


def restore(run: Run, out: Workdir, checkpoints: Checkpoints) -> tuple[int | None, TrainState]:
  """The newest valid state and its step, or the first state and None.

  Raises:
    ValueError: the state learned from other data, or has parameters that are not finite.
  """
  restored = checkpoints.restore(run.abstract)
  step, state = (None, run.initial()) if restored is None else restored
  if step is not None:
    resume.check_data(remote.origin(out.path), checkpoints.about(step), run.data)
  if wrong := not_finite_leaves(state.params):
    where = "the policy that the run starts from" if step is None else f"the checkpoint of {step}"
    raise ValueError(f"{where} has parameters that are not finite: {', '.join(wrong)}.")
  return step, state


def not_finite(numbers: Mapping[str, float]) -> list[str]:
  """Which of loss and gradient norm is not finite, in words; none if the update was skipped."""
  if numbers.get("skipped_updates"):
    return []
  wrong = (n for n in ("loss", "grad_norm") if not math.isfinite(numbers.get(n, 0.0)))
  return [f"{name} is {numbers[name]}" for name in wrong]


@jax.jit
def _finite(leaves: list[jax.Array]) -> jax.Array:
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])


def not_finite_leaves(params: Any, most: int = 3) -> list[str]:
  """Names of parameters with a value that is not finite, the first `most` of them."""
  named = jax.tree_util.tree_leaves_with_path(params)
  # One program and one transfer; a transfer for each leaf would wait for the device every time.
  finite = np.asarray(_finite([leaf for _, leaf in named])) if named else np.ones(0, bool)
  wrong = [path for (path, _), is_finite in zip(named, finite, strict=True) if not is_finite]
  names = [jax.tree_util.keystr(path, simple=True, separator=".") for path in wrong[:most]]
  return names if len(wrong) <= most else [*names, f"{len(wrong) - most} more"]


def refuse(step: int, wrong: list[str], checkpoints: Checkpoints) -> None:
  """Raises FloatingPointError if something is `wrong`, so that the state is not saved."""
  if wrong:
    checkpoints.wait()
    steps = checkpoints.steps()
    newest = f"the last good checkpoint is that of step {steps[-1]}" if steps else "there is none"
    raise FloatingPointError(
      f"step {step} is not finite: {', '.join(wrong)}. Its state was not saved; {newest}."
    )


@contextlib.contextmanager
def watching_for_sigterm() -> Iterator[Callable[[], bool]]:
  """Inside, SIGTERM and Ctrl-C ask the run to stop; yields whether any process was asked."""
  with asked_to_stop() as asked:

    def any_process_asked() -> bool:
      # All processes must stop after the same step, or those that go on wait for the others in a
      # collective forever. So every step asks all, although a signal is rare.
      return any(hosts.gather("stop", asked.is_set()))

    yield any_process_asked
