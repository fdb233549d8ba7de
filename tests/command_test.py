"""What commands share: --config with its overrides, quiet libraries, errors of one line."""

import os
import pathlib
import subprocess
import sys

import pytest

from experiments import fields as page
from experiments.command import Experiment, take_overrides
from lcrl.training import runs

ROOT = pathlib.Path(__file__).parent.parent


def config(*arguments, name="laser", mode=":smoke"):
  overrides: list = []
  assert take_overrides(arguments, overrides) == []
  return Experiment(str(ROOT / f"configs/{name}.py{mode}"), tuple(overrides)).to_dict()


@pytest.mark.parametrize(
  "text, value",
  [
    ("checkpoint.keep=9", 9),  # a field that the file does not write down
    ("log.samples=0", 0),  # a section that it does not write down
    ("eval.every=5", 5),
    ("sampling.slots=None", None),
    ("sampling.temperature=2", 2.0),
    ("train.head_remat=false", False),
    ("mesh.fsdp=-1", -1),
    ("policy.attention=triton", "triton"),
    ("policy.windows=None", None),
    ("tokenizer.fn=sums", "sums"),
    ("optimizer.learning_rate=1e-4", 1e-4),
    ("task.difficulty=num_terms", "num_terms"),
    ("task.long=skip", "skip"),
    ("reward.base.fn=hapo", "hapo"),
    ("sampling.control.fn=top_p", "top_p"),
    ("revise.fn=cut_outliers", "cut_outliers"),
    ("seed=7", 7),
  ],
)
def test_every_field_can_be_set_and_has_the_type_of_the_field(text, value):
  found = config(f"--config.{text}")
  for key in text.partition("=")[0].split("."):
    found = found[key]
  assert found == value
  assert type(found) is type(value)


def test_nested_functions_lists_and_sections_that_are_left_out():
  found = config(
    "--config.sampling.control.p=0.5",  # the function is named later
    "--config.sampling.control.fn=top_p",
    "--config.loss.kl.beta",
    "0.5",
    "--config.loss.kl.fn=k3",
    "--config.reward.fn=acoer",
    "--config.budget.target=4",
    "--config.eval=None",
  )
  assert found["sampling"]["control"] == {"fn": "top_p", "p": 0.5}
  assert found["loss"]["kl"] == {"fn": "k3", "beta": 0.5}
  assert found["reward"] == {"fn": "acoer"}, "another function takes other arguments"
  assert "eval" not in found
  runs.kind(found).settings(found)
  assert config("--config.lora.targets=query,key", name="dpo_lora")["lora"]["targets"] == (
    "query",
    "key",
  )
  late = config("--config.then[0].at=1", name="thinkprune")["then"]
  assert late[0]["at"] == 1


@pytest.mark.parametrize(
  "text, message",
  [
    ("train.grup_size=4", r"unknown config field train\.grup_size; .*did you mean group_size\?"),
    ("optimzer.fn=sgd", r"unknown config section \['optimzer'\]; .*did you mean optimizer\?"),
    ("reward.alfa=1", r"reward\.alfa is not an argument of step_bonus.*did you mean alpha\?"),
    ("reward.fn=step_bonus_reward", r"reward\.fn=.* is not one of step_bonus, "),
    ("train.steps=many", r"train\.steps must be a whole number of at least 1, got 'many'"),
    ("seed.x=1", r"--config\.seed\.x: seed is 0"),
    ("task.long=cut", r"task\.long must be one of error, skip, got 'cut'"),
    ("policy.attntion=xla", r"policy\.attntion is not an argument of fresh.*attention\?"),
    ("revise.fn=nowhere.to:find", r"revise\.fn='nowhere.to:find' cannot be imported"),
    ("weights.mask=1", r"weights\.mask comes from the run"),
  ],
)
def test_what_is_unknown_is_refused_with_the_nearest_name(text, message):
  read = lambda found: runs.kind(found).settings(found)
  with pytest.raises(ValueError, match=message):
    read(config(f"--config.{text}"))


def test_files_and_modes_that_are_not_there():
  with pytest.raises(ValueError, match=r"there is no file .*lasr\.py; did you mean .*laser\.py\?"):
    config(name="lasr")
  with pytest.raises(ValueError, match="mode must be one of full, smoke, got 'smoek'"):
    config(mode=":smoek")


def command(*arguments, module="train"):
  run = [sys.executable, "-m", f"experiments.{module}", *arguments]
  environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
  return subprocess.run(
    run, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300, check=False
  )


def test_a_command_ends_in_one_line_or_in_all_of_them_if_asked(tmp_path):
  wrong = ("--config=configs/laser.py:smoke", "--config.train.stepss=1", f"--workdir={tmp_path}")
  short = command(*wrong)
  assert short.returncode == 1
  assert short.stderr.splitlines()[1:] == [
    line for line in short.stderr.splitlines() if line.startswith("train: unknown config field")
  ]
  assert "Traceback" in command(*wrong, "--traceback").stderr


def test_a_run_says_what_it_does_and_libraries_say_nothing(tmp_path):
  run = command("--config=configs/sft.py:smoke", f"--workdir={tmp_path}/run")
  assert run.returncode == 0, run.stderr
  lines = run.stderr.splitlines()
  assert lines[0] == f"configs/sft.py:smoke in {tmp_path}/run: loading"
  assert "policy: 115,136 parameters on 1 x CPU" in lines[1]
  assert len(lines) < 15, run.stderr
  assert not [line for line in lines if line.startswith(("I", "W1", "W0"))]


def test_the_page_of_fields_is_what_the_code_says():
  assert page.PAGE.read_text() == page.page(), "python -m experiments.fields brings it up to date"
