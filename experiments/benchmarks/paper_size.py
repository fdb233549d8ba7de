"""What a paper's run costs: steps of LASER-D at its own size, on one to all GPUs of this host.

python -m experiments.benchmarks.paper_size --out=runs/paper_size.jsonl --deadline_seconds=570
python -m experiments.benchmarks.paper_size --out=runs/paper_size.jsonl --table

Random weights, bfloat16, prompts of 256 tokens, 8 rollouts of each, lengths replayed from a
log-normal as caps of the rows. Cases, of which every call runs those that `--out` lacks, and begins
none that would not end before the deadline:

  weak-N             a step of 16 prompts a GPU on N GPUs, limit 8,192, mean 2,000
  long-N, limit-N    weak-N with mean 4,500; with limit 16,384
  strong-N           128 prompts, as many as the paper's step has, on N GPUs, like weak-N
  two-processes-N    weak-N in two processes of N / 2 GPUs each
  tensor-N           weak-N with the heads of a row over two GPUs
  lora-8b-1          a step of 8 prompts of Qwen3's 8 B, adapters of rank 32, on one GPU
  qwen2.5-7b-N       a step of 8 prompts a GPU of that shape, all of it trained, on N GPUs
  sampling-pool-1    sampling alone: 512 rows, limit 8,192, mean 1,872, 256 slots that share 32 GiB
  sampling-limit-1   256 rows in as many slots, limit 16,384, mean 3,744, 40 GiB
  sampling-peer-1    256 rows of sampling-pool-1 at once, beside transformers' continuous batching

Cases of fewer GPUs than there are run side by side, each in processes of its own. A line of `--out`
is the case, its seconds, what the benchmark printed and the commit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags

from lcrl.evaluation import commit

FLAGS = flags.FLAGS
GPUS = (1, 2, 4, 8)
SHAPE = "r1-distill-qwen-1.5b"
ASKED = 256
STEP = ("step", "--recipe=d", "--warm=1", "--repeats=1", "--updates=2")
SAMPLING = ("sampling", "--heavy", "--nobatches", "--repeats=1", "--variants=triton")


class Case(NamedTuple):
  name: str
  gpus: int
  prompts: int
  expected: int  # seconds from start to end on an H200, rounded up
  flags: tuple[str, ...] = ()
  shape: str = SHAPE
  mean: int = 2000
  limit: int = 8192
  pool: int = 32  # GiB for keys
  samples: bool = False  # alone, without an update

  @property
  def command(self) -> list[str]:
    """At most 256 slots a GPU share the pool, which is smaller than full lengths would take."""
    sizes = f"--shape={self.shape}", f"--prompts={self.prompts}", f"--limit={self.limit}"
    slots = min(256, 8 * self.prompts // self.gpus)
    lengths = (
      f"--asked={ASKED}",
      f"--mean={self.mean}",
      f"--slots={slots}",
      f"--cache_gib={self.pool}",
    )
    row = ASKED + self.limit  # tokens; a device takes two short ones or one long one at once
    pieces = f"--micro_tokens={max(row, 16_896 // row * row)}"
    update = f"--update=attention/triton/1/{row}/unroll"
    how = SAMPLING if self.samples else (*STEP, pieces, update)
    return ["-m", f"experiments.benchmarks.{how[0]}", *sizes, *lengths, *how[1:], *self.flags]


def cases(gpus: int) -> Iterator[Case]:
  """All of the table that so many GPUs can run: first what runs side by side."""
  sizes = [n for n in GPUS if n <= gpus]
  alone: dict = {"shape": "qwen2.5-1.5b", "samples": True}
  yield Case("weak-1", 1, 16, 150)
  yield Case("sampling-limit-1", 1, 32, 130, limit=16_384, mean=3744, pool=40, **alone)
  peer = ("--peer=transformers", "--peer_timeout=180")
  yield Case("sampling-peer-1", 1, 32, 260, peer, mean=1872, **alone)
  yield Case("sampling-pool-1", 1, 64, 100, mean=1872, **alone)
  yield Case("lora-8b-1", 1, 8, 290, ("--lora_rank=32",), "qwen3-8b")
  for n in sizes[1:]:
    yield Case(f"weak-{n}", n, 16 * n, 150)
  if gpus > 1:
    each = gpus // 2
    two = ("--processes=2", f"--devices_each={each}")
    yield Case(f"two-processes-{gpus}", gpus, 16 * gpus, 170, two)
    yield Case(f"tensor-{gpus}", gpus, 16 * gpus, 170, (f"--mesh=fsdp={gpus // 2},tensor=2",))
  for n in sizes:
    yield Case(f"strong-{n}", n, 128, 120 + 400 // n)
  yield Case(f"long-{gpus}", gpus, 16 * gpus, 210, mean=4500)
  yield Case(f"limit-{gpus}", gpus, 16 * gpus, 230, limit=16_384, pool=40)
  if gpus >= 4:
    yield Case(f"qwen2.5-7b-{gpus}", gpus, 8 * gpus, 300, shape="qwen2.5-7b")


class Free:
  """The GPUs that no case uses."""

  def __init__(self, count: int):
    self._ids, self._changed = set(range(count)), threading.Condition()

  def take(self, count: int) -> list[int]:
    with self._changed:
      self._changed.wait_for(lambda: len(self._ids) >= count)
      return [self._ids.pop() for _ in range(count)]

  def give(self, ids: list[int]) -> None:
    with self._changed:
      self._ids.update(ids)
      self._changed.notify_all()


def run(case: Case, ids: list[int], seconds: float) -> dict[str, Any]:
  """What `step` prints on these GPUs, or its error."""
  begin = time.perf_counter()
  chosen = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(map(str, sorted(ids)))}
  command = [sys.executable, *case.command]
  try:
    done = subprocess.run(command, env=chosen, capture_output=True, text=True, timeout=seconds)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found = json.loads(lines[-1]) if lines else {"error": done.stderr[-1500:]}
  except subprocess.TimeoutExpired as error:
    said = error.stderr or b""
    text = said if isinstance(said, str) else said.decode(errors="replace")
    found = {"error": f"Not done after {seconds:.0f} s: {text[-500:]}"}
  wall = time.perf_counter() - begin
  return {"case": case.name, "wall_s": round(wall, 1), "commit": commit(), **found}


def measure(out: Path, waiting: list[Case], gpus: int, deadline: float) -> None:
  """Cases in order, side by side where GPUs are free, a line of `out` each as it ends."""
  begin, free, writing, started = time.perf_counter(), Free(gpus), threading.Lock(), []
  left = lambda: deadline - (time.perf_counter() - begin)

  def one(case: Case, ids: list[int]) -> None:
    try:
      found = run(case, ids, left())
    finally:
      free.give(ids)
    with writing, out.open("a") as file:
      file.write(json.dumps(found) + "\n")
      print(line(found), flush=True)

  for case in waiting:
    ids = free.take(case.gpus)
    if left() < case.expected:
      free.give(ids)
      print(f"{case.name} waits: {left():.0f} s are left of some {case.expected}", flush=True)
      continue
    started.append(threading.Thread(target=one, args=(case, ids)))
    started[-1].start()
  for thread in started:
    thread.join()


COLUMNS = {
  "step_s": "{:.1f} s",
  "sampled_s": "{:.1f} s",
  "shape_s": "{:.1f} s",
  "update_s": "{:.1f} s",
  "sampled_tokens_per_s": "{:,.0f}",
  "of_floor": "{:.1%}",
  "mfu": "{:.1%}",
  "peak_gib": "{:.1f} GiB",
}


def line(found: dict[str, Any]) -> str:
  """A row of the table; of a benchmark that compares variants, of its only one."""
  found = {**found, **(found.get("own") or {})}
  for variant in found.get("variants", {}).values():
    own = variant.get("slots", variant)
    names = {"sampled_s": "seconds", "sampled_tokens_per_s": "tokens_per_s"}
    found |= own | {name: own[other] for name, other in names.items() if other in own}
  if "error" in found:
    return f"| {found['case']} | {found['error'][-300:]!r} |"
  cells = [form.format(found[key]) if found.get(key) else "-" for key, form in COLUMNS.items()]
  return f"| {found['case']} | {' | '.join(cells)} |"


def read(out: Path) -> list[dict[str, Any]]:
  return [json.loads(text) for text in out.read_text().splitlines()] if out.exists() else []


def main(_) -> None:
  out = Path(FLAGS.out)
  done = read(out)
  if FLAGS.table:
    print(f"| case | {' | '.join(COLUMNS)} |", "|" + "---|" * (1 + len(COLUMNS)), sep="\n")
    print(*map(line, done), sep="\n")
    return
  out.parent.mkdir(parents=True, exist_ok=True)
  complete = {found["case"] for found in done if "error" not in found}
  waiting = [c for c in cases(FLAGS.gpus) if c.name not in complete]
  if FLAGS.cases:
    waiting = [c for c in waiting if c.name in FLAGS.cases]
  measure(out, waiting, FLAGS.gpus, FLAGS.deadline_seconds)


if __name__ == "__main__":
  flags.DEFINE_string("out", "runs/paper_size.jsonl", "File of the results; cases in it are done.")
  flags.DEFINE_integer("gpus", 1, "How many this host has.", lower_bound=1)
  flags.DEFINE_list("cases", [], "Which; all if empty.")
  flags.DEFINE_float("deadline_seconds", 570, "Begins no case that would not end by then.")
  flags.DEFINE_bool("table", False, "Prints the results of --out as a table, and measures nothing.")
  app.run(main)
