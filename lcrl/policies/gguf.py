"""GGUF files seen as Hugging Face folders: a config.json, named tensors, a tokenizer."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from lcrl.policies.config import Rope
from lcrl.policies.tensors import Tensors

_MODULES = {
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_q_norm": "self_attn.q_norm",
  "attn_k_norm": "self_attn.k_norm",
  "attn_output": "self_attn.o_proj",
  "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
}
_TOP = {
  "token_embd": "model.embed_tokens",
  "output_norm": "model.norm",
  "output": "lm_head",
}
_LLAMA_31 = Rope(scaling="llama3", original_length=8192)  # the only kind that GGUF files bake in


class _Reader(gguf.GGUFReader):
  """Refuses tensors that cannot be read, before it lays them out."""

  def _build_tensors(self, start_offs, fields):
    for field in fields:
      name, kind = bytes(field.parts[1]).decode(), int(field.parts[4][0])
      if trouble := _trouble(kind):
        raise ValueError(f"tensor {name} has {trouble}")
    super()._build_tensors(start_offs, fields)


def open_gguf(path: Path) -> gguf.GGUFReader:
  """Raises ValueError where it is cut short, not GGUF, or has a tensor of unsupported type."""
  try:
    return _Reader(path)
  except (ValueError, IndexError, KeyError) as e:
    raise ValueError(f"{path} cannot be read as a GGUF file: {e}") from e


def metadata(reader: gguf.GGUFReader) -> dict[str, Any]:
  return {key: field.contents() for key, field in reader.fields.items()}


def read_gguf(path: Path) -> tuple[dict[str, Any], Tensors]:
  """(config.json, tensors) that a Hugging Face folder of this model would hold."""
  reader = open_gguf(path)
  found = {tensor.name: tensor for tensor in reader.tensors}
  raw = _config(metadata(reader), found, path)
  found.pop("rope_freqs.weight", None)
  named = {_hf_name(name): tensor for name, tensor in found.items()}
  shapes = {name: tuple(int(n) for n in t.shape[::-1]) for name, t in named.items()}

  def read(name: str, index) -> np.ndarray:
    tensor = named[name]
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shapes[name])
    if raw["model_type"] in ("llama", "mistral"):
      if ".q_proj." in name:
        values = _rotate_half_order(values, raw["num_attention_heads"])
      if ".k_proj." in name:
        values = _rotate_half_order(values, raw["num_key_value_heads"])
    return values[index]

  return raw, Tensors(str(path), shapes, read)


def _config(meta: Mapping[str, Any], tensors: Mapping[str, Any], path: Path) -> dict[str, Any]:
  """config.json from the metadata."""
  family = meta["general.architecture"]

  def get(key: str, default=None):
    return meta.get(f"{family}.{key}", default)

  hidden, heads = get("embedding_length"), get("attention.head_count")
  if not hidden or not heads:
    raise ValueError(f"{path}: unknown architecture {family!r}: its metadata has no sizes.")
  head_dim = get("attention.key_length") or get("rope.dimension_count") or hidden // heads
  window = get("attention.sliding_window")
  theta = get("rope.freq_base", 10_000.0)
  rope: dict[str, Any] = {"rope_theta": theta, "rope_type": get("rope.scaling.type") or "default"}
  if rope["rope_type"] in ("none", "default"):
    rope["rope_type"] = "default"
  else:
    rope["factor"] = get("rope.scaling.factor")
    rope["original_max_position_embeddings"] = get("rope.scaling.original_context_length")
  if "rope_freqs.weight" in tensors:
    rope = _llama3_rope(tensors["rope_freqs.weight"], theta, head_dim, path)
  return {
    "model_type": "mistral" if family == "llama" and window else family,
    "vocab_size": int(tensors["token_embd.weight"].shape[1]),
    "hidden_size": hidden,
    "num_hidden_layers": get("block_count"),
    "num_attention_heads": heads,
    "num_key_value_heads": get("attention.head_count_kv", heads),
    "head_dim": head_dim,
    "intermediate_size": get("feed_forward_length"),
    "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
    "max_position_embeddings": get("context_length"),
    "sliding_window": window,
    "tie_word_embeddings": "output.weight" not in tensors,
    "rope_parameters": rope,
  }


def _llama3_rope(tensor, theta: float, head_dim: int, path: Path) -> dict[str, Any]:
  """The scaling that gave these divisors of the frequencies, if it is Llama 3.1's."""
  divisors = np.asarray(tensor.data, np.float64)
  factor = round(float(divisors.max()), 3)
  plain = Rope(theta)
  scaled = Rope(theta, "llama3", factor, _LLAMA_31.original_length)
  expected = plain.frequencies(head_dim) / scaled.frequencies(head_dim)
  if not np.allclose(divisors, expected, rtol=1e-3):
    raise ValueError(f"{path}: tensor rope_freqs.weight is not the scaling of Llama 3.1.")
  return {
    "rope_theta": theta,
    "rope_type": "llama3",
    "factor": factor,
    "low_freq_factor": scaled.low_freq,
    "high_freq_factor": scaled.high_freq,
    "original_max_position_embeddings": scaled.original_length,
  }


def _hf_name(name: str) -> str:
  """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; others stay as they are."""
  *module, leaf = name.split(".")
  if len(module) == 3 and module[0] == "blk" and module[2] in _MODULES:
    return f"model.layers.{module[1]}.{_MODULES[module[2]]}.{leaf}"
  if len(module) == 1 and module[0] in _TOP:
    return f"{_TOP[module[0]]}.{leaf}"
  return name


def _rotate_half_order(rows: np.ndarray, heads: int) -> np.ndarray:
  """From rows for rotary pairs (2i, 2i + 1), as Llama's q and k are stored, to (i, i + H/2)."""
  pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
  return pairs.swapaxes(1, 2).reshape(rows.shape)


@functools.cache
def _trouble(kind: int) -> str | None:
  """Why values of this type cannot be read, or None: tried on a block of zeros."""
  try:
    known = gguf.GGMLQuantizationType(kind)
    gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[known][1]), np.uint8), known)
  except (ValueError, KeyError):
    return f"the unknown type {kind}"
  except NotImplementedError:
    return f"type {known.name}, which cannot be dequantised"
  return None
