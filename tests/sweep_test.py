"""Sweeps: settings, commands and runs one after the other; and a config printed as a page."""

import functools
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from experiments import configs
from lcrl.commands import command, sweep
from lcrl.training import fields, kinds

VARIANTS = configs.variants()
LIBRARIES = re.compile(r"^[IWEF]\d{4} |^(INFO|WARNING|ERROR):\w+:|absl|orbax|tensorstore", re.I)


def experiment(name, mode="", overrides=()):
  argument = VARIANTS[name].argument
  mode = f"{',' if ':' in argument else ':'}{mode}" if mode else ""
  return command.Experiment(f"{configs.ROOT}/configs/{argument}{mode}", overrides)


def as_json(config):
  return json.loads(json.dumps(config))


@pytest.mark.parametrize("name", [name for name in VARIANTS if VARIANTS[name].sweep()])
def test_the_command_of_a_setting_gives_what_the_config_declares(name, tmp_path):
  declared = []
  for point in VARIANTS[name].sweep():
    config = VARIANTS[name].config()
    for field, value in point.items():
      *sections, last = field.split(".")
      functools.reduce(lambda place, key: place[key], sections, config)[last] = value
    declared.append(as_json(config))
  found = sweep.settings(experiment(name))
  assert [as_json(one.to_dict()) for one in found.values()] == declared
  assert max(len(folder.encode()) for folder in found) <= 200
  by_hand = []
  for line in sweep.commands(experiment(name), tmp_path):
    overrides: list = []
    *_, path, workdir = command.take_overrides(shlex.split(line), overrides)
    by_hand.append(command.Experiment(path.removeprefix("--config="), tuple(overrides)).to_dict())
    assert workdir.startswith(f"--workdir={tmp_path}/")
    assert re.fullmatch(r"[\w.,=+-]+", workdir.rpartition("/")[2])
  assert as_json(by_hand) == declared


def test_settings_that_a_smoke_run_is_too_small_for_are_left_out(tmp_path, capsys):
  trained = []

  def train(config, workdir, *, method):
    if len(trained) == 1:
      raise ValueError("reward.lower=2048 is above upper=16")
    trained.append(method)
    return {}

  with pytest.raises(ValueError, match="lower=2048"):
    sweep.run(experiment("laser_d"), tmp_path, train)
  trained.clear()
  sweep.run(experiment("laser_d", "smoke"), tmp_path, train)
  assert [method.rpartition(", ")[2] for method in trained] == ["reward.lower=1024"]
  assert "left out, the smoke mode does not allow it: reward.lower=2048" in capsys.readouterr().err


def test_every_kind_of_run_has_documented_sections_and_a_config():
  used = {one.config("smoke").get("run", "rl") for one in VARIANTS.values()}
  assert used == kinds.RUNS.keys() == fields.SECTIONS.keys()


def test_an_override_holds_for_all_settings_that_do_not_set_the_field():
  found = sweep.settings(experiment("alp", overrides=(("seed", "3"), ("reward.beta", "0.5"))))
  assert [*found] == ["reward.beta=1e-08", "reward.beta=1e-07", "reward.beta=1e-06"]
  assert {one.to_dict()["seed"] for one in found.values()} == {3}
  assert found["reward.beta=1e-06"].to_dict()["reward"]["beta"] == 1e-6


def test_a_config_without_a_sweep_is_refused_and_so_is_an_invalid_setting(tmp_path):
  with pytest.raises(ValueError, match=r"smollm2_chain_sum_laser\.py declares no sweep"):
    sweep.settings(experiment("smollm2_chain_sum_laser"))
  wrong = experiment("alp", "smoke", (("train.steps", "many"),))
  with pytest.raises(ValueError, match=r"train\.steps must be a whole number"):
    sweep.run(wrong, tmp_path, lambda *_, **__: pytest.fail("it trained"))


def test_a_sweep_ends_where_a_run_was_stopped(tmp_path):
  trained = []

  def stopped(config, workdir, *, method):
    trained.append((config["reward"]["beta"], workdir.name, method))
    return {"stopped": 1}

  sweep.run(experiment("alp", "smoke"), tmp_path, stopped)
  assert trained == [(1e-8, "reward.beta=1e-08", "alp, reward.beta=1e-08")]


def train(*arguments):
  program = [sys.executable, "-m", "lcrl.commands.train", *arguments]
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(configs.ROOT)}
  return subprocess.run(
    program, capture_output=True, text=True, cwd=configs.ROOT, timeout=300, env=environment
  )


@pytest.mark.slow
def test_a_sweep_from_the_command_line_skips_what_is_finished(tmp_path):
  arguments = ("--config=configs/sft.py:smoke", "--sweep", f"--workdir={tmp_path}")
  first = train(*arguments)
  assert first.returncode == 0, first.stderr
  lines = first.stderr.splitlines()
  assert not [line for line in lines if LIBRARIES.search(line)], "libraries write to the terminal"
  names = ["optimizer.learning_rate=5e-06", "optimizer.learning_rate=2e-05"]
  for i, name in enumerate(names, 1):
    assert f"setting {i} of 2, {name}: training in {tmp_path / name}" in lines
    summary = json.loads((tmp_path / name / "summary.json").read_text())
    assert (summary["method"], summary["stopped"]) == (f"sft, {name}", None)
    rate = json.loads((tmp_path / name / "config.json").read_text())["config"]["optimizer"]
    assert rate["learning_rate"] == float(name.partition("=")[2])
  (tmp_path / names[1] / "summary.json").unlink()  # as if it had been killed before its end
  again = train(*arguments).stderr.splitlines()
  assert f"setting 1 of 2, {names[0]}: finished before" in again
  assert f"setting 2 of 2, {names[1]}: training in {tmp_path / names[1]}" in again
  assert "going on from step 2 of 2" in again


def test_finished_is_only_a_run_of_this_very_config(tmp_path):
  config = experiment("alp", "smoke").to_dict()
  (tmp_path / "config.json").write_text(json.dumps({"config": config}))
  assert not sweep.finished(tmp_path, config)
  (tmp_path / "summary.json").write_text(json.dumps({"stopped": 1}))
  assert not sweep.finished(tmp_path, config)
  (tmp_path / "summary.json").write_text(json.dumps({"stopped": None}))
  assert sweep.finished(tmp_path, config)
  config["train"]["steps"] += 1
  assert not sweep.finished(tmp_path, config)


def test_the_page_of_a_config_is_printed_without_loading_its_model():
  printed = train("--config=configs/laser.py:d", "--print_config", "--config.reward.alpha=0.25")
  stored = (configs.GOLDEN / "laser_d.txt").read_text().partition("\n# smoke")[0]
  assert (
    printed.stdout.splitlines() == stored.replace("alpha = 0.5", "alpha = 0.25").splitlines()[1:]
  )
  assert printed.stderr == ""
  refused = train("--config=configs/laser.py", "--print_config", "--config.reward.alfa=0.25")
  assert refused.returncode == 1
  assert "did you mean alpha?" in refused.stderr
