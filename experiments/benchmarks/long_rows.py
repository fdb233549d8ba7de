"""The update of one long row: seconds, MFU and memory at 16k and at 64k tokens, as a table.

python -m experiments.benchmarks.long_rows                              # 1.5 B, one H100
python -m experiments.benchmarks.long_rows --group=8 --asked=1024       # 8 responses to a prompt
python -m experiments.benchmarks.long_rows --lengths=65536 --runs=attention/triton/unroll \
    --tiles=forward:128x64x8x3,keys:64x64x4x2
python -m experiments.benchmarks.long_rows --tune                       # attention alone, by tiles
python -m experiments.benchmarks.long_rows --lengths=65536 --sequence=4 # each row on four GPUs
python -m experiments.benchmarks.long_rows --lengths=65536 --fsdp=4     # a whole row on each

A run is remat/attention/layers[/keep], as in `shapes.Update`. A row of a back end with segments is
packed; cuDNN takes it as it is. Every run is a process of its own, so that `peak_gib` is the run's,
and prints a JSON line as it ends; what does not fit is an error in its place. MFU as in `update`,
which counts attention once and nothing that is computed again. On several devices there are as many
rows as devices, of which a device takes one at a time, or its part of one.

--tune times both passes of the Triton kernels at these lengths, one tile changed at a time, beside
cuDNN: one row of one segment, then of segments of `--segment` tokens.
"""

import json
import subprocess
import sys
from typing import Any

from absl import app, flags

from experiments.benchmarks import attention, shapes, update
from lcrl.policies.attention import BACKENDS, triton

FLAGS = flags.FLAGS
RUNS = (
  "attention/triton/unroll",
  "attention/triton/unroll/keep",
  "dots/triton/unroll/keep",
  "full/triton/scan",
  "attention/cudnn/unroll",
  "attention/cudnn/unroll/keep",
  "dots/cudnn/unroll/keep",
)
SAME = (
  *("shape", "layers", "group", "asked", "dtype", "repeats", "entropy", "profile", "tiles"),
  *("fsdp", "sequence"),
)


def main(argv):
  del argv
  set_tiles(FLAGS.tiles)
  if FLAGS.tune:
    tune([int(length) for length in FLAGS.lengths])
    return
  results = []
  for length in map(int, FLAGS.lengths):
    for run in FLAGS.runs:
      results.append(measure(run, length) if FLAGS.here else in_a_process(run, length))
      print(json.dumps(results[-1]), flush=True)
  if not FLAGS.here or len(results) > 1:
    print(table(results))


def measure(run: str, length: int) -> dict[str, Any]:
  """One run, in this process."""
  remat, backend, layers, *keep = run.split("/")
  width = length if "segment ids" in BACKENDS[backend].supports else 0
  spelled = "/".join([remat, backend, str(FLAGS.sequence), str(width), layers, *keep])
  limit, devices = (length - FLAGS.asked) // FLAGS.group, FLAGS.fsdp * FLAGS.sequence
  work = shapes.Work(devices, FLAGS.group, FLAGS.asked, limit)
  mesh = {"fsdp": FLAGS.fsdp, "sequence": FLAGS.sequence, "devices": devices}
  fewer = {"layers": FLAGS.layers} if FLAGS.layers else {}
  config = shapes.config(FLAGS.shape, dtype=FLAGS.dtype, **fewer)
  result = shapes.machine() | {"shape": FLAGS.shape, "tokens": length, "run": run}
  result |= {"group": FLAGS.group, "asked": FLAGS.asked, "tiles": FLAGS.tiles, "mesh": mesh}
  try:
    return result | update.measure(spelled, work, config, mesh)
  except (RuntimeError, ValueError) as error:  # out of memory, or refused, is a result
    return result | shapes.failure(error)


def in_a_process(run: str, length: int) -> dict[str, Any]:
  """`measure` in a process of its own with the flags of this one."""
  same = filter(None, (FLAGS[name].serialize() for name in SAME))
  command = [sys.executable, "-m", "experiments.benchmarks.long_rows", "--here", *same]
  command += [f"--runs={run}", f"--lengths={length}"]
  done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
  lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
  if done.returncode or not lines:
    return {"tokens": length, "run": run, "error": f"the process ended with {done.returncode}"}
  return json.loads(lines[-1])


def table(results: list[dict[str, Any]]) -> str:
  """A row for each run."""
  head = "| tokens | run | seconds | MFU | peak GiB | first call, s |"
  lines = [head, "| --- | --- | --- | --- | --- | --- |"]
  for r in results:
    cells = [f"{r['tokens']:,}", r["run"]]
    if "error" in r:
      cells += [r["error"][:60], "", "", ""]
    else:
      mfu, peak = (r.get(name) for name in ("mfu", "peak_gib"))
      cells += [f"{r['seconds']:.4g}", "" if mfu is None else f"{mfu:.1%}"]
      cells += ["" if peak is None else f"{peak:.1f}", f"{r['first_s']:.1f}"]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def set_tiles(tiles: list[str]) -> None:
  """Changes tiles of the Triton kernels. "keys:64x64x4x2": own rows, others, warps, stages."""
  size = shapes.config(FLAGS.shape, dtype=FLAGS.dtype).head_dim
  for text in tiles:
    kernel, _, sizes = text.partition(":")
    tile = triton.Tile(*map(int, sizes.split("x")))
    triton.TUNED[size] = triton.TUNED[size]._replace(**{kernel: tile})  # type: ignore[arg-type]


def tune(lengths: list[int]) -> None:
  """Attention alone, a JSON line a program."""
  c = shapes.config(FLAGS.shape, dtype=FLAGS.dtype)
  sizes = c.heads, c.kv_heads, c.head_dim
  programs = attention.tiles(c.head_dim)
  print(json.dumps(shapes.machine()))
  for length in lengths:
    for mean in (None, FLAGS.segment):
      row = {"rows": 1, "length": length, "repeats": FLAGS.repeats}
      whole = attention.backends(["cudnn", "triton"] if mean is None else ["triton"])
      attention.speed(FLAGS.shape, sizes, mean, whole | programs, **row)


def define():
  """The flags of this program."""
  flags.DEFINE_list("lengths", ["16384", "65536"], "tokens of the row")
  flags.DEFINE_list("runs", [*RUNS], "what to measure")
  flags.DEFINE_string("shape", "qwen2.5-1.5b", "a model by name")
  flags.DEFINE_integer("layers", None, "fewer layers than the shape has")
  flags.DEFINE_integer("group", 1, "responses to one prompt in the row")
  flags.DEFINE_integer("asked", 256, "tokens of the prompt")
  flags.DEFINE_integer("fsdp", 1, "devices with rows of their own")
  flags.DEFINE_integer("sequence", 1, "devices that share each row")
  flags.DEFINE_string("dtype", "bfloat16", "of the computation")
  flags.DEFINE_integer("repeats", 5, "timed calls after those that warm up")
  flags.DEFINE_bool("entropy", False, "the entropy too, of the same forward pass")
  flags.DEFINE_bool("profile", False, "says where the time goes")
  flags.DEFINE_list(
    "tiles", [], "kernel:own x others x warps x stages, kernel as in triton.Settings"
  )
  flags.DEFINE_bool("tune", False, "attention alone, by tiles")
  flags.DEFINE_float("segment", 4096.0, "mean tokens of a segment where attention is timed packed")
  flags.DEFINE_bool("here", False, "in this process")


if __name__ == "__main__":
  define()
  app.run(main)
