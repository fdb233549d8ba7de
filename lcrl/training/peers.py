"""The processes of a run notice within seconds when one of them ends.

JAX notices by missing heartbeats, after a minute or more, and prints pages of gRPC text. Until then
a process that waits for another inside a program hears nothing. Here each process is connected to
the first one. The system closes the connection when a process ends, in whatever way.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

GRACE = 1.0  # seconds in which a process may end by an error of its own
PATIENCE = 60.0  # seconds for all to connect
BYE = 255


@contextlib.contextmanager
def watched_peers() -> Iterator[None]:
  """Inside, this process ends with one sentence soon after another process of the run has ended."""
  if jax.process_count() == 1:
    yield
    return
  links = connect()
  leaving = threading.Event()
  threading.Thread(target=_watch, args=(links, leaving), name="peers", daemon=True).start()
  try:
    yield
  except BaseException:
    # The end of another process can raise an error of any type inside a program or a save. In that
    # case the thread explains it during this wait and ends the process.
    time.sleep(2 * GRACE)
    leaving.set()
    raise
  else:
    leaving.set()
    for link in links.values():
      with contextlib.suppress(OSError):
        link.sendall(bytes([BYE]))


def connect() -> dict[int, socket.socket]:
  """Process -> connection. The first process has one to each other, the others one to the first."""
  from jax.experimental import multihost_utils

  first = jax.process_index() == 0
  listening = socket.create_server(("", 0)) if first else None
  port = listening.getsockname()[1] if listening else 0
  invitation = socket.inet_aton(own_address()) + port.to_bytes(2, "big") + secrets.token_bytes(16)
  of_first = multihost_utils.broadcast_one_to_all(np.frombuffer(invitation, np.uint8))
  received = np.asarray(of_first, np.uint8).tobytes()
  address, key = (
    (socket.inet_ntoa(received[:4]), int.from_bytes(received[4:6], "big")),
    received[6:],
  )
  if listening is None:
    link = socket.create_connection(address, timeout=PATIENCE)
    link.sendall(key + jax.process_index().to_bytes(4, "big"))
    return {0: _kept_alive(link)}
  links: dict[int, socket.socket] = {}
  with listening:
    listening.settimeout(PATIENCE)
    while len(links) < jax.process_count() - 1:
      link, _ = listening.accept()
      link.settimeout(PATIENCE)
      greeting = link.recv(len(key) + 4, socket.MSG_WAITALL)
      # Without the random key any program that finds the open port could pass for a process.
      if greeting[: len(key)] == key:
        links[int.from_bytes(greeting[len(key) :], "big")] = _kept_alive(link)
  return links


def own_address() -> str:
  """The address of this host towards the others; sends nothing."""
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
      probe.connect(("192.0.2.1", 9))  # a documentation address
      return probe.getsockname()[0]
    except OSError:  # no network
      return "127.0.0.1"


def _kept_alive(link: socket.socket) -> socket.socket:
  """Lets the system notice within half a minute that the other host is gone."""
  link.settimeout(None)
  link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
  for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
    if hasattr(socket, name):
      link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
  return link


def _watch(links: dict[int, socket.socket], leaving: threading.Event) -> None:
  with selectors.DefaultSelector() as waiting:
    for process, link in links.items():
      waiting.register(link, selectors.EVENT_READ, process)
    while waiting.get_map():
      for key, _ in waiting.select():
        if not _said_bye(key.fileobj):
          _end(key.data, leaving)
        waiting.unregister(key.fileobj)


def _said_bye(link: Any) -> bool:
  try:
    return link.recv(1) == bytes([BYE])
  except OSError:
    return False


def _end(process: int, leaving: threading.Event) -> None:
  # When the first process ends, JAX ends this one within a tenth of a second, with pages of text
  # that do not help. Then there is no time to wait.
  if not (leaving.wait(GRACE) if process else leaving.is_set()):
    text = f"process {process} of this run has ended, so process {jax.process_index()} ends, too; "
    text += "the same command on all hosts goes on from the last checkpoint."
    print(text, file=sys.stderr, flush=True)
    os._exit(1)
