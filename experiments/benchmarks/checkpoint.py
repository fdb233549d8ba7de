"""How long saving a checkpoint holds a run up, and how long until the checkpoint is valid.

python -m experiments.benchmarks.checkpoint --gb=20 --folder=runs/checkpoint_benchmark

The state is parameters and two moments in float32, sharded over all devices. Seconds of each save:

  blocked    `save` itself, and what a step that is donated the state then takes longer than usual
  durable    from the call of `save` until the manifest is on the disk
  checksums  the part of it in which files are forced to the disk and hashed
  verify     hashing the checkpoint again, as a restore does first; the files are in memory

`reserve_s` is the allocation of pinned memory, which a run does once behind its first step.
`disk_s` is what one file of the same size takes, written and forced to the disk. Prints a JSON line
a save, one with all, and a table on standard error.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from absl import app, flags, logging
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.benchmarks.shapes import machine
from lcrl.mesh import make_mesh
from lcrl.training import checkpoint
from lcrl.training.host_copy import allow_pinned, reserve

FLAGS = flags.FLAGS
WIDTH = 1536  # of a row of parameters
ROWS = 128 * 1024  # of a large array, such as an embedding


def main(argv):
  del argv
  logging.set_verbosity(logging.WARNING)  # Orbax tells of every step of a save
  allow_pinned()
  folder = pathlib.Path(FLAGS.folder)
  if folder.exists():
    raise ValueError(f"--folder={folder} exists; the benchmark deletes its folder at the end.")
  folder.mkdir(parents=True)
  try:
    measure(folder)
  finally:
    shutil.rmtree(folder)


def measure(folder: pathlib.Path) -> None:
  state = jax.block_until_ready(make_state(FLAGS.gb))
  size = sum(x.nbytes for x in jax.tree.leaves(state)) / 1e9
  plain = []
  for _ in range(4):
    state, seconds = timed(take_step, state)
    plain.append(seconds)
  usual = statistics.median(plain[1:])  # the first one compiles
  rows: list[dict[str, Any]] = []
  with contextlib.closing(checkpoint.Checkpoints(folder / "checkpoints", keep=1)) as checkpoints:
    _, reserving = timed(reserve, state)
    for number in range(1, FLAGS.saves + 1):
      state, row = measure_save(number, state, usual, checkpoints)
      fault, verifying = timed(checkpoint.verify, folder / "checkpoints" / str(number))
      if fault is not None:
        raise ValueError(fault)
      rows.append(row | {"verify_s": verifying})
      print(json.dumps(rows[-1]), flush=True)
  _, disk = timed(write_one_file, folder / "file", int(size * 1e9))
  print(
    json.dumps(
      {
        **machine(),
        "gb": size,
        "step_s": usual,
        "reserve_s": reserving,
        "disk_s": disk,
        "saves": rows,
      }
    )
  )
  print(f"{table(rows, size, disk)}\n\nreserve: {reserving:.2f} s", file=sys.stderr)


def measure_save(number: int, state: Any, usual: float, checkpoints) -> tuple[Any, dict[str, Any]]:
  """The state a step later, and the seconds of its save; `usual` are those of a step."""
  hashing, write_manifest = [], checkpoint.write_manifest

  def write_and_time(*args):
    hashing.append(timed(write_manifest, *args)[1])

  begin = time.perf_counter()
  with mock.patch.object(checkpoint, "write_manifest", write_and_time):
    _, called = timed(checkpoints.save, number, state)
    state, after = timed(take_step, state)
    checkpoints.wait()
  durable = time.perf_counter() - begin
  blocked = called + max(after - usual, 0.0)
  seconds = {"blocked_s": blocked, "save_s": called, "durable_s": durable}
  return state, {"save": number, **seconds, "checksums_s": hashing[0]}


def make_state(gb: float) -> dict[str, Any]:
  """Random parameters, and moments of their shapes, of `gb` GB (1e9 bytes) in all."""
  sharding = NamedSharding(make_mesh(), P("fsdp"))
  left, shapes = int(gb * 1e9 / 3 / 4 / WIDTH), []
  while left > 0:
    rows = min(ROWS, max(left, 1))
    shapes.append((-(-rows // jax.device_count()) * jax.device_count(), WIDTH))
    left -= rows

  @functools.partial(jax.jit, out_shardings=sharding)
  def make():
    keys = (jax.random.fold_in(jax.random.key(0), i) for i in range(len(shapes)))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]

  return {name: make() for name in ("params", "first", "second")}


@functools.partial(jax.jit, donate_argnums=0)
def take_step(state):
  return jax.tree.map(lambda x: x * jnp.float32(0.999), state)


def timed(call: Callable, *args: Any) -> tuple[Any, float]:
  """What `call` returns, once it is computed, and the seconds until then."""
  begin = time.perf_counter()
  result = jax.block_until_ready(call(*args))
  return result, time.perf_counter() - begin


def write_one_file(path: pathlib.Path, size: int) -> None:
  block = os.urandom(1 << 20) * 64
  with path.open("wb", buffering=0) as file:
    for _ in range(-(-size // len(block))):
      file.write(block)
    os.fsync(file.fileno())


def table(rows: list[dict[str, float]], gb: float, disk: float) -> str:
  names = [name for name in rows[0] if name.endswith("_s")]
  head = f"| {gb:.2f} GB | " + " | ".join(name[:-2] for name in names) + " | one file |"
  lines = [head, "|---|" + "---:|" * (len(names) + 1)]
  for row in rows:
    cells = " | ".join(f"{row[name]:.2f} s" for name in names)
    lines.append(f"| save {row['save']:.0f} | {cells} | {disk:.2f} s |")
  return "\n".join(lines)


def define() -> None:
  flags.DEFINE_float("gb", 20.0, "GB (1e9 bytes) of the whole state.")
  flags.DEFINE_integer("saves", 3, "How many are measured.")
  flags.DEFINE_string("folder", "runs/checkpoint_benchmark", "On the disk to measure; deleted.")


if __name__ == "__main__":
  define()
  app.run(main)
