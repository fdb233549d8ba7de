"""Trackers: the numbers and answers of a run, its one identity, and errors that end neither."""

import json
import sys
import types

import pytest

from lcrl.training.run import Evaluation
from lcrl.training.sections import Log, section
from lcrl.training.workdir import Workdir

ANSWERS = [
  {"prompt": [{"role": "user", "content": "1+1?"}], "text": "2", "correct": True, "tokens": 3},
  {"prompt": [{"role": "user", "content": "1+2?"}], "text": "4", "correct": False, "tokens": 5},
]


class FakeRun:
  def __init__(self, **how):
    self.how, self.rows, self.metrics, self.finished = how, [], [], False

  def define_metric(self, name, step_metric):
    self.metrics.append((name, step_metric))

  def log(self, row, step=None):
    if row.get("loss") == 13:
      raise OSError("no route")
    self.rows.append((step, row))

  def finish(self):
    self.finished = True


@pytest.fixture(params=["wandb", "trackio"])
def package(request, monkeypatch):
  """A fake of the package, by name; its runs."""
  runs = []
  fake = types.SimpleNamespace(
    init=lambda **how: runs.append(FakeRun(**how)) or runs[-1],
    Table=lambda columns, data: {"columns": columns, "data": data},
  )
  monkeypatch.setitem(sys.modules, request.param, fake)
  return request.param, runs


def config(package_name, /, **log):
  return {"seed": 0, "log": {"to": ["tensorboard", package_name], "samples": 1, **log}}


def evaluation(**numbers):
  return Evaluation({"accuracy": 0.5}, numbers, "a line", ANSWERS)


def test_a_tracker_gets_numbers_and_answers(package, tmp_path):
  name, runs = package
  out = Workdir(tmp_path / "run", config(name))
  with out.open(None, 2):
    out.learned(1, {"loss": 2.0}, "")
    out.evaluated(1, evaluation(**{"eval/accuracy": 0.5}))
  (run,) = runs
  step, own = (None, {"step": 1}) if name == "wandb" else (1, {})
  table = {"columns": ["prompt", "text", "correct", "tokens"], "data": [["1+1?", "2", True, 3]]}
  assert run.rows == [
    (step, {"loss": 2.0, **own}),
    (step, {"eval/accuracy": 0.5, **own}),
    (step, {"answers": table, **own}),
  ]
  assert run.finished
  assert (run.how["project"], run.how["resume"]) == ("lcrl", "allow")
  assert run.metrics == ([("*", "step")] if name == "wandb" else [])
  assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_resumed_run_goes_on_in_its_run(package, tmp_path):
  name, runs = package
  for _ in range(2):
    out = Workdir(tmp_path / "run", config(name, name="mine"))
    with out.open(0 if runs else None, 2):
      out.learned(1, {"loss": 2.0}, "")
  first, second = ({k: run.how.get(k) for k in ("id", "name")} for run in runs)
  assert first == second
  assert "mine" in first["name"]
  assert [*json.loads((tmp_path / "run" / "trackers.json").read_text())] == [name]


def test_a_tracker_that_fails_ends_no_run(package, tmp_path, capsys):
  name, runs = package
  out = Workdir(tmp_path, config(name))
  with out.open(None, 3):
    for step, loss in enumerate((1.0, 13.0, 2.0), 1):
      out.learned(step, {"loss": loss}, "")
  assert len(runs[0].rows) == 1
  assert f"{name} has failed and gets nothing more of this run: no route" in capsys.readouterr().err
  assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_what_does_not_start_is_refused(package, tmp_path, monkeypatch):
  name, _ = package
  monkeypatch.setattr(sys.modules[name], "init", lambda **_: 1 / 0)
  with (
    pytest.raises(ValueError, match=f"log.to: {name} does not start: division by zero"),
    Workdir(tmp_path, config(name)).open(None, 2),
  ):
    pass
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ValueError, match=rf"log.to names '{name}', .* pip install {name}"):
    Workdir(tmp_path, config(name))
  with pytest.raises(ValueError, match=r"log\.to.*tensorbord"):
    section(Log, {"to": ["tensorbord"]}, "log")


def test_events_can_be_left_out(tmp_path):
  out = Workdir(tmp_path, {"seed": 0, "log": {"to": []}})
  with out.open(None, 1):
    out.learned(1, {"loss": 2.0}, "")
  assert not (tmp_path / "events").exists()
  assert "loss" in (tmp_path / "metrics.jsonl").read_text()


def test_two_runs_of_one_name_are_two(package, tmp_path):
  """wandb knows them by their ids, trackio by their names."""
  name, runs = package
  for folder in "ab":
    with Workdir(tmp_path / folder, config(name, name="mine")).open(None, 1):
      pass
  first, second = (run.how.get("id", run.how["name"]) for run in runs)
  assert first != second
