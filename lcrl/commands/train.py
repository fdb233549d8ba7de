"""Trains the run of a config, or continues a stopped one.

  lcrl-train --config=configs/laser.py --workdir=runs/laser
  lcrl-train --config=configs/laser.py:d,smoke --workdir=runs/smoke
  lcrl-train --config=configs/laser.py --config.reward.alpha=0.2 --workdir=...
  lcrl-train --config=configs/simpo.py --workdir=runs/simpo  # on pairs
  lcrl-train --config=configs/laser.py --print_config  # every field; runs nothing
  lcrl-train --config=configs/laser.py --sweep --workdir=runs/sweep

--sweep runs the settings that the config's `sweep` declares, one after the other, each in a folder
of its own. The same command continues a stopped sweep. --print_sweep prints a command for
each setting instead.

On several hosts, start the same command on each. A cluster that JAX detects (Cloud TPU, Slurm, Open
MPI, Kubernetes) needs only --multihost; elsewhere set --coordinator, --processes and --process.

CONFIG.md lists the fields of a config. An error is one line, and --traceback shows its origin.
Messages of the libraries are hidden, and --verbosity=0 shows them.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

import jax
from absl import flags

from lcrl.commands import command, config_text

FLAGS = flags.FLAGS


def main(_) -> None:
  if FLAGS.print_config:
    print("\n".join(config_text.page(checked(FLAGS.config.to_dict()))))
    return
  if FLAGS.workdir is None:
    raise ValueError("--workdir must name the folder of the run.")
  from lcrl.training import remote
  from lcrl.training.host_copy import allow_pinned

  workdir = remote.parse(FLAGS.workdir)
  if FLAGS.print_sweep:
    from lcrl.commands import sweep

    print("\n".join(sweep.commands(FLAGS.config, workdir)))
    return
  print(f"{FLAGS.config.path} in {FLAGS.workdir}: loading", file=sys.stderr, flush=True)
  keep_programs()
  allow_pinned()
  if FLAGS.deterministic:
    flags_ = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags_} --xla_gpu_deterministic_ops=true"
  if FLAGS.multihost or FLAGS.coordinator:
    join(FLAGS.coordinator, FLAGS.processes, FLAGS.process)

  from lcrl.commands import sweep  # after the start of jax.distributed
  from lcrl.training.loop import train

  if FLAGS.sweep:
    sweep.run(FLAGS.config, workdir, train)
    return
  summary = train(FLAGS.config.to_dict(), workdir, method=FLAGS.config.name)
  if jax.process_index() == 0:
    print(json.dumps({key: summary[key] for key in ("accuracy", "tokens", "start")}))
    print(f"Results are in {workdir}")


def checked(config: dict[str, Any]) -> dict[str, Any]:
  """The config. Raises ValueError if it is invalid."""
  from lcrl.training import kinds

  kinds.kind(config).settings(config)
  return config


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
  """Joins the processes of one run. `lcrl.training.peers` notices within seconds that another one
  ended; JAX's heartbeat is the fallback and takes less than a minute."""
  jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=40)


def keep_programs() -> None:
  """Keeps compiled programs in the user's cache folder, or in JAX_COMPILATION_CACHE_DIR."""
  if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(caches / "lcrl" / "programs"))


if __name__ == "__main__":
  command.define_config(required=True)
  flags.DEFINE_string("workdir", None, "Folder of the run, or gs://...; made if absent.")
  flags.DEFINE_bool("print_config", False, "Print every field of the config, and run nothing.")
  flags.DEFINE_bool("sweep", False, "Run all settings of the config's sweep, one after the other.")
  flags.DEFINE_bool("print_sweep", False, "Print a command for each setting, and run nothing.")
  flags.DEFINE_bool("multihost", False, "One of several processes of one run.")
  flags.DEFINE_string("coordinator", None, "host:port of the first process.")
  flags.DEFINE_integer("processes", None, "Number of processes.")
  flags.DEFINE_integer("process", None, "Index of this process, from 0.")
  flags.DEFINE_bool("deterministic", False, "Bit-equal resume on a GPU; slower.")
  command.run(main, "train")
