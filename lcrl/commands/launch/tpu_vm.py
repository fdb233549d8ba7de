"""Runs lcrl-train on all workers of a TPU VM, and shows what they print.

lcrl-launch-tpu-vm --name=TPU --zone=ZONE --folder=lcrl \\
  -- --config=configs/laser.py:d --workdir=gs://BUCKET/runs/laser

Every worker has the repository in `folder` below the home folder, installed in its .venv with the
extra `train`, jax[tpu], fsspec and gcsfs. The run ends if the connection does, so start it where
that lasts. After a preemption, on a new TPU VM, the same command goes on with the run.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from typing import Any

from absl import flags

from lcrl.commands import command
from lcrl.commands.launch.training import training_command

FLAGS = flags.FLAGS


def ssh(given: Any, arguments: Sequence[str]) -> list[str]:
  """The command of gcloud. `given` has the flags."""
  train = training_command(arguments, python=".venv/bin/python", remote=True)
  remote = f"cd {shlex.quote(given.folder)} && {shlex.join(train)}"
  options = {"zone": given.zone, "project": given.project, "worker": "all", "command": remote}
  named = [f"--{name}={value}" for name, value in options.items() if value is not None]
  return ["gcloud", "compute", "tpus", "tpu-vm", "ssh", given.name, *named]


def main(argv: Sequence[str]) -> None:
  words = ssh(FLAGS, argv[1:])
  if FLAGS.print_command:
    print(shlex.join(words))
    return
  if shutil.which("gcloud") is None:
    raise ValueError("gcloud is not installed; --print_command shows what would run.")
  os.execvp(words[0], words)


if __name__ == "__main__":
  flags.DEFINE_string("name", None, "Name of the TPU VM.", required=True)
  flags.DEFINE_string("zone", None, "Its zone.", required=True)
  flags.DEFINE_string("project", None, "gcloud's default if not given.")
  flags.DEFINE_string("folder", None, "The repository on every worker.", required=True)
  flags.DEFINE_bool("print_command", False, "Print the command, and run nothing.")
  command.run(main, "tpu_vm")
