"""What a run leaves in its folder: config, metrics, evaluations, summary, report."""

from __future__ import annotations

import contextlib
import datetime
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lcrl import evaluation
from lcrl.evaluation.progress import to_stderr
from lcrl.evaluation.report import write_report
from lcrl.training.metrics import Writer, drop_after
from lcrl.training.run import Judged


class Workdir:
  """Made before anything is compiled, so that a folder of another run is refused at once.

  Only the first process writes, but for checkpoints.
  """

  def __init__(self, path: pathlib.Path, config: Mapping[str, Any], method: str | None = None):
    self.path, self.writes, self.method = path, jax.process_index() == 0, method
    self._bar: Progress | None = None
    self._config = json.loads(json.dumps(config))
    place = path / "config.json"
    if place.exists() and (path / "metrics.jsonl").exists():  # else that run never began
      before = json.loads(place.read_text())
      self.method = method or before.get("method")
      changed = sorted(differing(before["config"], self._config) - {"train.steps"})
      if changed:
        raise ValueError(f"{path} holds a run of another config: {', '.join(changed)} differ.")
    self.started = read_start(path) or _now()
    self._words: dict[str, Any] = {"started": self.started.isoformat(timespec="seconds")}
    if self.writes:
      path.mkdir(parents=True, exist_ok=True)
      self.describe()

  def describe(self, **words: Any) -> None:
    """Writes config.json, with the formulas that it comes to and what was said before."""
    self._words |= words
    if self.writes:
      named = {} if self.method is None else {"method": self.method}
      evaluation.write_json(
        self.path / "config.json", {"config": self._config, **named, **self._words}
      )

  @contextlib.contextmanager
  def open(self, first: int, last: int) -> Iterator[None]:
    """For the steps after `first`; what was written past it is dropped."""
    self._evaluations, self._answers = (
      self.path / f"{x}.jsonl" for x in ("evaluations", "answers")
    )
    with contextlib.ExitStack() as stack:
      if self.writes:
        drop_after(self._evaluations, first)
        drop_after(self._answers, first)
        self._metrics = stack.enter_context(contextlib.closing(Writer(self.path, step=first)))
        self._bar = stack.enter_context(Progress(first, last))
      yield

  def note(self, text: str) -> None:
    """A few lines for who watches."""
    if self.writes:
      to_stderr(text) if self._bar is None else self._bar.write(text)

  def learned(self, step: int, numbers: Mapping[str, float], line: str) -> None:
    """After an update: one line of metrics."""
    if self.writes:
      self._metrics.write(step, numbers)
      assert self._bar is not None
      self._bar.step(step, line)

  def evaluated(self, step: int, judged: Judged) -> None:
    if not self.writes:
      return
    for place, rows in ((self._evaluations, [judged.found]), (self._answers, judged.answers)):
      if rows:
        with place.open("a") as file:
          file.writelines(json.dumps({"step": step, **row}) + "\n" for row in rows)
    self._metrics.write(step, judged.numbers)
    self.note(f"evaluation at step {step}: {judged.line}")

  def evaluations(self) -> list[dict[str, Any]]:
    """All so far, oldest first."""
    return _json_lines(self._evaluations)

  def steps(self) -> list[dict[str, Any]]:
    """The metrics of all steps so far."""
    return [line for line in _json_lines(self.path / "metrics.jsonl") if "time/step" in line]

  def report(
    self, summary: dict[str, Any], *, title: str | None = None, sections: Sequence[str] = ()
  ) -> None:
    """summary.json, and report.md with the curves of all steps and more sections."""
    evaluation.write_json(self.path / "summary.json", summary)
    taken, name = self.steps(), summary["method"]
    write_report(
      self.path,
      {name: summary},
      title=f"{title or name}, {len(taken)} steps",
      command=f"python -m experiments.train {' '.join(sys.argv[1:])}",
      training=(taken, self.evaluations()),
      sections=[*sections, *self._ends()],
    )

  def _ends(self) -> list[str]:
    """A section on what ends an answer, and who says so."""
    ends = self._words.get("ends", {})
    lines = [f"- `{token}`: {who}" for token, who in ends.items()]
    return ["## Ends of an answer", "\n".join(lines)] if lines else []


def read_start(workdir: pathlib.Path) -> datetime.datetime | None:
  """When the run of a folder was started first: the time that its chat template writes."""
  try:
    return datetime.datetime.fromisoformat(
      json.loads((workdir / "config.json").read_text())["started"]
    )
  except (OSError, KeyError, TypeError, ValueError):
    return None


def _now() -> datetime.datetime:
  """In whole seconds, the same on every process."""
  now = int(datetime.datetime.now().timestamp())
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    now = int(
      multihost_utils.broadcast_one_to_all(np.array([now >> 16, now & 0xFFFF])) @ [1 << 16, 1]
    )
  return datetime.datetime.fromtimestamp(now)


def read_config(workdir: pathlib.Path) -> dict[str, Any]:
  """The config with which a run was started."""
  place = workdir / "config.json"
  if not place.is_file():
    raise ValueError(f"{workdir} is not a run folder: it has no config.json.")
  try:
    return json.loads(place.read_text(encoding="utf-8"))["config"]
  except (json.JSONDecodeError, KeyError) as error:
    raise ValueError(f"{place} is not the config of a run: {error!r}.") from None


def _json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def differing(a: Any, b: Any, at: str = "") -> set[str]:
  """Dotted names of the fields in which two nested mappings differ."""
  if isinstance(a, Mapping) and isinstance(b, Mapping):
    names = a.keys() | b.keys()
    missing = object()
    pairs = [(a.get(n, missing), b.get(n, missing), f"{at}.{n}" if at else n) for n in names]
    return set().union(*(differing(*pair) for pair in pairs))
  return set() if a == b else {at}


class Progress(contextlib.AbstractContextManager):
  """A bar on a terminal, plain lines otherwise."""

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
