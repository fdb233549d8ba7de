"""Notebooks are committed without results and parse; `make notebooks` runs them."""

import ast
import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "colab").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_clean(path):
  cells = json.loads(path.read_text())["cells"]
  code = [cell for cell in cells if cell["cell_type"] == "code"]
  assert code
  for cell in code:
    assert not cell["outputs"]
    assert cell["execution_count"] is None
    source = "".join(cell["source"])
    ast.parse(source)
    assert max(map(len, source.splitlines())) <= 100
  assert cells[0]["cell_type"] == "markdown", "it says first what it is about"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_is_installed_by_a_name_that_is_not_ours(path):
  """The package index has another project under the name lcrl."""
  setup = (path.parent.parent / "setup.py").read_text()
  assert re.findall(r"^  name=\"(.+?)\"", setup, re.MULTILINE) == ["lcrl-jax"]
  cells = json.loads(path.read_text())["cells"]
  code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
  assert '"-e", f"{clone}[train]"' in code
  assert "REPOSITORY" in code
  assert len(re.findall(r'"install"', code)) == 1
  readme = (path.parent.parent / "README.md").read_text()
  assert not re.search(r"pip install [^`\n]*\blcrl\b(?!-)", readme)
