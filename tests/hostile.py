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
