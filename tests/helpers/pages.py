"""Code of the pages in docs/."""

import pathlib
import re

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def python_of(page: str, heading: str) -> str:
  """The Python code below a heading of the second level."""
  (section,) = re.findall(
    rf"^## {heading}\n(.*?)(?=^## |\Z)", (DOCS / page).read_text(), re.M | re.S
  )
  return "\n".join(re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL))


def run(page: str, heading: str, **names) -> dict:
  """Runs that code; gives its names."""
  scope = dict(names)
  exec(compile(python_of(page, heading), f"docs/{page}: {heading}", "exec"), scope)
  return scope
