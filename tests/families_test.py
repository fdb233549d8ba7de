"""Families whose layers differ: sampled as they are scored, by the kernels that serve them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lcrl import policies
from lcrl.policies import tpu_pages, triton_decode
from lcrl.policies.attention import Device, chosen
from lcrl.policies.config import NO_ROPE, Rope
from lcrl.policies.shapes import SHAPES
from tests.helpers.gpt_oss import OWN
from tests.helpers.models import _copy
from tests.helpers.sampling import B, G, V, engine_of, make_budget, make_rows
from tests.helpers.slow import slow

EVERYTHING = policies.tiny(  # that any family has
  V,
  layers=3,
  hidden_size=32,
  head_dim=8,
  mlp_size=32,
  windows=(3, None, 5),
  ropes=(Rope(), NO_ROPE, Rope(30.0)),
  norms="sandwich",
  norm_offset=1.0,
  qk_norm=True,
  qk_norm_over="projection",
  embed_scale=5.0,
  query_scale=0.7,
  attention_softcap=5.0,
  logit_softcap=3.0,
)

SIZES = {"layers": 2, "hidden_size": 32, "head_dim": 8, "mlp_size": 32, "windows": (3, None)}
GPT_OSS = policies.tiny(V, **SIZES, **OWN)


@pytest.mark.parametrize("config", [EVERYTHING, GPT_OSS])
@pytest.mark.parametrize("slots", [slow(None), 3])
def test_log_probs_of_the_sampler_are_those_of_the_update(slots, config):
  policy = policies.make(config)
  noise = lambda x: jnp.asarray(np.random.default_rng(0).normal(0, 0.3, x.shape), x.dtype)
  params = jax.tree.map(noise, jax.eval_shape(policy.init, jax.random.key(0)))
  engine = engine_of(policy, slots=slots)
  out = engine.generate(params, make_rows(), make_budget(16), jax.random.key(1))
  assert out.lengths.max() > 8  # longer than the windows
  tokens = out.tokens.reshape(B * G, -1)
  scored = jax.nn.log_softmax(policy.apply(params, tokens)[:, :-1])
  scored = jnp.take_along_axis(scored, tokens[:, 1:, None], -1)[..., 0].reshape(B, G, -1)
  scored = np.where(out.mask[..., 1:], scored, 0)
  np.testing.assert_allclose(out.sampler_log_probs[..., 1:], scored, atol=1e-4)


@pytest.mark.parametrize(
  "name, training, refused, on_tpu",
  [
    ("gemma2-2b", "xla", "soft-cap", "window"),  # heads of 256
    ("gemma2-27b", "triton", "soft-cap", "window"),
    ("gemma3-1b", "xla", None, "window"),
    ("gemma3-27b", "triton", None, "window"),
    ("olmo2-7b", "triton", None, None),
    ("olmo3-7b", "triton", None, "window"),
    ("smollm3-3b", "triton", None, None),
    ("qwen3-30b-a3b", "triton", None, None),
    ("mixtral-8x7b", "triton", None, None),
    ("gpt-oss-20b", "xla", "sinks", "sinks"),
    ("phi3-mini-4k", "xla", "head_dim=96", "head_dim=96"),
    ("phi4-14b", "triton", None, None),
  ],
)
def test_the_kernels_that_serve_a_family(name, training, refused, on_tpu):
  c = dataclasses.replace(SHAPES[name], dtype="bfloat16")
  assert chosen(Device("nvidia", (9, 0)), c, packed=True, length=4096) == training
  assert triton_decode.refusal(c) == refused
  assert tpu_pages.refusal(c) == on_tpu


@pytest.mark.parametrize(
  "decoding, config, what",
  [
    ("triton", GPT_OSS, "sinks"),
    ("pallas", GPT_OSS, "sinks"),
    ("triton", SHAPES["gemma2-2b"], "soft-cap"),
    ("pallas", policies.tiny(8, head_dim=128, windows=(4, None)), "window"),
  ],
)
def test_kernels_are_refused_where_they_would_leave_something_out(decoding, config, what):
  with pytest.raises(ValueError, match=f"decoding='{decoding}' cannot serve a model with {what}"):
    policies.make(dataclasses.replace(config, decoding=decoding))


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_a_folder_that_reads_pictures_is_read_as_text(prefix, tmp_path):
  folder = _copy("gemma3", tmp_path)
  want, wanted = policies.load(folder)
  text = json.loads((folder / "config.json").read_text())
  whole = {"model_type": "gemma3", "text_config": text, "vision_config": {"image_size": 896}}
  (folder / "config.json").write_text(json.dumps(whole))
  tensors = load_file(folder / "model.safetensors")
  tensors = {prefix + name.removeprefix("model."): x for name, x in tensors.items()}
  tensors["vision_tower.patches.weight"] = np.ones((2, 2), np.float32)
  save_file(tensors, folder / "model.safetensors")
  policy, params = policies.load(folder)
  assert policy.config == want.config
  jax.tree.map(np.testing.assert_array_equal, params, wanted)
  save_file(tensors | {"tower.weight": tensors.popitem()[1]}, folder / "model.safetensors")
  with pytest.raises(ValueError, match=r"tensor tower.weight has no place in this model"):
    policies.load(folder)
  (folder / "config.json").write_text('{"model_type": "gemma3"}')
  with pytest.raises(ValueError, match=r"config.json: text_config is missing"):
    policies.load(folder)
