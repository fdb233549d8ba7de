"""What happens to runs, done to them on purpose; writes the table of experiments/studies/faults.md.

python -m tests.faults                 all, in half an hour; fails if anything was lost
python -m tests.faults --only=rl    one part, without the table
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from lcrl import evaluation
from tests.faults import PROGRAMS, damage, trials

DATA = pathlib.Path("experiments/studies/faults.json")
PARTS = (
  "rl",
  "preference",
  "sft",
  "iterative",
  "two",
  "one_of_two",
  "signals",
  "disks",
  "two_runs",
  "damages",
)
SAVING = ("training/checkpoint.py", "training/host_copy.py", "training/manifest.py")
NAMES = [
  "checkpoint",
  "host_copy",
  "loop",
  "manifest",
  "metrics",
  "phases",
  "rl",
  "run",
  "samples",
  "step",
]
ANYWHERE = tuple(f"training/{name}.py" for name in [*NAMES, "workdir"])
KILLS = {"rl": 14, "preference": 10, "sft": 10, "iterative": 10}
KILLS_OF_TWO = 8
A_TRIAL = 5  # kills, at most, before the run may come to its end


class Row(NamedTuple):
  fault: str
  times: int
  lost: list[str]  # what, of which trial


class Suite:
  def __init__(self, folder: pathlib.Path):
    self.folder, self.random = folder, random.Random(0)
    self.configs = trials.configs(folder / "rows.jsonl")
    self.whole: dict[str, pathlib.Path] = {}
    self.lines: dict[str, dict[str, int]] = {}
    self.seconds: dict[str, float] = {}

  def reference(self, kind: str) -> pathlib.Path:
    """A run that nothing happened to."""
    if kind not in self.whole:
      place, counted = self.folder / f"whole_{kind}", self.folder / f"{kind}.json"
      hook = trials.killed_at_line(0, ANYWHERE, counted)
      began = time.monotonic()
      trials.run_to_end(self.configs[kind], place, hook=hook)
      self.seconds[kind] = time.monotonic() - began
      self.whole[kind], self.lines[kind] = place, json.loads(counted.read_text())
    return self.whole[kind]

  def ends_alike(self, name: str, kind: str, place: pathlib.Path) -> list[str]:
    """Lets the run in a folder come to its end; what then differs from one that nothing stopped."""
    try:
      trials.run_to_end(self.configs[kind], place)
      return [f"{name}: {what}" for what in trials.differences(place, self.reference(kind))]
    except AssertionError as error:
      return [f"{name}: {error}"]

  def kills(self, kind: str) -> Iterator[Row]:
    if kind == "two":
      yield Row("SIGKILL at random times, rl in two processes", KILLS_OF_TWO, self._two_killed())
      return
    self.reference(kind)
    for how, share in (("at random lines", 0.4), ("during saves", 0.3), ("at random times", 0.3)):
      count = round(KILLS[kind] * share)
      yield Row(f"SIGKILL {how}, {kind}", count, self._killed(kind, how, count))

  def _killed(self, kind: str, how: str, wanted: int) -> list[str]:
    lost, done, trial = [], 0, 0
    while done < wanted:
      place, trial = self.folder / f"{kind}_{how}_{trial}".replace(" ", "_"), trial + 1
      for _ in range(min(A_TRIAL, wanted - done)):
        done += self._kill(kind, how, place)
      lost += self.ends_alike(f"{kind} {how} {trial}", kind, place)
    return lost

  def _kill(self, kind: str, how: str, place: pathlib.Path) -> bool:
    """Was the run killed before it came to its end?"""
    began = time.monotonic()
    if how == "at random times":
      child = trials.start(self.configs[kind], place)
      trials.after(self.random.uniform(0.1, 0.8) * self.seconds[kind], [child])
    else:
      files = SAVING if how == "during saves" else ANYWHERE
      named = [pathlib.Path(file).name for file in files]
      most = sum(n for name, n in self.lines[kind].items() if name in named)
      hook = trials.killed_at_line(self.random.randint(1, most // 2), files)
      child = trials.start(self.configs[kind], place, hook)
    killed = child.wait() == -signal.SIGKILL
    if not killed:  # the machine is faster than it was
      self.seconds[kind] = min(self.seconds[kind], time.monotonic() - began)
    return killed

  def _two(self) -> dict:
    return self.configs["rl"] | {"mesh": {"data": 2, "fsdp": 1}}

  def _two_whole(self) -> pathlib.Path:
    if "two" not in self.whole:
      self.whole["two"], began = self.folder / "whole_two", time.monotonic()
      trials.run_to_end(self._two(), self.whole["two"], 2)
      self.seconds["two"] = time.monotonic() - began
    return self.whole["two"]

  def _two_end(self, name: str, place: pathlib.Path) -> list[str]:
    try:
      trials.run_to_end(self._two(), place, 2)
      return [f"{name}: {what}" for what in trials.differences(place, self._two_whole())]
    except AssertionError as error:
      return [f"{name}: {error}"]

  def _two_killed(self) -> list[str]:
    self._two_whole()
    done, place = 0, self.folder / "two_killed"
    lost: list[str] = []
    while done < KILLS_OF_TWO:
      for _ in range(4):
        children = trials.start_two(self._two(), place)
        trials.after(self.random.uniform(0.2, 0.9) * self.seconds["two"], children)
        done += all(child.wait() == -signal.SIGKILL for child in children)
      lost += self._two_end(f"two killed, {done}", place)
      shutil.rmtree(place)
    return lost

  def one_of_two(self) -> Iterator[Row]:
    for victim in (1, 0):
      place = self.folder / f"one_of_two_{victim}"
      children = trials.start_two(self._two(), place)
      trials.until_line(place, children, 2)
      children[victim].kill()
      began, other = time.monotonic(), children[1 - victim]
      code = other.wait()
      spent, lost = time.monotonic() - began, []
      if code == 0 or spent > 60 or f"process {victim} of this run has ended" not in other.said():
        lost = [f"process {victim} died: code {code} after {spent:.0f} s: {other.said()[-800:]}"]
      name = f"process {victim} of two dies, the other one ends after {spent:.1f} s"
      yield Row(name, 1, lost + self._two_end(name, place))

  def signals(self) -> Iterator[Row]:
    for number in (signal.SIGTERM, signal.SIGINT):
      lost = []
      for kind in self.configs:
        place = self.folder / f"{number.name}_{kind}"
        child = trials.start(self.configs[kind], place)
        trials.until_line(place, [child], 1)
        child.kill(number)
        if child.wait() != 0 or not (place / "summary.json").exists():
          lost.append(f"{number.name} {kind}: {child.said()[-800:]}")
        lost += self.ends_alike(f"{number.name} {kind}", kind, place)
      yield Row(f"{number.name} in a step", len(self.configs), lost)
    for number in (signal.SIGTERM, signal.SIGINT):
      place = self.folder / f"twice_{number.name}"
      child = trials.start(self.configs["rl"], place, damage.endless_step)
      trials.until_line(place, [child], 1)
      time.sleep(1)
      child.kill(number)
      time.sleep(1)
      still, began = child.ended() is None, time.monotonic()
      child.kill(number)
      code, spent = child.wait(), time.monotonic() - began
      lost = [] if still and code == 128 + number and spent < 5 else [f"{code} after {spent:.0f} s"]
      name = f"{number.name} twice in a step that does not end"
      yield Row(name, 1, lost + self.ends_alike(name, "rl", place))

  def disks(self) -> Iterator[Row]:
    for name, hook, words in (
      (
        "full disk from the second checkpoint on",
        damage.full_disk,
        "could not save the checkpoint",
      ),
      ("read-only workdir", damage.nobody, "Permission denied"),
    ):
      place = self.folder / name.replace(" ", "_")
      if hook is damage.nobody:
        place.mkdir()
        place.chmod(0o555)
      child = trials.start(self.configs["rl"], place, hook)
      code, said = child.wait(), child.said()
      place.chmod(0o755)
      lost = [] if code == 1 and words in said else [f"{name}: code {code}: {said[-800:]}"]
      yield Row(name, 1, lost + self.ends_alike(name, "rl", place))

  def two_runs(self) -> Iterator[Row]:
    place = self.folder / "two_runs"
    first = trials.start(self.configs["rl"], place)
    trials.until_line(place, [first], 0)
    second = trials.start(self.configs["rl"], place)
    refused = second.wait() == 1 and f"in use by another run, process {first.pid}" in second.said()
    lost = [] if refused else [f"the second run: {second.said()[-800:]}"]
    if first.wait() != 0:
      lost.append(f"the first run: {first.said()[-800:]}")
    yield Row("two runs in one workdir", 1, lost + self.ends_alike("two runs", "rl", place))

  def damages(self) -> Iterator[Row]:
    whole = self.reference("rl")
    for what, times in (("flipped bit", 40), ("truncation", 30), ("deletion", 30)):
      lost = damage.harmed(whole, self.folder / "harmed", what, times, self.random)
      yield Row(f"{what} in the newest checkpoint", times, lost)
    lost = damage.both_harmed(whole, self.folder / "harmed", 10, self.random)
    yield Row("both checkpoints damaged: refused, the folder as it was", 10, lost)
    place = self.folder / "resumed"
    shutil.copytree(whole, place)
    damage.one_fault(place / "checkpoints" / str(trials.STEPS), "flipped bit", self.random)
    lost = self.ends_alike("run after damage", "rl", place)
    yield Row("a run goes on after a flipped bit in its newest checkpoint", 1, lost)
    shutil.rmtree(place / "checkpoints")
    before = (place / "metrics.jsonl").read_bytes()
    child = trials.start(self.configs["rl"], place)
    kept = child.wait() == 1 and "begin anew" in child.said()
    kept = kept and (place / "metrics.jsonl").read_bytes() == before
    lost = [] if kept else [child.said()[-800:]]
    yield Row("all checkpoints deleted: refused, the metrics as they were", 1, lost)


def write_table(part: str, rows: list[Row], seconds: float) -> None:
  """Renews the rows of a part in faults.json, and the table from all of them."""
  found = json.loads(DATA.read_text()) if DATA.exists() else {}
  origin = (
    f"CPU, {os.cpu_count()} cores, shared; commit {evaluation.commit()}; {seconds / 60:.0f} minutes"
  )
  found[part] = {"rows": [[row.fault, row.times, len(row.lost)] for row in rows], "origin": origin}
  evaluation.write_json(DATA, found)
  sections = [found[name] for name in PARTS if name in found]
  every = [row for section in sections for row in section["rows"]]
  kills = sum(times for fault, times, _ in every if fault.startswith("SIGKILL"))
  table = "\n".join(f"| {fault} | {times} | {lost} |" for fault, times, lost in every)
  origins = "\n".join(f"- `{name}`: {found[name]['origin']}" for name in PARTS if name in found)
  DATA.with_suffix(".md").write_text(
    f"""# Faults

What `make test-faults` does to tiny runs, and what was lost by it. Each run comes to its end
afterwards and is compared with one that nothing happened to: its training state bit for bit, every
line of metrics, evaluations, answers, samples and pairs but for clocks, the points that TensorBoard
shows, and the checkpoints that are kept. "Lost" counts every difference, and every fault that was
not refused or survived as it should have been. A run is killed up to {A_TRIAL} times before it may
come to its end; there are {kills} kills in all.

| fault | times | lost |
|---|---:|---:|
{table}

Each part can be run alone (`python -m tests.faults --only=rl`); these are from:

{origins}
"""
  )


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("--only", choices=PARTS)
  parser.add_argument("--keep", action="store_true", help="the folders of all trials")
  given = parser.parse_args()
  folder = pathlib.Path(tempfile.mkdtemp(prefix="faults_"))
  folder.chmod(0o755)
  trials.one_device()
  suite, lost = Suite(folder), False
  for part in [given.only] if given.only else PARTS:
    rows, began = [], time.monotonic()
    run: Callable[[], Iterator[Row]] = getattr(suite, part, partial(suite.kills, part))
    for row in run():
      rows.append(row)
      spent = time.monotonic() - began
      print(f"{spent:6.0f} s  {row.fault}: {row.times} times, lost {row.lost}", flush=True)
      write_table(part, rows, spent)
    lost |= any(row.lost for row in rows)
  if not given.keep:
    shutil.rmtree(folder)
    shutil.rmtree(PROGRAMS, ignore_errors=True)
  sys.exit(lost)


if __name__ == "__main__":
  main()
