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

import jax

from lcrl.training.remote import AnyPath, files_below

# Manifests of format 1 had no number. A flipped bit must not turn this number into a larger one, or
# a run would stop at a "newer format" where it should fall back to an older checkpoint. No flipped
# bit of the character 7 gives a larger number; the next format is 77.
FORMAT = 7
THREADS = min(16, os.cpu_count() or 1)  # hash files at once; hashlib lets go of the interpreter
Files = dict[str, tuple[int, str]]  # path in the checkpoint -> size, checksum


class CheckpointError(RuntimeError):
  """A checkpoint could not be written, or none could be verified."""


def write_manifest(checkpoint: AnyPath) -> None:
  """Writes the manifest of this process: every n-th file of the checkpoint, in order of names."""
  process, count = jax.process_index(), jax.process_count()

  def row(path: AnyPath) -> tuple[str, tuple[int, str]]:
    # The manifest vouches for bytes on the disk, not for bytes in the cache of the system.
    _sync(path)
    return str(path.relative_to(checkpoint)), _digest(path)

  with ThreadPoolExecutor(THREADS) as threads:
    rows = dict(threads.map(row, sorted(_files(checkpoint))[process::count]))
  name = f"manifest.{process}"
  text = json.dumps({"format": FORMAT, "processes": count, "files": rows})
  if not isinstance(checkpoint, pathlib.Path):
    (checkpoint / f"{name}.json").write_text(text)  # an object is there as a whole or not at all
    return
  partial = checkpoint / f"{name}.partial"
  partial.write_text(text)
  _sync(partial)
  partial.rename(checkpoint / f"{name}.json")
  # A file whose folder was not synced may be gone after a crash, name and all.
  for folder in (*(p for p in checkpoint.rglob("*") if p.is_dir()), checkpoint, checkpoint.parent):
    with contextlib.suppress(OSError):  # not every file system can sync a folder
      _sync(folder)


def verify(checkpoint: AnyPath, part: tuple[int, int] = (0, 1)) -> str | None:
  """None if every file of the checkpoint matches its manifest, else a description of the fault.

  With `part` (i, n) reads only every n-th file, from the i-th on.

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
      paths = [checkpoint / name for name in sorted(vouched)[part[0] :: part[1]]]
      for path, found in zip(paths, threads.map(_digest, paths), strict=True):
        if found != vouched[str(path.relative_to(checkpoint))]:
          return f"{path} differs from its manifest"
  except (OSError, ValueError) as error:
    return str(error)
  return None


def cut_off(checkpoint: AnyPath) -> bool:
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


def _vouched(checkpoint: AnyPath) -> Files:
  """The union of all manifests. Raises ValueError if one cannot be read."""
  manifests = sorted(checkpoint.glob("manifest.*.json"))
  vouched: Files = {}
  for path in manifests:
    processes, files = _read(path)
    if processes != len(manifests):
      raise ValueError(f"{path} speaks of {processes} processes; there are {len(manifests)}")
    vouched |= files
  return vouched


def _read(path: AnyPath) -> tuple[int, Files]:
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


def _files(checkpoint: AnyPath) -> list[AnyPath]:
  about = checkpoint / "about.json"
  return [*files_below(checkpoint / "state"), *[about] * about.is_file()]


def _digest(path: AnyPath) -> tuple[int, str]:
  """Size and checksum."""
  checksum, size = hashlib.blake2b(), 0
  with path.open("rb") as file:
    while block := file.read(4 << 20):
      checksum.update(block)
      size += len(block)
  return size, checksum.hexdigest()


def _sync(path: AnyPath) -> None:
  """Forces a file, or the names in a folder, to the disk. A store does so before it answers."""
  if not isinstance(path, pathlib.Path):
    return
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
