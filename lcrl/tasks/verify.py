"""Verdicts on untrusted text, from worker processes that can be killed.

A response may make a scorer loop, eat memory or die. Then its verdict is a timeout or a crash,
another worker takes that one's place, and the other responses are judged as if nothing happened.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import math
import multiprocessing.connection
import os
import pathlib
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import Any

from lcrl.tasks.task import Prompt, Task
from lcrl.types import Outcome

_TASKS = pathlib.Path(__file__).resolve().parent
_PACKAGES = {"lcrl": str(_TASKS.parent), "lcrl.tasks": str(_TASKS)}
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "HOME")  # what a worker inherits; keys and tokens stay
_START = 120.0  # seconds that a worker may take to import the scorer
_UNSCORED = {"bad format": Outcome.BAD_FORMAT, "crash": Outcome.CRASH}
_TRIES = 3  # workers in a row that may fail to start
_CHUNK = 64  # items a worker is given at a time, at most


@dataclasses.dataclass(frozen=True)
class Verdict:
  score: float  # the scorer's own number; 0 where it gave none
  outcome: Outcome
  why: str = ""  # of a crash or a bad format


def _frame(thing: Any) -> bytes:
  data = pickle.dumps(thing)
  return len(data).to_bytes(8) + data


class _Job:
  """The items of one call, which of them wait for a worker, and the verdicts so far."""

  def __init__(self, items: Iterable[tuple[str, Prompt]] = ()):
    self.items = [(i, text, prompt.reference) for i, (text, prompt) in enumerate(items)]
    self.todo = collections.deque(range(len(self.items)))
    self.verdicts: dict[int, Verdict] = {}


class _Worker:
  """One process, the indices it owes answers for, and when it last got or said something."""

  def __init__(self, setup: bytes):
    self.ready = False
    self.owed: collections.deque[int] = collections.deque()
    self.buffer = b""
    self.errors = tempfile.TemporaryFile()  # noqa: SIM115, closed in `close`
    self.channel, theirs = socket.socketpair()
    self.channel.settimeout(_START)
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

  def send(self, frame: bytes) -> None:
    self.since = time.monotonic()
    with contextlib.suppress(OSError):  # it is dead or stuck: noticed when it is listened to
      self.channel.sendall(frame)

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


class Verifier:
  """Scores responses to a task's prompts. A context manager; not for several threads at once.

  Args:
    task: gives the scorer and the threshold.
    workers: processes; None: one per core, at most eight.
    deadline: seconds of wall clock that one item may take (and, rounded up, of CPU time).
    memory: bytes of address space for one worker.
  """

  def __init__(
    self, task: Task, *, workers: int | None = None, deadline: float = 5.0, memory: int = 2 << 30
  ):
    workers = min(os.cpu_count() or 1, 8) if workers is None else workers
    if workers < 1 or not deadline > 0:
      raise ValueError(f"workers and deadline must be positive, got {workers} and {deadline}.")
    try:
      score = pickle.dumps(task.score)
    except (pickle.PicklingError, AttributeError, TypeError) as why:
      raise ValueError(f"The scorer of {task.name} has no name to import it by: {why}") from why
    self.guards: tuple[str, ...] = ()  # what holds a worker back on this machine
    self._task, self._wanted, self._deadline = task, workers, deadline
    self._setup = _frame(
      {
        "path": [os.path.abspath(entry) for entry in sys.path],
        "packages": _PACKAGES,
        "score": score,
        "deadline": deadline,
        "memory": memory,
      }
    )
    self._workers: list[_Worker] = []
    self._stillborn = 0  # workers in a row that ended before they were ready

  def __enter__(self) -> Verifier:
    try:
      self._workers += (_Worker(self._setup) for _ in range(self._wanted))
      while not all(worker.ready for worker in self._workers):
        self._turn(_Job())
      return self
    except BaseException:
      self.close()
      raise

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    for worker in self._workers:
      worker.close()
    self._workers.clear()

  def verify(self, items: Iterable[tuple[str, Prompt]]) -> list[Verdict]:
    """Verdicts in the order of the items: one for each, whatever a response does."""
    if not self._workers:
      raise RuntimeError("The verifier is not open: use it as a context manager.")
    job = _Job(items)
    try:
      while len(job.verdicts) < len(job.items):
        self._turn(job)
    except BaseException:  # half a conversation cannot be taken up again
      self.close()
      raise
    return [job.verdicts[i] for i in range(len(job.items))]

  def _turn(self, job: _Job) -> None:
    """Feeds the idle, listens to the busy until one speaks or is late, replaces the lost."""
    for worker in list(self._workers):
      if worker.ready and not worker.owed and worker.process.poll() is not None:
        self._replace(worker)  # died while idle: no item's fault
      elif worker.ready and not worker.owed and job.todo:
        self._feed(worker, job)
    due = {w: w.since + (self._deadline if w.ready else _START) for w in self._workers if w.busy}
    channels: dict[Any, _Worker] = {worker.channel: worker for worker in due}
    wait = max(0.0, min(due.values()) - time.monotonic())
    spoke = multiprocessing.connection.wait(list(channels), wait)
    now = time.monotonic()
    for channel in spoke:
      self._hear(channels.pop(channel), job)
    for worker in channels.values():
      if due[worker] < now:
        self._lose(worker, job, "the deadline passed", Outcome.TIMEOUT)

  def _feed(self, worker: _Worker, job: _Job) -> None:
    """A share of what is left, so that shares shrink and workers finish together."""
    share = min(_CHUNK, math.ceil(len(job.todo) / (4 * len(self._workers))))
    worker.owed.extend(job.todo.popleft() for _ in range(share))
    worker.send(_frame([job.items[i] for i in worker.owed]))

  def _hear(self, worker: _Worker, job: _Job) -> None:
    try:
      for line in worker.lines():
        self._note(worker, job, json.loads(line))
    except (OSError, ValueError) as why:
      code = worker.kill()
      late = code in (-signal.SIGXCPU, -signal.SIGALRM)  # its own limits, before the deadline here
      outcome = Outcome.TIMEOUT if late else Outcome.CRASH
      self._lose(worker, job, f"{why} (exit code {code})", outcome)

  def _note(self, worker: _Worker, job: _Job, line: list) -> None:
    match line:
      case ["ready", list(guards)] if not worker.ready:
        worker.ready, self.guards, self._stillborn = True, tuple(guards), 0
      case ["failed", str(why)] if not worker.ready:
        raise RuntimeError(f"A worker cannot import the scorer of {self._task.name}: {why}")
      case [int(index), str(status), float(score), str(why)] if (
        worker.owed and index == worker.owed[0]
      ):
        scored = Outcome.OK if score >= self._task.threshold else Outcome.WRONG
        outcome = _UNSCORED.get(status, scored)
        job.verdicts[worker.owed.popleft()] = Verdict(score, outcome, why)
      case _:
        raise ValueError(f"a worker said {line!r:.100}")

  def _lose(self, worker: _Worker, job: _Job, why: str, outcome: Outcome) -> None:
    """The first item it owes is to blame; the others go back in line, at the front."""
    self._stillborn += not worker.ready
    if self._stillborn > _TRIES:
      raise RuntimeError(f"Verifier workers do not start: {why}. {worker.last_words()}")
    if worker.owed:
      job.verdicts[worker.owed.popleft()] = Verdict(0.0, outcome, why)
    job.todo.extendleft(reversed(worker.owed))
    self._replace(worker)

  def _replace(self, worker: _Worker) -> None:
    worker.close()
    self._workers[self._workers.index(worker)] = _Worker(self._setup)
