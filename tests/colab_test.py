"""Notebooks are committed without results and parse; `make notebooks` runs them."""

import ast
import json
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
