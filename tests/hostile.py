"""Scorers that misbehave, for verify_test.py. Workers import this file by name."""

import contextlib
import ctypes
import itertools
import os
import socket
import sys
import time

from lcrl.tasks.task import BadFormat

kept = []


def exact(response, reference):
  return float(response == reference)


def obeys(response, reference):
  """Does what the response says; otherwise compares."""
  if response.startswith("eval:"):
    return eval(response.removeprefix("eval:"), {"ctypes": ctypes, "os": os, "socket": socket})
  if response == "hostile":
    return float("jax" in sys.modules)
  acts = {
    "sleep": lambda: time.sleep(1e6),
    "spin": lambda: 9**9**9**9,
    "exit": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "grow": lambda: kept.extend(bytearray(1 << 24) for _ in itertools.count()),
    "raise": lambda: 1 / 0,
    "nan": lambda: float("nan"),
    "babble": babble,
    "no answer": bad_format,
  }
  return acts.get(response, lambda: exact(response, reference))()


def by_length(response, reference):
  """Hangs on long responses, dies on short ones."""
  if len(response) > 14:
    time.sleep(1e6)
  if len(response) < 7:
    os._exit(3)
  return exact(response, reference)


def bad_format():
  raise BadFormat("nothing there")


def babble():
  """Talks nonsense into every descriptor, the verifier's channel among them."""
  for fd in range(3, 32):
    with contextlib.suppress(OSError):
      os.write(fd, b"nonsense\n")
  time.sleep(1e6)


def evaluates(response, reference):
  """As careless a scorer as there is."""
  return float(eval(response) == reference)


def forge():
  """Claims through every descriptor, and by the function that sends, that all answers are right."""
  frame = sys._getframe()
  while frame:
    if send := frame.f_locals.get("send"):
      for name, *_ in frame.f_locals["items"]:
        send(name, "scored", 1.0, "")
    frame = frame.f_back
  for fd, n in itertools.product(range(3, 64), range(100)):
    with contextlib.suppress(OSError):
      os.write(fd, b'[%d, "scored", 1.0, ""]\n' % n)


def leave():
  """Leaves a process that belongs to no group or session of its parents."""
  libc = ctypes.CDLL(None)
  if libc.fork() == 0:
    libc.setsid()
    if libc.fork() == 0:
      libc.prctl(15, b"left-behind", 0, 0, 0)
      time.sleep(20)
    os._exit(0)


def end_parent():
  ctypes.CDLL(None).kill(os.getppid(), 9)


def spin():
  while True:
    pass
