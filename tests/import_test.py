"""The core needs nothing but jax: whoever imports a loss gets no flax, no optax, no files."""

import subprocess
import sys

import pytest

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
