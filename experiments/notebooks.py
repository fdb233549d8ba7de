"""The notebooks of colab/ from their sources: python -m experiments.notebooks [NAME ...]

A source is colab/src/NAME.py: cells begin with `# %%`, and those of text with `# %% [markdown]`.
Each notebook also gets a badge and the cell colab/src/install.py. The notebooks named, or those
whose code changed, are then run in an empty folder, and their results are kept in colab/NAME.ipynb.
Progress, which is written to stderr, is not kept; a warning there is an error.
"""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
COLAB = ROOT / "colab"
SOURCES = sorted((COLAB / "src").glob("[0-9]*.py"))

# Where others find lcrl. Both are empty as long as it is nowhere public: badges then lead to Colab
# itself, and notebooks say how to bring lcrl there.
REPOSITORY = ""  # an address on GitHub, such as https://github.com/OWNER/lcrl
PACKAGE = ""  # "lcrl-jax" once the package index has it

BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"
PUBLIC = "**Install.** In a clone this takes the clone, otherwise the published version."
PRIVATE = """**Install.** In a clone this takes the clone. lcrl has no public address yet: in Colab,
upload this notebook, and beside it a wheel, which `pip wheel --no-deps .` makes in a clone. A git
address that you can reach will do, too: write it into `REPOSITORY`."""
WARNING = re.compile(r"warning|^[EW]\d{4} ", re.IGNORECASE | re.MULTILINE)
MIME = ("image/png", "text/html", "text/markdown", "text/plain")  # the first that an output has
WIDTH = 960  # pixels of a picture, at most

Cell = dict[str, Any]


def cells(source: str) -> Iterator[Cell]:
  """The cells of a source, without results; `# %% [include] FILE` stands for those of another."""
  _, *parts = re.split(r"^# %%(.*)\n", source, flags=re.MULTILINE)
  for kind, text in zip(parts[::2], parts[1::2], strict=True):
    if kind.startswith(" [include] "):
      yield from cells((COLAB / "src" / kind.split()[-1]).read_text(encoding="utf-8"))
    elif kind == " [markdown]":
      yield markdown(re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE))
    else:
      yield code(text.strip())


def markdown(text: str) -> Cell:
  return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text: str) -> Cell:
  return {
    "cell_type": "code",
    "execution_count": None,
    "metadata": {},
    "outputs": [],
    "source": text,
  }


def notebook(path: Path, *, repository: str = REPOSITORY, package: str = PACKAGE) -> dict[str, Any]:
  """The notebook of a source, without results."""
  title, *rest = cells(path.read_text(encoding="utf-8"))
  address = "https://colab.research.google.com/"
  if repository:
    place = repository.removeprefix("https://github.com/").removesuffix(".git")
    address += f"github/{place}/blob/main/colab/{path.stem}.ipynb"
  title["source"] = f"{BADGE.format(address=address)}\n\n{title['source']}"
  install = (path.parent / "install.py").read_text(encoding="utf-8").partition("\n")[2].strip()
  for name, value in (("REPOSITORY", repository), ("PACKAGE", package)):
    install = install.replace(f'{name} = ""', f'{name} = "{value}"')
  text = PUBLIC if repository or package else PRIVATE
  all_cells = [title, markdown(text), code(install), *rest]
  return {
    "cells": [{"id": f"cell-{i}", **cell} for i, cell in enumerate(all_cells)],
    "metadata": {
      "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
      "language_info": {"name": "python"},
    },
    "nbformat": 4,
    "nbformat_minor": 5,
  }


def kept(outputs: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
  """The outputs of a cell as they are stored: text of stdout, and one form of each result.

  Raises:
    ValueError: the cell warned.
  """
  for output in outputs:
    if output["output_type"] == "stream":
      if output["name"] == "stdout":
        yield dict(output)
      elif found := WARNING.search(output["text"]):
        raise ValueError(f"a cell warns: {output['text'][found.start() :]:.300}")
    else:
      mime = next(name for name in MIME if name in output["data"])
      content = output["data"][mime]
      content = small(content) if mime == "image/png" else content
      yield {**output, "data": {mime: content}, "metadata": {}}


def small(png: str) -> str:
  """A picture of at most WIDTH pixels a line and 128 colours: a fifth of the bytes."""
  from PIL import Image

  image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
  if image.width > WIDTH:
    image = image.resize(
      (WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS
    )
  file = io.BytesIO()
  octree = Image.Quantize.FASTOCTREE  # keeps the colours of thin lines apart
  image.quantize(128, method=octree).save(file, "png", optimize=True)
  return base64.b64encode(file.getvalue()).decode()


def run(path: Path) -> dict[str, Any]:
  """The notebook of a source with its results."""
  import nbformat
  from nbclient import NotebookClient

  book = nbformat.from_dict(notebook(path))  # type: ignore[no-untyped-call]
  with tempfile.TemporaryDirectory() as folder:
    NotebookClient(
      book,
      timeout=1800,
      coalesce_streams=True,
      record_timing=False,
      resources={"metadata": {"path": folder}},
    ).execute()
  for cell in book.cells:
    if cell.cell_type == "code":
      cell.outputs = [*kept(cell.outputs)]
  return {**book, "metadata": notebook(path)["metadata"]}  # without the version of this Python


def text_of(book: Mapping[str, Any]) -> str:
  """The file of a notebook: source and text by lines, so that changes can be read."""

  def by_lines(x: Any, key: str = "") -> Any:
    if isinstance(x, Mapping):
      return {name: by_lines(value, name) for name, value in x.items()}
    if isinstance(x, list):
      return [by_lines(value) for value in x]
    lines = key in ("source", "text") or key.startswith("text/")
    return x.splitlines(keepends=True) if lines else x

  return json.dumps(by_lines(book), indent=1, ensure_ascii=False) + "\n"


def with_old_results(path: Path) -> dict[str, Any] | None:
  """The notebook of a source with its stored results; None if they are of other code."""
  book, file = notebook(path), COLAB / f"{path.stem}.ipynb"
  old = json.loads(file.read_text(encoding="utf-8"))["cells"] if file.is_file() else []
  old, new = ([c for c in all_ if c["cell_type"] == "code"] for all_ in (old, book["cells"]))
  if ["".join(cell["source"]) for cell in old] != [cell["source"] for cell in new]:
    return None
  for cell, stored in zip(new, old, strict=True):
    cell.update({name: stored[name] for name in ("execution_count", "outputs")})
  return book


def main(names: Sequence[str]) -> None:
  for path in SOURCES:
    if not names or path.stem in names:
      start = time.perf_counter()
      text = text_of((None if names else with_old_results(path)) or run(path))
      (COLAB / f"{path.stem}.ipynb").write_text(text, encoding="utf-8")
      print(f"{path.stem}: {time.perf_counter() - start:.0f} s, {len(text) / 1e3:.0f} kB")


if __name__ == "__main__":
  main(sys.argv[1:])
