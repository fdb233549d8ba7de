"""One run in one folder at a time."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pathlib
import socket
import time
from collections.abc import Iterator

import jax


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
  path = folder / ".lock"
  handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
  try:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ValueError(
        f"{folder} is in use by another run, {os.pread(handle, 200, 0).decode(errors='replace')}. "
        "Wait for its end, or name another workdir."
      ) from None
    except OSError as error:  # a file system without locks
      logging.warning("%s cannot be locked (%s): let no second run write to it.", folder, error)
    os.ftruncate(handle, 0)
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {now}".encode(), 0)
    yield
  finally:
    os.close(handle)
