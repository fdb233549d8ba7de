"""Models by hub id: a local folder comes first, a copy of the hub next, errors name both."""

import fnmatch
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from lcrl import policies
from lcrl.commands import export
from tests.helpers.models import _load

CHAT = Path(__file__).parent / "fixtures" / "chats" / "chatml"


@pytest.fixture
def hub(tmp_path, monkeypatch):
  """A hub with one model, owner/small; its calls."""
  policy, params = _load("qwen2")
  policies.save(tmp_path / "cache", policy, params)
  shutil.copytree(CHAT, tmp_path / "cache", dirs_exist_ok=True)
  calls = []

  def snapshot_download(repo, **how):
    calls.append((repo, how))
    if repo != "owner/small":
      raise OSError("404")
    return str(tmp_path / "cache")

  fake = types.SimpleNamespace(
    snapshot_download=snapshot_download,
    create_repo=lambda name, **how: calls.append((name, how)),
    upload_folder=lambda **how: calls.append(("upload", how)) or "an address",
  )
  monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
  monkeypatch.chdir(tmp_path)
  return calls


def test_a_hub_id_gives_weights_and_tokenizer(hub, tmp_path):
  policy, params = policies.load("owner/small@v1")
  ours, theirs = policies.load(tmp_path / "cache")
  assert policy.config == ours.config
  np.testing.assert_array_equal(params["embed"], theirs["embed"])
  assert policies.tokenizer("owner/small").end_ids == policies.tokenizer(CHAT).end_ids
  assert [(repo, how["revision"]) for repo, how in hub] == [
    ("owner/small", "v1"),
    ("owner/small", None),
  ]


def test_a_local_folder_comes_first(hub, tmp_path):
  shutil.copytree(tmp_path / "cache", tmp_path / "owner" / "small")
  policies.load("owner/small")
  assert not hub


@pytest.mark.parametrize("path", ["models/small", "./owner/small", "../owner/small", "a/b/c", "x"])
def test_paths_are_not_looked_up(path, hub):
  with pytest.raises(FileNotFoundError, match=r"There is no model folder .*\.$"):
    policies.load(path)
  with pytest.raises(FileNotFoundError, match="There is no model folder"):
    policies.tokenizer(path)
  assert not hub


def test_what_the_hub_lacks_is_named(hub, monkeypatch):
  with pytest.raises(FileNotFoundError, match=r"no model folder owner/other, and the hub .*404"):
    policies.load("owner/other")
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(FileNotFoundError, match=r"install huggingface_hub \(pip install"):
    policies.load("owner/small")


def test_an_export_is_uploaded_when_asked(hub, tmp_path, monkeypatch):
  assert export.push(tmp_path / "cache", "me/mine") == "an address"
  assert hub == [
    ("me/mine", {"private": True, "exist_ok": True}),
    ("upload", {"repo_id": "me/mine", "folder_path": tmp_path / "cache"}),
  ]
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(ValueError, match="--push needs huggingface_hub"):
    export.push(tmp_path / "cache", "me/mine")


def test_all_that_a_model_needs_is_downloaded(hub):
  needed = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"]
  needed += ["tokenizer.json", "chat_template.jinja", "tokenizer.model", "merges.txt"]
  policies.load("owner/small")
  [(_, how)] = hub
  some = lambda name, key: any(fnmatch.fnmatch(name, pattern) for pattern in how[key])
  there = [*needed, "pytorch_model.bin", "onnx/model.safetensors"]
  taken = [n for n in there if some(n, "allow_patterns") and not some(n, "ignore_patterns")]
  assert taken == needed


@pytest.mark.parametrize("path", ["runs/small", "data/small", "~/small"])
def test_paths_are_not_looked_up_either(path, hub):
  with pytest.raises(FileNotFoundError, match=r"There is no model folder .*\.$"):
    policies.load(path)
  assert not hub


def test_the_command_uploads_what_it_wrote(hub, monkeypatch, capsys):
  monkeypatch.setattr(export, "export", lambda *_: 3)
  monkeypatch.setattr(export, "opened", Path)
  asked = dict(workdir="run", model=None, out="out", step=None, gguf_type="f16")
  monkeypatch.setattr(export, "FLAGS", types.SimpleNamespace(**asked, push=None))
  export.main([])
  assert not hub
  monkeypatch.setattr(export, "FLAGS", types.SimpleNamespace(**asked, push="me/mine"))
  export.main([])
  assert hub[-1] == ("upload", {"repo_id": "me/mine", "folder_path": Path("out")})
  assert capsys.readouterr().out.endswith("and at an address\n")
  asked["out"] = "model.gguf"
  monkeypatch.setattr(export, "FLAGS", types.SimpleNamespace(**asked, push="me/mine"))
  with pytest.raises(ValueError, match="--push uploads folders"):
    export.main([])
