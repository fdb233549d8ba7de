"""Trackers of experiments that a run also writes to: wandb and trackio, where `log.to` names them.

metrics.jsonl stays the record. A tracker gets the same numbers under the same names, and a table of
answers at every evaluation. Where it writes is its own matter: wandb sends to its server unless
WANDB_MODE=offline, trackio keeps a file on this machine.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lcrl.evaluation import write_json
from lcrl.evaluation.progress import to_stderr
from lcrl.training.sections import Log

IDS = "trackers.json"  # of the runs at the trackers, in the workdir
COLUMNS = ("prompt", "text", "reference", "correct", "tokens")  # of the table, if answers have them


def library(package: str) -> Any:
  """The imported package. Raises ValueError if it is not installed."""
  try:
    return importlib.import_module(package)
  except ImportError:
    raise ValueError(
      f"log.to names {package!r}, which is not installed: pip install {package}."
    ) from None


class Tracker:
  """A run at a tracker; a resumed run goes on in it.

  Steps that a resumed run takes again are logged again: the tracker then has both.
  An error after the start ends the tracking, not the run.
  """

  def __init__(self, package: str, folder: pathlib.Path, log: Log, config: Mapping[str, Any]):
    """Raises ValueError if the package is missing or does not start, by what it says."""
    self._package, self._library, self._failed = package, library(package), False
    ids = json.loads(text.read_text()) if (text := folder / IDS).exists() else {}
    own = ids.setdefault(package, uuid.uuid4().hex[:8])
    name = log.name or folder.name
    how: dict[str, Any] = {"name": f"{name}-{own}"}  # trackio finds a run by its name
    if package == "wandb":
      how = {"name": name, "id": own, "dir": str(folder)}
    try:
      self._run = self._library.init(
        project=log.project, config=dict(config), resume="allow", **how
      )
      if package == "wandb":  # its own steps never go back
        self._run.define_metric("*", step_metric="step")
    except Exception as why:
      raise ValueError(f"log.to: {package} does not start: {why}") from why
    write_json(folder / IDS, ids)

  def write(self, step: int, numbers: Mapping[str, Any]) -> None:
    self._try(lambda: self._log(step, numbers))

  def table(self, step: int, answers: Sequence[Mapping[str, Any]]) -> None:
    """Answers of an evaluation as rows of a table."""
    columns = [name for name in COLUMNS if any(name in row for row in answers)]
    rows = [[_text(row.get(name)) for name in columns] for row in answers]
    if rows:
      make = self._library.Table
      self._try(lambda: self._log(step, {"answers": make(columns=columns, data=rows)}))

  def close(self) -> None:
    self._try(self._run.finish)

  def _log(self, step: int, row: Mapping[str, Any]) -> None:
    if self._package == "wandb":
      self._run.log({**row, "step": step})
    else:
      self._run.log(dict(row), step=step)

  def _try(self, action: Callable[[], Any]) -> None:
    if self._failed:
      return
    try:
      action()
    except Exception as why:
      self._failed = True
      to_stderr(f"{self._package} has failed and gets nothing more of this run: {why}")


def _text(value: Any) -> Any:
  """A cell of a table: messages as the text of the last one, other structures as JSON."""
  if (
    isinstance(value, list) and value and isinstance(value[-1], Mapping) and "content" in value[-1]
  ):
    return value[-1]["content"]
  return value if isinstance(value, str | int | float | bool | None) else json.dumps(value)
