"""Writes a script for SLURM: a process for each GPU, stopped in time, started again when preempted.

lcrl-launch-slurm --name=laser --nodes=2 --gpus=8 --time=24:00:00 \\
  -- --config=configs/laser.py:d --workdir=/shared/runs/laser > laser.sbatch
sbatch laser.sbatch

The nodes share the folder of the repository, its environment and the workdir (or that is on gs://).
Five minutes before the time ends, SLURM asks the run to stop; it finishes its step and saves. Then,
or after any fault, the same sbatch goes on with the run.
"""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from lcrl.commands import command
from lcrl.commands.launch.training import training_command

FLAGS = flags.FLAGS
NOTICE = 300  # seconds between the request to stop and the end


def script(given: Any, arguments: Sequence[str]) -> str:
  """The text of the script. `given` has the flags."""
  if min(given.nodes, given.gpus, given.cpus) < 1:
    raise ValueError("nodes, gpus and cpus must be at least 1.")
  options = {
    "job-name": given.name,
    "nodes": given.nodes,
    # JAX gives the n-th task of a node its n-th GPU, which every task must be able to see.
    "ntasks-per-node": given.gpus,
    "gpus-per-node": given.gpus,
    "cpus-per-task": given.cpus,
    "time": given.time,
    "partition": given.partition,
    "account": given.account,
    "signal": f"TERM@{NOTICE}",
    "output": f"{given.name}.%j.log",
    "open-mode": "append",
  }
  lines = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
  train = shlex.join(training_command(arguments, python=given.python))
  folder = shlex.quote(str(pathlib.Path(given.folder).resolve()))
  body = ["set -euo pipefail", f"cd {folder}", f"srun --kill-on-bad-exit=1 {train}"]
  return "\n".join(["#!/bin/bash", *lines, "#SBATCH --requeue", "", *body]) + "\n"


def main(argv: Sequence[str]) -> None:
  print(script(FLAGS, argv[1:]), end="")


if __name__ == "__main__":
  flags.DEFINE_string("name", None, "Name of the job.", required=True)
  flags.DEFINE_integer("nodes", None, "Machines.", required=True)
  flags.DEFINE_integer("gpus", None, "GPUs of each.", required=True)
  flags.DEFINE_string("time", None, "Limit, such as 24:00:00.", required=True)
  flags.DEFINE_integer("cpus", 8, "Processor cores for each GPU.")
  flags.DEFINE_string("partition", None, "The cluster's default if not given.")
  flags.DEFINE_string("account", None, "The user's default if not given.")
  flags.DEFINE_string("folder", ".", "The repository, as all nodes see it.")
  flags.DEFINE_string("python", sys.executable, "The interpreter, as all nodes see it.")
  command.run(main, "slurm")
