"""The process in which untrusted text is scored. `verify.py` runs this file; nothing imports it.

Standard input is a socket. In come frames (eight bytes of length, then a pickle, from a process
that is trusted), out go lines of JSON (never a pickle: this process is not trusted). The first
frame is the setup, each later one a list of (name, response, reference).

Restrictions on the scorer, first by the kernel and then by the interpreter: limits on memory, CPU
time, open files and file size; a network namespace with nothing in it; Landlock (no file is
written, made, removed or executed; no TCP; no signal leaves); seccomp (no process is made, and no
other one is touched); a timer that ends the process; an audit hook. Native code can
evade the hook, and the kernel may not grant the rest: the first line out names what is in force.

A scorer that may run a response as code (`Task.evaluates`) does so in a process of its own, which
cannot reach the socket and ends with the verdict, so no response can change another's verdict. It
can still claim any score for itself, since it shares memory with the scorer. Without seccomp,
native code could leave a process behind that has left the session.
"""

import ctypes
import errno
import json
import logging
import math
import os
import pathlib
import pickle
import resource
import select
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable, Sequence

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import confine

sys.path.pop(0)


def _stand_in(packages: dict[str, str]) -> None:
  """Makes empty packages of these folders: submodules import without their `__init__` and jax."""
  for name, folder in packages.items():
    module = types.ModuleType(name)
    module.__path__ = [folder]
    sys.modules[name] = module


def _score(score, response, reference, bad_format) -> tuple[str, float, str]:
  """(status, score, why)."""
  try:
    value = float(score(response, reference))
    if not math.isfinite(value):
      return "crash", 0.0, f"the score is {value}"
  except bad_format as why:
    return "bad format", 0.0, f"{why!s:.200}"
  except MemoryError:
    os._exit(errno.ENOMEM)  # the memory may stay full: end the process
  except BaseException as why:
    return "crash", 0.0, f"{type(why).__name__}: {why!s:.200}"
  return "scored", value, ""


def _channel() -> tuple[Callable, Callable]:
  """Takes the socket away from standard input and output: (receive a frame, send a line)."""
  fd = os.dup(0)
  inbox = os.fdopen(fd, "rb")
  nothing = os.open(os.devnull, os.O_RDWR)
  os.dup2(nothing, 0)
  os.dup2(nothing, 1)

  def receive():
    head = inbox.read(8)
    return pickle.loads(inbox.read(int.from_bytes(head))) if head else None

  def send(*line):
    os.write(fd, json.dumps(line).encode() + b"\n")

  return receive, send


def _load(setup: dict) -> tuple[Callable, type[Exception]]:
  """(scorer, BadFormat), imported as the parent would import them."""
  logging.disable()
  warnings.simplefilter("ignore")
  sys.dont_write_bytecode = True
  sys.path[:] = setup["path"]
  _stand_in(setup["packages"])
  from lcrl.tasks.task import BadFormat

  return pickle.loads(setup["score"]), BadFormat


def _confine(libc: ctypes.CDLL) -> list[str]:
  in_force = confine.landlock(libc) + confine.seccomp(libc)
  sys.addaudithook(confine.refuse)
  return [*in_force, "audit hook"]


def _timed(deadline: float, *item) -> tuple[str, float, str]:
  """A verdict of this process, with a timer that ends the process if it takes too long."""
  cpu = math.ceil(time.process_time() + deadline) + 1
  resource.setrlimit(resource.RLIMIT_CPU, (cpu, resource.RLIM_INFINITY))
  signal.setitimer(signal.ITIMER_REAL, 2 * deadline)  # its default action is death
  verdict = _score(*item)
  signal.setitimer(signal.ITIMER_REAL, 0)
  return verdict


def _in_child(libc: ctypes.CDLL, work: Callable[[list[str]], Sequence], patience: float):
  """(the JSON that a confined child process writes, its exit code, None after the deadline)."""
  reading, writing = os.pipe()
  child = os.fork()
  if not child:
    try:
      os.dup2(writing, 3)
      os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
      os.write(3, json.dumps(work(_confine(libc))).encode())
    finally:
      os._exit(0)
  os.close(writing)
  output, end = b"", time.monotonic() + patience
  while (
    len(output) < 1 << 12 and select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]
  ):
    if not (piece := os.read(reading, 1 << 12)):
      break
    output += piece
  os.close(reading)
  os.kill(child, signal.SIGKILL)
  code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
  try:
    return json.loads(output), code
  except (ValueError, RecursionError):
    return None, None if time.monotonic() >= end else code


def _in_own_process(libc: ctypes.CDLL, deadline: float, *item) -> tuple[str, float, str]:
  """A verdict of a separate process. Only one well-formed line of its output counts."""
  patience = 0.9 * deadline  # less than the parent's, which would end this process
  output, code = _in_child(libc, lambda guards: _timed(deadline, *item), patience)
  match output:
    case ["scored" | "bad format" | "crash" as status, float(score), str(why)] if math.isfinite(
      score
    ) and (status == "scored" or not score):
      return str(status), score, why[:400]
  if code in (None, -signal.SIGXCPU, -signal.SIGALRM):
    return "timeout", 0.0, "the deadline passed"
  return "crash", 0.0, f"no answer (exit code {code})"


def main() -> None:
  receive, send = _channel()
  setup = receive()
  libc = ctypes.CDLL(None, use_errno=True)
  in_force = confine.limit(AS=setup["memory"], NOFILE=128, CORE=0) + confine.unshare(libc)
  try:
    score, bad_format = _load(setup)
  except BaseException as why:
    send("failed", f"{type(why).__name__}: {why}")
    return
  in_force += confine.limit(FSIZE=0)  # libraries may write caches while they load
  if setup["own_process"]:  # only Landlock for this process, which must start others
    in_force += confine.landlock(libc)
    in_force += _in_child(libc, lambda guards: guards, setup["deadline"])[0] or []
    in_force += ["a process for each response"]
  else:
    in_force += _confine(libc)
  send("ready", list(dict.fromkeys(in_force)))

  while (items := receive()) is not None:
    for name, response, reference in items:
      item = setup["deadline"], score, response, reference, bad_format
      send(name, *(_in_own_process(libc, *item) if setup["own_process"] else _timed(*item)))


if __name__ == "__main__":
  main()
