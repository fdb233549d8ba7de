"""The core needs nothing but jax: whoever imports a loss gets no flax, no optax, no files."""

import ast
import pathlib
import subprocess
import sys

import pytest

LCRL = pathlib.Path(__file__).parent.parent / "lcrl"
SLOTS = ("budgets", "rewards", "filters", "advantages", "losses")
# What every slot may read.
BELOW = (
  "types",
  "checks",
  "masked",
  "by_row",
  "registry",
  "ngrams",
  "modes",
  "preferences",
  "sharding",
)

PROGRAM = """
import sys
import jax, numpy
before = set(sys.modules)
import {module}
print(*(name for name in set(sys.modules) - before if name.split(".")[0] != "lcrl"))
"""


@pytest.mark.parametrize("module", ["lcrl", "lcrl.losses", "lcrl.rewards", "lcrl.recipes"])
def test_loads_nothing_that_jax_does_not(module):
  run = subprocess.run(
    [sys.executable, "-c", PROGRAM.format(module=module)],
    capture_output=True,
    text=True,
    check=True,
    timeout=120,
  )
  assert run.stdout.split() == []


@pytest.mark.parametrize("slot", SLOTS)
def test_a_slot_reads_no_other_slot(slot):
  files = [LCRL / f"{slot}.py"] if (LCRL / f"{slot}.py").exists() else (LCRL / slot).rglob("*.py")
  found = set()
  for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
    if isinstance(node, ast.ImportFrom):
      found |= {f"{node.module}.{alias.name}" for alias in node.names}
    elif isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
  assert found
  assert not {name.split(".")[1] for name in found if name.startswith("lcrl.")} - {slot, *BELOW}
