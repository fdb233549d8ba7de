"""What a run folder refuses, what may change in it, and how a run is stopped."""

import copy
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from lcrl.training import loop, metrics, resume
from lcrl.training.lock import locked
from lcrl.training.rl import run as rl
from lcrl.training.workdir import last_saved
from tests.helpers.files import lines
from tests.helpers.rl_runs import CONFIG, changed
from tests.helpers.slow import slow

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture
def run(finished_run, tmp_path):
  """A copy of a run that has ended."""
  return shutil.copytree(finished_run, tmp_path / "run")


@pytest.mark.parametrize(
  "fields",
  [
    {"train__steps": 9, "train__max_tokens": 32, "train__max_prompt_tokens": 10},
    {"checkpoint": {"every": 7}, "eval__prompts": 2, "log": {"samples": 1}, "eval__every": 1},
    {"verify": {"workers": 3, "deadline": 1.0}, "mesh__fsdp": 2, "train__micro_batches": 2},
  ],
)
def test_what_may_change(fields):
  resume.check_config("here", CONFIG, changed(**fields))


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"optimizer__learning_rate": 1.0}, "optimizer.learning_rate was 0.01 and is 1.0"),
    (
      {"seed": 4, "reward__alpha": None},
      "reward.alpha was 0.02 and is absent; seed was 3 and is 4",
    ),
    ({"train__max_tokens": 15}, "train.max_tokens was 16 and is 15"),
    ({"train__prompts": 8}, "train.prompts was 4 and is 8"),
    ({"monitor": {"every": 2}}, "monitor.every was absent and is 2"),
  ],
)
def test_what_may_not(fields, message):
  with pytest.raises(ValueError, match="here holds a run of another config") as error:
    resume.check_config("here", CONFIG, changed(**fields))
  assert message in str(error.value)


@pytest.mark.parametrize("field", ["micro_batches", "micro_tokens", "pack"])
def test_pieces_stay_where_they_decide_the_loads_of_experts(field):
  """`train.balance` counts in a piece."""
  before, after = (changed(train__balance=0.01, **more) for more in ({}, {f"train__{field}": 512}))
  with pytest.raises(ValueError, match=rf"train\.{field} was absent and is 512"):
    resume.check_config("here", before, after)


def test_rounds_do_not_grow():
  iterative = copy.deepcopy(CONFIG) | {"run": "iterative"}
  larger = copy.deepcopy(iterative)
  larger["train"]["max_tokens"] = 32
  with pytest.raises(ValueError, match="max_tokens was 16 and is 32"):
    resume.check_config("here", iterative, larger)


def test_a_fingerprint_changes_with_any_row():
  rows = [f"row {i}" for i in range(1000)]
  found = resume.fingerprint(rows, str)
  assert found == resume.fingerprint(tuple(rows), str)
  assert found != resume.fingerprint(rows[:-1], str)
  assert found != resume.fingerprint([*rows[:500], "else", *rows[501:]], str)


@pytest.mark.slow
def test_other_data_are_refused(run, monkeypatch):
  monkeypatch.setattr(rl, "prompt_content", lambda prompt: (prompt.id, "another"))
  before = (run / "config.json").read_text()
  with pytest.raises(ValueError, match="learned from other data: their fingerprint was"):
    loop.train(changed(train__max_prompt_tokens=200), run)
  assert (run / "config.json").read_text() == before


@pytest.mark.parametrize("noted", [True, False])  # an older folder has no such file
def test_a_history_without_checkpoints_is_no_fresh_start(run, noted):
  shutil.rmtree(run / "checkpoints")
  if not noted:
    (run / "saved.json").unlink()
  before = (run / "metrics.jsonl").read_bytes()
  with pytest.raises(ValueError, match="begin anew, name another workdir or delete this one"):
    loop.train(CONFIG, run)
  assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("every", [1, slow(2)])
def test_a_run_that_was_killed_during_its_first_save_begins_anew(every, run):
  """The metrics of the next step due are there before its own save waits for the first one."""
  (run / "saved.json").unlink()
  (run / "summary.json").unlink()
  for manifest in (run / "checkpoints").glob("*/manifest.*"):
    manifest.unlink()
  kept = [
    json.dumps(row) + "\n" for row in lines(run / "metrics.jsonl") if row["step"] <= 2 * every
  ]
  (run / "metrics.jsonl").write_text("".join(kept))
  loop.train(changed(checkpoint={"every": every, "keep": 2}), run)
  assert last_saved(run) == 4


@pytest.mark.parametrize("content", ["", "[" * 99999, '{"step": 1e999}', '{"step": null}', None])
def test_a_damaged_note_of_the_last_checkpoint_still_says_that_there_was_one(content, tmp_path):
  place = tmp_path / "saved.json"
  place.mkdir() if content is None else place.write_text(content)
  assert last_saved(tmp_path) == 0


def test_a_run_that_skipped_every_step_begins_anew(run):
  shutil.rmtree(run / "checkpoints")
  (run / "saved.json").unlink()
  (run / "summary.json").unlink()
  rows = [{"step": step, "skipped_updates": 1.0} for step in (1, 2, 3, 4)]
  (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  loop.train(CONFIG, run)
  assert last_saved(run) == 4


def test_the_config_is_checked_when_its_file_is_gone(run, caplog):
  (run / "config.json").unlink()
  (run / "metrics.jsonl").unlink()
  with pytest.raises(ValueError, match=r"optimizer.learning_rate was 0.01 and is 0.1"):
    loop.train(changed(optimizer__learning_rate=0.1), run)
  loop.train(CONFIG, run)
  assert "has no config.json" in caplog.text
  assert "metrics.jsonl is gone: the numbers up to step 4 are missing" in caplog.text
  (run / "config.json").unlink()
  for about in (run / "checkpoints").glob("*/about.json"):
    about.unlink()
  with pytest.raises(
    ValueError, match="nothing tells whether the run in this folder is of the same"
  ):
    loop.train(CONFIG, run)


def test_fewer_steps_than_were_taken_are_refused(run):
  with pytest.raises(ValueError, match=r"has taken 4 steps: train\.steps=2 is fewer"):
    loop.train(changed(train__steps=2), run)


def test_a_second_run_in_the_folder_is_refused(run):
  with locked(run), pytest.raises(ValueError, match="in use by another run, process"):
    loop.train(CONFIG, run)


@pytest.mark.parametrize("what", ["loss", "params"])
def test_nothing_that_is_not_finite_is_saved(what, tmp_path, monkeypatch):
  update = rl.update

  def broken(model, state, *rest):
    state, found = update(model, state, *rest)
    if int(state.step) == 3 and what == "loss":
      found["loss"] = metrics.Mean(np.nan, 1.0)
    if int(state.step) == 3 and what == "params":
      state.params["embed"] = state.params["embed"].at[0, 0].set(np.inf)
    return state, found

  monkeypatch.setattr(rl, "update", broken)
  config = changed(checkpoint={"every": 1, "keep": 2})
  wrong = {"loss": "loss is nan", "params": "embed"}[what]
  message = f"step 3 is not finite: {wrong}. .* the last good checkpoint is that of step 2"
  with pytest.raises(FloatingPointError, match=message):
    loop.train(config, tmp_path)
  assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]
  last = lines(tmp_path / "metrics.jsonl")[-1]
  assert last["step"] == 3
  assert (last["loss"] is None) == (what == "loss")


def test_a_step_that_skipped_its_update_pushes_out_no_checkpoint(tmp_path, monkeypatch):
  update = rl.update

  def skipped(model, state, *rest):
    state, found = update(model, state, *rest)
    return state, found | {"skipped_updates": metrics.Sum(float(int(state.step) == 3))}

  monkeypatch.setattr(rl, "update", skipped)
  loop.train(changed(checkpoint={"every": 1, "keep": 9}), tmp_path)
  assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2", "4"]


def test_a_skipped_update_is_no_reason_to_stop():
  assert loop.not_finite({"loss": float("nan"), "skipped_updates": 1.0}) == []
  assert loop.not_finite({"loss": 1.0, "grad_norm": float("inf")}) == ["grad_norm is inf"]
  assert loop.not_finite({}) == []  # a round without pairs


def test_a_policy_that_is_not_finite_does_not_start(tmp_path, monkeypatch):
  build = rl.build_learner

  def broken(settings):
    model = build(settings)
    spoil = lambda state: dataclasses.replace(
      state, params=jax.tree.map(lambda x: x * np.nan, state.params)
    )
    return dataclasses.replace(model, initial=lambda: spoil(model.initial()))

  monkeypatch.setattr(rl, "build_learner", broken)
  with pytest.raises(ValueError, match="starts from has parameters that are not finite: embed"):
    loop.train(CONFIG, tmp_path)


STUCK = """
  import ctypes, sys
  from lcrl.training.stopping import asked_to_stop
  libc = ctypes.CDLL(None)
  with asked_to_stop() as asked:
    mutex = ctypes.create_string_buffer(64)
    print("ready", flush=True)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # never returns, whatever signal comes
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_step_that_does_not_end(number):
  command = [sys.executable, "-c", textwrap.dedent(STUCK)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
    assert run.stdout.readline() == "ready\n"
    run.send_signal(number)
    assert f"{number.name}: the run stops after this step" in run.stderr.readline()
    assert run.poll() is None
    run.send_signal(number)
    assert run.wait(timeout=20) == 128 + number
