"""The process in which untrusted text is scored. `verify.py` runs this file; nothing imports it.

Standard input is a socket. In come frames (eight bytes of length, then a pickle, from a process
that is trusted), out go lines of JSON (never a pickle: this process is not trusted). The first
frame says how to set up, each later one is a list of (index, response, reference).

What holds the scorer back, first by the kernel and then by the interpreter: limits on memory, CPU
time, open files and file size; a network namespace with nothing in it; Landlock (no file is
written, made, removed or executed; no TCP; no signal leaves); a timer that ends the process; an
audit hook. The hook alone is no wall, since native code walks around it, and the kernel may not
grant the rest, so the first line out names what is in force.
"""

import contextlib
import ctypes
import errno
import json
import logging
import math
import os
import pickle
import resource
import signal
import struct
import sys
import time
import types
import warnings
from collections.abc import Callable

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # unshare(2)
_NO_NEW_PRIVS = 38  # prctl(2)
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # landlock(7): the same numbers on every architecture
_REFUSED = {
  *("os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.posix_spawn", "os.spawn"),
  *("os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"),
  *("os.symlink", "os.system", "os.truncate", "os.utime", "pty.spawn", "subprocess.Popen"),
}


def _limit(**limits: int) -> list[str]:
  """Sets those of the limits that this system has."""
  in_force = []
  for name, value in limits.items():
    with contextlib.suppress(ValueError, OSError):
      resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
      in_force.append(f"RLIMIT_{name}")
  return in_force


def _unshare(libc: ctypes.CDLL) -> list[str]:
  """A network without interfaces. A user who may not have one may within a user namespace."""
  unshare = getattr(libc, "unshare", lambda flags: -1)
  granted = unshare(_NEW_USER | _NEW_NET) == 0 or unshare(_NEW_NET) == 0
  return ["network namespace"] if granted else []


def _landlock(libc: ctypes.CDLL) -> list[str]:
  """Handles every access but reading and allows none of it, as far as this kernel knows how."""
  if sys.platform != "linux":
    return []
  version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
  files = 0x1FF3 | (0x4000 if version >= 3 else 0)  # from version 3 on, truncation
  fields = [files] + ([3] if version >= 4 else []) + ([3] if version >= 6 else [])  # TCP; signals
  rules = struct.pack(f"{len(fields)}Q", *fields)
  ruleset = libc.syscall(_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0)
  if ruleset < 0 or libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
    return []
  granted = libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
  os.close(ruleset)
  return [f"landlock {version}"] if granted else []


def _refuse(event: str, args: tuple) -> None:
  """The audit hook: reading and computing only."""
  if event == "open":
    flags = args[2] or 0
    refused = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
  else:
    refused = event in _REFUSED or event.startswith(("socket.", "shutil."))
  if refused:
    raise PermissionError(f"A scorer may not do this: {event} {args!r:.100}.")


def _stand_in(packages: dict[str, str]) -> None:
  """Empty packages at these folders: their submodules import without their `__init__` and jax."""
  for name, folder in packages.items():
    module = types.ModuleType(name)
    module.__path__ = [folder]
    sys.modules[name] = module


def _judge(score, response, reference, bad_format) -> tuple[str, float, str]:
  """(status, score, why)."""
  try:
    value = float(score(response, reference))
    if not math.isfinite(value):
      return "crash", 0.0, f"the score is {value}"
  except bad_format as why:
    return "bad format", 0.0, f"{why!s:.200}"
  except MemoryError:
    os._exit(errno.ENOMEM)  # what fills it may stay: this process is lost
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


def main() -> None:
  receive, send = _channel()
  setup = receive()
  libc = ctypes.CDLL(None, use_errno=True)
  in_force = _limit(AS=setup["memory"], NOFILE=128, CORE=0) + _unshare(libc)
  try:
    score, bad_format = _load(setup)
  except BaseException as why:
    send("failed", f"{type(why).__name__}: {why}")
    return
  in_force += _limit(FSIZE=0) + _landlock(libc)  # libraries may write caches while they load
  sys.addaudithook(_refuse)
  send("ready", [*in_force, "audit hook"])

  while (items := receive()) is not None:
    for index, response, reference in items:
      cpu = math.ceil(time.process_time() + setup["deadline"]) + 1
      resource.setrlimit(resource.RLIMIT_CPU, (cpu, resource.RLIM_INFINITY))
      signal.setitimer(signal.ITIMER_REAL, 2 * setup["deadline"])  # its default action is death
      line = _judge(score, response, reference, bad_format)
      signal.setitimer(signal.ITIMER_REAL, 0)
      send(index, *line)


if __name__ == "__main__":
  main()
