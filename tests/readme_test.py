"""What the README shows runs as pasted, and what it names exists."""

import importlib.util
import json
import pathlib
import re

from experiments import methods

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_ten_lines_run():
  (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
  names = {}
  exec(code, names)
  assert abs(float(names["loss"])) < 1.0


def test_the_table_of_methods_is_what_the_code_says():
  rows = {m.place: m for m in methods.methods()}
  assert len(rows) >= 55
  # Read off by hand: what a stage calls, at any depth of its own helpers, and nothing beside it.
  assert rows["configs/canon_entropy.py"].goldens == (
    "rl_b/canon_entropy",
    "rl_b/canon_length",
    "rl_b/canon_schedule",
  )
  assert [*rows["configs/hbpo.py"].functions] == [
    "budgets.subgroups",
    "rewards.hbpo",
    "advantages.budget_subgroup",
  ]
  assert rows["configs/tldr.py"].tier == "B"
  assert methods.updated(TEXT) == TEXT, "python -m experiments.methods brings the README up to date"


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
  (row,) = (line for line in methods.table().splitlines() if line.startswith("| LASER |"))
  assert row.endswith("| 90.5 % at 15.0; 90.5 % at 18.0 |")


def test_links_and_commands_lead_somewhere():
  for path in re.findall(r"\]\(([^)#:]+)\)", TEXT):
    assert (ROOT / path).exists(), path
  targets = (ROOT / "Makefile").read_text()
  for target in re.findall(r"^make ([\w-]+)", TEXT, re.MULTILINE):
    assert re.search(rf"^{target}:", targets, re.MULTILINE), target
  for module in re.findall(r"python -m (experiments\.\w+)", TEXT):
    assert importlib.util.find_spec(module), module
