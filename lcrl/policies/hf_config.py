"""config.json of a Hugging Face folder to Config, and back. Reads old and new spellings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from lcrl.policies.config import OPTIONS, Config, Rope
from lcrl.policies.families import FAMILIES
from lcrl.policies.fields import Fields
from lcrl.policies.hf_layers import read_ropes, read_windows, unsaid, write_layers
from lcrl.policies.hf_text import text_config
from lcrl.policies.mxfp4 import is_packed

Json = dict[str, Any]

_NEUTRAL: dict[str, tuple[Any, ...]] = {  # what the decoder does; other values are refused by name
  "hidden_act": ("silu", "swish"),
  "attention_bias": (False,),
  "mlp_bias": (False,),
  "rope_interleaved": (False,),
  "use_mrope": (False,),
  "use_qk_norm": (False,),
  "is_causal": (True,),
  "is_encoder_decoder": (False,),
  "add_cross_attention": (False,),
  "embedding_multiplier": (1.0,),
  "residual_multiplier": (1.0,),
  "logits_scaling": (1.0,),
}
_READ = re.compile(
  """
  model_type | architectures | vocab_size | hidden_size | num_hidden_layers |
  num_attention_heads | num_key_value_heads | head_dim | intermediate_size | rms_norm_eps |
  max_position_embeddings | rope_theta | rope_scaling | rope_parameters |
  original_max_position_embeddings | partial_rotary_factor | tie_word_embeddings |
  use_sliding_window | sliding_window | max_window_layers | layer_types
  """,
  re.VERBOSE,
)
_HARMLESS = re.compile(  # nothing that the forward pass computes with
  """
  dtype | torch_dtype | use_cache | initializer_range | initializer_factor | init_std |
  pretraining_tp | is_decoder | is_llama_config | tokenizer_class | model_max_length |
  max_sequence_length | max_seq_len | max_seq_length | seq_length | tokenizer_model_max_length |
  tokenizer_padding_side | gradient_checkpointing | use_flash_attn | use_flash_attention |
  attn_implementation | license | chunk_size_feed_forward | output_attentions |
  output_hidden_states | output_scores | return_dict | return_dict_in_generate | torchscript |
  tie_encoder_decoder | use_bfloat16 | tf_legacy_loss | problem_type | finetuning_task |
  id2label | label2id | num_labels | prefix | task_specific_params | max_length | min_length |
  do_sample | early_stopping | num_beams | num_beam_groups | diversity_penalty | temperature |
  top_k | top_p | typical_p | repetition_penalty | length_penalty | no_repeat_ngram_size |
  encoder_no_repeat_ngram_size | bad_words_ids | num_return_sequences | remove_invalid_values |
  exponential_decay_length_penalty | suppress_tokens | begin_suppress_tokens
  | cache_implementation | output_router_logits | router_aux_loss_coef
  | dual_chunk_attention_config  # read by vLLM alone, of the 1M models of Qwen2.5
  | _.* | unsloth_.* | transformers.* | .*_token | .*_token_ids? | .*_dropout | .*_pdrop
  """,
  re.VERBOSE,
)


def read_config(raw: Mapping[str, Any], where: str, **runtime: Any) -> Config:
  """What config.json says. A field that may change the computation and is not read is refused.

  Args:
    raw: config.json.
    where: its file, for errors.
    **runtime: fields of Config that no file has, `config.OPTIONS`.

  Raises:
    ValueError: a field is missing, of the wrong type, not supported or contradicts another one.
  """
  if not isinstance(raw, Mapping):
    raise ValueError(f"{where} is not a JSON object.")
  c = Fields(text_config(raw, where), where)
  family = c.text("model_type")
  if family not in FAMILIES:
    raise ValueError(f"{where}: unknown architecture {family!r}, known are {', '.join(FAMILIES)}.")
  _refuse_unknown(c, family)
  own = FAMILIES[family].unsaid
  hidden, heads = c.whole("hidden_size"), c.whole("num_attention_heads")
  layers = c.whole("num_hidden_layers", most=10_000)
  head_dim = c.whole("head_dim", None) or own.get("head_dim", hidden // heads)
  kv_heads = c.whole("num_key_value_heads", heads)
  if heads % kv_heads:
    raise c.refuse("num_attention_heads", f"is not a multiple of num_key_value_heads={kv_heads}")
  if head_dim < 2 or head_dim % 2:
    raise ValueError(f"{where}: head_dim={head_dim} must be even for rotary positions.")
  by_experts = "moe_intermediate_size" in FAMILIES[family].reads
  windows = read_windows(c, family, layers)
  rope, ropes = read_ropes(c, family, windows)
  return Config(
    family=family,
    vocab_size=c.whole("vocab_size"),
    hidden_size=hidden,
    layers=layers,
    heads=heads,
    kv_heads=kv_heads,
    head_dim=head_dim,
    mlp_size=c.whole("moe_intermediate_size" if by_experts else "intermediate_size"),
    rope=rope,
    norm_eps=c.positive("rms_norm_eps", own.get("rms_norm_eps", 1e-6)),
    tied=c.flag("tie_word_embeddings", own.get("tie_word_embeddings", False)),
    windows=windows,
    ropes=ropes,
    max_length=c.whole("max_position_embeddings", 2048),
    **FAMILIES[family].fixed,
    **(_read_gemma(c, family, hidden, head_dim) if family.startswith("gemma") else {}),
    **(_read_experts(c, family) if FAMILIES[family].experts else {}),
    **(_read_gpt_oss(c, rope) if family == "gpt_oss" else {}),
    **runtime,
  )


def write_config(config: Config) -> Json:
  """config.json of this model, for transformers 4 and 5.

  Raises:
    ValueError: the family cannot say one of the fields, which the error names.
  """
  c = config
  if c.family not in FAMILIES:
    raise ValueError(f"family={c.family!r} is not one of {', '.join(FAMILIES)}.")
  raw = {
    "architectures": [FAMILIES[c.family].architecture],
    "model_type": c.family,
    "vocab_size": c.vocab_size,
    "hidden_size": c.hidden_size,
    "num_hidden_layers": c.layers,
    "num_attention_heads": c.heads,
    "num_key_value_heads": c.kv_heads,
    "head_dim": c.head_dim,
    "intermediate_size": c.mlp_size,
    "hidden_act": "silu",
    "rms_norm_eps": c.norm_eps,
    "max_position_embeddings": c.max_length,
    "tie_word_embeddings": c.tied,
    **write_layers(c),
    **(_write_gemma(c) if c.family.startswith("gemma") else {}),
    **(_write_experts(c) if FAMILIES[c.family].experts else {}),
    **({"attention_bias": True, "swiglu_limit": c.mlp_limit} if c.family == "gpt_oss" else {}),
  }
  refuse_unsaid(c, raw, f"A {c.family} folder")
  return raw


def refuse_unsaid(c: Config, raw: Mapping[str, Any], what: str) -> None:
  """Raises ValueError, by its field, where config.json says another model than this one."""
  options = {name: getattr(c, name) for name in OPTIONS}
  back = read_config(raw, "config.json", **options)
  for field in dataclasses.fields(Config):
    meant, said = getattr(c, field.name), getattr(back, field.name)
    if meant != said:
      raise ValueError(
        f"{what} cannot hold {field.name}={meant!r}: it would read back as {said!r}."
      )


def _refuse_unknown(c: Fields, family: str) -> None:
  if (named := c.list_of(str, "architectures", None)) and FAMILIES[
    family
  ].architecture not in named:
    raise c.refuse("architectures", f"is not supported, only {FAMILIES[family].architecture!r}")
  neutral, reads = {**_NEUTRAL, **FAMILIES[family].neutral}, FAMILIES[family].reads
  for key, value in c.values.items():
    if key in neutral and value is not None and value not in neutral[key]:
      raise c.refuse(key, f"is not supported, only {neutral[key][0]!r}")
    known = key in neutral or key in reads or _READ.fullmatch(key) or _HARMLESS.fullmatch(key)
    if not known and value not in (None, "", [], {}):
      raise c.refuse(
        key, "is not supported: it may change what the model computes (remove it if it does not)"
      )


def _read_gemma(c: Fields, family: str, hidden: int, head_dim: int) -> dict[str, Any]:
  scalar = c.positive("query_pre_attn_scalar", 256)
  cap = lambda key: c.positive(key, unsaid(c, family, key))
  return {
    "embed_scale": hidden**0.5,
    "query_scale": None if scalar == head_dim else scalar**-0.5,
    "attention_softcap": cap("attn_logit_softcapping"),
    "logit_softcap": cap("final_logit_softcapping"),
  }


def _write_gemma(c: Config) -> Json:
  scalar = round(c.attention_scale**-2, 9)
  return {
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar,
    "attn_logit_softcapping": c.attention_softcap,
    "final_logit_softcapping": c.logit_softcap,
  }


def _read_experts(c: Fields, family: str) -> dict[str, Any]:
  first, *others = sorted(FAMILIES[family].reads & {"num_experts", "num_local_experts"})
  if c.values.get(first) is None and others:
    first, others = others[0], [first]
  count = c.whole(first)
  for other in others:
    if c.whole(other, count) != count:
      raise c.refuse(other, f"contradicts {first}={count}")
  return {
    "experts": count,
    "experts_per_token": c.whole("num_experts_per_tok", most=count),
    "normalize_gates": c.flag(
      "norm_topk_prob", FAMILIES[family].unsaid.get("norm_topk_prob", True)
    ),
  }


def _read_gpt_oss(c: Fields, rope: Rope) -> dict[str, Any]:
  if c.values.get("quantization_config") and not is_packed(c.values):
    raise c.refuse("quantization_config", "is not supported, only quant_method='mxfp4'")
  for key, other, said in (
    ("experts_per_token", "num_experts_per_tok", c.whole("num_experts_per_tok")),
    ("initial_context_length", "original_max_position_embeddings", rope.original_length),
  ):
    if c.whole(key, said) != said:
      raise c.refuse(key, f"contradicts {other}={said}")
  limit = FAMILIES["gpt_oss"].unsaid["swiglu_limit"]
  return {"mlp_limit": c.positive("swiglu_limit", limit)}


def _write_experts(c: Config) -> Json:
  raw: Json = {"num_experts_per_tok": c.experts_per_token, "num_local_experts": c.experts}
  if "moe_intermediate_size" in FAMILIES[c.family].reads:
    raw["num_experts"] = raw.pop("num_local_experts")
    raw |= {"moe_intermediate_size": c.mlp_size, "norm_topk_prob": c.normalize_gates}
    raw["intermediate_size"] = c.active_mlps * c.mlp_size  # of dense layers, of which it has none
  return raw
