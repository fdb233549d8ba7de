"""Which files of a folder are the model: two saves, names in an index, other kinds of files."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from lcrl import policies
from lcrl.policies.folder import INDEX
from tests.helpers.models import _copy, _load


def _two_saves(tmp_path):
  """(folder of shards, folder with one file, its params): two models of the same sizes."""
  policy, params = _load("qwen2")
  other = jax.tree.map(lambda x: x + 1, params)
  policies.save(tmp_path / "shards", policy, params, shard_bytes=20_000)
  policies.save(tmp_path / "whole", policy, other)
  return tmp_path / "shards", tmp_path / "whole", other


def test_one_file_saved_over_shards_counts(tmp_path):
  shards, whole, want = _two_saves(tmp_path)
  for file in shards.glob("model-*"):
    file.unlink()  # transformers does so, and leaves the index
  shutil.copy(whole / "model.safetensors", shards)
  jax.tree.map(np.testing.assert_array_equal, policies.load(shards)[1], want)


@pytest.mark.parametrize("gone", [0, 1, 3])
def test_shards_beside_one_file_are_refused(gone, tmp_path):
  shards, whole, _ = _two_saves(tmp_path)
  shutil.copy(whole / "model.safetensors", shards)
  for file in sorted(shards.glob("model-*"))[:gone]:
    file.unlink()
  with pytest.raises(ValueError, match=r"holds two models, model.safetensors and model-0000"):
    policies.load(shards)
  (shards / INDEX).unlink()
  with pytest.raises(ValueError, match="holds two models"):
    policies.load(shards)


def test_shards_of_two_saves_are_refused(tmp_path):
  policy, params = _load("qwen2")
  policies.save(tmp_path / "a", policy, params, shard_bytes=20_000)
  policies.save(tmp_path / "b", policy, params, shard_bytes=30_000)
  folder = Path(shutil.copytree(tmp_path / "a", tmp_path / "both"))
  for file in (tmp_path / "b").glob("model-*"):
    shutil.copy(file, folder)
  with pytest.raises(ValueError, match=r"model-00001-of-00003.safetensors is not in .*index.json"):
    policies.load(folder)
  folder = tmp_path / "a"  # and shards that changed places
  first, second = sorted(folder.glob("model-*"))[:2]
  swap = folder / "swap"
  for old, new in ((first, swap), (second, first), (swap, second)):
    old.rename(new)
  with pytest.raises(ValueError, match=r"holds tensor .* places in model-0000\d-of-00004"):
    policies.load(folder)
  (folder / INDEX).unlink()
  with pytest.raises(FileNotFoundError, match=r"model.safetensors is missing: it has model-00001"):
    policies.load(folder)


@pytest.mark.parametrize(
  "name",
  [
    "../other/model.safetensors",
    "/model.safetensors",
    "a/../../model.safetensors",
    "./model.safetensors",
    "..\\other\\model.safetensors",
    "C:model.safetensors",
    "model\0.safetensors",
    "model\n.safetensors",
    "\ud800.safetensors",
    "\u202emodel.safetensors",
    "m" * 300 + ".safetensors",
    "..",
    "",
    "config.json",
    7,
    ["model.safetensors"],
    None,
  ],
)
def test_an_index_names_files_of_its_folder_only(name, tmp_path):
  folder = _copy("llama2", tmp_path)
  _copy("llama3", tmp_path).rename(tmp_path / "other")
  index = json.loads((folder / INDEX).read_text())
  index["weight_map"]["model.norm.weight"] = name
  (folder / INDEX).write_text(json.dumps(index))
  with pytest.raises(ValueError, match=r"index.json(: weight_map places model.norm.weight in| pl)"):
    policies.load(folder)


@pytest.mark.parametrize(
  "content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 10**5]
)
def test_an_index_that_is_none_is_named(content, tmp_path):
  folder = _copy("llama2", tmp_path)
  (folder / INDEX).write_text(content)
  with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json(:| is not)"):
    policies.load(folder)


@pytest.mark.parametrize(
  "content", ["[]", "3", "null", "[" * 10**5, '{"a":' * 10**5, "9" * 5000, "{", "\xff"]
)
def test_a_config_that_is_no_object_is_named(content, tmp_path):
  folder = _copy("llama3", tmp_path)
  (folder / "config.json").write_bytes(content.encode("latin-1"))
  with pytest.raises(ValueError, match=r"config\.json is not (a )?JSON"):
    policies.load(folder)


def test_links_of_a_cache_are_followed(tmp_path):
  """A snapshot of the hub's cache holds links to ../../blobs."""
  cached = _copy("llama3", tmp_path)
  snapshot = tmp_path / "cache" / "snapshots" / "main"
  (tmp_path / "cache" / "blobs").mkdir(parents=True)
  snapshot.mkdir(parents=True)
  for i, file in enumerate(cached.iterdir()):
    file.rename(tmp_path / "cache" / "blobs" / str(i))
    (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / str(i))
  jax.tree.map(np.testing.assert_array_equal, policies.load(snapshot)[1], _load("llama3")[1])


@pytest.mark.parametrize("files", [["adapter_config.json"], ["adapter_config.json", "config.json"]])
def test_an_adapter_is_no_model(files, tmp_path):
  for file in files:
    (tmp_path / file).write_text("{}")
  with pytest.raises(ValueError, match=r"holds an adapter \(adapter_config.json\): merge it"):
    policies.load(tmp_path)


def test_other_kinds_of_weights_are_named(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
  with pytest.raises(FileNotFoundError, match=r"model.safetensors is missing: it has none"):
    policies.load(tmp_path)
  (tmp_path / "pytorch_model.bin").write_bytes(b"")
  with pytest.raises(FileNotFoundError, match=r"it has pytorch_model.bin, .* never from pickles"):
    policies.load(tmp_path)
