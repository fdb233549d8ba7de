"""The verifier's side of a worker process, which scores untrusted text."""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

_TASKS = pathlib.Path(__file__).resolve().parent
PACKAGES = {"lcrl": str(_TASKS.parent), "lcrl.tasks": str(_TASKS)}
START_SECONDS = 120.0  # for the import of the scorer, at most
_ENVIRONMENT = (
  "PATH",
  "LD_LIBRARY_PATH",
  "HOME",
)  # variables that a worker inherits; keys and tokens are none of them


def frame(thing: Any) -> bytes:
  """A pickle, preceded by its length in eight bytes."""
  data = pickle.dumps(thing)
  return len(data).to_bytes(8) + data


class Worker:
  """One process, the items that it has not answered, and the time of the last message."""

  def __init__(self, setup: bytes):
    self.ready = False
    self.unanswered: collections.deque[int] = collections.deque()
    self.buffer = b""
    self.errors = tempfile.TemporaryFile()  # noqa: SIM115, closed in `close`
    self.channel, remote = socket.socketpair()
    self.channel.settimeout(START_SECONDS)
    keep = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    with remote:
      self.process = subprocess.Popen(
        [sys.executable, "-I", str(_TASKS / "worker.py")],
        stdin=remote.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=self.errors,
        cwd="/",
        env=keep | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,
      )
    self.send(setup)

  @property
  def busy(self) -> bool:
    return bool(self.unanswered) or not self.ready

  def send(self, data: bytes) -> None:
    self.since = time.monotonic()
    with contextlib.suppress(OSError):  # a dead or stuck process is noticed in `lines`
      self.channel.sendall(data)

  def lines(self) -> list[bytes]:
    """New lines of its output. Raises ValueError if the process is gone."""
    self.since = time.monotonic()
    data = self.channel.recv(1 << 16)
    *lines, self.buffer = (self.buffer + data).split(b"\n")
    if not data or len(self.buffer) > 1 << 16:
      raise ValueError("no answer")
    return lines

  def kill(self) -> int:
    """Ends the process and all that it started; returns its exit code."""
    if self.process.returncode is None:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(self.process.pid, signal.SIGKILL)
    return self.process.wait()

  def close(self) -> None:
    self.kill()
    self.channel.close()
    self.errors.close()

  def error_tail(self) -> str:
    """The end of its standard error."""
    self.errors.seek(0)
    return self.errors.read()[-500:].decode(errors="replace").strip()
