"""What differs between the families in GGUF files, by the name of their architecture there."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lcrl.policies.fields import Fields

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
