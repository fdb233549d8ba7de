"""What the README shows runs as pasted, and what it names exists."""

import importlib
import json
import pathlib
import re

import lcrl
from experiments import methods
from experiments.studies.testbed import methods as testbed
from experiments.studies.testbed.methods import DIALS

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "METHODS.md").read_text(encoding="utf-8")


def test_the_ten_lines_run():
  (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
  names = {}
  exec(code, names)
  assert abs(float(names["loss"])) < 1.0


def test_the_table_of_methods_is_what_the_code_says():
  rows = {m.key: m for m in methods.methods()}
  assert len(rows) >= 55
  # Read off by hand: what a stage calls, at any depth of its own helpers, and nothing beside it.
  assert rows["canon_entropy"].goldens == (
    "rl_b/canon_entropy",
    "rl_b/canon_length",
    "rl_b/canon_schedule",
  )
  assert [*rows["hbpo"].functions] == [
    "budgets.subgroups",
    "rewards.hbpo",
    "advantages.budget_subgroup",
  ]
  assert rows["tldr"].tier == "B"
  assert rows["laser_de"].name == "LASER-DE"
  assert rows["laser_de"].config == "[`laser.py:de`](configs/laser.py)"
  assert "| [authors' code](tests/golden/rl_b.json) |" in line("CANON by entropy")
  assert "| [hand calculation](tests/golden/rl_a.json) |" in line("TLDR")
  assert methods.page() == PAGE, "python -m experiments.methods brings METHODS.md up to date"
  assert methods.updated(TEXT) == TEXT, "python -m experiments.methods brings the README up to date"


def line(method, page=PAGE):
  (found,) = (row for row in page.splitlines() if row.startswith(f"| {method} |"))
  return found


def test_every_measured_method_stands_in_the_table():
  """A method of the testbed that no config has is a baseline of the study's own."""
  own = {m.name for m in DIALS} | {
    "naive",
    "hard_cap",
    "token_mean",
    "fixed_length",
    "fixed_target",
    "hapo_mean",
    "soft_overlong",
  }
  keys = {m.key for m in methods.methods()}
  assert {methods.TESTBED_NAMES.get(key, key) for key in keys} >= testbed.METHODS.keys() - own


def test_a_user_can_import_each_function_by_the_name_that_is_shown():
  for method in methods.methods():
    for name, function in method.functions.items():
      home, _, last = f"lcrl.{name}".rpartition(".")
      assert getattr(importlib.import_module(home), last) is function
      assert home == "lcrl.losses" or not hasattr(lcrl.losses, last)


def test_what_was_measured_is_the_best_coefficient_of_both_starts(tmp_path, monkeypatch):
  def runs(value, accuracy):
    for start, tokens in (("good", 15.0), ("weak", 18.0)):
      for seed in (0, 1):
        row = dict(method="laser", value=value, start=start, seed=seed)
        yield row | dict(accuracy=accuracy + 0.01 * seed, tokens=tokens)

  results = [*runs(8.0, 0.5), *runs(12.0, 0.9)]
  starts = {f"{s}/{i}": dict(accuracy=0.9, tokens=30.0) for s in ("good", "weak") for i in (0, 1)}
  for name, found in (("results", results), ("starts", starts)):
    (tmp_path / f"{name}.json").write_text(json.dumps(found))
  monkeypatch.setattr(methods, "TESTBED", tmp_path)
  assert line("LASER", methods.page()).endswith("| 90.5 % at 15.0; 90.5 % at 18.0 |")


def test_links_lead_somewhere():
  for path in re.findall(r"\]\(([^)#:]+)\)", TEXT + PAGE):
    assert (ROOT / path).exists(), path
