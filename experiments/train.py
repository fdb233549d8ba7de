"""Trains what a config describes, or goes on where it stopped.

  python -m experiments.train --config=configs/laser.py --workdir=runs/laser
  python -m experiments.train --config=configs/laser.py:smoke --workdir=runs/smoke
  python -m experiments.train --config=configs/laser.py --config.reward.alpha=0.2 --workdir=...
  python -m experiments.train --config=configs/simpo.py --workdir=runs/simpo  # on pairs

On several hosts, start the same command on each. A cluster that JAX knows (Cloud TPU, Slurm, Open
MPI, Kubernetes) needs only --multihost; elsewhere name --coordinator, --processes and --process.

CONFIG.md lists the fields of a config. An error is one line, and --traceback shows where it comes
from; --verbosity=0 shows what the libraries have to say.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys

import jax
from absl import flags

from experiments import command

FLAGS = flags.FLAGS


def main(_) -> None:
  print(f"{FLAGS.config.place} in {FLAGS.workdir}: loading", file=sys.stderr, flush=True)
  keep_programs()
  if FLAGS.deterministic:
    flags_ = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags_} --xla_gpu_deterministic_ops=true"
  if FLAGS.multihost or FLAGS.coordinator:
    join(FLAGS.coordinator, FLAGS.processes, FLAGS.process)

  from lcrl.training.loop import train  # after the start of jax.distributed

  method = pathlib.Path(FLAGS.config.place.partition(":")[0]).stem
  summary = train(FLAGS.config.to_dict(), FLAGS.workdir, method=method)
  if jax.process_index() == 0:
    print(json.dumps({key: summary[key] for key in ("accuracy", "tokens", "start")}))
    print(f"Results are in {FLAGS.workdir}")


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
  """Makes this one of several processes. `lcrl.training.peers` says within seconds if another one
  ends; JAX's own heartbeat, for when it cannot, takes less than a minute."""
  jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=40)


def keep_programs() -> None:
  """Compiled programs stay in the user's cache folder; JAX_COMPILATION_CACHE_DIR names another."""
  if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
    caches = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(caches / "lcrl" / "programs"))


if __name__ == "__main__":
  command.define_config(required=True)
  flags.DEFINE_string("workdir", None, "Folder of the run; made if absent.", required=True)
  flags.DEFINE_bool("multihost", False, "One of several processes of one run.")
  flags.DEFINE_string("coordinator", None, "host:port of the first process.")
  flags.DEFINE_integer("processes", None, "How many there are.")
  flags.DEFINE_integer("process", None, "Which of them this is, from 0.")
  flags.DEFINE_bool("deterministic", False, "Bit-equal resume on a GPU; slower.")
  command.run(main, "train")
