"""The installed wheel, far from the repository: `make test-package` runs this."""

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SITE = sysconfig.get_paths()["purelib"]
(INSTALLED,) = importlib.metadata.distributions(name="lcrl-jax", path=[SITE])


def run(*command: str, cwd: Path) -> str:
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  done = subprocess.run(
    [str(BIN / command[0]), *command[1:]],
    cwd=cwd,
    env=environment | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_only_lcrl_is_installed():
  files = INSTALLED.files
  tops = {file.parts[0] for file in files if file.parts[0] != ".."}
  assert {top for top in tops if not top.endswith(".dist-info")} == {"lcrl"}
  scripts = {file.name for file in files if file.parts[-2:-1] == ("bin",)}
  assert {"lcrl", "lcrl-train", "lcrl-evaluate"} <= scripts
  names = {"/".join(file.parts) for file in files}
  assert {"lcrl/py.typed", "lcrl/commands/comparison/page.css"} <= names
  assert {"lcrl/shipped/configs/laser.py", "lcrl/shipped/configs/smoke_pairs.jsonl"} <= names
  assert not any("tests" in file.parts or "experiments" in file.parts for file in files)


def test_versions_are_the_oldest():
  from tests.package.oldest import oldest

  for constraint in oldest(INSTALLED.read_text("METADATA")):
    name, version = constraint.split("==")
    try:
      found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue  # of an extra that is not installed
    assert found == version or found.startswith(f"{version}."), constraint


@pytest.mark.parametrize(
  "script",
  sorted(x.name for x in BIN.glob("lcrl-*") if x.name not in ("lcrl-smollm2", "lcrl-data")),
)
def test_every_command_says_what_it_does(script, tmp_path):
  environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
  done = subprocess.run(
    [BIN / script, "--help"],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert "flags:" in done.stdout, done.stderr
  assert "Traceback" not in done.stderr


def test_a_run_from_its_config_to_its_export(tmp_path):
  (tmp_path / "mine.py").write_text(
    "import jax.numpy as jnp\nfrom lcrl.types import Stage\n\n\n"
    "def short():\n"
    "  apply = lambda state, r: (r.correct - 0.01 * jnp.asarray(r.lengths, float), state)\n"
    "  return Stage(init=lambda: (), apply=apply)\n"
  )
  mine = "--config.reward.fn=mine:short"
  run("lcrl-train", "--config=configs/laser.py:smoke", mine, "--workdir=runs/own", cwd=tmp_path)
  run("lcrl-train", "--config=configs/simpo.py:smoke", "--workdir=runs/pairs", cwd=tmp_path)
  summary = json.loads((tmp_path / "runs/own/summary.json").read_text())
  assert summary["tokens"] > 0
  run("lcrl-evaluate", "--workdir=runs/own", "--budgets=8", "--out=out", cwd=tmp_path)
  run("lcrl-compare", "runs/own", "runs/pairs", "--out=compared", cwd=tmp_path)
  assert "<script" in (tmp_path / "compared/comparison.html").read_text()
  run("lcrl-export", "--workdir=runs/pairs", "--out=exported", cwd=tmp_path)
  assert (tmp_path / "exported/config.json").is_file()
  assert "group_normalized" in run("lcrl", "--methods", cwd=tmp_path)
  assert "arxiv.org" in run("lcrl", "--methods", cwd=tmp_path)


def test_an_own_config_imports_those_of_the_package(tmp_path):
  (tmp_path / "configs").mkdir()
  (tmp_path / "configs/mine.py").write_text(
    "from configs import laser\n\n\ndef get_config(mode='full'):\n"
    "  return laser.get_config('d,smoke')\n"
  )
  said = run("lcrl-train", "--config=configs/mine.py", "--print_config", cwd=tmp_path)
  assert "reward.fn = 'laser_d'" in said
  training = ("--", "--config=configs/laser.py", "--workdir=runs/laser")
  script = run(
    *("lcrl-launch-slurm", "--name=x", "--nodes=1", "--gpus=1", "--time=01:00:00", *training),
    cwd=tmp_path,
  )
  assert "--config=configs/laser.py" in script
