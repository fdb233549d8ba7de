"""Notebooks are what their sources say, with results of a run without errors, warnings and paths.

`make notebooks` runs them anew.
"""

import base64
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from experiments import notebooks

SOURCES = pytest.mark.parametrize("path", notebooks.SOURCES, ids=lambda path: path.stem)
PLACE = re.compile(r"/(?:tmp|home|root|work|usr|content|Users|private)/|[A-Z]:\\")
INSTALL = (notebooks.COLAB / "src" / "install.py").read_text(encoding="utf-8")


def stored(path):
  text = (notebooks.COLAB / f"{path.stem}.ipynb").read_text(encoding="utf-8")
  return text, json.loads(text)


def test_every_notebook_has_a_source():
  assert len(notebooks.SOURCES) >= 7
  names = [path.stem for path in sorted(notebooks.COLAB.glob("*.ipynb"))]
  assert names == [path.stem for path in notebooks.SOURCES]


@SOURCES
def test_a_notebook_is_what_its_source_says(path):
  _, book = stored(path)
  for cell in book["cells"]:
    if cell["cell_type"] == "code":
      cell["outputs"], cell["execution_count"] = [], None
  renew = f"python -m experiments.notebooks {path.stem}"
  assert notebooks.text_of(book) == notebooks.text_of(notebooks.notebook(path)), renew


@SOURCES
def test_results_are_those_of_one_whole_run(path):
  text, book = stored(path)
  code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
  assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
  assert len(text) < 400_000
  outputs = [output for cell in code for output in cell["outputs"]]
  pictures = 0
  for output in outputs:
    assert output["output_type"] in ("stream", "display_data", "execute_result"), "no errors"
    assert output.get("name", "stdout") == "stdout"
    for mime, content in output.get("data", {"text/plain": output.get("text")}).items():
      if mime == "image/png":
        pictures += 1
        assert len(base64.b64decode(content)) < 100_000
      else:
        content = "".join(content)
        assert len(content) < 4_000
        assert not PLACE.search(content)
        assert not notebooks.WARNING.search(content)
  assert len(outputs) >= 4
  assert pictures or "02" in path.stem


@SOURCES
def test_sources_are_clean(path):
  """Ruff reads the code of a whole notebook, since cells use names of earlier ones."""
  book = notebooks.notebook(path)
  code = [cell["source"] for cell in book["cells"] if cell["cell_type"] == "code"]
  ruff = [sys.executable, "-m", "ruff"]
  check = [*ruff, "check", "--no-cache", "--ignore=E402,B018", "--stdin-filename=notebook.py", "-"]
  found = subprocess.run(check, input="\n\n".join(code), text=True, capture_output=True)
  assert not found.returncode, found.stdout
  assert not re.search(r"^ *(?:from|import) (?:experiments|configs|tests)\b", "\n".join(code), re.M)
  assert book["cells"][0]["source"].startswith("[![Open in Colab](")


def test_all_sources_are_formatted():
  files = [*map(str, (notebooks.COLAB / "src").glob("*.py"))]
  command = [sys.executable, "-m", "ruff", "format", "--check", "--no-cache", "--isolated"]
  options = ["--config=indent-width=2", "--config=line-length=100"]
  found = subprocess.run([*command, *options, *files], text=True, capture_output=True)
  assert not found.returncode, found.stdout


def test_badges_and_the_install_cell_know_the_address_once_there_is_one():
  path, address = notebooks.SOURCES[0], "https://github.com/someone/lcrl"
  title, text, install, *_ = notebooks.notebook(path, repository=address)["cells"]
  blob = f"github/someone/lcrl/blob/main/colab/{path.stem}.ipynb"
  assert f"(https://colab.research.google.com/{blob})" in title["source"]
  assert f'\nREPOSITORY = "{address}"' in install["source"]
  assert text["source"] == notebooks.PUBLIC


def install(tmp_path, monkeypatch, *, there=False, **constants):
  """Runs the install cell in a folder; returns what it gives to pip, and prints."""
  calls, text = [], INSTALL
  for name, value in constants.items():
    text = text.replace(f'\n{name} = ""', f'\n{name} = "{value}"')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr("sys.path", [*sys.path])
  monkeypatch.setattr("shutil.which", lambda name: None)
  monkeypatch.setattr("importlib.util.find_spec", lambda name: there or None)
  monkeypatch.setattr("subprocess.check_call", lambda call: calls.append(call[5:]))
  exec(compile(text, "install", "exec"), {})
  return calls


def test_nothing_is_installed_where_all_is_there(tmp_path, monkeypatch):
  assert install(tmp_path, monkeypatch, there=True) == []


def test_a_clone_is_installed_from_any_folder_of_it(tmp_path, monkeypatch):
  (tmp_path / "lcrl").mkdir()
  (tmp_path / "lcrl" / "registry.py").touch()
  (tmp_path / "colab").mkdir()
  calls = install(tmp_path / "colab", monkeypatch, REPOSITORY="https://a.org/lcrl")
  assert calls == [["--editable", f"{tmp_path}[train]"]]
  assert sys.path[0] == str(tmp_path)


def test_elsewhere_the_package_is_installed_or_git(tmp_path, monkeypatch):
  with pytest.raises(SystemExit, match="REPOSITORY"):
    install(tmp_path, monkeypatch)
  git = install(tmp_path, monkeypatch, REPOSITORY="https://a.org/lcrl")
  assert git == [["lcrl-jax[train] @ git+https://a.org/lcrl"]]
  assert install(tmp_path, monkeypatch, PACKAGE="lcrl-jax") == [["lcrl-jax[train]"]]
  wheel = tmp_path / "lcrl_jax-0.1.0-py3-none-any.whl"
  wheel.touch()
  assert install(tmp_path, monkeypatch) == [[f"{wheel}[train]"]]


def test_the_install_cell_finds_a_clone_by_a_file_that_there_is():
  assert (notebooks.ROOT / "lcrl" / "registry.py").is_file()


def test_nothing_is_installed_by_a_name_that_is_not_ours():
  """The package index has another project under the name lcrl."""
  setup = (notebooks.ROOT / "setup.py").read_text(encoding="utf-8")
  assert re.findall(r"^  name=\"(.+?)\"", setup, re.MULTILINE) == ["lcrl-jax"]
  assert notebooks.PACKAGE in ("", "lcrl-jax")
  readme = (notebooks.ROOT / "README.md").read_text(encoding="utf-8")
  assert not re.search(r"pip install [^`\n]*\blcrl\b(?!-)", readme)


def test_cells_of_a_source():
  text = (
    "A comment.\n# %% [markdown]\n# # Add\n#\n# Two.\n\n# %%\n1 + 2\n\n# %% [include] start.py\n"
  )
  title, addition, *shared = notebooks.cells(text)
  assert (title["cell_type"], title["source"]) == ("markdown", "# Add\n\nTwo.")
  assert (addition["cell_type"], addition["source"]) == ("code", "1 + 2")
  assert "def working(" in shared[1]["source"]


def test_results_of_other_code_are_not_kept(tmp_path, monkeypatch):
  (tmp_path / "src").mkdir()
  source = tmp_path / "src" / "01_sum.py"
  (tmp_path / "src" / "install.py").write_text(INSTALL)
  source.write_text("# %% [markdown]\n# Add\n\n# %%\n1 + 2\n")
  book = notebooks.notebook(source)
  book["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "3"}]
  monkeypatch.setattr(notebooks, "COLAB", tmp_path)
  (tmp_path / "01_sum.ipynb").write_text(notebooks.text_of(book))
  source.write_text("# %% [markdown]\n# Sum\n\n# %%\n1 + 2\n")
  renewed = notebooks.with_old_results(source)
  assert renewed["cells"][0]["source"].endswith("Sum")
  assert renewed["cells"][-1]["outputs"][0]["text"] == ["3"]
  source.write_text("# %% [markdown]\n# Sum\n\n# %%\n1 + 3\n")
  assert notebooks.with_old_results(source) is None


def test_pictures_become_small():
  file, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (300, 1200, 3), np.uint8)
  Image.fromarray(noise).save(file, "png")
  small = notebooks.small(base64.b64encode(file.getvalue()).decode())
  assert Image.open(io.BytesIO(base64.b64decode(small))).width == notebooks.WIDTH
  assert len(small) < len(file.getvalue()) / 3


def test_warnings_are_refused_and_progress_is_not_kept():
  stream = {"output_type": "stream", "name": "stderr", "text": "step 1  loss 0.5\n"}
  assert [*notebooks.kept([stream])] == []
  with pytest.raises(ValueError, match="a cell warns: WARNING:root"):
    [*notebooks.kept([{**stream, "text": "step 1\nWARNING:root:a fifth is cut\n"}])]
