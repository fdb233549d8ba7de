"""Builds the documentation site: `python -m docs.build` writes build/docs/html.

It collects the sources in build/docs/source: the pages of this folder, files of the repository, the
reference from docstrings, and the table of methods. Any warning ends the build, and so does a
public name that lacks what `docs.reference` asks for. Nothing is read from a network.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from docs import api, method_index, pages, reference, which_method

HERE = Path(__file__).parent
OUT = HERE.parent / "build" / "docs"


def collect(out: Path) -> None:
  """Writes the sources of the site to `out`.

  Raises:
    ValueError: a public name lacks a part of its docstring, or a link leads nowhere.
  """
  if problems := reference.problems():
    raise ValueError("The reference is not complete:\n" + "\n".join(problems))
  shutil.rmtree(out, ignore_errors=True)
  shutil.copytree(HERE / "_static", out / "_static")
  texts = {f"api/{name}": text for name, text in api.pages().items()}
  texts |= {"api/index": api.index(), "methods": method_index.page(out)}
  texts |= {page: pages.included(path, out) for path, page in pages.INCLUDED.items()}
  values = which_method.values() | {"from other libraries": _from_other_libraries()}
  for path in sorted(HERE.glob("*.md")):
    text = pages.relinked(path.read_text(encoding="utf-8"), f"docs/{path.name}", path.stem, out)
    texts[path.stem] = pages.filled(text, values, path.stem, out)
  for page, text in texts.items():
    (out / page).parent.mkdir(parents=True, exist_ok=True)
    (out / f"{page}.md").write_text(text, encoding="utf-8")


def _from_other_libraries() -> str:
  """The part of the navigation with the pages of this folder that the home page does not name."""
  home = (HERE / "index.md").read_text(encoding="utf-8").split()
  names = sorted(path.stem for path in HERE.glob("*.md") if path.stem not in (*home, "index"))
  lines = ["```{toctree}", ":caption: From other libraries", ":hidden:", "", *names, "```"]
  return "\n".join(lines) if names else ""


def main() -> int:
  from sphinx.cmd.build import build_main

  collect(OUT / "source")
  shutil.rmtree(OUT / "html", ignore_errors=True)
  options = ["-q", "-b", "html", "-W", "--keep-going", "-d", str(OUT / "cache")]
  return build_main([*options, "-c", str(HERE), str(OUT / "source"), str(OUT / "html")])


if __name__ == "__main__":
  sys.exit(main())
