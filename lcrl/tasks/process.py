"""A worker process that scores untrusted text, as the verifier sees it."""

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
START_SECONDS = 120.0  # that a worker may take to import the scorer
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "HOME")  # what a worker inherits; keys and tokens stay


def frame(thing: Any) -> bytes:
  """A pickle behind its length in eight bytes."""
  data = pickle.dumps(thing)
  return len(data).to_bytes(8) + data


class Worker:
  """One process, the items it owes answers for, and when it last got or said something."""

  def __init__(self, setup: bytes):
    self.ready = False
    self.owed: collections.deque[int] = collections.deque()
    self.buffer = b""
    self.errors = tempfile.TemporaryFile()  # noqa: SIM115, closed in `close`
    self.channel, theirs = socket.socketpair()
    self.channel.settimeout(START_SECONDS)
    keep = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    with theirs:
      self.process = subprocess.Popen(
        [sys.executable, "-I", str(_TASKS / "worker.py")],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=self.errors,
        cwd="/",
        env=keep | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,
      )
    self.send(setup)

  @property
  def busy(self) -> bool:
    return bool(self.owed) or not self.ready

  def send(self, data: bytes) -> None:
    self.since = time.monotonic()
    with contextlib.suppress(OSError):  # it is dead or stuck: noticed when it is listened to
      self.channel.sendall(data)

  def lines(self) -> list[bytes]:
    """What it has said since; ValueError if it is gone."""
    self.since = time.monotonic()
    data = self.channel.recv(1 << 16)
    *lines, self.buffer = (self.buffer + data).split(b"\n")
    if not data or len(self.buffer) > 1 << 16:
      raise ValueError("no answer")
    return lines

  def kill(self) -> int:
    """Ends it with everything it may have started. Its exit code."""
    if self.process.returncode is None:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(self.process.pid, signal.SIGKILL)
    return self.process.wait()

  def close(self) -> None:
    self.kill()
    self.channel.close()
    self.errors.close()

  def last_words(self) -> str:
    """The end of what it wrote to standard error."""
    self.errors.seek(0)
    return self.errors.read()[-500:].decode(errors="replace").strip()
