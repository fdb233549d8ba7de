"""Run folders on object stores, such as gs://bucket/runs/a.

An object cannot be appended to. So a run works on a local copy of its folder and uploads the files
that changed, each as a whole: before a checkpoint, after an evaluation and when it ends. Everything
below this module sees local paths. Only checkpoints and the lock are on the store alone: `origin`
says where.
"""

from __future__ import annotations

import atexit
import functools
import os
import pathlib
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
  from etils import epath

PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}
NOT_COPIED = {"checkpoints", ".lock"}
THREADS = 16  # transfers at once
AnyPath: TypeAlias = "pathlib.Path | epath.Path"


def parse(name: str | os.PathLike) -> AnyPath:
  """A local path, or a path on an object store if `name` has a scheme.

  Raises:
    ValueError: the scheme is not known, or the package for it is not installed.
  """
  text = os.fspath(name)
  scheme, separator, _ = text.partition("://")
  if not separator:
    return pathlib.Path(text)
  if scheme not in PACKAGES:
    known = ", ".join(f"{x}://" for x in PACKAGES)
    raise ValueError(f"{text}: there is no scheme {scheme}://, only local paths and {known}.")
  try:
    import fsspec

    fsspec.get_filesystem_class("gcs" if scheme == "gs" else scheme)
  except ImportError:
    package = PACKAGES[scheme]
    raise ValueError(
      f"{text}: {scheme}:// needs the packages fsspec and {package}: pip install fsspec {package}"
    ) from None
  for protocol in ("gcs", scheme):  # others write to the folder, so a listing must not be cached
    fsspec.config.conf.setdefault(protocol, {})["use_listings_cache"] = False
  os.environ.setdefault("EPATH_USE_TF", "0")  # one library for all schemes, installed or not
  from etils import epath

  return epath.Path(text)


def opened(name: str | os.PathLike) -> pathlib.Path:
  """The folder itself if it is local; else a local copy, which `publish` uploads again."""
  path = copied(name)
  refresh(path)
  return path


def copied(name: str | os.PathLike) -> pathlib.Path:
  """`opened`, but a copy is empty until `refresh` fills it."""
  path = parse(name)
  return path if isinstance(path, pathlib.Path) else _Copy(path).local


def origin(path: pathlib.Path) -> AnyPath:
  """The path on the store of a path in a copy; other paths as they are."""
  found = _copy_of(path)
  return found.remote / str(path.relative_to(found.local)) if found else path


def publish(path: pathlib.Path) -> None:
  """Uploads what changed at or below a path in a copy; does nothing for other paths."""
  if found := _copy_of(path):
    found.push(path)


def refresh(path: pathlib.Path) -> None:
  """Downloads what is at or below a path in a copy; does nothing for other paths."""
  if found := _copy_of(path):
    found.pull(path)


def files_below(folder: AnyPath) -> list[AnyPath]:
  if isinstance(folder, pathlib.Path):
    return [path for path in folder.rglob("*") if path.is_file()]
  import fsspec

  scheme = str(folder).partition("://")[0]
  store, place = fsspec.core.url_to_fs(str(folder))
  # A folder may be an object whose name ends in a slash.
  names = [name for name in store.find(place) if not name.endswith("/")]
  return [parse(f"{scheme}://{name.lstrip('/')}") for name in names]


def transfer(paths: list[AnyPath], source: AnyPath, target: AnyPath) -> None:
  """Copies files from below `source` to the same places below `target`."""

  def one(path: AnyPath) -> None:
    to = target / str(path.relative_to(source))
    if isinstance(to, pathlib.Path):  # a store has no folders
      to.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as reader, to.open("wb") as writer:
      shutil.copyfileobj(reader, writer, 16 << 20)

  with ThreadPoolExecutor(THREADS) as threads:
    for _ in threads.map(one, paths):  # raises what a thread raised
      pass


class _Copy:
  """A local copy of a folder on a store."""

  def __init__(self, remote: epath.Path):
    # Folders lie as they do on the store, since reports name runs by where they are.
    self.remote, self.local = remote, _home() / str(remote).replace("://", "/")
    shutil.rmtree(self.local, ignore_errors=True)
    self._lock = threading.Lock()  # checkpoints tell of their end from a thread
    self._known: dict[pathlib.Path, tuple[int, int]] = {}  # time and size when last the same
    _COPIES[self.local] = self

  def pull(self, path: pathlib.Path) -> None:
    below = self.remote / str(path.relative_to(self.local))
    is_copied = lambda p: NOT_COPIED.isdisjoint(p.relative_to(self.remote).parts)
    paths = list(filter(is_copied, files_below(below)))
    transfer(paths, self.remote, self.local)
    for local in (self.local / str(p.relative_to(self.remote)) for p in paths):
      self._known[local] = _stamp(local)

  def push(self, path: pathlib.Path) -> None:
    with self._lock:
      paths = [path] if path.is_file() else files_below(path)
      stamps = {p: _stamp(p) for p in paths if not p.name.startswith(".")}
      changed = [p for p, stamp in stamps.items() if self._known.get(p) != stamp]
      transfer(changed, self.local, self.remote)
      self._known |= {p: stamps[p] for p in changed}


_COPIES: dict[pathlib.Path, _Copy] = {}


@functools.cache
def _home() -> pathlib.Path:
  """Where the copies of this process are, until it ends."""
  home = pathlib.Path(tempfile.mkdtemp(prefix="lcrl_")).resolve()
  atexit.register(shutil.rmtree, home, ignore_errors=True)
  return home


def _copy_of(path: pathlib.Path) -> _Copy | None:
  return next((_COPIES[x] for x in (path, *path.parents) if x in _COPIES), None)


def _stamp(path: pathlib.Path) -> tuple[int, int]:
  found = path.stat()
  return found.st_mtime_ns, found.st_size
