"""Manifests of a checkpoint: size and checksum of every file, a share of them for each process.

A manifest is the last file that its process writes. Any error in reading one means that the
checkpoint is not valid; only a newer format is refused, so that nobody goes back behind it unaware.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib

import jax

# Manifests of format 1 had no number. No bit of this one flips to a larger number, which would be
# refused where an older checkpoint is to be used: after 7 comes 77.
FORMAT = 7
Files = dict[str, tuple[int, str]]  # path in the checkpoint -> size, checksum


class CheckpointError(RuntimeError):
  """A checkpoint could not be written, or none could be verified."""


def write_manifest(place: pathlib.Path) -> None:
  """Records this process's share of the files: every n-th of all, sorted by name."""
  process, count = jax.process_index(), jax.process_count()
  rows = {}
  for path in sorted(_files(place))[process::count]:
    _sync(path)
    rows[str(path.relative_to(place))] = [path.stat().st_size, _checksum(path)]
  partial = place / f"manifest.{process}.partial"
  partial.write_text(json.dumps({"format": FORMAT, "processes": count, "files": rows}))
  _sync(partial)
  partial.rename(place / f"manifest.{process}.json")
  for folder in (*(p for p in place.rglob("*") if p.is_dir()), place, place.parent):
    with contextlib.suppress(OSError):  # not every file system knows how
      _sync(folder)


def verify(place: pathlib.Path) -> str | None:
  """None if every file of the checkpoint is as its manifest says, else what is wrong.

  Raises:
    CheckpointError: it has a newer format.
  """
  if cut_off(place):
    return f"{place} lacks a manifest (its saving was cut off)"
  try:
    vouched = _vouched(place)
    present = {str(p.relative_to(place)) for p in _files(place)}
    if present != vouched.keys():
      return f"{place}: files differ from the manifest: {sorted(present ^ vouched.keys())}"
    for name, (size, checksum) in vouched.items():
      if (place / name).stat().st_size != size or _checksum(place / name) != checksum:
        return f"{place / name} differs from its manifest"
  except (OSError, ValueError) as error:
    return str(error)
  return None


def cut_off(place: pathlib.Path) -> bool:
  """Is a manifest missing? One that is there and cannot be read is not."""
  manifests = list(place.glob("manifest.*.json"))
  for path in manifests:
    try:
      return len(manifests) < _read(path)[0]
    except CheckpointError:
      return False
    except ValueError:
      continue
  return not manifests


def _vouched(place: pathlib.Path) -> Files:
  """What all manifests say together. Raises ValueError for one that cannot be read."""
  manifests = sorted(place.glob("manifest.*.json"))
  vouched: Files = {}
  for path in manifests:
    processes, files = _read(path)
    if processes != len(manifests):
      raise ValueError(f"{path} speaks of {processes} processes; there are {len(manifests)}")
    vouched |= files
  return vouched


def _read(path: pathlib.Path) -> tuple[int, Files]:
  """The number of processes, and the files that one of them vouches for."""
  try:
    found = json.loads(path.read_bytes())
    number = found.get("format", 1)
    if isinstance(number, int) and number > FORMAT:
      raise CheckpointError(
        f"{path.parent} has format {number}, and this version of lcrl reads up to {FORMAT}: "
        "go on with the version that saved it, or move the folder away to use an older one."
      )
    if number not in (1, FORMAT):
      raise ValueError(f"there is no format {number!r}")
    files = {
      str(name): (int(size), str(checksum)) for name, (size, checksum) in found["files"].items()
    }
    return int(found["processes"]), files
  except CheckpointError:
    raise
  except Exception as error:  # whatever a damaged file leads to: RecursionError, TypeError, ...
    raise ValueError(f"{path} is no manifest: {type(error).__name__}: {error!s:.100}") from error


def _files(place: pathlib.Path) -> list[pathlib.Path]:
  about = place / "about.json"
  return [*(p for p in (place / "state").rglob("*") if p.is_file()), *[about] * about.is_file()]


def _checksum(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "blake2b").hexdigest()


def _sync(path: pathlib.Path) -> None:
  """To the disk: a file, or the names in a folder."""
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
