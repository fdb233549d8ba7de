"""config.json of a Hugging Face folder to Config, and back. Reads old and new spellings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lcrl.policies.config import OPTIONS, Config, Rope

Json = dict[str, Any]

ARCHITECTURES = {
  "llama": "LlamaForCausalLM",  # SmolLM2, too
  "mistral": "MistralForCausalLM",
  "qwen2": "Qwen2ForCausalLM",
  "qwen3": "Qwen3ForCausalLM",
}
_ROPE_FIELDS = {
  "factor": "factor",
  "original_max_position_embeddings": "original_length",
  "low_freq_factor": "low_freq",
  "high_freq_factor": "high_freq",
  "beta_fast": "beta_fast",
  "beta_slow": "beta_slow",
  "attention_factor": "attention_factor",
  "truncate": "truncate",
}
_ROPE_KEYS = {  # what each scaling reads
  "default": (),
  "linear": ("factor",),
  "llama3": (
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
  ),
  "yarn": (
    "factor",
    "original_max_position_embeddings",
    "beta_fast",
    "beta_slow",
    "attention_factor",
    "truncate",
  ),
}
_EXPECTED = {  # what the decoder does; anything else is refused by name
  "hidden_act": "silu",
  "attention_bias": False,
  "mlp_bias": False,
  "partial_rotary_factor": 1.0,
  "quantization_config": None,
}


def read_config(raw: Mapping[str, Any], where: str, **runtime: Any) -> Config:
  """What config.json says.

  Args:
    raw: config.json.
    where: its file, for errors.
    **runtime: fields of Config that no file has, `config.OPTIONS`.
  """
  family = raw.get("model_type")
  if family not in ARCHITECTURES:
    raise ValueError(
      f"{where}: unknown architecture {family!r}, known are {', '.join(ARCHITECTURES)}."
    )
  rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
  for key, value in _EXPECTED.items():
    if (given := {**raw, **rope}.get(key, value)) != value:
      raise ValueError(f"{where}: {key}={given!r} is not supported, only {value!r}.")

  def need(key: str):
    if raw.get(key) is None:
      raise ValueError(f"{where}: {key} is missing.")
    return raw[key]

  hidden, heads, layers = (
    need(key) for key in ("hidden_size", "num_attention_heads", "num_hidden_layers")
  )
  max_length = raw.get("max_position_embeddings", 2048)
  return Config(
    family=family,
    vocab_size=need("vocab_size"),
    hidden_size=hidden,
    layers=layers,
    heads=heads,
    kv_heads=raw.get("num_key_value_heads") or heads,
    head_dim=raw.get("head_dim") or (128 if family == "qwen3" else hidden // heads),
    mlp_size=need("intermediate_size"),
    rope=_read_rope(raw, rope, max_length, where),
    norm_eps=raw.get("rms_norm_eps", 1e-6),
    qkv_bias=family == "qwen2",
    qk_norm=family == "qwen3",
    tied=raw.get("tie_word_embeddings", False),
    windows=_read_windows(raw, family, layers, where),
    max_length=max_length,
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
  rope = {"rope_theta": c.rope.theta, "rope_type": c.rope.scaling}
  scaling = {key: getattr(c.rope, _ROPE_FIELDS[key]) for key in _ROPE_KEYS[c.rope.scaling]}
  rope |= {key: value for key, value in scaling.items() if value is not None}
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
    "rope_scaling": rope if scaling else None,
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


def _read_rope(
  raw: Mapping[str, Any], rope: Mapping[str, Any], max_length: int, where: str
) -> Rope:
  scaling = rope.get("rope_type") or rope.get("type") or "default"
  if scaling not in _ROPE_KEYS:
    raise ValueError(f"{where}: rope scaling {scaling!r} is not one of {', '.join(_ROPE_KEYS)}.")
  known = {*_ROPE_KEYS[scaling], "rope_theta", "rope_type", "type", *_EXPECTED}
  if unknown := sorted(key for key in set(rope) - known if rope[key] is not None):
    raise ValueError(f"{where}: rope parameter {unknown[0]}={rope[unknown[0]]!r} is not supported.")
  theta = rope.get("rope_theta") or raw.get("rope_theta") or 10_000.0
  values = {key: rope[key] for key in _ROPE_KEYS[scaling] if rope.get(key) is not None}
  if "original_max_position_embeddings" in _ROPE_KEYS[scaling]:
    outside = raw.get("original_max_position_embeddings")
    inside = values.get("original_max_position_embeddings", max_length)
    values["original_max_position_embeddings"] = outside or inside
  return Rope(theta, scaling, **{_ROPE_FIELDS[key]: value for key, value in values.items()})


def _read_windows(raw: Mapping[str, Any], family: str, layers: int, where: str):
  """One window a layer, or None where no layer has one."""
  window = raw.get("sliding_window", 4096)
  if family == "llama" or window is None:
    return None
  if family == "mistral":
    return (window,) * layers
  if not raw.get("use_sliding_window", False):
    return None
  first = raw.get("max_window_layers", 28)
  kinds = raw.get("layer_types") or [
    "sliding_attention" if i >= first else "full_attention" for i in range(layers)
  ]
  known = {"full_attention": None, "sliding_attention": window}
  if unknown := sorted(set(kinds) - set(known)):
    raise ValueError(f"{where}: layer type {unknown[0]!r} is not supported.")
  windows = tuple(known[kind] for kind in kinds)
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
