"""GGUF files, written from model folders of the fixtures."""

import functools
import json
import re
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

FIXTURES = Path(__file__).parents[1] / "fixtures"
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


# Where llama.cpp has another name.
ARCHITECTURES = {"gemma3_text": "gemma3", "olmo3": "olmo2", "qwen3_moe": "qwen3moe"}
ARCHITECTURES["mixtral"] = "llama"
EXPERT = re.compile(r"(.*)\.experts\.(\d+)\.(\w+)\.weight")
EXPERTS = {"gate_proj": "gate", "w1": "gate", "down_proj": "down", "w2": "down"}
EXPERTS |= {"up_proj": "up", "w3": "up"}
AFTER = {
  "post_attention_layernorm": "post_attention_norm",
  "pre_feedforward_layernorm": "ffn_norm",
  "post_feedforward_layernorm": "post_ffw_norm",
}
FUSED = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}


def _gguf_name(name, arch):
  name = name.replace("model.layers.", "blk.")
  if found := EXPERT.fullmatch(name):
    layer, i, matrix = found.groups()
    name = f"{layer}.ffn_{EXPERTS[matrix]}.{i}.weight"
  name = re.sub(r"(\d+)\.(mlp|block_sparse_moe)\.(ffn_|gate\.)", r"\1.\3", name)
  name = re.sub(r"(\d+)\.gate\.weight", r"\1.ffn_gate_inp.weight", name)
  modules = MODULES | FUSED | (AFTER if arch in ("gemma2", "gemma3", "olmo2") else {})
  return functools.reduce(lambda n, pair: n.replace(*pair), modules.items(), name)


def _write(
  path,
  name,
  *,
  quantize=None,
  tokenizer=None,
  raw_type=None,
  divisors=None,
  theta=None,
  apart=False,
  **meta,
):
  """A GGUF file of a fixture, as llama.cpp's converter lays it out; `meta` is added to its fields,
  or takes their place. `apart`: each expert has tensors of its own, as in old files."""
  folder = FIXTURES / "models" / name
  raw = json.loads((folder / "config.json").read_text())
  arch = ARCHITECTURES.get(raw["model_type"], raw["model_type"])
  heads, kv_heads = raw["num_attention_heads"], raw["num_key_value_heads"]
  both = raw["rope_parameters"]
  rope = both.get("full_attention", both)
  out = gguf.GGUFWriter(path, arch)
  out.add_block_count(raw["num_hidden_layers"])
  out.add_context_length(raw["max_position_embeddings"])
  out.add_embedding_length(raw["hidden_size"])
  out.add_feed_forward_length(raw["intermediate_size"])
  out.add_head_count(heads)
  out.add_head_count_kv(kv_heads)
  out.add_layer_norm_rms_eps(raw["rms_norm_eps"])
  out.add_key_length(raw.get("head_dim", raw["hidden_size"] // heads))
  out.add_rope_freq_base(theta or rope["rope_theta"])
  if "factor" in rope and divisors is None:
    out.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
    out.add_rope_scaling_factor(rope["factor"])
    if length := rope.get("original_max_position_embeddings"):
      out.add_rope_scaling_orig_ctx_len(length)
  if raw.get("sliding_window") and arch != "mistral" and not arch.startswith("qwen"):
    out.add_sliding_window(raw["sliding_window"])
  for name in ("attn_logit_softcapping", "final_logit_softcapping"):
    if raw.get(name):
      out.add_float32(f"{arch}.{name}", raw[name])
  if "num_local_experts" in raw:
    out.add_expert_count(raw["num_local_experts"])
    out.add_expert_used_count(raw["num_experts_per_tok"])
  if "moe_intermediate_size" in raw:
    out.add_expert_feed_forward_length(raw["moe_intermediate_size"])
  if arch == "gemma3":
    out.add_float32("gemma3.rope.freq_base_swa", both["sliding_attention"]["rope_theta"])
  for key, value in meta.items():
    key = key.replace("__", ".") if "__" in key else f"{arch}.{key}"
    out.kv_data[0].pop(key, None)
    if value is not None:
      add = {float: out.add_float32, str: out.add_string, list: out.add_array, bool: out.add_bool}
      add.get(type(value), out.add_uint32)(key, value)
  if tokenizer:
    tokenizer(out)
  tensors = load_file(folder / "model.safetensors")
  for key, value in tensors.items() if apart else _stacked(tensors).items():
    if arch.startswith("gemma") and value.ndim == 1:
      value = value + 1
    if arch in ("llama", "smollm3") and (".q_proj." in key or ".k_proj." in key):
      rows = value.reshape(heads if ".q_proj." in key else kv_heads, 2, -1, value.shape[-1])
      value = rows.swapaxes(1, 2).reshape(value.shape)
    if quantize and value.ndim > 1 and value.shape[-1] % 32 == 0:
      out.add_tensor(
        _gguf_name(key, arch), gguf.quants.quantize(value, quantize), raw_dtype=quantize
      )
    elif raw_type and "layers.1.self_attn.o_proj" in key:
      out.add_tensor(_gguf_name(key, arch), value.astype(raw_type))
    else:
      out.add_tensor(_gguf_name(key, arch), value)
  if divisors is not None:
    out.add_tensor("rope_freqs.weight", divisors)
  out.write_header_to_file()
  out.write_kv_data_to_file()
  out.write_tensors_to_file()
  out.close()
  return path


def _stacked(tensors):
  """Each matrix of a layer's experts as one tensor, which has llama.cpp's name already."""
  stacked = {}
  for key, value in tensors.items():
    if found := EXPERT.fullmatch(key):
      layer, i, matrix = found.groups()
      stacked.setdefault(f"{layer}.ffn_{EXPERTS[matrix]}_exps.weight", {})[int(i)] = value
    else:
      stacked[key] = value
  stack = lambda x: np.stack([x[i] for i in sorted(x)]) if isinstance(x, dict) else x
  return {key: stack(x) for key, x in stacked.items()}


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
