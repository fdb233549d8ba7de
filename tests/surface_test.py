"""What a user sees of the package: its names, their docstrings and its command."""

import importlib
import inspect
import pathlib
import re
import subprocess
import sys
import types

import pytest
from setuptools import find_packages

import lcrl
from lcrl import __main__ as command
from lcrl.losses import policy, preference, reward_model
from lcrl.losses.preference import stages

ROOT = pathlib.Path(__file__).parent.parent
HUBS = [
  "lcrl",
  "lcrl.advantages",
  "lcrl.budgets",
  "lcrl.filters",
  "lcrl.groups",
  "lcrl.losses",
  "lcrl.rewards",
  "lcrl.recipes",
  "lcrl.checks",
  "lcrl.masked",
  "lcrl.modes",
  "lcrl.ngrams",
  "lcrl.types",
  "lcrl.losses.policy",
  "lcrl.losses.preference",
  "lcrl.losses.preference.stages",
  "lcrl.losses.weights",
  "lcrl.data",
  "lcrl.evaluation",
  "lcrl.tasks",
]


@pytest.mark.parametrize("name", HUBS)
def test_only_public_names_are_shown_and_each_is_explained(name):
  hub = importlib.import_module(name)
  shown = {n for n in dir(hub) if not n.startswith("_")}
  modules = {n for n in shown if isinstance(getattr(hub, n), types.ModuleType)}
  assert shown - modules == {*hub.__all__} - modules - {"__version__"}
  assert all(getattr(hub, n).__name__.startswith("lcrl.") for n in modules)
  for n in {*hub.__all__} - modules - {"__version__"}:
    summary = (getattr(hub, n).__doc__ or "").strip().partition("\n\n")[0]
    assert re.search(r"[.:]$", summary), (n, summary)
    assert len(summary.split()) >= 3, (n, summary)


@pytest.mark.parametrize("name", ["advantages", "rewards", "losses.preference"])
def test_a_slot_offers_what_its_modules_offer(name):
  hub = importlib.import_module(f"lcrl.{name}")
  parts = [m for m in vars(hub).values() if isinstance(m, types.ModuleType) and m is not stages]
  assert {n for part in parts for n in part.__all__} == {*hub.__all__}


def test_preference_stages_stand_beside_policy_stages():
  for hub in (policy, stages, preference, reward_model):
    for name in {*hub.__all__} & {*lcrl.losses.__all__}:
      assert getattr(lcrl.losses, name) is getattr(hub, name)
  offered = {n for hub in (policy, stages) for n in hub.__all__ if _is_stage(getattr(hub, n))}
  assert offered - {*lcrl.losses.__all__} == {"combined"}


def _is_stage(function):
  return inspect.isfunction(function) and inspect.signature(function).return_annotation == "Stage"


def test_building_blocks_are_where_the_error_says():
  with pytest.raises(AttributeError, match=r"losses.policy.hinge and lcrl.*stages.hinge") as caught:
    lcrl.losses.hinge  # noqa: B018
  for path in re.findall(r"lcrl[\w.]+\.hinge", str(caught.value)):
    home, _, name = path.rpartition(".")
    assert name in importlib.import_module(home).__all__
  with pytest.raises(AttributeError, match=r"has no attribute 'no_such_loss'$"):
    lcrl.losses.no_such_loss  # noqa: B018


def run(*arguments, cwd):
  return subprocess.run(
    [sys.executable, "-m", "lcrl", *arguments],
    cwd=cwd,
    env={"PYTHONPATH": str(cwd), "JAX_PLATFORMS": "cpu", "PATH": ""},
    capture_output=True,
    text=True,
    check=True,
    timeout=120,
  ).stdout


def test_one_version(tmp_path):
  installed(tmp_path)
  setup = subprocess.run(
    [sys.executable, "setup.py", "--version"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
    timeout=120,
  )
  assert run("--version", cwd=tmp_path).split() == setup.stdout.split() == [lcrl.__version__]


def installed(folder):
  """The packages that setup.py installs, without the rest of the repository."""
  for package in find_packages(str(ROOT), include=["lcrl", "experiments", "configs"]):
    (folder / package).symlink_to(ROOT / package)


def test_methods_of_an_installed_package(tmp_path):
  installed(tmp_path)
  rows = {re.split(r" {2,}", line)[0]: line for line in run("--methods", cwd=tmp_path).split("\n")}
  assert re.search(r"2506.13585 +losses.cispo +configs/cispo.py", rows["CISPO"])
  assert len(rows) > 50


def test_stages_where_configs_are_missing(capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, "experiments.methods", None)
  command.main(["--methods"])
  shown = capsys.readouterr().out
  assert re.search(r"^reward\n(  .*\n)*  exact_length .*L1-Exact", shown, re.MULTILINE)
