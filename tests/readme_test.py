"""What the README shows runs as pasted, and what it names exists."""

import importlib.util
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


def test_links_and_commands_lead_somewhere():
  for path in re.findall(r"\]\(([^)#:]+)\)", TEXT):
    assert (ROOT / path).exists(), path
  targets = (ROOT / "Makefile").read_text()
  for target in re.findall(r"^make ([\w-]+)", TEXT, re.MULTILINE):
    assert re.search(rf"^{target}:", targets, re.MULTILINE), target
  for module in re.findall(r"python -m (experiments\.\w+)", TEXT):
    assert importlib.util.find_spec(module), module
