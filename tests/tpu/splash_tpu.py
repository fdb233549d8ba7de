"""A step with splash attention on packed rows, compiled by the TPU compiler; no TPU is needed.

What libtpu checks when it compiles a kernel (tiles, the memory of a core) nothing else checks.
"""

import re

import jax
import pytest

from lcrl.commands import fit as command
from lcrl.training.analysis import fit
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.fit_config import CONFIG

TRAIN = {"prompts": 16, "group_size": 4, "max_tokens": 192, "max_prompt_tokens": 64, "pack": 1024}
CASES = {
  "v5e:4x4": (
    {"heads": 9, "kv_heads": 3, "head_dim": 64, "remat": "dots"},
    {"fsdp": 16},
    1,  # runs of the kernel: what attention leaves is kept
  ),
  "v6e:4x4": (
    {"heads": 4, "kv_heads": 2, "head_dim": 128, "remat": "full", "windows": (128, 128)},
    {"fsdp": 8, "tensor": 2},
    2,
  ),
}


@pytest.mark.parametrize("topology", CASES)
def test_packed_rows_go_through_splash(topology):
  sizes, mesh, forward = CASES[topology]
  policy = CONFIG["policy"] | sizes | {"attention": "splash", "dtype": "bfloat16"}
  config = CONFIG | {"policy": policy, "train": CONFIG["train"] | TRAIN, "mesh": mesh}
  model = build_learner(read(config), devices=command.describe(topology))
  programs = fit.compile_step(model)
  text = programs["update"].as_text()
  kernels = re.findall(r"%(splash_mha_[a-z]+)_segmented\S* = .*\"tpu_custom_call\"", text)
  assert sorted(kernels) == ["splash_mha_dkv", "splash_mha_dq", *["splash_mha_fwd"] * forward]
  assert "splash_mha_fwd" in programs["sample"].as_text()  # of prompts
  found = fit.measure(model, compiled=programs)
  assert found["update"].arguments >= fit.device_bytes(model.abstract)
  assert found["update"].sent > fit.device_bytes(model.abstract.params)
  facts = {"kind": model.mesh.devices.flat[0].device_kind, "mesh": dict(model.mesh.shape)}
  facts["parameters"] = sum(x.size for x in jax.tree.leaves(model.abstract.params))
  report = command.report(found, tokens=TRAIN["max_tokens"], **facts)
  print("", command.table(report), sep="\n")
