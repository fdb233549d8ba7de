"""config.json of a Hugging Face folder to Config, and back. Reads old and new spellings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from lcrl.policies.config import OPTIONS, Config
from lcrl.policies.fields import Fields
from lcrl.policies.hf_rope import read_rope, write_rope

Json = dict[str, Any]

ARCHITECTURES = {
  "llama": "LlamaForCausalLM",  # SmolLM2, too
  "mistral": "MistralForCausalLM",
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
}
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
  c = Fields(raw, where)
  family = c.text("model_type")
  if family not in ARCHITECTURES:
    raise ValueError(
      f"{where}: unknown architecture {family!r}, known are {', '.join(ARCHITECTURES)}."
    )
  _refuse_unknown(c, family)
  hidden, heads = c.whole("hidden_size"), c.whole("num_attention_heads")
  layers = c.whole("num_hidden_layers", most=10_000)
  head_dim = c.whole("head_dim", None) or (128 if family == "qwen3" else hidden // heads)
  kv_heads = c.whole("num_key_value_heads", heads)
  if heads % kv_heads:
    raise c.refuse("num_attention_heads", f"is not a multiple of num_key_value_heads={kv_heads}")
  if head_dim < 2 or head_dim % 2:
    raise ValueError(f"{where}: head_dim={head_dim} must be even for rotary positions.")
  return Config(
    family=family,
    vocab_size=c.whole("vocab_size"),
    hidden_size=hidden,
    layers=layers,
    heads=heads,
    kv_heads=kv_heads,
    head_dim=head_dim,
    mlp_size=c.whole("intermediate_size"),
    rope=read_rope(c),
    norm_eps=c.positive("rms_norm_eps", 1e-6),
    qkv_bias=family == "qwen2",
    qk_norm=family == "qwen3",
    tied=c.flag("tie_word_embeddings", False),
    windows=_read_windows(c, family, layers),
    max_length=c.whole("max_position_embeddings", 2048),
    **runtime,
  )


def write_config(config: Config) -> Json:
  """config.json of this model, for transformers 4 and 5.

  Raises:
    ValueError: the family cannot say one of the fields, which the error names.
  """
  c = config
  if c.family not in ARCHITECTURES:
    raise ValueError(f"family={c.family!r} is not one of {', '.join(ARCHITECTURES)}.")
  rope = write_rope(c.rope)
  raw = {
    "architectures": [ARCHITECTURES[c.family]],
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
    "rope_parameters": rope,
    "rope_theta": c.rope.theta,
    "rope_scaling": None if c.rope.scaling == "default" else rope,
    **_write_windows(c),
  }
  options = {name: getattr(c, name) for name in OPTIONS}
  back = read_config(raw, "config.json", **options)
  for field in dataclasses.fields(Config):
    meant, said = getattr(c, field.name), getattr(back, field.name)
    if meant != said:
      raise ValueError(
        f"A {c.family} folder cannot hold {field.name}={meant!r}: it would read back as {said!r}."
      )
  return raw


def _refuse_unknown(c: Fields, family: str) -> None:
  if (named := c.list_of(str, "architectures", None)) and ARCHITECTURES[family] not in named:
    raise c.refuse("architectures", f"is not supported, only {ARCHITECTURES[family]!r}")
  for key, value in c.values.items():
    if key in _NEUTRAL and value is not None and value not in _NEUTRAL[key]:
      raise c.refuse(key, f"is not supported, only {_NEUTRAL[key][0]!r}")
    known = key in _NEUTRAL or _READ.fullmatch(key) or _HARMLESS.fullmatch(key)
    if not known and value not in (None, "", [], {}):
      raise c.refuse(
        key, "is not supported: it may change what the model computes (remove it if it does not)"
      )


def _read_windows(c: Fields, family: str, layers: int):
  """One window a layer, or None where no layer has one."""
  on = c.flag("use_sliding_window", None)
  unsaid = None if family == "llama" or "sliding_window" in c.values else 4096
  window = c.whole("sliding_window", unsaid)
  if family == "mistral" and on is not None and on != (window is not None):
    raise c.refuse("use_sliding_window", f"contradicts sliding_window={window}")
  if family == "llama" and (on or (window and on is None)):
    raise c.refuse("sliding_window", "is not supported for llama")
  window = window if on or family == "mistral" else None
  start = 0 if family == "mistral" else c.whole("max_window_layers", 28, least=0)
  kinds = ["full_attention"] * layers
  if window:
    kinds[start:] = ["sliding_attention"] * (layers - min(start, layers))
  given = c.list_of(str, "layer_types", kinds)
  known = {"full_attention": None} | ({"sliding_attention": window} if window else {})
  if unknown := sorted(set(given) - set(known)):
    raise ValueError(f"{c.where}: layer_types: {unknown[0]!r} is not supported, only {[*known]}.")
  if len(given) != layers:
    raise ValueError(f"{c.where}: layer_types has {len(given)} entries for {layers} layers.")
  if given != kinds and not family.startswith("qwen"):
    raise c.refuse("layer_types", f"is not supported for {family} with sliding_window={window}")
  windows = tuple(known[kind] for kind in given)
  return windows if any(windows) else None


def _write_windows(c: Config) -> Json:
  windows = c.windows or (None,) * c.layers
  window = max((w for w in windows if w), default=None)
  if c.family == "llama":
    return {}
  if c.family == "mistral":
    return {"sliding_window": window}
  return {
    "use_sliding_window": window is not None,
    "sliding_window": window,
    "max_window_layers": sum(w is None for w in windows),
    "layer_types": ["sliding_attention" if w else "full_attention" for w in windows],
  }
