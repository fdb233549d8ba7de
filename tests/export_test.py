"""lcrl.commands.export: the folder holds the policy; what cannot be exported is named."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from lcrl import policies
from lcrl.commands.export import export
from lcrl.training.checkpoint import CheckpointError, Checkpoints
from lcrl.training.pairs.learner import build_learner as build_pair_learner
from lcrl.training.pairs.settings import read as read_pairs
from tests.helpers.saved_runs import CONFIG, save_run

CHAT = Path(__file__).parent / "fixtures" / "chats" / "chatml"


pytestmark = pytest.mark.usefixtures("one_device")


def test_the_folder_holds_the_policy(tmp_path):
  policy, params = save_run(tmp_path / "run", steps=(1, 3))
  assert export(tmp_path / "run", tmp_path / "out") == 3
  loaded, weights = policies.load(tmp_path / "out")
  tokens = np.arange(14, dtype=np.int32).reshape(2, 7)
  np.testing.assert_array_equal(loaded.apply(weights, tokens), policy.apply(params, tokens))


def test_a_tokenizer_with_files_goes_along(tmp_path):
  policy = {**CONFIG["policy"], "vocab_size": policies.tokenizer(CHAT).vocab_size}
  told = {**CONFIG, "policy": policy, "tokenizer": {"fn": "pretrained", "path": str(CHAT)}}
  save_run(tmp_path / "run", told)
  export(tmp_path / "run", tmp_path / "out")
  messages = [{"role": "user", "content": "1 + 1 = ?"}]
  old, new = policies.tokenizer(CHAT), policies.tokenizer(tmp_path / "out")
  assert new.encode(new.render(messages)) == old.encode(old.render(messages))


def test_what_cannot_be_exported_is_named(tmp_path):
  with pytest.raises(ValueError, match=r"none is not a run folder: it has no config\.json"):
    export(tmp_path / "none", tmp_path / "out")
  save_run(tmp_path / "early", steps=())
  with pytest.raises(ValueError, match="early holds no checkpoint"):
    export(tmp_path / "early", tmp_path / "out")
  (tmp_path / "early" / "config.json").write_text("{")
  with pytest.raises(ValueError, match=r"config\.json is not the config of a run"):
    export(tmp_path / "early", tmp_path / "out")
  save_run(tmp_path / "run")
  with pytest.raises(CheckpointError, match=r"no checkpoint .*run/checkpoints/7\. Those .*: 1\."):
    export(tmp_path / "run", tmp_path / "out", step=7)
  assert not (tmp_path / "out").exists()


def test_adapters_are_merged_into_the_folder(tmp_path):
  config = {
    name: x for name, x in CONFIG.items() if name in ("seed", "policy", "tokenizer", "mesh")
  }
  config |= {
    "run": "preference",
    "loss": {"fn": "simpo"},
    "lora": {"rank": 2, "alpha": 8.0, "targets": ("query", "down")},
    "data": {"fn": "pairs", "rows": {"fn": "jsonl", "path": "nowhere"}, "window": 16},
    "batches": {"fn": "stratified", "size": 2},
    "optimizer": CONFIG["optimizer"],
    "train": {"steps": 4, "max_tokens": 16},
  }
  workdir = tmp_path / "run"
  workdir.mkdir()
  (workdir / "config.json").write_text(json.dumps({"config": config}))
  model = build_pair_learner(read_pairs(config))
  state = model.initial()
  moved = jax.tree.map(lambda x: x + 0.1, state.params)
  checkpoints = Checkpoints(workdir / "checkpoints")
  checkpoints.save(1, dataclasses.replace(state, params=moved))
  checkpoints.close()
  assert export(workdir, tmp_path / "out") == 1
  loaded, weights = policies.load(tmp_path / "out")
  tokens = np.arange(14, dtype=np.int32).reshape(2, 7)
  want = model.policy.apply(model.policy_params(moved), tokens)
  np.testing.assert_array_equal(loaded.apply(weights, tokens), want)
  assert np.abs(want - model.policy.apply(model.start(), tokens)).max() > 1e-3


def test_a_gguf_file_holds_the_policy_and_the_tokenizer(tmp_path):
  told = {**CONFIG, "policy": {**CONFIG["policy"], "vocab_size": 320}}
  told |= {"tokenizer": {"fn": "pretrained", "path": str(CHAT)}}
  policy, params = save_run(tmp_path / "run", told)
  assert export(tmp_path / "run", tmp_path / "f32.gguf", gguf_type="f32") == 1
  loaded, weights = policies.load(tmp_path / "f32.gguf")
  tokens = np.arange(14, dtype=np.int32).reshape(2, 7)
  np.testing.assert_array_equal(loaded.apply(weights, tokens), policy.apply(params, tokens))
  export(tmp_path / "run", tmp_path / "out")
  command = [sys.executable, "-m", "lcrl.commands.export", f"--model={tmp_path / 'out'}"]
  command += [f"--out={tmp_path / 'q8.gguf'}", "--gguf_type=q8_0"]
  subprocess.run(command, check=True, timeout=120)
  size = lambda name: (tmp_path / name).stat().st_size
  assert size("q8.gguf") < size("f32.gguf")
  assert policies.tokenizer(tmp_path / "q8.gguf").end_ids == policies.tokenizer(CHAT).end_ids


def test_a_gguf_file_needs_a_tokenizer(tmp_path):
  save_run(tmp_path / "run")
  with pytest.raises(ValueError, match=r"model.gguf: a GGUF file needs a tokenizer"):
    export(tmp_path / "run", tmp_path / "model.gguf")
