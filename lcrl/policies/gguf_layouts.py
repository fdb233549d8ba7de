"""What differs between the families in GGUF files, by the name of their architecture there."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from lcrl.policies.fields import Fields

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
FIELDS = {  # of config.json -> of metadata, after the name of the architecture
  "num_hidden_layers": "block_count",
  "max_position_embeddings": "context_length",
  "hidden_size": "embedding_length",
  "intermediate_size": "feed_forward_length",
  "num_attention_heads": "attention.head_count",
  "num_key_value_heads": "attention.head_count_kv",
  "head_dim": "attention.key_length",
  "rms_norm_eps": "attention.layer_norm_rms_epsilon",
  "rope_theta": "rope.freq_base",
  "rope_type": "rope.scaling.type",
  "factor": "rope.scaling.factor",
  "original_max_position_embeddings": "rope.scaling.original_context_length",
  "beta_fast": "rope.scaling.yarn_beta_fast",
  "beta_slow": "rope.scaling.yarn_beta_slow",
}
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NORMS_AFTER = {
  "post_attention_norm": "post_attention_layernorm",
  "ffn_norm": "pre_feedforward_layernorm",
  "post_ffw_norm": "post_feedforward_layernorm",
}


class Layout(NamedTuple):
  """How llama.cpp's converter stores an architecture."""

  family: str
  slides: str | None = None  # the family if the file names a window; None: it must not
  window: int | None = None  # where the file names none
  interleaved: bool = False  # rows of queries and keys are for rotary pairs (2i, 2i + 1)
  modules: Mapping[str, str] = _NOTHING  # where they are not those of `gguf`
  reads: frozenset[str] = frozenset()  # fields that only this architecture has
  largest: int | None = None  # layers of the one size whose queries have a scale of their own
  experts: str | None = None  # the family if there are experts; None: there must be none


_SOFTCAPS = frozenset({"attn_logit_softcapping", "final_logit_softcapping"})
_LOCAL = frozenset({"rope.freq_base_swa", "attention.sliding_window_pattern"})

_EXPERTS = frozenset({"expert_count", "expert_used_count"})

LAYOUTS = {
  "llama": Layout("llama", "mistral", interleaved=True, reads=_EXPERTS, experts="mixtral"),
  "mistral": Layout("mistral", "mistral", interleaved=True),
  "qwen2": Layout("qwen2"),
  "qwen3": Layout("qwen3"),
  "qwen3moe": Layout(
    "qwen3_moe", reads=_EXPERTS | {"expert_feed_forward_length"}, experts="qwen3_moe"
  ),
  "gemma2": Layout("gemma2", "gemma2", 4096, modules=_NORMS_AFTER, reads=_SOFTCAPS, largest=46),
  "gemma3": Layout("gemma3_text", "gemma3_text", modules=_NORMS_AFTER, reads=_LOCAL, largest=62),
  "olmo2": Layout("olmo2", "olmo3", modules=_NORMS_AFTER),
  "smollm3": Layout("smollm3", interleaved=True),
  "phi3": Layout(
    "phi3", "phi3", modules={"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
  ),
}


def own_fields(c: Fields, name: str, raw: dict[str, Any]) -> dict[str, Any]:
  """Fields of config.json that only this architecture has."""
  own: dict[str, Any] = {}
  layout, rope = LAYOUTS[name], raw["rope_parameters"]
  if layout.largest is not None:
    width = raw["hidden_size"] // raw["num_attention_heads"]
    is_largest = raw["num_hidden_layers"] == layout.largest
    own["query_pre_attn_scalar"] = width if is_largest else raw["head_dim"]
  for key in layout.reads & _SOFTCAPS:
    if (value := c.positive(f"{name}.{key}", None)) is not None:
      own[key] = value
  if layout.experts and (count := c.whole(f"{name}.expert_count", 0, least=0)):
    own |= {"model_type": layout.experts, "num_local_experts": count}
    own["num_experts_per_tok"] = c.whole(f"{name}.expert_used_count")
    if "expert_feed_forward_length" in layout.reads:  # llama.cpp always normalises the gates
      width = c.whole(f"{name}.expert_feed_forward_length")
      own |= {"moe_intermediate_size": width, "norm_topk_prob": True}
  if layout.slides in ("gemma3_text", "olmo3") and raw["sliding_window"]:
    theta = rope["rope_theta"]
    if layout.reads & _LOCAL:
      theta = c.positive(f"{name}.rope.freq_base_swa", 10_000.0)
      own["sliding_window_pattern"] = c.whole(f"{name}.attention.sliding_window_pattern", 6)
    local = {"rope_theta": theta, "rope_type": "default"}
    own["rope_parameters"] = {"full_attention": rope, "sliding_attention": local}
  return own


def hf_name(name: str, layout: Layout) -> str:
  """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; others stay as they are."""
  *module, leaf = name.split(".")
  modules = {**_MODULES, **layout.modules}
  if len(module) == 3 and module[0] == "blk" and module[2] in modules:
    return f"model.layers.{module[1]}.{modules[module[2]]}.{leaf}"
  if len(module) == 1 and module[0] in _TOP:
    return f"{_TOP[module[0]]}.{leaf}"
  return name


def gguf_name(name: str, layout: Layout) -> str:
  """`model.layers.3.self_attn.q_proj.weight` -> `blk.3.attn_q.weight`."""
  module, leaf = name.rsplit(".", 1)
  names = {hf: own for own, hf in {**_TOP, **_MODULES, **layout.modules}.items()}
  if module in names:
    return f"{names[module]}.{leaf}"
  _, _, layer, module = module.split(".", 3)
  return f"blk.{layer}.{names[module]}.{leaf}"


def interleaved_heads(name: str, layout: Layout, raw: Mapping[str, Any]) -> int | None:
  """The heads whose rows stand in the order of rotary pairs; None: there are none in the tensor."""
  if layout.interleaved and ".q_proj." in name:
    return raw["num_attention_heads"]
  if layout.interleaved and ".k_proj." in name:
    return raw["num_key_value_heads"]
  return None


def rotate_half_order(rows: np.ndarray, heads: int) -> np.ndarray:
  """From rows for rotary pairs (2i, 2i + 1), as Llama's q and k are stored, to (i, i + H/2)."""
  pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
  return pairs.swapaxes(1, 2).reshape(rows.shape)


def interleave(rows: np.ndarray, heads: int) -> np.ndarray:
  """The inverse of `rotate_half_order`."""
  pairs = rows.reshape(heads, 2, -1, *rows.shape[1:])
  return pairs.swapaxes(1, 2).reshape(rows.shape)
