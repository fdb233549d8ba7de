"""GGUF files: the model and tokenizer of the folder that they were written from."""

import functools
import json
import os
from pathlib import Path

import gguf
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from lcrl import policies
from lcrl.policies.config import Rope

FIXTURES = Path(__file__).parent / "fixtures"
MODULES = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  "lm_head": "output",
  "input_layernorm": "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "self_attn.o_proj": "attn_output",
  "post_attention_layernorm": "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
}


def _gguf_name(name):
  name = name.replace("model.layers.", "blk.")
  return functools.reduce(lambda n, pair: n.replace(*pair), MODULES.items(), name)


def _write(path, name, *, quantize=None, tokenizer=None, raw_type=None, divisors=None, theta=None):
  """A GGUF file of a fixture, as llama.cpp's converter lays it out."""
  folder = FIXTURES / "models" / name
  raw = json.loads((folder / "config.json").read_text())
  arch, heads, kv_heads = raw["model_type"], raw["num_attention_heads"], raw["num_key_value_heads"]
  out = gguf.GGUFWriter(path, arch)
  out.add_block_count(raw["num_hidden_layers"])
  out.add_context_length(raw["max_position_embeddings"])
  out.add_embedding_length(raw["hidden_size"])
  out.add_feed_forward_length(raw["intermediate_size"])
  out.add_head_count(heads)
  out.add_head_count_kv(kv_heads)
  out.add_layer_norm_rms_eps(raw["rms_norm_eps"])
  out.add_key_length(raw.get("head_dim", raw["hidden_size"] // heads))
  out.add_rope_freq_base(theta or raw["rope_parameters"]["rope_theta"])
  rope = raw["rope_parameters"]
  if "factor" in rope and divisors is None:
    out.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
    out.add_rope_scaling_factor(rope["factor"])
    if length := rope.get("original_max_position_embeddings"):
      out.add_rope_scaling_orig_ctx_len(length)
  if tokenizer:
    tokenizer(out)
  for key, value in load_file(folder / "model.safetensors").items():
    if arch == "llama" and (".q_proj." in key or ".k_proj." in key):
      rows = value.reshape(heads if ".q_proj." in key else kv_heads, 2, -1, value.shape[-1])
      value = rows.swapaxes(1, 2).reshape(value.shape)
    if quantize and value.ndim == 2 and value.shape[1] % 32 == 0:
      out.add_tensor(_gguf_name(key), gguf.quants.quantize(value, quantize), raw_dtype=quantize)
    elif raw_type and "layers.1.self_attn.o_proj" in key:
      out.add_tensor(_gguf_name(key), value.astype(raw_type))
    else:
      out.add_tensor(_gguf_name(key), value)
  if divisors is not None:
    out.add_tensor("rope_freqs.weight", divisors)
  out.write_header_to_file()
  out.write_kv_data_to_file()
  out.write_tensors_to_file()
  out.close()
  return path


@pytest.mark.parametrize("name", ["llama_linear", "qwen2", "qwen3"])
def test_logits_are_those_of_the_folder(name, tmp_path):
  stored = np.load(FIXTURES / "models" / name / "logits.npz")
  policy, params = policies.load(_write(tmp_path / "model.gguf", name))
  got = policy.apply(params, jnp.asarray(stored["tokens"]))
  np.testing.assert_allclose(got, stored["logits"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind, error", [("Q8_0", 0.01), ("Q4_1", 0.1), ("F16", 1e-3)])
def test_blocks_are_dequantised(kind, error, tmp_path):
  kind = gguf.GGMLQuantizationType[kind]
  _, params = policies.load(_write(tmp_path / "model.gguf", "qwen3", quantize=kind))
  _, want = policies.load(FIXTURES / "models" / "qwen3")
  got, want = (p["layers"]["gate"]["kernel"] for p in (params, want))
  worst = np.abs(got - want).max() / np.abs(want).max()
  assert 0 < worst < error


def test_the_frequencies_of_llama_3_1(tmp_path):
  rope = Rope(5e5, "llama3", 8.0, 8192)
  divisors = (Rope(5e5).frequencies(8) / rope.frequencies(8)).astype(np.float32)
  assert 1 < divisors[2] < 8  # one channel of four is between the plain and the stretched ones
  write = functools.partial(_write, tmp_path / "model.gguf", "llama3", theta=5e5)
  policy, _ = policies.load(write(divisors=divisors))
  assert policy.config.rope == rope
  with pytest.raises(ValueError, match=r"rope_freqs.weight is not the scaling of Llama 3.1"):
    policies.load(write(divisors=divisors + np.float32([0, 0.1, 0, 0])))


@pytest.mark.parametrize("raw_type, name", [(np.int8, "I8"), (np.float64, "F64")])
def test_an_unsupported_type_is_named(raw_type, name, tmp_path):
  path = _write(tmp_path / "model.gguf", "qwen3", raw_type=raw_type)
  with pytest.raises(ValueError, match=rf"tensor blk\.1\.attn_output\.weight has type {name}"):
    policies.load(path)


def test_an_unknown_type_is_named(tmp_path):
  path = _write(tmp_path / "model.gguf", "qwen3")
  content = path.read_bytes()
  name = b"blk.1.attn_output.weight"
  at = content.index(name) + len(name) + 4 + 16  # after two dimensions stands the type
  path.write_bytes(content[:at] + (99).to_bytes(4, "little") + content[at + 4 :])
  with pytest.raises(ValueError, match=rf"tensor {name.decode()} has the unknown type 99"):
    policies.load(path)


@pytest.mark.parametrize("keep", [3, 100, 0.5, 0.99])
def test_a_truncated_file_is_named(keep, tmp_path):
  path = _write(tmp_path / "model.gguf", "qwen2")
  os.truncate(path, keep if keep >= 1 else int(keep * path.stat().st_size))
  with pytest.raises(ValueError, match=r"model.gguf cannot be read as a GGUF file"):
    policies.load(path)


def test_an_unknown_architecture_is_named(tmp_path):
  path = tmp_path / "model.gguf"
  path.write_bytes(_write(path, "qwen2").read_bytes().replace(b"qwen2", b"qwenX"))
  with pytest.raises(ValueError, match="unknown architecture 'qwenX'"):
    policies.load(path)


def _vocabulary(out, pre="smollm", model="gpt2"):
  """Byte-level, with the merges of "th" and "the", one control and one user-defined token."""
  alphabet = sorted(gguf_alphabet())
  tokens = ["<|im_start|>", "<|im_end|>", *alphabet, "th", "the", "<think>"]
  kinds = [3, 3, *([1] * (len(alphabet) + 2)), 4]
  out.add_tokenizer_model(model)
  out.add_tokenizer_pre(pre)
  out.add_token_list(tokens)
  out.add_token_types(kinds)
  out.add_token_merges(["t h", "th e"])
  out.add_bos_token_id(0)
  out.add_eos_token_id(1)
  out.add_eot_token_id(0)
  out.add_chat_template("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}")


def gguf_alphabet():
  from tokenizers.pre_tokenizers import ByteLevel

  return ByteLevel.alphabet()


def test_the_tokenizer_is_rebuilt(tmp_path):
  path = _write(tmp_path / "model.gguf", "qwen2", tokenizer=_vocabulary)
  tokenizer = policies.tokenizer(path)
  text = tokenizer.render([{"role": "user", "content": "the 42 <think>ö"}])
  ids = tokenizer.encode(text)
  pieces = [tokenizer.core.id_to_token(i) for i in ids]
  assert pieces == ["<|im_start|>", "the", "Ġ", "4", "2", "Ġ", "<think>", "Ã", "¶", "<|im_end|>"]
  assert tokenizer.decode(ids) == text
  assert tokenizer.decode(ids, skip_special_tokens=True) == "the 42 <think>ö"
  assert (tokenizer.end_ids, tokenizer.pad_id) == ((1, 0), 1)
  tokenizer.save(tmp_path / "out")
  again = policies.tokenizer(tmp_path / "out")
  assert again.encode(text) == ids
  assert (again.end_ids, again.template) == (tokenizer.end_ids, tokenizer.template)


@pytest.mark.parametrize(
  "options, message",
  [({"model": "llama"}, "ggml.model='llama' is not"), ({"pre": "new"}, "ggml.pre='new' is not")],
)
def test_a_tokenizer_that_cannot_be_rebuilt_is_named(options, message, tmp_path):
  tokenizer = functools.partial(_vocabulary, **options)
  with pytest.raises(ValueError, match=message):
    policies.tokenizer(_write(tmp_path / "model.gguf", "qwen2", tokenizer=tokenizer))
