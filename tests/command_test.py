"""What commands share: --config with its overrides, quiet libraries, errors of one line."""

import importlib.util
import os
import pathlib
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from experiments import fields as page
from lcrl.commands.command import Experiment, take_overrides
from lcrl.training import kinds

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
  kinds.kind(found).settings(found)
  assert config("--config.lora.targets=query,key", name="dpo", mode=":lora,smoke")["lora"][
    "targets"
  ] == (
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
  read = lambda found: kinds.kind(found).settings(found)
  with pytest.raises(ValueError, match=message):
    read(config(f"--config.{text}"))


def test_files_and_modes_that_are_not_there():
  with pytest.raises(ValueError, match=r"there is no file .*lasr\.py; did you mean .*laser\.py\?"):
    config(name="lasr")
  with pytest.raises(
    ValueError, match="one of d, de, full, smoke, got 'smoek'; did you mean smoke"
  ):
    config(mode=":smoek")
  with pytest.raises(ValueError, match=r"one of d, de, full, smoke, got 'dd'; did you mean d\?"):
    config(mode=":dd,smoke")
  with pytest.raises(ValueError, match="mode='d,de' must name one of d and de"):
    config(mode=":d,de")


def test_a_variant_and_a_size_in_any_order():
  assert config(mode=":d,smoke") == config(mode=":smoke,d")
  assert config(mode=":d")["reward"]["lower"] == 4096
  assert config(mode=":d,smoke")["reward"]["lower"] == 4
  assert config(mode="") == config(mode=":full")
  assert Experiment("configs/laser.py:smoke,d").name == "laser_d"
  assert Experiment("configs/laser.py:smoke").name == Experiment("laser.py").name == "laser"


PROGRAM = """
import logging
from absl import logging as library
from lcrl.commands import command

def main(_):
  library.info("wrote a file")
  logging.warning("a warning")
  {raises}

command.define_config()
command.run(main, "act")
"""


def act(*flags, raises="raise ValueError('no\\n  such thing')"):
  program = [sys.executable, "-c", PROGRAM.format(raises=raises), *flags]
  run = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
  return run.returncode, run.stderr.splitlines()


def test_a_command_ends_in_one_line_and_libraries_are_quiet():
  assert act("--config=a.py", "--config.x=1") == (1, ["WARNING: a warning", "act: no such thing"])


@pytest.mark.parametrize(
  "error", ["FloatingPointError('no')", "__import__('jinja2').TemplateError('no')"]
)
def test_runs_and_templates_that_break_end_in_one_line_too(error):
  assert act(raises=f"raise {error}") == (1, ["WARNING: a warning", "act: no"])


def test_ctrl_c_outside_of_the_steps_ends_in_one_line():
  assert act(raises="raise KeyboardInterrupt") == (130, ["WARNING: a warning", "act: interrupted."])


def test_a_flag_brings_back_what_is_left_out():
  code, lines = act("--traceback", "--verbosity=0")
  assert code == 1
  assert lines[-2:] == ["ValueError: no", "  such thing"]
  assert [line for line in lines if line.endswith("wrote a file")]


def test_a_fault_of_the_program_shows_where_it_is():
  assert "Traceback (most recent call last):" in act(raises="raise TypeError('a bug')")[1]


def test_the_page_of_fields_is_what_the_code_says():
  assert page.PAGE.read_text() == page.page(), "python -m experiments.fields brings it up to date"


def test_every_command_has_a_script():
  """`lcrl-train` is `lcrl.commands.train`; a clone knows it as `experiments.train`, too."""
  commands = ROOT / "lcrl/commands"
  runs = [p for p in commands.rglob("*.py") if '\nif __name__ == "__main__":' in p.read_text()]
  names = {"-".join(p.relative_to(commands).with_suffix("").parts).replace("_", "-") for p in runs}
  scripts = entry_points(group="console_scripts")
  assert {s.name.removeprefix("lcrl-") for s in scripts if s.name.startswith("lcrl-")} == names
  for path in runs:
    module = ".".join(("experiments", *path.relative_to(commands).with_suffix("").parts))
    assert Path(importlib.util.find_spec(module).origin) == path


def test_a_script_runs_its_command(tmp_path):
  program = "import sys; sys.argv[0] = '/bin/lcrl-train'; from lcrl.commands import scripts"
  command = [sys.executable, "-c", f"{program}; scripts.run()", "--help"]
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  done = subprocess.run(
    command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
  )
  assert done.stdout.startswith("Trains the run of a config"), done.stderr
  own = done.stdout.partition("\nflags:\n")[2]
  assert all(f"--{flag}" in own for flag in ("config:", "workdir:", "[no]traceback:"))
