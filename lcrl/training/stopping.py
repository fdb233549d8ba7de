"""Ctrl-C and SIGTERM: the first one asks a run to stop, the second one ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
  """Inside, the first signal only sets the event.

  A thread counts the signals. Python runs its handlers between two instructions of the main thread,
  which may be waiting for a step that does not end.
  """
  asked = threading.Event()
  reading, writing = os.pipe()
  os.set_blocking(writing, False)

  def count() -> None:
    first = True
    while number := os.read(reading, 1):
      if number[0] not in SIGNALS:
        continue
      name = signal.Signals(number[0]).name
      if not first:
        print(f"{name}: the run ends at once.", file=sys.stderr, flush=True)
        os._exit(128 + number[0])
      first = False
      print(
        f"{name}: the run stops after this step and saves; another one ends it at once.",
        file=sys.stderr,
        flush=True,
      )
    os.close(reading)

  threading.Thread(target=count, name="signals", daemon=True).start()
  handlers = {sig: signal.signal(sig, lambda *_: asked.set()) for sig in SIGNALS}
  previous_fd = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  try:
    yield asked
  finally:
    signal.set_wakeup_fd(previous_fd)
    for sig, handler in handlers.items():
      signal.signal(sig, handler or signal.SIG_DFL)
    os.close(writing)
