"""One run in one folder at a time.

A local folder has a lock of the system. An object store has none, so a run renews an object there,
the lease. A second run that finds one waits: if it is renewed, the second run is refused; if it is
not, the first run is dead and the second one goes on. Two runs that start within seconds of each
other may both begin; the one whose lease was overwritten ends at its next renewal.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import pathlib
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from lcrl.training.remote import AnyPath, origin

BEAT = 20.0  # seconds from one renewal of a lease to the next
PATIENCE = 3  # beats after which a lease that was not renewed is that of a dead run


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Makes the folder and holds a lock on it, which the system releases when the process ends.

  Of several processes of one run, the first holds it for all.

  Raises:
    ValueError: another run holds it; says which.
  """
  if jax.process_index() != 0:
    yield
    return
  folder.mkdir(parents=True, exist_ok=True)
  place = origin(folder)
  if not isinstance(place, pathlib.Path):
    with _leased(place):
      yield
    return
  path = folder / ".lock"
  handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise _in_use(folder, os.pread(handle, 200, 0).decode(errors="replace")) from None
    except OSError as error:  # a file system without locks
      logging.warning("%s cannot be locked (%s): let no second run write to it.", folder, error)
    os.ftruncate(handle, 0)
    os.pwrite(handle, _owner().encode(), 0)
    yield
  finally:
    os.close(handle)


def _owner() -> str:
  now = time.strftime("%Y-%m-%d %H:%M:%S")
  return f"process {os.getpid()} on {socket.gethostname()} since {now}"


def _in_use(folder: AnyPath, owner: str) -> ValueError:
  return ValueError(
    f"{folder} is in use by another run, {owner}. Wait for its end, or name another workdir."
  )


@contextlib.contextmanager
def _leased(folder: AnyPath) -> Iterator[None]:
  path = folder / ".lock"
  if (other := _read(path)) is not None and not _ended(other):
    _wait_for_end(folder, path, other)
  lease = {"owner": _owner(), "host": _host(), "pid": os.getpid(), "key": secrets.token_hex(8)}
  leaving = threading.Event()

  def renew() -> None:
    count = 0
    while not leaving.wait(BEAT):
      with contextlib.suppress(Exception):  # of any library; the store may be back at the next beat
        found = _read(path)
        if found is not None and found.get("key") != lease["key"]:
          text = f"{folder} was taken over by {found.get('owner')}, so this run ends."
          print(text, file=sys.stderr, flush=True)
          os._exit(1)
        path.write_text(json.dumps(lease | {"renewed": (count := count + 1)}))

  path.write_text(json.dumps(lease))
  thread = threading.Thread(target=renew, name="lease", daemon=True)
  thread.start()
  try:
    yield
  finally:
    leaving.set()
    thread.join()
    if (found := _read(path)) is not None and found.get("key") == lease["key"]:
      path.unlink(missing_ok=True)


def _wait_for_end(folder: AnyPath, path: AnyPath, other: dict[str, Any]) -> None:
  """Returns once the run of a lease is dead; ValueError if it renews the lease."""
  seconds = PATIENCE * BEAT
  logging.warning(
    "%s has the lease of %s; %.0f s tell whether it lives.", folder, other.get("owner"), seconds
  )
  end = time.monotonic() + seconds
  while (found := _read(path)) == other and time.monotonic() < end:
    time.sleep(BEAT / 20)
  if found is not None and found != other:
    raise _in_use(folder, str(found.get("owner")))


def _read(path: AnyPath) -> dict[str, Any] | None:
  """The lease; {} if it cannot be read, None if there is none."""
  try:
    found = json.loads(path.read_text())
  except FileNotFoundError:
    return None
  except ValueError:
    return {}
  return found if isinstance(found, dict) else {}


def _host() -> str:
  """Names what a process id is unique in: a start of a machine, and a container on it."""
  with contextlib.suppress(OSError):
    start = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{start} {os.readlink('/proc/self/ns/pid')}"
  return ""


def _ended(lease: dict[str, Any]) -> bool:
  """True if the process of a lease was one of this machine and is gone."""
  if not _host() or lease.get("host") != _host() or not isinstance(lease.get("pid"), int):
    return False
  return not pathlib.Path(f"/proc/{lease['pid']}").exists()
