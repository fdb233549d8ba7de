"""Runs and programs in two processes of one device each, or of several."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent


def free_address():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    return f"localhost:{free.getsockname()[1]}"


def start_two(command, devices=1):
  """Starts `command(address, process)` as two processes of some devices each."""
  address = free_address()
  flags = os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}")
  return [
    subprocess.Popen(
      [sys.executable, *command(address, process)],
      cwd=REPOSITORY,
      env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for process in range(2)
  ]


def run_two(command, devices=1):
  """What two processes that succeed have said."""
  runs = start_two(command, devices)
  try:
    said = [run.communicate(timeout=400)[0] for run in runs]
  finally:
    for run in runs:
      run.kill()
  assert [run.returncode for run in runs] == [0, 0], "\n".join(said)
  return said


def train_in_two(jobs):
  """Trains `jobs` one after the other in two processes. Gives, for each process and job, the record
  of `tests.helpers.train_jobs`."""
  command = ["-m", "tests.helpers.train_jobs"]
  said = run_two(lambda address, process: [*command, address, str(process), json.dumps(jobs)])
  return [
    [json.loads(x) for x in text.splitlines() if x.startswith('{"prefetched"')] for text in said
  ]
