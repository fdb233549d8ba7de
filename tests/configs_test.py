"""Every config is complete, and runs in its smoke mode from the command line's entry point."""

import importlib
import inspect
import json
import pathlib

import jax
import pytest

from lcrl import recipes
from lcrl.training import loop
from lcrl.training.settings import read

FOLDER = pathlib.Path(__file__).parent.parent / "configs"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("__init__", "smoke"))


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  monkeypatch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])


def module(name):
  return importlib.import_module(f"configs.{name}")


@pytest.mark.parametrize("name", NAMES)
def test_full_config_names_what_exists(name):
  config = module(name).get_config().to_dict()
  settings = read(config)
  recipes.from_config(settings.slots)
  doc = inspect.getdoc(module(name))
  for part in ("Run ", "Smoke ", "Result "):
    assert part in doc, f"the docstring of configs/{name}.py has no line {part!r}"
  assert f"configs/{name}.py" in doc


@pytest.mark.parametrize("name", NAMES)
def test_smoke_run(name, tmp_path):
  loop.train(module(name).get_config("smoke").to_dict(), tmp_path)
  assert json.loads((tmp_path / "summary.json").read_text())["tokens"] > 0
  assert (tmp_path / "report.md").read_text().startswith("# ")
