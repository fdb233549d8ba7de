"""A benchmark in several processes on this host, each with devices of its own.

The command with `--processes` starts itself so many times; the first of these processes prints the
results. On GPUs each process gets the next `--devices_each` of the visible ones.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

from absl import flags

from lcrl.commands.train import join
from lcrl.training.peers import watched_peers

FLAGS = flags.FLAGS


def define() -> None:
  """The flags of this module."""
  flags.DEFINE_integer("processes", 1, "of this host that share the work")
  flags.DEFINE_integer("devices_each", 1, "GPUs of a process, where there are several processes")
  flags.DEFINE_string("coordinator", None, "host:port of the first process; set by the launcher")
  flags.DEFINE_integer("process", None, "which of them this is; set by the launcher")


def launches() -> bool:
  """Whether this process starts the others and measures nothing."""
  return FLAGS.processes > 1 and FLAGS.process is None


def launch(module: str) -> None:
  """Runs `module` with the same flags in `--processes` processes.

  Raises:
    SystemExit: one of them has failed; the others are ended.
  """
  if FLAGS["peer"].value is not None:
    raise ValueError("--peer measures in one process: it cannot be combined with --processes.")
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  given = [flag.serialize() for flag in (FLAGS[name] for name in FLAGS) if flag.present]
  started = []
  for i in range(FLAGS.processes):
    devices = range(i * FLAGS.devices_each, (i + 1) * FLAGS.devices_each)
    command = [sys.executable, "-m", module, *given, f"--coordinator={address}", f"--process={i}"]
    environment = os.environ | {"JAX_LOCAL_DEVICE_IDS": ",".join(map(str, devices))}
    out = subprocess.DEVNULL if i else subprocess.PIPE
    started.append(subprocess.Popen(command, env=environment, stdout=out, text=True))
  try:
    for line in started[0].stdout or ():  # results, and what libraries say
      print(line, end="", flush=True, file=sys.stdout if line[0] == "{" else sys.stderr)
    codes = [process.wait() for process in started]
  finally:
    for process in started:
      process.kill()
  if any(codes):
    raise SystemExit(f"the processes have ended with the codes {codes}.")


@contextlib.contextmanager
def joined() -> Iterator[None]:
  """Inside, this is one of the processes that the launcher has started, if it has started any."""
  if FLAGS.process is None:
    yield
    return
  join(FLAGS.coordinator, FLAGS.processes, FLAGS.process)
  with watched_peers():
    yield
