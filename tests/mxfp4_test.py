"""Matrices of experts in MXFP4: numbers worked out by hand, and folders that hold them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from lcrl import policies
from lcrl.merging.folders import open_model
from lcrl.policies import mxfp4, sources
from tests.helpers.gpt_oss import packed_folder

EXPERTS = "model.layers.1.mlp.experts"
CODES = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]  # of 4 bits


def test_numbers_by_hand():
  """Two numbers a byte, the low half first; a scale is a power of two."""
  blocks = np.arange(16, dtype=np.uint8)[None] * 17  # 0x00, 0x11, ..., 0xff: each code twice
  got = mxfp4.decoded(blocks, np.array([127], np.uint8))
  assert got.astype(np.float32).tolist() == [x for x in CODES for _ in range(2)]
  blocks[0, 0] = 0xF2  # 1, then -6
  for byte, scale in ((125, 0.25), (130, 8.0), (0, 2.0**-127), (252, 2.0**125)):
    got = mxfp4.decoded(blocks, np.array([byte], np.uint8)).astype(np.float64)
    assert got[:2].tolist() == [scale, -6 * scale]
    assert got[-1] == -6 * scale
  assert not np.isfinite(mxfp4.decoded(blocks, np.array([255], np.uint8)).astype(float)).any()


def test_a_folder_is_read_as_the_plain_one(tmp_path):
  """Blocks of 32 numbers lie along the rows of a matrix, of which gate and up share columns."""
  plain = packed_folder(tmp_path)
  (policy, params), (_, want) = policies.load(tmp_path / "packed"), policies.load(plain)
  jax.tree.map(np.testing.assert_array_equal, params, want)
  stored = load_file(tmp_path / "packed" / "model.safetensors")
  name = f"{EXPERTS}.gate_up_proj"
  byte, scale = stored[f"{name}_blocks"][2, 7, 1, 5], stored[f"{name}_scales"][2, 7, 1]
  number = CODES[byte >> 4] * 2.0 ** (int(scale) - 127)  # row 32 + 11; column 7 is the fourth of up
  assert params["layers"]["experts"]["up"][1, 2, 43, 3] == number
  policies.save(tmp_path / "saved", policy, params)
  assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
  jax.tree.map(np.testing.assert_array_equal, policies.load(tmp_path / "saved")[1], params)


def test_each_device_reads_its_own_slices(tmp_path):
  packed_folder(tmp_path)
  source = sources.pretrained(tmp_path / "packed", param_dtype="bfloat16")
  mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  rules = {"embed": "fsdp", "experts": "tensor", "expert_mlp": None}
  place = lambda names: NamedSharding(mesh, PartitionSpec(*map(rules.get, names)))
  shardings = jax.tree.map(place, source.policy.axes, is_leaf=lambda x: isinstance(x, tuple))
  params = source.params(None, shardings)
  gate = params["layers"]["experts"]["gate"]
  assert gate.dtype == jnp.bfloat16
  assert gate.sharding.shard_shape(gate.shape) == (2, 2, 16, 32)  # half a block
  jax.tree.map(np.testing.assert_array_equal, params, source.params())


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda t: t.pop(f"{EXPERTS}.down_proj_scales"), "experts.down_proj has no blocks, or no"),
    (
      lambda t: t.update({f"{EXPERTS}.down_proj_scales": np.zeros((4, 64, 2), np.uint8)}),
      r"blocks of tensor .*down_proj are \[4, 64, 1, 16\], its scales \[4, 64, 2\]",
    ),
    (
      lambda t: t.update({"model.norm.weight": t["model.norm.weight"].astype(np.uint8)}),
      "tensor model.norm.weight is U8, quantized",
    ),
    (
      lambda t: t.update({f"{EXPERTS}.down_proj_scales": np.full((4, 64, 1), 255, np.uint8)}),
      "down_proj has values that are not finite",
    ),
    (
      lambda t: t.update(
        {
          f"{EXPERTS}.down_proj_{n}": t[f"{EXPERTS}.down_proj_{n}"][:3]
          for n in ("blocks", "scales")
        }
      ),
      r"down_proj is \[3, 32, 64\], should be \[4, 32, 64\]",
    ),
  ],
)
def test_bytes_that_do_not_fit_are_named(change, message, tmp_path):
  packed_folder(tmp_path)
  file = tmp_path / "packed" / "model.safetensors"
  tensors = load_file(file)
  change(tensors)
  save_file(tensors, file)
  with pytest.raises(ValueError, match=message):
    policies.load(file.parent)


@pytest.mark.parametrize("told", [None, {"quant_method": "gptq"}, {"bits": 4}, "mxfp4"])
def test_other_quantizations_are_refused(told, tmp_path):
  packed_folder(tmp_path)
  file = tmp_path / "packed" / "config.json"
  raw = json.loads(file.read_text())
  file.write_text(json.dumps(raw | {"quantization_config": told}))
  with pytest.raises(ValueError, match=r"is U8, quantized weights are not read"):
    policies.load(file.parent)


def test_merges_refuse_quantized_folders(tmp_path):
  packed_folder(tmp_path)
  with pytest.raises(ValueError, match="packed is quantized as mxfp4: load and save it"):
    open_model(tmp_path / "packed")
