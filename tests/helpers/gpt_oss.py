"""Small models of gpt-oss."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file

from lcrl import policies
from lcrl.policies import mxfp4
from lcrl.policies.families import FAMILIES

OWN = {**FAMILIES["gpt_oss"].fixed, "mlp_limit": 0.7, "experts": 4, "experts_per_token": 2}


def packed_folder(tmp_path):
  """Writes `packed` with random experts in MXFP4, and returns `plain` with the same as float32."""
  c = policies.tiny(32, family="gpt_oss", mlp_size=32, tied=False, windows=(5, None), **OWN)
  policy = policies.make(c)
  rng = np.random.default_rng(0)
  noise = lambda x: jnp.asarray(rng.normal(0.0, 0.3, x.shape), x.dtype)
  params = jax.tree.map(noise, jax.eval_shape(policy.init, jax.random.key(0)))
  plain, packed = tmp_path / "plain", tmp_path / "packed"
  policies.save(plain, policy, params)
  shutil.copytree(plain, packed)
  tensors = load_file(plain / "model.safetensors")
  small = dict(tensors)
  for name in [name for name in tensors if name.endswith("_proj")]:
    experts, rows, columns = small.pop(name).shape
    blocks = rng.integers(0, 256, (experts, columns, rows // 32, 16), np.uint8)
    scales = rng.integers(122, 127, blocks.shape[:-1], np.uint8)
    small |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    values = mxfp4.decoded(blocks, scales).astype(np.float32)
    tensors[name] = np.ascontiguousarray(values.swapaxes(1, 2))
  save_file(tensors, plain / "model.safetensors", {"format": "pt"})
  save_file(small, packed / "model.safetensors", {"format": "pt"})
  raw = json.loads((packed / "config.json").read_text())
  told = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
  (packed / "config.json").write_text(json.dumps(raw | {"quantization_config": told}))
  return plain
