"""Damaged model files load as they say, or one error names the file, and soon."""

import json
import shutil
import struct
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcrl import policies
from lcrl.policies.folder import INDEX
from tests.helpers.gguf_files import _vocabulary, _write

MODELS = Path(__file__).parent / "fixtures" / "models"
FAMILIES = ("llama2", "llama3", "mistral", "qwen2_window", "qwen3")
SECONDS = 10  # a quiet machine takes a quarter of one
often = lambda n: settings(
  max_examples=n,
  deadline=None,
  derandomize=True,
  database=None,
  suppress_health_check=[*HealthCheck],
)


def _loaded(path):
  """What loads, or None where a good error says why not."""
  start, loaded, why = time.monotonic(), None, None
  try:
    loaded = policies.load(path)
  except (ValueError, FileNotFoundError) as error:
    why = str(error)
  assert time.monotonic() - start < SECONDS
  assert why is None or (str(path) in why and "\n" not in why)
  return loaded


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  root = tmp_path_factory.mktemp("models")
  return {name: Path(shutil.copytree(MODELS / name, root / name)) for name in FAMILIES}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  folder = tmp_path_factory.mktemp("gguf")
  return folder, _write(folder / "whole.gguf", "qwen2", tokenizer=_vocabulary).read_bytes()


# Positions are fractions of the header; a change flips bits, and the file may be cut.
changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=3)
cuts = st.one_of(st.none(), st.none(), st.none(), st.floats(0, 1))


def _damage(content, header, changes, cut):
  damaged = bytearray(content)
  for where, bits in changes:
    damaged[int(where * header)] ^= bits
  return bytes(damaged if cut is None else damaged[: int(cut * len(damaged))])


@often(60)
@given(changes=changes, cut=cuts)
def test_safetensors(folders, changes, cut):
  file = folders["llama3"] / "model.safetensors"
  content = (MODELS / "llama3" / "model.safetensors").read_bytes()
  file.write_bytes(_damage(content, 8 + struct.unpack("<Q", content[:8])[0], changes, cut))
  if loaded := _loaded(file.parent):
    want = policies.load(MODELS / "llama3")[1]
    jax.tree.map(np.testing.assert_array_equal, loaded[1], want)
  file.write_bytes(content)


@often(80)
@given(changes=changes, cut=cuts)
def test_gguf(written, changes, cut):
  folder, content = written
  header = content.rindex(b".weight") + 40
  (folder / "damaged.gguf").write_bytes(_damage(content, header, changes, cut))
  _loaded(folder / "damaged.gguf")


scalars = st.one_of(
  st.sampled_from([None, True, False, 0, -1, 10**6, 10**9, 10**18, 10**400, "", "4", "\0", "/"]),
  st.sampled_from([1.5, 1e308, 5e-324, float("nan"), float("inf"), [[]], {"a": [1]}]),
  st.integers(-3, 70),
  st.floats(),
  st.text(max_size=3),
)
values = st.recursive(
  scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=2)
)


@often(90)
@given(st.data())
def test_config(folders, data):
  name = data.draw(st.sampled_from(FAMILIES))
  raw = json.loads((MODELS / name / "config.json").read_text())
  for _ in range(data.draw(st.integers(1, 2))):
    table = raw["rope_parameters"] if data.draw(st.booleans()) else raw
    table = table if isinstance(table, dict) else raw
    names = sorted({*table, "factor", "type", "sliding_window", "layer_types", "rope_scaling"})
    table[data.draw(st.sampled_from(names))] = data.draw(values)
    if "rope_parameters" not in raw:
      raw["rope_parameters"] = {}
  (folders[name] / "config.json").write_text(json.dumps(raw))
  _loaded(folders[name])
  shutil.copy(MODELS / name / "config.json", folders[name])


@often(25)
@given(st.data())
def test_index(folders, data):
  path = folders["llama2"] / INDEX
  raw = json.loads((MODELS / "llama2" / INDEX).read_text())
  table = raw["weight_map"] if data.draw(st.integers(0, 3)) else raw
  table[data.draw(st.sampled_from(sorted(table)))] = data.draw(values)
  path.write_text(json.dumps(raw))
  if loaded := _loaded(path.parent):
    want = policies.load(MODELS / "llama2")[1]
    jax.tree.map(np.testing.assert_array_equal, loaded[1], want)


@often(60)
@given(changes=changes, cut=cuts)
def test_json(folders, changes, cut):
  file = folders["qwen3"] / "config.json"
  content = (MODELS / "qwen3" / "config.json").read_bytes()
  file.write_bytes(_damage(content, len(content), changes, cut))
  _loaded(file.parent)
  file.write_bytes(content)
