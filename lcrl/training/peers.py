"""Processes of one run notice within seconds when one of them ends.

JAX notices by heartbeats that fail to come, after a minute or more, with pages of gRPC text, and a
process that waits for another inside a program hears nothing before. Here each holds a connection
to the first one, which the system closes when a process ends, however it does.
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
  """Inside, this process ends with one sentence soon after another one of the run has ended."""
  if jax.process_count() == 1:
    yield
    return
  links = connect()
  leaving = threading.Event()
  threading.Thread(target=_watch, args=(links, leaving), name="peers", daemon=True).start()
  try:
    yield
  except BaseException:
    # Another one's end raises errors of any type inside of programs and saves: if it is that, the
    # thread says so meanwhile and ends the process.
    time.sleep(2 * GRACE)
    leaving.set()
    raise
  else:
    leaving.set()
    for link in links.values():
      with contextlib.suppress(OSError):
        link.sendall(bytes([BYE]))


def connect() -> dict[int, socket.socket]:
  """Process -> a connection: the first one has one to each, the others have one to the first."""
  from jax.experimental import multihost_utils

  first = jax.process_index() == 0
  listening = socket.create_server(("", 0)) if first else None
  port = listening.getsockname()[1] if listening else 0
  own = socket.inet_aton(own_address()) + port.to_bytes(2, "big") + secrets.token_bytes(16)
  of_first = multihost_utils.broadcast_one_to_all(np.frombuffer(own, np.uint8))
  told = np.asarray(of_first, np.uint8).tobytes()
  address, key = (socket.inet_ntoa(told[:4]), int.from_bytes(told[4:6], "big")), told[6:]
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
      said = link.recv(len(key) + 4, socket.MSG_WAITALL)
      if said[: len(key)] == key:
        links[int.from_bytes(said[len(key) :], "big")] = _kept_alive(link)
  return links


def own_address() -> str:
  """The address of this host towards the others; nothing is sent."""
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
      probe.connect(("192.0.2.1", 9))  # a documentation address
      return probe.getsockname()[0]
    except OSError:  # no network
      return "127.0.0.1"


def _kept_alive(link: socket.socket) -> socket.socket:
  """Notices, too, within half a minute that the other host is gone."""
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
  # JAX ends this process within a tenth of a second of the first one's end, with pages of text and
  # no word that helps: there is no time to wait then.
  if not (leaving.wait(GRACE) if process else leaving.is_set()):
    text = f"process {process} of this run has ended, so process {jax.process_index()} ends, too; "
    text += "the same command on all hosts goes on from the last checkpoint."
    print(text, file=sys.stderr, flush=True)
    os._exit(1)
