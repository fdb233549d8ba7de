"""What a run leaves in its folder: config, metrics, evaluations, summary, report."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import pathlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from lcrl import evaluation, hosts
from lcrl.evaluation.progress import to_stderr
from lcrl.evaluation.report import write_report
from lcrl.training import resume
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.metrics import Writer, drop_after, json_line, read_lines
from lcrl.training.remote import origin, publish
from lcrl.training.run import Evaluation
from lcrl.training.sections import Checkpoint, Log, section
from lcrl.training.trackers import Tracker, library


class Workdir:
  """The folder of a run. Its constructor runs before anything is compiled, so that it refuses the
  folder of another run at once.

  Only the first process writes here. Checkpoints are the exception: every process writes its share.
  """

  def __init__(self, path: pathlib.Path, config: Mapping[str, Any], method: str | None = None):
    self.path, self.writes, self.method = path, jax.process_index() == 0, method
    self._bar: Progress | None = None
    self._trackers: list[Tracker] = []
    self.config = json.loads(json.dumps(config))
    self._log = section(Log, self.config.get("log") or {}, "log")
    for name in self._log.trackers:
      library(name)
    recorded_config = recorded(path)
    self._every = max(_every(config) for config in (recorded_config or {}, self.config))
    if recorded_config is not None:
      resume.check_config(origin(path), recorded_config, self.config)
      self.method = method or _recorded_field(path, "method")
    # An old config.json stays as it is until `open` knows that the run resumes.
    self._may_write_config = recorded_config is None
    self.started = read_start(path) or _now()
    self._notes: dict[str, Any] = {"started": self.started.isoformat(timespec="seconds")}
    if self.writes:
      path.mkdir(parents=True, exist_ok=True)
      for partial in path.glob(".*.json.*"):  # left by a process that was killed while writing
        partial.unlink()
      self.describe()

  def describe(self, **notes: Any) -> None:
    """Writes config.json: the config, `notes` (such as docstrings of rewards) and earlier notes."""
    self._notes |= notes
    if self.writes and self._may_write_config:
      method = {} if self.method is None else {"method": self.method}
      evaluation.write_json(
        self.path / "config.json", {"config": self.config, **method, **self._notes}
      )

  def saved(self, step: int) -> None:
    """Records that the checkpoint of `step` is valid, so that a later start notices its loss."""
    evaluation.write_json(self.path / "saved.json", {"step": step})
    publish(self.path / "saved.json")

  def _check(self, restored: int | None, last: int) -> str:
    """A line on how the run starts. Raises ValueError if the folder has lost its checkpoints."""
    saved, history = last_saved(self.path), self.path / "metrics.jsonl"
    if restored is None and (lost := self._lost(saved)):
      raise ValueError(
        f"{origin(self.path)} holds a run that {lost}, and no checkpoint is there. To begin anew, "
        "name another workdir or delete this one; nothing in it was changed."
      )
    if restored is None:
      return "no checkpoint was saved so far: the run begins anew" if history.exists() else ""
    if restored > last:
      raise ValueError(
        f"{origin(self.path)} holds a run that has taken {restored} steps: train.steps={last} is "
        "fewer."
      )
    if not history.exists() and self.writes:
      logging.warning("%s is gone: the numbers up to step %d are missing.", history, restored)
    if saved is not None and restored < saved:
      logging.warning("the checkpoint of step %d is gone or damaged.", saved)
    return f"going on from step {restored} of {last}"

  def _lost(self, saved: int | None) -> str:
    """The evidence that a checkpoint existed, in words; empty if there is none."""
    if saved is not None:
      return f"saved a checkpoint at step {saved}"
    if (self.path / "summary.json").exists():
      return "ended with a summary"
    # An older version kept no saved.json. A save waits for the one before, and the line of the last
    # step is written before that step is saved: of the steps before the last one, only the newest
    # that was due may be unfinished, if the process was killed.
    rows = list(read_lines(self.path / "metrics.jsonl"))
    skipped = {row["step"] for row in rows if row.get("skipped_updates")}  # these save nothing
    done = max((row["step"] for row in rows), default=0)
    due = set(range(self._every, done, self._every)) - skipped
    return f"took {done} steps, saving every {self._every}" if len(due) >= 2 else ""

  @contextlib.contextmanager
  def open(self, restored: int | None, last: int) -> Iterator[None]:
    """Opens the metrics for the steps after `restored`, and drops lines of later steps.

    Raises:
      ValueError: the folder has lost its checkpoints, and the run would silently start again.
    """
    start_line = self._check(restored, last)
    self._may_write_config = True
    self.describe()
    kept = -1 if restored is None else restored  # a run that begins anew writes step 0 again
    self._evaluations, self._answers = (
      self.path / f"{x}.jsonl" for x in ("evaluations", "answers")
    )
    with contextlib.ExitStack() as stack:
      if self.writes:
        drop_after(self._evaluations, kept)
        drop_after(self._answers, kept)
        events = "tensorboard" in self._log.to
        writer = Writer(self.path, step=kept, events=events)
        self._metrics = stack.enter_context(contextlib.closing(writer))
        for name in self._log.trackers:
          tracker = Tracker(name, self.path, self._log, self.config)
          self._trackers.append(stack.enter_context(contextlib.closing(tracker)))
        self._bar = stack.enter_context(Progress(restored or 0, last))
        if start_line:
          self.note(start_line)
        publish(self.path)  # config.json, and the files without the lines that were dropped
      yield

  def note(self, text: str) -> None:
    """Shows a few lines on the terminal."""
    if self.writes:
      to_stderr(text) if self._bar is None else self._bar.write(text)

  def learned(self, step: int, numbers: Mapping[str, float], line: str) -> None:
    """Writes the metrics of one step, and shows its line."""
    if self.writes:
      self._write(step, numbers)
      assert self._bar is not None
      self._bar.step(step, line)

  def evaluated(self, step: int, result: Evaluation) -> None:
    if not self.writes:
      return
    for path, rows in (
      (self._evaluations, [result.record]),
      (self._answers, result.answers),
    ):
      if rows:
        with path.open("a") as file:
          file.writelines(json_line({"step": step, **row}) for row in rows)
    self._write(step, result.numbers)
    for tracker in self._trackers:
      tracker.table(step, result.answers[: self._log.samples])
    self.flush()
    self.note(f"evaluation at step {step}: {result.line}")

  def _write(self, step: int, numbers: Mapping[str, float]) -> None:
    self._metrics.write(step, numbers)
    for tracker in self._trackers:
      tracker.write(step, numbers)

  def flush(self) -> None:
    """Forces all metrics to the disk. A checkpoint needs the lines up to its step there."""
    if self.writes:
      self._metrics.flush()
      publish(self.path)

  def evaluations(self) -> list[dict[str, Any]]:
    """All evaluations so far, the oldest first."""
    return list(read_lines(self._evaluations))

  def steps(self) -> list[dict[str, Any]]:
    """The metrics of all steps so far."""
    return [line for line in read_lines(self.path / "metrics.jsonl") if "time/step" in line]

  def report(
    self, summary: dict[str, Any], *, title: str | None = None, sections: Sequence[str] = ()
  ) -> None:
    """summary.json, and report.md with the curves of all steps and more sections."""
    evaluation.write_json(self.path / "summary.json", json.loads(json_line(summary)))
    steps, name = self.steps(), summary["method"]
    write_report(
      self.path,
      {name: summary},
      title=f"{title or name}, {len(steps)} steps",
      command=typed(sys.orig_argv),
      training=(steps, self.evaluations()),
      sections=[*sections, *self._ends()],
    )

  def _ends(self) -> list[str]:
    """A section of the report: the tokens that end an answer, and the source of each."""
    ends = self._notes.get("ends", {})
    lines = [f"- `{token}`: {source}" for token, source in ends.items()]
    return ["## Ends of an answer", "\n".join(lines)] if lines else []


def _every(config: Mapping[str, Any]) -> int:
  """Steps from one checkpoint to the next."""
  return int((config.get("checkpoint") or {}).get("every", Checkpoint.every))


def read_start(workdir: pathlib.Path) -> datetime.datetime | None:
  """The time at which the run of a folder first started; its chat template writes this time."""
  try:
    return datetime.datetime.fromisoformat(_recorded_field(workdir, "started"))
  except (TypeError, ValueError):
    return None


def _recorded_field(workdir: pathlib.Path, name: str) -> Any:
  """A field of config.json beside the config; None if it is absent."""
  try:
    return json.loads((workdir / "config.json").read_text(encoding="utf-8")).get(name)
  except (OSError, ValueError, AttributeError, RecursionError):
    return None


def _now() -> datetime.datetime:
  """The time in whole seconds, the same on every process."""
  # Every process renders prompts by itself; clocks that differ would give them different prompts.
  now, *_ = hosts.gather("time", int(datetime.datetime.now().timestamp()))
  return datetime.datetime.fromtimestamp(now)


def typed(arguments: Sequence[str]) -> str:
  """The command that started Python with these arguments.

  >>> typed(["/venv/bin/python", "/venv/bin/lcrl-train", "--workdir=a b"])
  "lcrl-train '--workdir=a b'"
  >>> typed(["/venv/bin/python", "-m", "lcrl.commands.train"])
  'python -m lcrl.commands.train'
  >>> typed(["/venv/bin/python", "/venv/mine.py", "--steps=2"])
  'python mine.py --steps=2'
  """
  names = [pathlib.Path(x).name if x.startswith("/") else x for x in arguments]
  own = next((i for i, name in enumerate(names) if name.startswith("lcrl-")), None)
  if own is not None:
    return shlex.join([names[own], *arguments[own + 1 :]])
  return shlex.join(["python", *names[1:2], *arguments[2:]])


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """The config of the run in `workdir`."""
  path = workdir / "config.json"
  if not path.is_file():
    raise ValueError(f"{origin(workdir)} is not a run folder: it has no config.json.")
  try:
    return dict(json.loads(path.read_text(encoding="utf-8"))["config"])
  except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
    raise ValueError(f"{origin(path)} is not the config of a run: {error!r:.200}.") from None


def last_saved(workdir: pathlib.Path) -> int | None:
  """The step of the newest checkpoint that became valid, by saved.json; 0 if that file cannot be
  read, None if it does not exist."""
  path = workdir / "saved.json"
  try:
    return int(json.loads(path.read_bytes())["step"])
  except FileNotFoundError:
    return None
  except (OSError, ValueError, OverflowError, TypeError, LookupError, RecursionError):
    return 0


def recorded(workdir: pathlib.Path) -> dict[str, Any] | None:
  """The config of the run that started in this folder; None if no run did.

  Raises:
    ValueError: config.json is gone, and no checkpoint holds the config either.
  """
  checkpoints = Checkpoints(workdir / "checkpoints")
  try:
    if not checkpoints.steps() and not (workdir / "metrics.jsonl").exists():
      return None
    about = checkpoints.about()
  finally:
    checkpoints.close()
  try:
    return read_config(workdir)
  except ValueError as error:
    if about is None or "config" not in about:
      raise ValueError(
        f"{error} So nothing tells whether the run in this folder is of the same config: bring the "
        "file back, or name another workdir."
      ) from None
    logging.warning("%s What its newest checkpoint says of the config takes its place.", error)
    return about["config"]


class Progress(contextlib.AbstractContextManager):
  """A progress bar on a terminal; plain lines otherwise."""

  def __init__(self, first: int, last: int):
    self._bar = None
    if sys.stderr.isatty():
      from tqdm import tqdm

      self._bar = tqdm(initial=first, total=last, unit="step", dynamic_ncols=True)

  def step(self, step: int, text: str) -> None:
    if self._bar is None:
      print(f"step {step:5d}  {text}", file=sys.stderr, flush=True)
    else:
      self._bar.set_postfix_str(text)
      self._bar.update()

  def write(self, text: str) -> None:
    if self._bar is None:
      print(text, file=sys.stderr, flush=True)
    else:
      self._bar.write(text, file=sys.stderr)

  def __exit__(self, *_):
    if self._bar is not None:
      self._bar.close()
