"""Checkpoints of the whole training state. A checkpoint is valid if every byte can be verified.

A save only enqueues copies to host memory; a thread writes them with Orbax. Afterwards each process
records size and checksum of its share of the files in a manifest (`lcrl.training.manifest`), the
last file that it writes. A checkpoint without every manifest, or with a file that differs from its
manifest, is not restored.
"""

from __future__ import annotations

import contextlib
import json
import logging
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import multihost

from lcrl import hosts
from lcrl.training.host_copy import pin, reserve, spread
from lcrl.training.leaves import AsSaved, different_leaves, with_saved_shapes
from lcrl.training.manifest import CheckpointError, cut_off, verify, write_manifest
from lcrl.training.remote import AnyPath, files_below, origin, parse, transfer

__all__ = ["AsSaved", "CheckpointError", "Checkpoints", "verify", "write_manifest"]

PyTree = Any
FILE_BYTES = 256 << 20  # of a file of a checkpoint, roughly: threads share the files when they hash


class Checkpoints:
  """`folder/<step>/state` by Orbax, and one manifest per process beside it.

  Args:
    folder: the folder of all checkpoints, also on an object store (`lcrl.training.remote`).
    keep: how many of the newest checkpoints remain.
    about: JSON that every checkpoint holds: the config and data of its run.
    saved: called with the step of every checkpoint once it is valid.
  """

  def __init__(
    self,
    folder: str | pathlib.Path,
    *,
    keep: int = 2,
    about: Mapping[str, Any] | None = None,
    saved: Callable[[int], None] = lambda step: None,
  ):
    if keep < 1:
      raise ValueError(f"checkpoint.keep must be at least 1, got {keep}.")
    folder = parse(folder)
    self._folder = origin(folder.resolve()) if isinstance(folder, pathlib.Path) else folder
    # Orbax writes to disks and to gs://. For other stores it writes to a disk first.
    local = isinstance(self._folder, pathlib.Path)
    self._staged = not local and not str(self._folder).startswith("gs://")
    if self._staged and jax.process_count() > 1:
      raise ValueError(
        f"{self._folder}: several processes save to a folder that they share or to gs://."
      )
    self._keep, self._about, self._saved = keep, about, saved
    self._saver, self._reader = _saver(), ocp.StandardCheckpointer()
    self._thread: threading.Thread | None = None  # writes a checkpoint, or reserves memory
    self._error: Exception | None = None

  def prepare(self, state: PyTree) -> None:
    """Allocates what the first save needs, behind the first step; `state` as for `save`."""
    self._thread = threading.Thread(target=reserve, args=(state,), daemon=True)
    self._thread.start()

  def save(self, step: int, state: PyTree) -> None:
    """Starts to save. The next step may donate `state` once this has returned.

    Waits for the save before, but not for copies of `state` if it fits the pinned memory of the
    host. If the save fails (a full disk), the next `save` or `wait` raises the error; older
    checkpoints stay as they are.
    """
    self.wait()
    state = spread(state)
    copies = [pin(state)]
    if copies[0] is None:
      self._start(step, state)
    # This thread runs no program on the devices: collectives of two threads could meet in another
    # order on another process.
    self._thread = threading.Thread(target=self._write, args=(step, copies))
    self._thread.start()

  def wait(self) -> None:
    """Waits until the last save is valid. Raises CheckpointError if it could not be written."""
    if self._thread is not None:
      self._thread.join()
      self._thread = None
    if self._error is not None:
      error, self._error = self._error, None
      raise error

  def close(self) -> None:
    try:
      self.wait()
    finally:
      self._saver.close()
      self._reader.close()

  def steps(self) -> list[int]:
    """Steps with a complete set of manifests, oldest first (contents not verified yet)."""
    return [step for step in self._there() if not cut_off(self._folder / str(step))]

  def restore(self, abstract: PyTree, step: int | None = None) -> tuple[int, PyTree] | None:
    """(step, state) of the newest checkpoint that verifies, laid out like `abstract`.

    Returns None if there are no checkpoints, or only some whose saving was cut off. Skips one that
    does not verify, with a warning that names the file.

    Raises:
      CheckpointError: no checkpoint verifies, or `step` does not, or it has a newer format or other
        shapes than `abstract`.
    """
    if step is not None and step not in self._there():
      saved = ", ".join(map(str, self.steps())) or "none"
      raise CheckpointError(
        f"there is no checkpoint {self._folder / str(step)}. Those that were saved: {saved}."
      )
    faults = []
    for candidate in self._there()[::-1] if step is None else [step]:
      path = self._folder / str(candidate)
      fault = _fault(path)
      if fault is None:
        return candidate, self._load(path, abstract)
      logging.warning("checkpoint %d is not valid: %s", candidate, fault)
      faults.append(fault)
    if step is not None:
      others = ", ".join(str(one) for one in self.steps() if one != step) or "none"
      raise CheckpointError(
        f"checkpoint {step} in {self._folder} is not valid: {faults[0]}. Others that were saved: "
        f"{others}."
      )
    if self.steps():
      raise CheckpointError(
        f"no valid checkpoint in {self._folder}: {'; '.join(faults)}. Without one a run can only "
        "begin anew, in another workdir or after this one is deleted."
      )
    return None

  def about(self, step: int | None = None) -> dict[str, Any] | None:
    """What the checkpoint of `step`, or else the newest that can tell, was saved from."""
    for one in self._there()[::-1] if step is None else [step]:
      try:
        return dict(json.loads((self._folder / str(one) / "about.json").read_bytes()))
      except (OSError, ValueError, TypeError, RecursionError):
        continue
    return None

  def sweep(self, newest: int) -> None:
    """Removes what a run that goes on from step `newest` leaves behind: checkpoints past it, which
    are not valid, and what is left of those that were being saved or removed."""
    kept = [step for step in self.steps() if step <= newest]
    for step in set(self._there()) - {*kept} if jax.process_index() == 0 else ():
      self._remove(step)

  def _there(self) -> list[int]:
    """Steps with a folder, valid or not, oldest first."""
    names = [p.name for p in self._folder.glob("*")]
    return sorted(int(name) for name in names if name.isdecimal() and name == str(int(name)))

  def _remove(self, step: int) -> None:
    """Removes the manifests first, so that nothing takes the rest for a checkpoint if this is cut
    off."""
    folder = self._folder / str(step)
    for manifest in folder.glob("manifest.*"):
      with contextlib.suppress(IsADirectoryError):
        manifest.unlink(missing_ok=True)
    if not isinstance(folder, pathlib.Path):
      folder.rmtree(missing_ok=True)
      return
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # a file or a link would be in the way of a new folder
      folder.unlink()

  def _load(self, path: AnyPath, abstract: PyTree) -> PyTree:
    with contextlib.ExitStack() as stack:
      state = path / "state"
      if self._staged:
        local = stack.enter_context(tempfile.TemporaryDirectory(prefix="lcrl_checkpoint_"))
        transfer(files_below(state), path, pathlib.Path(local))
        state = pathlib.Path(local) / "state"
      saved = self._reader.metadata(state).item_metadata
      abstract = with_saved_shapes(saved, abstract)
      if differing := different_leaves(saved, abstract):
        raise CheckpointError(f"{path} does not fit this run: {'; '.join(differing)}.")
      return self._reader.restore(state, abstract)

  def _start(self, step: int, state: PyTree) -> None:
    """Returns once Orbax has its own copy of `state`."""
    try:
      if jax.process_index() == 0:
        self._remove(step)  # remains of a save that never became valid
      _meet(f"clear {step}")
      path = self._folder / str(step) / "state"
      if self._staged:
        self._temporary = tempfile.TemporaryDirectory(prefix="lcrl_checkpoint_")
        path = pathlib.Path(self._temporary.name) / "state"
      self._saver.save(
        path,
        args=ocp.args.PyTreeSave(state, ocdbt_target_data_file_size=FILE_BYTES),
      )
    except Exception as error:
      self._fail(step, error)

  def _write(self, step: int, copies: list[PyTree | None]) -> None:
    # Takes the copy out of the list, so that its memory is free once Orbax has read it.
    if (copy := copies.pop()) is not None:
      self._start(step, copy)
      del copy
    if self._error is None:
      self._finish(step)

  def _finish(self, step: int) -> None:
    try:
      self._saver.wait_until_finished()
      folder, first = self._folder / str(step), jax.process_index() == 0
      if self._staged:
        with self._temporary as name:
          written = pathlib.Path(name)
          transfer(files_below(written), written, folder)
      if first and self._about is not None:
        (folder / "about.json").write_text(json.dumps(self._about))
      # The first process moves the files of all processes to their final names. Only then do all
      # see the same list of files, which the manifests share out.
      _meet(f"written {step}")
      write_manifest(folder)
      # Older checkpoints may go only after the last manifest: until then this one is not valid.
      _meet(f"vouched for {step}")
      if first:
        self._saved(step)
        # Checkpoints past `step` are older, too: the run has gone back behind them.
        kept = [saved for saved in self.steps() if saved <= step][-self._keep :]
        for old in set(self._there()) - {*kept}:
          self._remove(old)
    except Exception as error:
      self._fail(step, error)

  def _fail(self, step: int, error: Exception) -> None:
    try:
      older = [saved for saved in self.steps() if saved != step]
      note = f"step {older[-1]} is still there" if older else "there is no older one"
      if jax.process_index() == 0:
        self._remove(step)
    except Exception as why:  # the folder is out of reach
      note = f"older ones cannot be listed ({why})"
    self._error = CheckpointError(f"could not save the checkpoint of step {step}; {note}: {error}")
    self._error.__cause__ = error


def _fault(checkpoint: AnyPath) -> str | None:
  """`verify`, with the files shared out: all processes decide alike."""
  part = jax.process_index(), jax.process_count()
  return next(filter(None, hosts.gather("damage", verify(checkpoint, part))), None)


def _saver() -> ocp.AsyncCheckpointer:
  """Meets other processes without collectives, so that a thread may save."""
  several = jax.process_count() > 1
  processes = ocp.options.MultiprocessingOptions(
    active_processes={*range(jax.process_count())} if several else None
  )
  # Compression would take most of the time of a save, and makes weights 7 % smaller.
  handler = ocp.PyTreeCheckpointHandler(
    use_compression=False, enable_pinned_host_transfer=False, multiprocessing_options=processes
  )
  return ocp.AsyncCheckpointer(handler, multiprocessing_options=processes)


def _meet(key: str) -> None:
  """Waits until every process has called this with `key`.

  This barrier goes through the coordination service. A collective would be a program on the
  devices, and those must start in one order on all processes, which a thread cannot promise.
  """
  multihost.get_barrier_sync_fn()(key=key, timeout_ms=600_000)
