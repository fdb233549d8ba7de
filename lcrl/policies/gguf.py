"""GGUF files seen as Hugging Face folders: a config.json, named tensors, a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lcrl.policies.config import Rope
from lcrl.policies.families import FAMILIES
from lcrl.policies.fields import Fields
from lcrl.policies.gguf_file import File, Tensor, read_file
from lcrl.policies.gguf_layouts import (
  FIELDS,
  LAYOUTS,
  Layout,
  hf_name,
  interleaved_heads,
  own_fields,
  rotate_half_order,
)
from lcrl.policies.tensors import Tensors

_LLAMA_31 = Rope(scaling="llama3", original_length=8192)  # the only kind that GGUF files bake in


_NEUTRAL: dict[str, tuple[Any, ...]] = {  # what the decoder does; other values are refused by name
  "attention.causal": (True,),
  "expert_count": (0,),
  "expert_used_count": (0,),
  "pooling_type": (0,),
  "use_parallel_residual": (False,),
  "rope.scale_linear": (1.0,),
  "rope.scaling.attn_factor": (1.0,),
  "rope.scaling.yarn_attn_factor": (1.0,),
  "rope.scaling.yarn_ext_factor": (1.0, -1.0),  # -1: as the type of scaling has it
  "rope.scaling.yarn_log_multiplier": (0.0,),
  "logit_scale": (1.0,),
  "residual_scale": (1.0,),
  "embedding_scale": (1.0,),
  "attn_logit_softcapping": (0.0,),
  "final_logit_softcapping": (0.0,),
}
_READ = {
  *FIELDS.values(),
  "attention.value_length",
  "attention.sliding_window",
  "rope.dimension_count",
  "rope.scaling.finetuned",
  "vocab_size",
  "tensor_data_layout",
}


def open_gguf(path: Path) -> File:
  """Raises ValueError where it is cut short, not GGUF, or has a tensor of unsupported type."""
  return read_file(path)


def metadata(file: File) -> dict[str, Any]:
  return file.fields


def read_gguf(path: Path) -> tuple[dict[str, Any], Tensors]:
  """(config.json, tensors) that a Hugging Face folder of this model would hold.

  Raises:
    ValueError: the file is damaged, or a field is missing, of the wrong kind or not supported.
  """
  meta, found = open_gguf(path)
  raw, layout = config_of(Fields(meta, str(path)), found)
  found = {name: t for name, t in found.items() if name != "rope_freqs.weight"}
  if experts := FAMILIES[raw["model_type"]].experts:
    found = {new: t for name, whole in found.items() for new, t in _apart(name, whole, experts)}
  named = {hf_name(name, layout): t for name, t in found.items()}
  shapes = {name: t.shape for name, t in named.items()}

  def read(name: str, index) -> np.ndarray:
    values = named[name].values()
    offset = FAMILIES[raw["model_type"]].fixed.get("norm_offset")
    if offset and name.endswith("norm.weight"):
      values = values - np.float32(offset)
    if heads := interleaved_heads(name, layout, raw):
      values = rotate_half_order(values, heads)
    return values[index]

  return raw, Tensors(str(path), shapes, read)


def config_of(meta: Fields, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], Layout]:
  """config.json from the metadata, and how tensors are stored."""
  family = _family(meta)
  layout = LAYOUTS[family]
  c = Fields(_of_family(meta, family), meta.where)
  key = lambda name: f"{family}.{FIELDS.get(name, name)}"
  hidden, heads = c.whole(key("hidden_size")), c.whole(key("num_attention_heads"))
  rotated = c.whole(key("rope.dimension_count"), None)
  head_dim = c.whole(key("head_dim"), rotated or hidden // heads)
  for other in ("rope.dimension_count", "attention.value_length"):
    if c.whole(key(other), head_dim) != head_dim:
      raise c.refuse(key(other), f"is not supported with heads of {head_dim}")
  window = c.whole(
    key("attention.sliding_window"), layout.window, least=0 if family == "phi3" else 1
  )
  if window and layout.slides is None:
    raise c.refuse(key("attention.sliding_window"), f"is not supported for {family}")
  embedding = tensors.get("token_embd.weight")
  if embedding is None or len(embedding.shape) != 2:
    raise ValueError(f"{meta.where}: tensor token_embd.weight is missing or no matrix.")
  raw = {
    "model_type": layout.slides if window else layout.family,
    "vocab_size": embedding.shape[0],
    "hidden_size": hidden,
    "num_hidden_layers": c.whole(key("num_hidden_layers")),
    "num_attention_heads": heads,
    "num_key_value_heads": c.whole(key("num_key_value_heads"), heads),
    "head_dim": head_dim,
    "intermediate_size": c.whole(key("intermediate_size")),
    "rms_norm_eps": c.positive(key("rms_norm_eps")),
    "max_position_embeddings": c.whole(key("max_position_embeddings")),
    "sliding_window": window or None,
    "tie_word_embeddings": "output.weight" not in tensors,
    "rope_parameters": _rope(c, family, head_dim, tensors.get("rope_freqs.weight")),
  }
  return raw | own_fields(c, family, raw), layout


def _family(meta: Fields) -> str:
  """The architecture of a file that holds a whole model."""
  if meta.text("general.type", "model") != "model":
    raise meta.refuse("general.type", "is not supported, only 'model'")
  if meta.values.get("split.count", 1) not in (0, 1):
    raise meta.refuse("split.count", "is not supported: the file is one part of a model")
  family = meta.text("general.architecture")
  if family not in LAYOUTS:
    known = ", ".join(LAYOUTS)
    raise ValueError(f"{meta.where}: unknown architecture {family!r}, known are {known}.")
  return family


def _of_family(meta: Fields, family: str) -> dict[str, Any]:
  """The fields of the architecture; values per layer that are all the same as one value."""
  fields = {}
  for key, value in meta.values.items():
    if not key.startswith(f"{family}."):
      continue
    if isinstance(value, list) and value and all(x == value[0] for x in value):
      value = value[0]
    name = key.removeprefix(f"{family}.")
    own = name in LAYOUTS[family].reads
    if name in _NEUTRAL and not own and value not in _NEUTRAL[name]:
      raise meta.refuse(key, f"is not supported, only {_NEUTRAL[name][0]!r}")
    if not (own or name in _NEUTRAL or name in _READ):
      raise meta.refuse(key, "is not supported: it may change what the model computes")
    fields[key] = value
  return fields


def _rope(c: Fields, family: str, head_dim: int, divisors: Tensor | None) -> dict[str, Any]:
  """The table `rope_parameters`. As in llama.cpp, a factor without a type is linear scaling."""
  key = lambda name: f"{family}.{FIELDS[name]}"
  theta = c.positive(key("rope_theta"), 10_000.0)
  factor = c.positive(key("factor"), None)
  kind = c.text(key("rope_type"), "linear" if factor not in (None, 1) else "none")
  if divisors is not None:
    if kind != "none":
      raise c.refuse(key("rope_type"), "is not supported beside tensor rope_freqs.weight")
    return _llama3_rope(divisors, theta, head_dim, c.where)
  if kind == "none":
    return {"rope_theta": theta, "rope_type": "default"}
  rope = {"rope_theta": theta, "rope_type": kind, "factor": c.positive(key("factor"))}
  if kind == "yarn":
    length = "original_max_position_embeddings"
    rope[length] = c.whole(key(length), None)
    rope["beta_fast"] = c.positive(key("beta_fast"), 32.0)
    rope["beta_slow"] = c.positive(key("beta_slow"), 1.0)
  return rope


def _llama3_rope(tensor: Tensor, theta: float, head_dim: int, where: str) -> dict[str, Any]:
  """The scaling that gave these divisors of the frequencies, if it is Llama 3.1's."""
  divisors = tensor.values().astype(np.float64)
  factor = round(float(divisors.max()), 3)
  scaled = Rope(theta, "llama3", factor, _LLAMA_31.original_length)
  expected = Rope(theta).frequencies(head_dim) / scaled.frequencies(head_dim)
  if divisors.shape != expected.shape or not np.allclose(divisors, expected, rtol=1e-3):
    raise ValueError(f"{where}: tensor rope_freqs.weight is not the scaling of Llama 3.1.")
  return {
    "rope_theta": theta,
    "rope_type": "llama3",
    "factor": factor,
    "low_freq_factor": scaled.low_freq,
    "high_freq_factor": scaled.high_freq,
    "original_max_position_embeddings": scaled.original_length,
  }


def _apart(name: str, tensor: Tensor, modules: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
  """Experts of a layer are one tensor, or in old files `blk.3.ffn_gate.7.weight`, one each."""
  found = re.fullmatch(r"blk\.(\d+)\.ffn_(gate_inp|gate|up|down)(_exps|\.\d+)?\.weight", name)
  if found is None:
    yield name, tensor
    return
  layer, matrix, which = found.groups()
  module = modules["router" if matrix == "gate_inp" else matrix]
  parts = tensor.parts() if which == "_exps" else {(which or "")[1:]: tensor}
  for i, part in parts.items():
    yield f"model.layers.{layer}.{module.format(i)}.weight", part
