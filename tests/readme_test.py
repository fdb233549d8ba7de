"""What the README shows runs as pasted, and what it names exists."""

import importlib
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
SLOTS = {"losses": "lcrl.losses.policy", "weights": "lcrl.losses.weights"}


def test_the_ten_lines_run():
  (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
  names = {}
  exec(code, names)
  assert abs(float(names["loss"])) < 1.0


def test_the_method_table_names_what_exists():
  rows = [line for line in TEXT.splitlines() if line.startswith("| ") and "`" in line]
  assert len(rows) >= 9
  for row in rows:
    *_, functions, configs = (cell.strip() for cell in row.strip("|").split("|"))
    for slot, name in re.findall(r"`(\w+)\.(\w+)`", functions):
      module = importlib.import_module(SLOTS.get(slot, f"lcrl.{slot}"))
      assert name in module.__all__, f"{slot}.{name}"
    for name in re.findall(r"`(\w+)`", configs):
      assert (ROOT / "configs" / f"{name}.py").is_file(), name


def test_links_and_commands_lead_somewhere():
  for path in re.findall(r"\]\(([^)#:]+)\)", TEXT):
    assert (ROOT / path).exists(), path
  targets = (ROOT / "Makefile").read_text()
  for target in re.findall(r"^make ([\w-]+)", TEXT, re.MULTILINE):
    assert re.search(rf"^{target}:", targets, re.MULTILINE), target
  for module in re.findall(r"python -m (experiments\.\w+)", TEXT):
    assert importlib.util.find_spec(module), module
