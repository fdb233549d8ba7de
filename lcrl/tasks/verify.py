"""Verdicts on untrusted text, from worker processes that can be killed.

A response may make a scorer loop, eat memory or die. Then its verdict is a timeout or a crash,
another worker replaces it, and the other responses are scored as if nothing had happened.
A thread sends items to the workers and reads their verdicts, so that callers can submit more items
while the workers score.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import math
import os
import pickle
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple

from lcrl.tasks.process import PACKAGES, START_SECONDS, Worker, frame
from lcrl.tasks.task import Prompt, Task
from lcrl.types import Outcome

_UNSCORED = {
  "bad format": Outcome.BAD_FORMAT,
  "crash": Outcome.CRASH,
  "timeout": Outcome.TIMEOUT,
}
_LONGEST = 86400.0  # seconds, the longest deadline
_TRIES = 3  # workers in a row that may fail to start
_CHUNK = 64  # most items sent to a worker at a time
_ENOUGH_MEMORY = 1 << 28  # bytes, in which a worker imports any scorer of ours


@dataclasses.dataclass(frozen=True)
class Verdict:
  score: float  # the scorer's own number; 0 where it gave none
  outcome: Outcome
  why: str = ""  # of a crash or a bad format

  @property
  def correct(self) -> bool:
    """True only for a scored response; without a score the number means nothing."""
    return self.outcome == Outcome.OK


class _Batch:
  """The verdicts so far of items that were submitted together."""

  def __init__(self, size: int):
    self.size, self.verdicts = size, dict[int, Verdict]()
    self.future: Future[list[Verdict]] = Future()
    self.future.set_running_or_notify_cancel()  # no caller can cancel it from now on
    self.finish()

  def put(self, index: int, verdict: Verdict) -> None:
    self.verdicts[index] = verdict
    self.finish()

  def finish(self) -> None:
    if len(self.verdicts) == self.size:
      self.future.set_result([self.verdicts[i] for i in range(self.size)])


class _Item(NamedTuple):
  batch: _Batch
  position: int  # in its batch
  text: str
  reference: Any


class Verifier:
  """Scores responses to a task's prompts. A context manager; several threads may ask at once.

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
    if not (isinstance(workers, int) and workers >= 1):
      raise ValueError(f"workers must be a positive whole number, got {workers!r}.")
    if not 0 < deadline <= _LONGEST:
      raise ValueError(f"deadline must be above 0 and at most {_LONGEST:.0f} s, got {deadline!r}.")
    if not (isinstance(memory, int) and 1 <= memory <= sys.maxsize):
      raise ValueError(f"memory must be a positive whole number of bytes, got {memory!r}.")
    try:
      score = pickle.dumps(task.score)
    except (pickle.PicklingError, AttributeError, TypeError) as why:
      raise ValueError(f"The scorer of {task.name} has no name to import it by: {why}") from why
    self.guards: tuple[str, ...] = ()  # restrictions on a worker in force on this machine
    self._task, self._wanted, self._deadline = task, workers, deadline
    self._memory = memory
    self._setup = frame(
      {
        "path": [os.path.abspath(entry) for entry in sys.path],
        "packages": PACKAGES,
        "score": score,
        "deadline": deadline,
        "memory": memory,
        "own_process": task.evaluates,
      }
    )
    self._workers: list[Worker] = []
    self._failed_starts = 0  # workers in a row that ended before they were ready
    self._items: dict[int, _Item] = {}  # without a verdict, by name
    self._todo: collections.deque[int] = collections.deque()  # waiting for a worker, by name
    self._lock = threading.Lock()  # for workers and items
    self._waker, self._wakeups = socket.socketpair()
    self._waker.setblocking(False)
    self._selector = selectors.DefaultSelector()
    self._selector.register(self._wakeups, selectors.EVENT_READ)
    self._thread: threading.Thread | None = None
    self._closing = False

  def __enter__(self) -> Verifier:
    try:
      self._workers += (self._start_worker() for _ in range(self._wanted))
      while not all(worker.ready for worker in self._workers):
        self._serve_once()
    except BaseException:
      self.close()
      raise
    self._thread = threading.Thread(target=self._serve, name="verifier", daemon=True)
    self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    """Ends the processes. Callers that still wait for verdicts get an error."""
    if self._thread:
      self._closing = True
      self._wake()
      self._thread.join()
    self._end(RuntimeError("The verifier was closed."))

  def verify(self, items: Iterable[tuple[str, Prompt]]) -> list[Verdict]:
    """Verdicts in the order of the items: one for each, whatever a response does."""
    return self.submit(items).result()

  def submit(self, items: Iterable[tuple[str, Prompt]]) -> Future[list[Verdict]]:
    """A future of the verdicts of `verify`. Returns at once, even while earlier items wait."""
    submitted = list(items)
    batch = _Batch(len(submitted))
    with self._lock:
      if not self._workers:
        raise RuntimeError("The verifier is not open: use it as a context manager.")
      for position, (text, prompt) in enumerate(submitted):
        name = secrets.randbits(62)  # so no response can guess the name of another item
        self._items[name] = _Item(batch, position, text, prompt.reference)
        self._todo.append(name)
    self._wake()
    return batch.future

  def _wake(self) -> None:
    with contextlib.suppress(BlockingIOError):  # the pipe is full, so the thread wakes anyway
      self._waker.send(b"!")

  def _serve(self) -> None:
    try:
      while not self._closing:
        self._serve_once()
    except BaseException as why:  # the callers that wait for verdicts get the error
      self._end(why)

  def _end(self, why: BaseException) -> None:
    with self._lock:
      for worker in self._workers:
        self._stop_worker(worker)
      self._workers.clear()
      self._todo.clear()
      for batch in {item.batch for item in self._items.values()}:
        batch.future.set_exception(why)
      self._items.clear()

  def _serve_once(self) -> None:
    """Sends items to idle workers, waits for an answer or a deadline, and replaces dead workers."""
    for worker in list(self._workers):
      if worker.ready and not worker.unanswered and self._todo:
        if worker.process.poll() is None:
          self._send(worker)
        else:
          self._replace(worker)  # died while idle: no item's fault
    due = {
      w: w.since + (self._deadline if w.ready else START_SECONDS) for w in self._workers if w.busy
    }
    wait = max(0.0, min(due.values()) - time.monotonic()) if due else None
    readable = [key.data for key, _ in self._selector.select(wait)]
    now = time.monotonic()
    for worker in readable:
      if worker is None:
        self._wakeups.recv(1 << 16)
      elif worker.busy:
        self._receive(worker)
      else:
        self._replace(worker)
    for worker in due.keys() - readable:
      if due[worker] < now:
        self._lose(worker, "the deadline passed", Outcome.TIMEOUT)

  def _send(self, worker: Worker) -> None:
    """Sends a share of the waiting items; shares shrink, so that workers finish together."""
    share = min(_CHUNK, math.ceil(len(self._todo) / (4 * len(self._workers))))
    worker.unanswered.extend(self._todo.popleft() for _ in range(share))
    items = ((name, self._items[name]) for name in worker.unanswered)
    worker.send(frame([(name, item.text, item.reference) for name, item in items]))

  def _receive(self, worker: Worker) -> None:
    try:
      for line in worker.lines():
        self._handle(worker, json.loads(line))
    except (OSError, ValueError) as why:
      code = worker.kill()
      late = code in (-signal.SIGXCPU, -signal.SIGALRM)  # its own limits, before the deadline here
      outcome = Outcome.TIMEOUT if late else Outcome.CRASH
      self._lose(worker, f"{why} (exit code {code})", outcome)

  def _handle(self, worker: Worker, line: list) -> None:
    match line:
      case ["ready", list(guards)] if not worker.ready:
        worker.ready, self.guards, self._failed_starts = True, tuple(guards), 0
      case ["failed", str(why)] if not worker.ready:
        # Python runs out of memory in many ways: as a SystemError while it compiles, for one.
        small = why.startswith("MemoryError") or self._memory < _ENOUGH_MEMORY
        hint = f"; memory={self._memory} bytes (verify.memory) may be too few." if small else ""
        raise RuntimeError(
          f"A worker cannot import the scorer of {self._task.name}: {why.rstrip(': ')}{hint}"
        )
      case [int(name), str(status), float(score), str(why)] if (
        worker.unanswered and name == worker.unanswered[0]
      ):
        scored = Outcome.OK if score >= self._task.threshold else Outcome.WRONG
        self._record(worker, Verdict(score, _UNSCORED.get(status, scored), why))
      case _:
        raise ValueError(f"a worker said {line!r:.100}")

  def _record(self, worker: Worker, verdict: Verdict) -> None:
    """Records the verdict of the worker's first unanswered item."""
    item = self._items.pop(worker.unanswered.popleft())
    item.batch.put(item.position, verdict)

  def _lose(self, worker: Worker, why: str, outcome: Outcome) -> None:
    """Blames the worker's first unanswered item; the others go back to the front of the queue."""
    self._failed_starts += not worker.ready
    if self._failed_starts > _TRIES:
      raise RuntimeError(f"Verifier workers do not start: {why}. {worker.error_tail()}")
    if worker.unanswered:
      self._record(worker, Verdict(0.0, outcome, why))
    self._todo.extendleft(reversed(worker.unanswered))
    self._replace(worker)

  def _replace(self, worker: Worker) -> None:
    self._stop_worker(worker)
    self._workers[self._workers.index(worker)] = self._start_worker()

  def _start_worker(self) -> Worker:
    worker = Worker(self._setup)
    self._selector.register(worker.channel, selectors.EVENT_READ, worker)
    return worker

  def _stop_worker(self, worker: Worker) -> None:
    with contextlib.suppress(KeyError):  # unregistered before
      self._selector.unregister(worker.channel)
    worker.close()
