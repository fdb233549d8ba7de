"""A run as a whole: it resumes as if it had never stopped, and refuses what it cannot do."""

import dataclasses
import importlib
import json
import os
import pathlib
import signal
import sys
import types

import jax
import numpy as np
import pytest

from lcrl import tasks
from lcrl.commands.run_folders import find
from lcrl.training import build, loop
from lcrl.training.rl import learner
from lcrl.training.rl import run as rl
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.files import lines
from tests.helpers.rl_runs import CONFIG, changed, final_state

pytestmark = pytest.mark.usefixtures("one_device")


def test_a_run_leaves_what_it_promises(finished_run):
  summary = json.loads((finished_run / "summary.json").read_text())
  assert {"accuracy", "tokens", "start", "by_difficulty", "wall_s", "device"} <= summary.keys()
  steps = [line["step"] for line in lines(finished_run / "metrics.jsonl") if "loss" in line]
  assert steps == [1, 2, 3, 4]
  samples = [row for part in sorted((finished_run / "samples").iterdir()) for row in lines(part)]
  assert len(samples) == 4 * 4
  assert {"prompt", "response", "reward", "advantage", "correct", "target"} <= samples[0].keys()
  assert samples[0]["prompt"].endswith("?")
  formulas = json.loads((finished_run / "config.json").read_text())["reward"]
  assert "r - alpha * length" in formulas["length_penalty_reward"]
  assert list((finished_run / "events").iterdir())
  assert (summary["stopped"], summary["evaluated_at"]) == (None, 4)


def test_the_report_says_what_was_measured_on_what(finished_run, tmp_path, capsys, monkeypatch):
  """These are the training prompts, which have no eval_task beside them."""
  made_on = json.loads((finished_run / "summary.json").read_text())["evaluation"]
  assert made_on["data"] == CONFIG["task"]
  assert made_on["model"].startswith("fresh, ")
  numbers = ("prompts", "training_prompts", "of", "samples", "max_tokens", "temperature")
  assert [made_on[name] for name in numbers] == [6, 6, 64, 1, 16, 1.0]
  report = (finished_run / "report.md").read_text()
  assert "THESE ARE THE TRAINING PROMPTS: 6 of the 6" in report
  assert "Data: arithmetic, size=64, seed=0. Model: fresh, vocab_size=20" in report
  assert (finished_run / "training.png").exists()
  apart = {"fn": "arithmetic", "size": 64, "seed": 0, "held_out": True}
  fields = {"train__steps": 1, "eval_task": apart, "eval__temperature": 0}
  command = ["/bin/python", "/bin/lcrl-train", "--config.train.steps=1", "--workdir=a b"]
  monkeypatch.setattr("sys.orig_argv", command)
  monkeypatch.setattr("sys.argv", command[2:3])  # the commands take overrides out of it
  summary = loop.train(changed(**fields), tmp_path, method="an idea")
  assert summary["evaluation"]["data"] == apart
  assert summary["evaluation"]["training_prompts"] == 0
  assert summary["evaluation"]["temperature"] == 0
  report = (tmp_path / "report.md").read_text()
  assert report.startswith("# an idea, 1 steps")
  assert "lcrl-train --config.train.steps=1 '--workdir=a b'" in report
  assert "TRAINING PROMPTS" not in report
  said = capsys.readouterr().err
  assert "Temperature 0 (greedy)" in said
  assert "WARNING" not in said


def test_resume_equals_never_stopping(finished_run, tmp_path):
  start = build_learner(read(CONFIG)).initial()
  moved = jax.tree.map(
    lambda a, b: abs(a - b).max(), start.params, final_state(finished_run).params
  )
  assert min(jax.tree.leaves(moved)) > 1e-3
  loop.train(changed(train__steps=2), tmp_path)
  loop.train(CONFIG, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path), final_state(finished_run))
  timeless = lambda row: {k: v for k, v in row.items() if "time" not in k and "per_s" not in k}
  rows = [
    [timeless(r) for r in lines(w / "metrics.jsonl") if "loss" in r]
    for w in (tmp_path, finished_run)
  ]
  assert rows[0] == rows[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_a_signal_saves_and_the_run_goes_on(number, finished_run, tmp_path, monkeypatch, capsys):
  update = rl.update

  def update_and_ask(*args):
    result = update(*args)
    if int(result[0].step) == 3:
      os.kill(os.getpid(), number)
    return result

  monkeypatch.setattr(rl, "update", update_and_ask)
  summary = loop.train(CONFIG, tmp_path)
  assert int(final_state(tmp_path).step) == 3
  assert summary["stopped"] == 3
  assert summary["accuracy"] is None
  assert summary["start"]["accuracy"] is not None
  report = (tmp_path / "report.md").read_text()
  assert "stopped after step 3, not evaluated yet" in report
  assert "the start (" not in report  # it is not compared with itself
  with pytest.raises(ValueError, match="stopped after step 3"):
    find([str(tmp_path)])
  monkeypatch.undo()
  loop.train(CONFIG, tmp_path)
  said = capsys.readouterr().err
  assert f"{number.name}: the run stops after this step and saves" in said
  assert "going on from step 3 of 4" in said
  jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path), final_state(finished_run))


def test_another_config_in_the_workdir_is_refused(finished_run):
  with pytest.raises(ValueError, match=r"another config: reward\.alpha, seed differ"):
    loop.train(changed(reward__alpha=0.1, seed=4), finished_run)


def test_nothing_is_compiled_twice(tmp_path):
  model = build_learner(read(CONFIG))
  with build.rollout_worker(model, build.build_tokenizer(read(CONFIG)), CONFIG["task"], "task") as (
    task,
    worker,
  ):
    step, state = rl.RlStep(model, task, rl.make_pipeline(model, worker)), model.initial()
    for _ in range(3):
      state, *_ = step(state)
  assert int(state.position) == int(state.counters["prompts"]) == 3 * CONFIG["train"]["prompts"]
  assert model.update._cache_size() == 1
  assert model.shape._cache_size() == 1


def test_a_verifier_that_hangs_or_dies_is_counted_and_the_run_goes_on(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(pathlib.Path(__file__).parent)  # workers look there, too
  hostile = importlib.import_module("hostile")
  hostile_tasks = types.ModuleType("hostile_tasks")
  hostile_tasks.sums = lambda: dataclasses.replace(
    tasks.arithmetic(size=64), score=hostile.by_length
  )
  monkeypatch.setitem(sys.modules, "hostile_tasks", hostile_tasks)
  loop.train(
    changed(task={"fn": "hostile_tasks:sums"}, train__steps=2, verify__deadline=0.5), tmp_path
  )
  steps = [row for row in lines(tmp_path / "metrics.jsonl") if "loss" in row]
  assert len(steps) == 2
  assert sum(row["outcome/timeout"] for row in steps) > 0
  assert sum(row["outcome/crash"] for row in steps) > 0
  assert sum(row["outcome/wrong"] for row in steps) > 0


def test_the_update_alone_keeps_what_the_head_gives(monkeypatch):
  """`train.head_remat=False`; what only measures has no backward pass."""
  asked, make = [], learner.make_scorer
  monkeypatch.setattr(learner, "make_scorer", lambda *xs, **o: asked.append(o) or make(*xs, **o))
  for remat in (True, False):
    asked.clear()
    learner.build_learner(read(changed(train__head_remat=remat)))
    assert [o.get("keep", False) for o in asked] == [not remat, False]


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"rewards": {}}, "unknown config section"),
    ({"reward": None}, "no section"),
    ({"train__step": 1}, r"unknown config field train\.step"),
    ({"train__steps": None}, r"lacks train\.steps"),
    ({"reward__fn": "lazer"}, r"reward\.fn='lazer' is not one of"),
    ({"reward__beta": 1.0}, r"reward\.beta is not an argument of length_penalty"),
    (
      {"reward__fn": "length_penalty_reward", "reward__alpha": None},
      r"reward\.fn=.* is not one of length_penalty, ",
    ),
    ({"budget__target": 0}, r"budget\.target must be at least 1, got 0"),
    ({"budget__cap": 17}, r"budget: the cap after 0 steps is 17; train\.max_tokens=16"),
    (
      {"then": [{"at": 2, "budget": {"fn": "fixed", "target": 17}}]},
      r"budget: the cap after 2 steps is 17; train\.max_tokens=16",
    ),
    ({"train__group_size": 1}, r"train\.group_size must be at least 2.*got 1"),
    (
      {"train__head_remat": False, "loss__entropy_bonus": 0.1},
      r"train\.head_remat=False .*'clipped_surrogate' needs \['entropy'\]",
    ),
    ({"reward": {"fn": "pear"}}, r"reward needs \['think_end'\], which nothing here supplies"),
    ({"train__prompts": 3, "train__micro_batches": 2}, r"train\.prompts must be a multiple"),
    ({"sampling__temperature": 0.0}, r"temperature must be above 0"),
    ({"eval__temperature": -0.1}, r"eval\.temperature must be at least 0, got -0.1"),
    ({"policy": {"fn": "pretrained", "path": "/no/such/folder"}}, "/no/such/folder"),
    ({"reward": {"fn": "hapo", "rows": 8}}, r"reward\.rows is 8, but the data set has 64 rows"),
    ({"tokenizer": None}, "needs a section tokenizer"),
    ({"run": "sing"}, "run='sing'"),
    (
      {"train__max_prompt_tokens": 4},
      r"task: 64 of 64 prompts are longer than train\.max_prompt_tokens=4",
    ),
  ],
)
def test_bad_configs_are_refused_by_name(fields, message, tmp_path):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    loop.train(changed(**fields), tmp_path)
