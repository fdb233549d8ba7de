"""A run on pairs as a whole: it learns, resumes as if it had never stopped, and refuses by name."""

import datetime
import json
import shutil

import jax
import numpy as np
import pytest

from lcrl.training import loop, workdir
from lcrl.training.pairs import run as on_pairs
from lcrl.training.pairs.settings import read
from lcrl.training.workdir import Workdir
from tests.helpers.files import lines
from tests.helpers.pair_runs import CONFIG, changed, final_state
from tests.helpers.tokenizer_folders import CHATML, folder

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def whole(rows, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  loop.train(changed(rows), workdir)
  return workdir


def test_a_run_leaves_what_it_promises(whole, rows):
  summary = json.loads((whole / "summary.json").read_text())
  start, final = (summary["pairs"][when] for when in ("start", "final"))
  assert start["accuracy"] == 0.5
  assert start["margin"] == 0.0
  assert start["reward_length_correlation"] is None
  assert final["accuracy"] == 1.0
  assert final["margin"] > 0
  assert final["margin_per_token"] > 0
  assert final["reward_length_correlation"] < -0.5
  assert final["longer_preferred"] == 0.0
  assert final["chosen_length"] == 2
  assert final["rejected_length"] == 12
  assert summary["accuracy"] == 1.0
  assert summary["start"]["accuracy"] == 0.5
  assert summary["tokens"] == summary["sampled"]["final"]["tokens"] > 0
  assert summary["data"]["held_out"] >= 8
  assert 0 < summary["data"]["padding"] < 1
  report = (whole / "report.md").read_text()
  assert "| reward length correlation | - |" in report
  assert "| sampled tokens |" in report
  assert "(reward_by_length.png)" in report
  assert (whole / "reward_by_length.png").stat().st_size > 5000
  assert summary["stopped"] is None
  made_on = summary["evaluation"]
  assert made_on["data"]["rows"] == {"fn": "jsonl", "path": rows}
  assert [made_on[name] for name in ("prompts", "training_prompts", "temperature")] == [8, 0, 1.0]
  assert made_on["compared_with"] == made_on["of"] == summary["data"]["train"]
  assert f"path={rows}" in report
  assert "TRAINING PROMPTS" not in report
  before, after = (line["by_length"] for line in lines(whole / "evaluations.jsonl"))
  assert before["length"] == after["length"] == sorted(after["length"])
  assert not any(before["reward"])
  assert after["reward"][0] > after["reward"][-1]
  steps = [row for row in lines(whole / "metrics.jsonl") if "loss" in row]
  assert [row["step"] for row in steps] == [1, 2, 3, 4]
  assert steps[0]["loss"] == pytest.approx(np.log(2))
  assert steps[-1]["loss"] < 0.6
  assert {row["step"] for row in lines(whole / "answers.jsonl")} == {0, 4}
  assert "config" in json.loads((whole / "config.json").read_text())
  state = final_state(whole, changed(rows))
  assert set(state.params) == {"query", "down"}  # adapters alone are trained and saved
  assert int(state.position) == 4
  assert int(state.counters["pairs"]) == 16


def test_a_stopped_run_says_so_and_shows_its_start_alone(whole, rows, tmp_path):
  """As `finish` finds the folder after a signal in step 2."""
  shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
  out = Workdir(tmp_path, changed(rows))
  with on_pairs.begin(read(changed(rows)), out) as run, out.open(2, 4):
    summary = run.finish()
  assert summary["stopped"] == 2
  assert summary["accuracy"] is None
  assert summary["pairs"]["final"] is summary["sampled"]["final"] is None
  report = (tmp_path / "report.md").read_text()
  assert "stopped after step 2, not evaluated yet" in report
  assert "| accuracy | 0.5 | - |" in report


@pytest.mark.slow
def test_resume_equals_never_stopping(whole, rows, tmp_path):
  loop.train(changed(rows, train__steps=2), tmp_path)
  loop.train(changed(rows), tmp_path)
  config = changed(rows)
  want, got = final_state(whole, config), final_state(tmp_path, config)
  jax.tree.map(np.testing.assert_array_equal, got, want)
  numbers = [
    [{k: v for k, v in row.items() if "time" not in k and "per_s" not in k} for row in rows_]
    for rows_ in (lines(workdir / "metrics.jsonl") for workdir in (whole, tmp_path))
  ]
  assert numbers[0] == [row for row in numbers[1] if row["step"] != 2 or "loss" in row]


def test_answers_are_learned_and_a_task_judges(rows, tmp_path):
  """run="sft" of the whole model on padded rows, with a task that says what is right."""
  changes = {
    "run": "sft",
    "loss": {"fn": "nll"},
    "weights": {"fn": "token_mean"},
    "reference": None,
    "lora": None,
    "data__fn": "responses",
    "batches": {"fn": "bucketed", "size": 4, "lengths": (16, 32)},
    "train__pack": None,
    "task": {"fn": "reasoning_gym", "dataset": "chain_sum", "size": 8, "seed": 0, "max_digits": 1},
    "train__max_prompt_tokens": 128,
    "verify": {"workers": 1},
  }
  summary = loop.train(changed(rows, **changes), tmp_path)
  start, final = (summary["pairs"][when] for when in ("start", "final"))
  assert final["nll"] < start["nll"] - 0.1
  assert final["surprise"] == final["nll"]
  assert final["length"] == 2
  assert "accuracy" not in final
  assert summary["accuracy_of"] == "right answers to the task"
  assert summary["accuracy"] == 0.0
  assert summary["tokens"] > 0


@pytest.mark.slow
def test_what_the_template_writes_of_the_time_stays_that_of_the_start(rows, tmp_path, monkeypatch):
  """The fingerprint of a cached reference is of the prompts' tokens."""
  words = folder(tmp_path, "{{ strftime_now('%d.%m.%y') }}" + CHATML)
  tokenizer = {"fn": "pretrained", "path": str(words)}
  policy = CONFIG["policy"] | {"vocab_size": 259}
  same = {"tokenizer": tokenizer, "policy": policy, "reference": {"fn": "cached"}}
  config = changed(rows, **same, data__window=99, train__pack=128, train__max_prompt_tokens=80)
  run = tmp_path / "run"
  loop.train(config | {"train": config["train"] | {"steps": 2}}, run)
  described = json.loads((run / "config.json").read_text())
  assert described["ends"] == {"<|im_end|>": "chat template", "<|endoftext|>": "tokenizer"}
  assert "- `<|im_end|>`: chat template" in (run / "report.md").read_text()

  monkeypatch.setattr(workdir, "_now", lambda: datetime.datetime(2222, 2, 2))
  loop.train(config, run)
  assert lines(run / "metrics.jsonl")[-1]["step"] == 4
  assert json.loads((run / "config.json").read_text())["started"] == described["started"]


@pytest.mark.parametrize("tokenizer", [{"fn": "utf8"}, None])
def test_a_policy_with_fewer_tokens_is_refused(rows, tmp_path, tokenizer):
  tokenizer = tokenizer or {"fn": "pretrained", "path": str(folder(tmp_path))}
  config = changed(rows, policy__vocab_size=257, tokenizer=tokenizer)
  with pytest.raises(ValueError, match=r"tokenizer.fn=.* has 25[89] tokens; the policy reads 257"):
    loop.train(config, tmp_path / "run")
