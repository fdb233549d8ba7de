"""Families of models: what the name of one, `model_type` of config.json, says without words."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Family(NamedTuple):
  """What all models of a family have in common."""

  architecture: str  # the class in transformers
  fixed: Mapping[str, Any] = _NOTHING  # fields of Config that the name says
  unsaid: Mapping[str, Any] = _NOTHING  # of config.json, where it is silent
  reads: frozenset[str] = frozenset()  # fields of config.json that only such families have
  # ... and those of which only these values are supported
  neutral: Mapping[str, tuple[Any, ...]] = _NOTHING
  # Which layers have a window where config.json does not say: "none", "all", "later" ones (from
  # max_window_layers on), those "without rope", or "most", all but every `full_every`-th.
  sliding: str = "none"
  full_every: int = 1
  local_rope: bool = False  # layers that slide have rotary positions of their own
  fused: bool = False  # query, key and value are one tensor, gate and up another
  # Of families with experts: the modules of the router and of each expert's matrices; or, without
  # a place for the expert's number, the tensor of all, [E, in, out] each.
  experts: Mapping[str, str] = _NOTHING


_GEMMA = {"norms": "sandwich", "norm_offset": 1.0, "activation": "gelu_tanh"}
_GEMMA_UNSAID = {"head_dim": 256, "tie_word_embeddings": True, "sliding_window": 4096}
_GEMMA_READS = {"query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"}
_GEMMA_NEUTRAL = {
  "hidden_act": ("gelu_pytorch_tanh",),
  "hidden_activation": ("gelu_pytorch_tanh",),
  "use_bidirectional_attention": (False,),
}
_OLMO = {"norms": "post", "qk_norm": True, "qk_norm_over": "projection"}
_OLMO_UNSAID = {"rope_theta": 500_000.0, "rms_norm_eps": 1e-5}
_QWEN_EXPERTS = {n: f"mlp.experts.{{}}.{n}_proj" for n in ("gate", "up", "down")}
_MIXTRAL_EXPERTS = {
  name: f"block_sparse_moe.experts.{{}}.{stored}"
  for name, stored in (("gate", "w1"), ("up", "w3"), ("down", "w2"))
}
_EXPERT_READS = {"num_local_experts", "num_experts_per_tok"}
_GPT_OSS_EXPERTS = {"down": "mlp.experts.down_proj", "router": "mlp.router"}
_GPT_OSS_EXPERTS |= dict.fromkeys(("gate", "up"), "mlp.experts.gate_up_proj")
_GPT_OSS_ROPE = {"rope_type": "yarn", "factor": 32.0, "truncate": False}
_GPT_OSS_ROPE |= {"original_max_position_embeddings": 4096}
_GPT_OSS_READS = {"swiglu_limit", "experts_per_token", "initial_context_length"}
_GPT_OSS_READS |= {"quantization_config"}
_PHI_CODE = {  # published beside the weights; transformers has the same
  "AutoConfig": "configuration_phi3.Phi3Config",
  "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
}

FAMILIES = {
  "llama": Family("LlamaForCausalLM"),  # SmolLM2, too
  "mistral": Family("MistralForCausalLM", unsaid={"sliding_window": 4096}, sliding="all"),
  "qwen2": Family(
    "Qwen2ForCausalLM", {"qkv_bias": True}, {"sliding_window": 4096}, sliding="later"
  ),
  "qwen3": Family(
    "Qwen3ForCausalLM",
    {"qk_norm": True},
    {"sliding_window": 4096, "head_dim": 128},
    sliding="later",
  ),
  "qwen3_moe": Family(
    "Qwen3MoeForCausalLM",
    {"qk_norm": True},
    {"norm_topk_prob": False},
    frozenset(_EXPERT_READS | {"num_experts", "moe_intermediate_size", "norm_topk_prob"}),
    {
      **{"decoder_sparse_step": (1,), "mlp_only_layers": ([],), "qkv_bias": (False,)},
      **{"shared_expert_intermediate_size": (0,), "use_qk_norm": (True,)},
    },
    experts=_QWEN_EXPERTS | {"router": "mlp.gate"},
  ),
  "mixtral": Family(
    "MixtralForCausalLM",
    unsaid={"rope_theta": 1e6, "rms_norm_eps": 1e-5},
    reads=frozenset(_EXPERT_READS),
    neutral={"router_jitter_noise": (0.0,)},
    sliding="all",
    experts=_MIXTRAL_EXPERTS | {"router": "block_sparse_moe.gate"},
  ),
  "gpt_oss": Family(
    "GptOssForCausalLM",
    {
      **{"qkv_bias": True, "out_bias": True, "expert_bias": True, "sinks": True},
      **{"activation": "quick_gelu", "up_offset": 1.0},
    },
    {
      **{"rope_theta": 150_000.0, "rms_norm_eps": 1e-5, "head_dim": 64, "sliding_window": 128},
      **{"swiglu_limit": 7.0, "rope_parameters": _GPT_OSS_ROPE},
    },
    frozenset(_EXPERT_READS | _GPT_OSS_READS),
    {"attention_bias": (True,), "swiglu_alpha": (1.702,)},
    sliding="most",
    full_every=2,
    experts=_GPT_OSS_EXPERTS,
  ),
  "gemma2": Family(
    "Gemma2ForCausalLM",
    _GEMMA,
    _GEMMA_UNSAID | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    frozenset(_GEMMA_READS | {"sliding_window_size"}),
    _GEMMA_NEUTRAL,
    sliding="most",
    full_every=2,
  ),
  "gemma3_text": Family(
    "Gemma3ForCausalLM",
    _GEMMA | {"qk_norm": True},
    _GEMMA_UNSAID | {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
    frozenset(_GEMMA_READS | {"rope_local_base_freq", "sliding_window_pattern"}),
    _GEMMA_NEUTRAL,
    sliding="most",
    full_every=6,
    local_rope=True,
  ),
  "olmo2": Family("Olmo2ForCausalLM", _OLMO, _OLMO_UNSAID),
  "olmo3": Family(
    "Olmo3ForCausalLM",
    _OLMO,
    _OLMO_UNSAID | {"sliding_window": 4096},
    sliding="most",
    full_every=4,
    local_rope=True,
  ),
  "smollm3": Family(
    "SmolLM3ForCausalLM",
    unsaid={"rope_theta": 2e6, "tie_word_embeddings": True},
    reads=frozenset({"no_rope_layers", "no_rope_layer_interval"}),
    sliding="without rope",
  ),
  "phi3": Family(  # Phi-4, too
    "Phi3ForCausalLM",
    unsaid={"rms_norm_eps": 1e-5},
    neutral={"auto_map": (_PHI_CODE, {})},
    sliding="all",
    fused=True,
  ),
}
