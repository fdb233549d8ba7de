"""Model folders: the logits of transformers from its files, and the same files written back."""

import dataclasses
import json
import os
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from lcrl import policies
from lcrl.mesh import make_mesh
from lcrl.policies import sources
from lcrl.policies.hf_config import read_config, write_config
from lcrl.training.progress import introduce
from tests.helpers.models import MODELS, _copy, _load

NAMES = sorted(folder.name for folder in MODELS.iterdir())


def _tensors(folder):
  return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def _edit_config(folder, **changes):
  raw = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps(raw | changes))


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_transformers(name):
  stored = np.load(MODELS / name / "logits.npz")
  policy, params = _load(name)
  got = policy.apply(params, jnp.asarray(stored["tokens"]))
  assert np.ptp(stored["logits"]) > 1  # the fixture tells models apart
  np.testing.assert_allclose(got, stored["logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_saving_gives_back_every_tensor_and_the_config(name, tmp_path):
  policy, params = _load(name)
  policies.save(tmp_path / "out", policy, params)
  want, got = _tensors(MODELS / name), _tensors(tmp_path / "out")
  assert want.keys() == got.keys()
  for key in want:
    np.testing.assert_array_equal(want[key], got[key])
  again, _ = policies.load(tmp_path / "out")
  assert again.config == policy.config


def test_how_a_policy_computes_is_no_part_of_its_folder(tmp_path):
  policy, params = policies.load(MODELS / "qwen2", dtype="bfloat16", remat="full", unroll=True)
  config = dataclasses.replace(policy.config, attention="triton", decoding="triton")
  policies.save(tmp_path, policies.make(config), params)
  assert policies.load(tmp_path)[0].config == _load("qwen2")[0].config


def test_shards_replace_one_file_and_back(tmp_path):
  policy, params = _load("qwen2")
  (tmp_path / "notes.txt").write_text("mine")
  for shard_bytes, files in ((20_000, 4), (2**30, 1)):
    policies.save(tmp_path, policy, params, shard_bytes=shard_bytes)
    assert len(list(tmp_path.glob("*.safetensors"))) == files
    _, again = policies.load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, params)
  assert (tmp_path / "notes.txt").read_text() == "mine"


def test_parameters_take_the_dtype_asked_for(tmp_path):
  policy, params = policies.load(MODELS / "qwen3", param_dtype="bfloat16", dtype="bfloat16")
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
  policies.save(tmp_path, policy, params)
  assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
  assert {str(x.dtype) for x in _tensors(tmp_path).values()} == {"bfloat16"}
  assert policies.load(tmp_path)[0].config.dtype == "float32"


def test_each_device_reads_its_own_slices():
  source = sources.pretrained(MODELS / "llama3")
  mesh = jax.make_mesh((2, 4), ("fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  rules = {"embed": "fsdp", "heads": "tensor", "kv_heads": "tensor", "mlp": "tensor"}
  place = lambda names: NamedSharding(mesh, PartitionSpec(*map(rules.get, names)))
  is_names = lambda x: isinstance(x, tuple)
  shardings = jax.tree.map(place, source.policy.axes, is_leaf=is_names)
  params = source.params(None, shardings)
  assert params["layers"]["query"]["kernel"].sharding.shard_shape((2, 32, 32)) == (2, 16, 8)
  jax.tree.map(np.testing.assert_array_equal, params, _load("llama3")[1])


def test_fresh_policies_are_named_by_configs_too():
  source = sources.fresh(vocab_size=8, layers=1)
  assert source.params(jax.random.key(0))["embed"].shape == (8, 64)


def test_old_spellings_of_config_json():
  new = json.loads((MODELS / "llama3" / "config.json").read_text())
  rope = dict(new["rope_parameters"])
  old = {key: value for key, value in new.items() if key != "rope_parameters"}
  old |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
  assert read_config(old, "") == read_config(new, "")
  linear = {"type": "linear", "factor": 2.0}
  bare = {key: old[key] for key in ("model_type", "vocab_size", "hidden_size", "intermediate_size")}
  bare |= {"num_hidden_layers": 2, "num_attention_heads": 4, "rope_scaling": linear}
  config = read_config(bare, "")
  assert config.rope == policies.Rope(theta=10_000.0, scaling="linear", factor=2.0)
  assert (config.kv_heads, config.head_dim, config.windows, config.tied) == (4, 8, None, False)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"model_type": "gpt2"}, "unknown architecture 'gpt2', known are llama, mistral"),
    ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
    ({"attention_bias": True}, "attention_bias=True is not supported"),
    ({"quantization_config": {"bits": 4}}, "quantization_config="),
    ({"rope_parameters": {"rope_type": "longrope"}}, "rope scaling 'longrope' is not one of"),
    ({"rope_parameters": {"rope_type": "default", "mscale": 2.0}}, "mscale=2.0 is not supported"),
    ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor=0.5"),
    ({"hidden_size": None}, "hidden_size is missing"),
    ({"num_hidden_layers": 3}, "tensor model.layers.2.input_layernorm.weight is missing"),
    ({"num_hidden_layers": 1}, "tensor model.layers.1.input_layernorm.weight has no place"),
    ({"num_hidden_layers": 10**6}, r"config.json: num_hidden_layers=1000000 should be a whole"),
    ({"num_hidden_layers": 9999}, r"config.json: num_hidden_layers is 9999, but there are 21"),
    ({"num_attention_heads": 10**6}, r"config.json: num_attention_heads \* head_dim is 8000000"),
    ({"head_dim": 10**8}, r"num_attention_heads \* head_dim is 400000000, but no tensor is wider"),
    ({"vocab_size": 10**9}, "vocab_size is 1000000000, but no tensor is wider than 64"),
    ({"hidden_size": "32"}, "hidden_size='32' should be a whole number"),
    ({"hidden_size": True}, "hidden_size=True should be a whole number"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps=nan should be a finite number"),
    ({"tie_word_embeddings": "false"}, "tie_word_embeddings='false' should be true or false"),
    ({"model_type": ["llama"]}, r"model_type=\['llama'\] should be a text"),
    ({"architectures": ["LlamaForSequenceClassification"]}, "architectures=.* is not supported"),
    ({"no_rope_layers": [1, 0]}, r"no_rope_layers=\[1, 0\] is not supported"),
    ({"attention_multiplier": 0.1}, "attention_multiplier=0.1 is not supported"),
    ({"logits_scaling": 8.0}, "logits_scaling=8.0 is not supported"),
    ({"use_rope": False}, "use_rope=False is not supported"),
    ({"auto_map": {"AutoModelForCausalLM": "m.M"}}, "auto_map=.* is not supported"),
    ({"sliding_window": 8}, "sliding_window=8 is not supported for llama"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention' is not supp"),
    ({"rope_theta": 10.0}, r"rope_parameters.rope_theta=500.0 contradicts|rope_theta=10.0 contra"),
    ({"rope_parameters": [1]}, r"rope_parameters=\[1\] should be an object"),
    ({"rope_parameters": {"rope_type": ["yarn"]}}, r"rope_type=\['yarn'\] should be a text"),
    ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope scaling 'dynamic' is not"),
    ({"rope_parameters": {"rope_type": "default", "type": "mrope"}}, "gives two types"),
    ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "full_attention="),
    ({"vocab_size": 65}, r"embed_tokens.weight is \[64, 32\], should be \[65, 32\]"),
  ],
)
def test_a_config_that_does_not_fit_is_named(changes, message, tmp_path):
  folder = _copy("llama3", tmp_path)
  _edit_config(folder, **changes)
  with pytest.raises(ValueError, match=message):
    policies.load(folder)


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"decoder_sparse_step": 2}, "decoder_sparse_step=2 is not supported, only 1"),
    ({"mlp_only_layers": [1]}, r"mlp_only_layers=\[1\] is not supported"),
    (
      {"shared_expert_intermediate_size": 16},
      "shared_expert_intermediate_size=16 is not supported",
    ),
    (
      {"use_sliding_window": True, "sliding_window": 4},
      "sliding_window=4 is not supported for qwen3",
    ),
    ({"num_experts_per_tok": 6}, "num_experts_per_tok=6 should be a whole number from 1 to 5"),
    ({"num_experts": 4}, "num_local_experts=5 contradicts num_experts=4"),
    ({"num_local_experts": None}, "num_local_experts is missing"),
    (
      {"num_local_experts": 4},
      r"tensor model.layers.0.mlp.experts.4.down_proj.weight has no place",
    ),
    ({"num_local_experts": 6}, r"tensor model.layers.0.mlp.experts.5.down_proj.weight is missing"),
    ({"moe_intermediate_size": 8}, r"0.down_proj.weight is \[32, 16\], should be \[32, 8\]"),
  ],
)
def test_experts_that_do_not_fit_are_named(changes, message, tmp_path):
  folder = _copy("qwen3_moe", tmp_path)
  _edit_config(folder, **changes)
  with pytest.raises(ValueError, match=message):
    policies.load(folder)


def test_experts_in_old_and_new_spellings():
  new = json.loads((MODELS / "qwen3_moe" / "config.json").read_text())
  old = {**new, "num_experts": new["num_local_experts"]}
  del old["num_local_experts"]
  assert read_config(old, "") == read_config(new, "")
  bare = {**new, "norm_topk_prob": None}
  assert not read_config(bare, "").normalize_gates  # as transformers has it
  noisy = json.loads((MODELS / "mixtral" / "config.json").read_text()) | {
    "router_jitter_noise": 0.1
  }
  with pytest.raises(ValueError, match=r"router_jitter_noise=0.1 is not supported"):
    read_config(noisy, "")


def test_missing_files_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no model folder .*/nowhere"):
    policies.load(tmp_path / "nowhere")
  with pytest.raises(FileNotFoundError, match=r"no config\.json"):
    policies.load(tmp_path)
  folder = _copy("llama2", tmp_path)
  next(folder.glob("model-00002*")).unlink()
  with pytest.raises(FileNotFoundError, match=r"model-00002-of-.*is missing"):
    policies.load(folder)


@pytest.mark.parametrize("keep", [20, 0.5, 0.999])
def test_a_truncated_file_is_named(keep, tmp_path):
  file = _copy("mistral", tmp_path) / "model.safetensors"
  size = file.stat().st_size
  os.truncate(file, keep if keep > 1 else int(size * keep))
  with pytest.raises(ValueError, match=r"model.safetensors is not a whole safetensors file"):
    policies.load(file.parent)


def test_a_full_disk_while_saving_loses_nothing(tmp_path, monkeypatch):
  policy, params = _load("qwen2")
  policies.save(tmp_path / "model", policy, params)
  before = _tensors(tmp_path / "model")

  def no_space(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr("lcrl.policies.hf.save_file", no_space)
  with pytest.raises(OSError, match="No space left"):
    policies.save(tmp_path / "model", policy, jax.tree.map(jnp.zeros_like, params))
  jax.tree.map(np.testing.assert_array_equal, _tensors(tmp_path / "model"), before)
  assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_fields_that_say_what_is_so_anyway_are_read():
  """As Qwen3-Coder-30B-A3B-Instruct has them."""
  raw = json.loads((MODELS / "qwen3_moe" / "config.json").read_text())
  more = {"qkv_bias": False, "use_qk_norm": True, "shared_expert_intermediate_size": 0}
  assert read_config(raw | more, "") == read_config(raw, "")


def test_a_fresh_policy_has_a_family_with_a_name():
  with pytest.raises(ValueError, match=r"family='qwen9' is not one of llama, .*mixtral"):
    sources.fresh(vocab_size=8, family="qwen9")


def test_a_policy_that_no_folder_holds_is_warned_of(caplog):
  model = SimpleNamespace(
    policy=policies.make(policies.tiny(8, experts=4, experts_per_token=2)),
    mesh=make_mesh(devices=jax.devices()[:1]),
    chosen={},
  )
  introduce(model, SimpleNamespace(describe=lambda **_: None))
  assert "this policy cannot be exported: A llama folder cannot hold experts=4" in caplog.text


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"qk_norm": True}, "A llama folder cannot hold qk_norm=True"),
    ({"windows": (4, 4)}, r"A llama folder cannot hold windows=\(4, 4\)"),
    ({"logit_softcap": 30.0}, "logit_softcap=30.0"),
    ({"family": "qwen2", "qkv_bias": True, "windows": (4, 8)}, r"windows=\(4, 8\)"),
    ({"experts": 4, "experts_per_token": 2}, "experts=4"),
    ({"family": "gpt2"}, "family='gpt2'"),
  ],
)
def test_what_a_family_cannot_say_is_not_written(changes, message):
  with pytest.raises(ValueError, match=message):
    write_config(policies.tiny(8, **changes))


def _rename(folder, **names):
  file = folder / "model.safetensors"
  tensors = {names.get(key, key): value for key, value in load_file(file).items()}
  save_file(tensors, file, {"format": "pt"})


def test_a_tied_matrix_stands_under_either_name(tmp_path):
  want = _load("smollm2")[1]
  embed, head = "model.embed_tokens.weight", "lm_head.weight"
  folder = _copy("smollm2", tmp_path)
  _rename(folder, **{embed: head})
  jax.tree.map(np.testing.assert_array_equal, policies.load(folder)[1], want)
  tensors = load_file(folder / "model.safetensors")
  save_file(tensors | {embed: tensors[head]}, folder / "model.safetensors")  # a copy
  jax.tree.map(np.testing.assert_array_equal, policies.load(folder)[1], want)
  other = tensors[head].copy()
  other[-1, -1] += 1
  save_file(tensors | {embed: other}, folder / "model.safetensors")
  with pytest.raises(ValueError, match=r"tie_word_embeddings is true, but lm_head.weight is not"):
    policies.load(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", jnp.bfloat16])
def test_values_that_are_not_finite_are_named(value, dtype, tmp_path):
  folder = _copy("llama3", tmp_path)
  tensors = {key: x.astype(dtype) for key, x in load_file(folder / "model.safetensors").items()}
  tensors["model.layers.1.mlp.up_proj.weight"][-1, -1] = value
  save_file(tensors, folder / "model.safetensors")
  message = r"llama3/model.safetensors: tensor model.layers.1.mlp.up_proj.weight has values that"
  for param_dtype in ("float32", "bfloat16"):
    with pytest.raises(ValueError, match=message):
      policies.load(folder, param_dtype=param_dtype)


def test_a_value_beyond_the_dtype_of_parameters_is_named(tmp_path):
  folder = _copy("llama3", tmp_path)
  tensors = load_file(folder / "model.safetensors")
  tensors["model.norm.weight"][0] = 1e5
  save_file(tensors, folder / "model.safetensors")
  policies.load(folder)
  with pytest.raises(ValueError, match=r"model.norm.weight has values that are not finite float16"):
    policies.load(folder, param_dtype="float16")


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int8"])
def test_quantized_weights_are_named(dtype, tmp_path):
  folder = _copy("llama3", tmp_path)
  name = "model.layers.0.mlp.up_proj.weight"
  tensors = load_file(folder / "model.safetensors")
  tensors[name] = tensors[name].astype(jnp.dtype(dtype))
  save_file(tensors, folder / "model.safetensors")
  with pytest.raises(ValueError, match=rf"model.safetensors: tensor {name} is (F8_E4M3|I8), quant"):
    policies.load(folder)
