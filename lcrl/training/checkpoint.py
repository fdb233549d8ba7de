"""Checkpoints of the whole training state that are valid only when every byte can be vouched for.

Orbax writes asynchronously. When it is done, each process records size and checksum of its share of
the files, as the last thing written. A checkpoint without every manifest, or with a file that
differs from its manifest, is not restored.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
import shutil
import threading
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import multihost

PyTree = Any


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class AsSaved:
  """In an abstract state: nested dicts of arrays, or None, whatever the checkpoint has there."""

  sharding: Callable[[tuple[int, ...]], jax.sharding.Sharding]  # of an array of this shape


class Checkpoints:
  """`folder/<step>/state` by Orbax, and one manifest per process beside it."""

  def __init__(self, folder: str | pathlib.Path, *, keep: int = 2):
    if keep < 1:
      raise ValueError(f"checkpoint.keep must be at least 1, got {keep}.")
    self._folder = pathlib.Path(folder).resolve()
    self._keep = keep
    self._saver = ocp.StandardCheckpointer()
    self._commit: threading.Thread | None = None
    self._error: Exception | None = None

  def save(self, step: int, state: PyTree) -> None:
    """Starts to save; returns once the state is copied off the devices.

    A save that failed (a full disk) is reported by the next `save` or by `wait`, never lost; older
    checkpoints stay as they are.
    """
    self.wait()
    place = self._folder / str(step)
    if jax.process_index() == 0:
      shutil.rmtree(place, ignore_errors=True)  # remains of a save that never became valid
    _meet(f"clear {step}")
    try:
      self._saver.save(place / "state", state)
    except Exception as error:
      self._fail(step, error)
      self.wait()
    self._commit = threading.Thread(target=self._finish, args=(step,))
    self._commit.start()

  def wait(self) -> None:
    """Until the last save is valid. Raises CheckpointError if it could not be written."""
    if self._commit is not None:
      self._commit.join()
      self._commit = None
    if self._error is not None:
      error, self._error = self._error, None
      raise error

  def close(self) -> None:
    try:
      self.wait()
    finally:
      self._saver.close()

  def steps(self) -> list[int]:
    """Steps with a complete set of manifests, oldest first (contents not verified yet)."""
    if not self._folder.is_dir():
      return []
    folders = [p for p in self._folder.iterdir() if p.name.isdigit() and _complete(p)]
    return sorted(int(p.name) for p in folders)

  def restore(self, abstract: PyTree, step: int | None = None) -> tuple[int, PyTree] | None:
    """(step, state) of the newest checkpoint that verifies, laid out like `abstract`.

    None if there is no checkpoint at all. One that does not verify is passed over with a warning
    that names the file; if none does, or `step` does not, that is a CheckpointError.
    """
    candidates = [step] if step is not None else self.steps()[::-1]
    for candidate in candidates:
      fault = verify(self._folder / str(candidate))
      if fault is None:
        place = self._folder / str(candidate) / "state"
        return candidate, self._saver.restore(place, self._known(place, abstract))
      logging.warning("checkpoint %d is not valid: %s", candidate, fault)
    if candidates:
      raise CheckpointError(f"no valid checkpoint in {self._folder}: {fault}.")
    return None

  def _known(self, place: pathlib.Path, abstract: PyTree) -> PyTree:
    """`abstract` with the shapes that are written at `place` where it leaves them open."""
    is_open = lambda x: isinstance(x, AsSaved)
    if not any(map(is_open, jax.tree.leaves(abstract, is_leaf=is_open))):
      return abstract
    saved = self._saver.metadata(place).item_metadata

    def known(path, x):
      if not is_open(x):
        return x
      like = lambda y: jax.ShapeDtypeStruct(y.shape, y.dtype, sharding=x.sharding(y.shape))
      return jax.tree.map(like, functools.reduce(lambda tree, key: tree[key.name], path, saved))

    return jax.tree_util.tree_map_with_path(known, abstract, is_leaf=is_open)

  def _finish(self, step: int) -> None:
    try:
      self._saver.wait_until_finished()
      _meet(f"written {step}")  # the first process moves the files of all to their places
      write_manifest(self._folder / str(step))
      for old in self.steps()[: -self._keep] if jax.process_index() == 0 else []:
        shutil.rmtree(self._folder / str(old), ignore_errors=True)
    except Exception as error:
      self._fail(step, error)

  def _fail(self, step: int, error: Exception) -> None:
    older = self.steps()
    note = f"step {older[-1]} is still there" if older else "there is no older one"
    self._error = CheckpointError(f"could not save the checkpoint of step {step}; {note}: {error}")
    self._error.__cause__ = error
    if jax.process_index() == 0:
      shutil.rmtree(self._folder / str(step), ignore_errors=True)


class CheckpointError(RuntimeError):
  """A checkpoint could not be written, or none could be verified."""


def write_manifest(place: pathlib.Path) -> None:
  """Records this process's share of the files: every n-th of all, sorted by name."""
  process, count = jax.process_index(), jax.process_count()
  files = sorted(p for p in (place / "state").rglob("*") if p.is_file())[process::count]
  rows = {str(p.relative_to(place)): [p.stat().st_size, _checksum(p)] for p in files}
  partial = place / f"manifest.{process}.partial"
  partial.write_text(json.dumps({"processes": count, "files": rows}))
  partial.rename(place / f"manifest.{process}.json")


def verify(place: pathlib.Path) -> str | None:
  """None if every file of the checkpoint is as its manifest says, else what is wrong."""
  if not _complete(place):
    return f"{place} lacks a manifest (its saving was cut off)"
  vouched = {}
  for manifest in place.glob("manifest.*.json"):
    vouched.update(json.loads(manifest.read_text())["files"])
  present = {str(p.relative_to(place)) for p in (place / "state").rglob("*") if p.is_file()}
  if present != vouched.keys():
    return f"{place}: files differ from the manifest: {sorted(present ^ vouched.keys())}"
  for name, (size, checksum) in vouched.items():
    if (place / name).stat().st_size != size or _checksum(place / name) != checksum:
      return f"{place / name} differs from its manifest"
  return None


def _complete(place: pathlib.Path) -> bool:
  manifests = list(place.glob("manifest.*.json"))
  return bool(manifests) and len(manifests) == json.loads(manifests[0].read_text())["processes"]


def _checksum(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "blake2b").hexdigest()


def _meet(key: str) -> None:
  """Waits until every process is here; unlike a collective, from any thread."""
  multihost.get_barrier_sync_fn()(key=key, timeout_ms=600_000)
