"""Manifests of a checkpoint: size and checksum of every file, a share of them for each process.

A manifest is the last file that its process writes. Any error in reading a manifest makes the
checkpoint invalid. A newer format is an error instead: to skip it would silently lose newer steps.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax

# Manifests of format 1 had no number. A flipped bit must not turn this number into a larger one, or
# a run would stop at a "newer format" where it should fall back to an older checkpoint. No flipped
# bit of the character 7 gives a larger number; the next format is 77.
FORMAT = 7
THREADS = min(16, os.cpu_count() or 1)  # hash files at once; hashlib lets go of the interpreter
Files = dict[str, tuple[int, str]]  # path in the checkpoint -> size, checksum


class CheckpointError(RuntimeError):
  """A checkpoint could not be written, or none could be verified."""


def write_manifest(checkpoint: pathlib.Path) -> None:
  """Writes the manifest of this process: every n-th file of the checkpoint, in order of names."""
  process, count = jax.process_index(), jax.process_count()

  def row(path: pathlib.Path) -> tuple[str, list[Any]]:
    # The manifest vouches for bytes on the disk, not for bytes in the cache of the system.
    _sync(path)
    return str(path.relative_to(checkpoint)), [path.stat().st_size, _checksum(path)]

  with ThreadPoolExecutor(THREADS) as threads:
    rows = dict(threads.map(row, sorted(_files(checkpoint))[process::count]))
  partial = checkpoint / f"manifest.{process}.partial"
  partial.write_text(json.dumps({"format": FORMAT, "processes": count, "files": rows}))
  _sync(partial)
  partial.rename(checkpoint / f"manifest.{process}.json")
  # A file whose folder was not synced may be gone after a crash, name and all.
  for folder in (*(p for p in checkpoint.rglob("*") if p.is_dir()), checkpoint, checkpoint.parent):
    with contextlib.suppress(OSError):  # not every file system can sync a folder
      _sync(folder)


def verify(checkpoint: pathlib.Path) -> str | None:
  """None if every file of the checkpoint matches its manifest, else a description of the fault.

  Raises:
    CheckpointError: the checkpoint has a newer format.
  """
  if cut_off(checkpoint):
    return f"{checkpoint} lacks a manifest (its saving was cut off)"
  try:
    vouched = _vouched(checkpoint)
    present = {str(p.relative_to(checkpoint)) for p in _files(checkpoint)}
    if present != vouched.keys():
      return f"{checkpoint}: files differ from the manifest: {sorted(present ^ vouched.keys())}"
    with ThreadPoolExecutor(THREADS) as threads:
      paths = [checkpoint / name for name in vouched]
      for path, right in zip(paths, threads.map(_matches, paths, vouched.values()), strict=True):
        if not right:
          return f"{path} differs from its manifest"
  except (OSError, ValueError) as error:
    return str(error)
  return None


def cut_off(checkpoint: pathlib.Path) -> bool:
  """Is a manifest missing? A manifest that cannot be read is not missing."""
  manifests = list(checkpoint.glob("manifest.*.json"))
  for path in manifests:
    try:
      return len(manifests) < _read(path)[0]
    except CheckpointError:
      return False
    except ValueError:
      continue
  return not manifests


def _vouched(checkpoint: pathlib.Path) -> Files:
  """The union of all manifests. Raises ValueError if one cannot be read."""
  manifests = sorted(checkpoint.glob("manifest.*.json"))
  vouched: Files = {}
  for path in manifests:
    processes, files = _read(path)
    if processes != len(manifests):
      raise ValueError(f"{path} speaks of {processes} processes; there are {len(manifests)}")
    vouched |= files
  return vouched


def _read(path: pathlib.Path) -> tuple[int, Files]:
  """The number of processes and the files of one manifest."""
  try:
    manifest = json.loads(path.read_bytes())
    number = manifest.get("format", 1)
    if isinstance(number, int) and number > FORMAT:
      raise CheckpointError(
        f"{path.parent} has format {number}, and this version of lcrl reads up to {FORMAT}: "
        "go on with the version that saved it, or move the folder away to use an older one."
      )
    if number not in (1, FORMAT):
      raise ValueError(f"there is no format {number!r}")
    files = {
      str(name): (int(size), str(checksum)) for name, (size, checksum) in manifest["files"].items()
    }
    return int(manifest["processes"]), files
  except CheckpointError:
    raise
  except Exception as error:  # a damaged file may raise RecursionError, TypeError, ...
    raise ValueError(f"{path} is no manifest: {type(error).__name__}: {error!s:.100}") from error


def _files(checkpoint: pathlib.Path) -> list[pathlib.Path]:
  about = checkpoint / "about.json"
  return [
    *(p for p in (checkpoint / "state").rglob("*") if p.is_file()),
    *[about] * about.is_file(),
  ]


def _matches(path: pathlib.Path, row: tuple[int, str]) -> bool:
  size, checksum = row
  return path.stat().st_size == size and _checksum(path) == checksum


def _checksum(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "blake2b").hexdigest()


def _sync(path: pathlib.Path) -> None:
  """Forces a file, or the names in a folder, to the disk."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
