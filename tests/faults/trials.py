"""Tiny runs of every kind, in processes of their own that something happens to.

Processes are forked from one that has imported everything and computed nothing, so that a trial
takes seconds.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import logging
import os
import pathlib
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from lcrl.commands.train import join
from lcrl.training import loop
from lcrl.training.checkpoint import Checkpoints
from tests.helpers import iterative_runs, pair_runs, rl_runs
from tests.helpers.devices import first_devices

Hook = Callable[[], Any]  # is called in the process before the run begins
STEPS = 4
RUN = {"eval": {"every": 2, "prompts": 4}, "checkpoint": {"every": 1, "keep": 2}}
REWARD = {"fn": "length_penalty", "alpha": 0.02, "base": {"fn": "hapo", "rows": 64}}  # has a state


def configs(rows: pathlib.Path) -> dict[str, dict[str, Any]]:
  """A config of each kind; `rows` is a file of pairs, which is written."""
  letters = [chr(ord("a") + i % 26) * (1 + i // 26) for i in range(40)]
  lines = [{"prompt": f"say {x}", "chosen": x, "rejected": "well " * 2 + x} for x in letters]
  rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
  on_pairs = {"checkpoint": RUN["checkpoint"], "eval": {"pairs": 8, "prompts": 4, "every": 2}}
  sft = {"run": "sft", "loss": {"fn": "nll"}, "weights": {"fn": "token_mean"}}
  sft |= {"reference": None, "lora": None, "data__fn": "responses"}
  iterative = copy.deepcopy(iterative_runs.CONFIG) | RUN
  iterative["round"]["updates"], iterative["train"]["steps"] = 2, STEPS
  return {
    "rl": rl_runs.changed(reward=REWARD) | RUN,
    "preference": pair_runs.changed(str(rows)) | on_pairs,
    "sft": pair_runs.changed(str(rows), **sft) | on_pairs,
    "iterative": iterative,
  }


@dataclasses.dataclass
class Child:
  """A process of a run, and what it says."""

  pid: int
  log: pathlib.Path
  _code: int | None = None

  def ended(self) -> int | None:
    """Its exit code, negative for a signal; None while it runs."""
    if self._code is None:
      pid, status = os.waitpid(self.pid, os.WNOHANG)
      self._code = os.waitstatus_to_exitcode(status) if pid else None
    return self._code

  def wait(self, seconds: float = 900.0) -> int:
    end = time.monotonic() + seconds
    while (code := self.ended()) is None:
      if time.monotonic() > end:
        self.kill()
        raise AssertionError(f"still there after {seconds:.0f} s: {self.said()[-2000:]}")
      time.sleep(0.02)
    return code

  def kill(self, number: int = signal.SIGKILL) -> None:
    if self.ended() is None:
      os.kill(self.pid, number)

  def said(self) -> str:
    return self.log.read_text(errors="replace")


def start(
  config: dict[str, Any],
  workdir: pathlib.Path,
  hook: Hook = lambda: None,
  *,
  address: str | None = None,
  process: int = 0,
) -> Child:
  """A process that trains; with an `address`, one of two."""
  log = workdir.with_name(f"{workdir.name}.{time.monotonic_ns()}.log")
  pid = os.fork()
  if pid:
    return Child(pid, log)
  code = 1
  try:
    with log.open("w") as file:
      os.dup2(file.fileno(), 1)
      os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, force=True)
    if address:
      join(address, 2, process)
    hook()
    with last_state() as last:
      loop.train(config, workdir)
    if process == 0:
      leaves = jax.tree_util.tree_leaves_with_path(last[-1])
      named = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
      np.savez(
        workdir / "final.npz", **{k: np.asarray(jax.device_get(v)) for k, v in named.items()}
      )
    if address:
      jax.distributed.shutdown()
    code = 0
  except BaseException as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
  finally:
    os._exit(code)


@contextlib.contextmanager
def last_state() -> Iterator[list[Any]]:
  """The state that was saved or restored last, as it is on this host."""
  found: list[Any] = [None]
  save, restore = Checkpoints.save, Checkpoints.restore
  local = lambda x: np.array(x.addressable_data(0)) if x.is_fully_replicated else np.array(0)
  held = lambda state: jax.tree.map(local, state)

  def saving(self, step, state):
    found[0] = held(state)
    save(self, step, state)

  def restoring(self, *args):
    result = restore(self, *args)
    found[0] = held(result[1]) if result else found[0]
    return result

  Checkpoints.save, Checkpoints.restore = saving, restoring
  try:
    yield found
  finally:
    Checkpoints.save, Checkpoints.restore = save, restore


def start_two(config, workdir, hooks: Sequence[Hook] = (lambda: None,) * 2) -> list[Child]:
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  return [start(config, workdir, hook, address=address, process=i) for i, hook in enumerate(hooks)]


def killed_at_line(nth: int, files: Sequence[str], counted: pathlib.Path | None = None) -> Hook:
  """A hook: SIGKILL when the `nth` line of these files is run, by whichever thread; 0: never. The
  file `counted` gets how often lines of each were run."""

  def hook() -> None:
    ran, lock = Counter[str](), threading.Lock()

    def local(frame, event, arg):
      if event == "line":
        with lock:
          ran[pathlib.Path(frame.f_code.co_filename).name] += 1
          if ran.total() == nth:
            os.kill(os.getpid(), signal.SIGKILL)
      return local

    def every(frame, event, arg):
      return local if frame.f_code.co_filename.endswith(tuple(files)) else None

    threading.settrace(every)
    sys.settrace(every)
    if counted is not None:
      train = loop.train

      def train_and_count(*args):
        train(*args)
        sys.settrace(None)
        counted.write_text(json.dumps(ran))

      loop.train = train_and_count

  return hook


def left_behind(workdir: pathlib.Path) -> dict[str, Any]:
  """What must not depend on how often a run was stopped: state, numbers, texts, TensorBoard."""
  with np.load(workdir / "final.npz") as final:
    found: dict[str, Any] = {name: final[name].tobytes() for name in final.files}
  for path in [*workdir.glob("*.jsonl"), *workdir.glob("samples/*.jsonl")]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found[str(path.relative_to(workdir))] = [_timeless(row) for row in rows]
  found["checkpoints"] = sorted(p.name for p in (workdir / "checkpoints").iterdir())
  found["events"] = points(workdir)
  return found


def points(workdir: pathlib.Path) -> dict[str, list[tuple[int, str]]]:
  """What TensorBoard shows."""
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  events = EventAccumulator(str(workdir / "events"), size_guidance={"scalars": 0}).Reload()
  tags = [tag for tag in events.Tags()["scalars"] if not _timed(tag)]
  return {tag: [(e.step, repr(e.value)) for e in events.Scalars(tag)] for tag in tags}


def _timed(name: str) -> bool:
  return "time" in name or "per_s" in name


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
  return {name: x for name, x in row.items() if not _timed(name)}


def differences(workdir: pathlib.Path, whole: pathlib.Path) -> list[str]:
  """Names of what differs between two finished runs."""
  a, b = left_behind(workdir), left_behind(whole)
  return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def after(seconds: float, children: Sequence[Child], number: int = signal.SIGKILL) -> None:
  """Sends a signal to all that are still there by then."""
  end = time.monotonic() + seconds
  while time.monotonic() < end and any(child.ended() is None for child in children):
    time.sleep(0.01)
  for child in children:
    child.kill(number)


def until_line(workdir: pathlib.Path, children: Sequence[Child], step: int) -> None:
  """Waits for the metrics of a step."""
  path, end = workdir / "metrics.jsonl", time.monotonic() + 600
  told = lambda: path.exists() and f'"step": {step},' in path.read_text()
  while not told():
    ended = [child.said()[-2000:] for child in children if child.ended() is not None]
    if ended or time.monotonic() > end:
      raise AssertionError(f"no step {step}: {ended}")
    time.sleep(0.01)


def run_to_end(
  config, workdir: pathlib.Path, processes: int = 1, hook: Hook = lambda: None
) -> None:
  two = processes == 2
  children = start_two(config, workdir) if two else [start(config, workdir, hook)]
  codes = [child.wait() for child in children]
  assert codes == [0] * processes, "\n".join(child.said()[-3000:] for child in children)


def one_device() -> None:
  """In the forking process: every run sees one device, as the tests of runs do."""
  jax.devices = functools.partial(_first, jax.devices)


def _first(devices, *_):
  return devices() if jax.process_count() > 1 else first_devices(1)
