"""The text model inside a folder of Gemma 3 that reads pictures, too: sizes from 4B up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcrl.policies.fields import Fields
from lcrl.policies.tensors import Tensors

_PICTURES = tuple(
  f"{prefix}{part}."
  for prefix in ("", "model.")
  for part in ("vision_tower", "multi_modal_projector")
)
# The names in new files and in old ones -> those of a folder of text alone.
_TEXT = {"language_model.": "", "model.language_model.": "model."}
_UNSAID = {  # by the part of config.json on the text
  "vocab_size": 262208,
  "num_attention_heads": 8,
  "num_key_value_heads": 4,
  "max_position_embeddings": 131072,
}


def text_config(raw: Mapping[str, Any], where: str) -> Mapping[str, Any]:
  """config.json of the text model; that of text alone stays as it is."""
  if raw.get("model_type") != "gemma3":
    return raw
  c = Fields(raw, where)
  text = c.table("text_config")
  if not text:
    raise ValueError(f"{where}: text_config is missing.")
  tied = c.flag("tie_word_embeddings", None)
  return {**_UNSAID, **({} if tied is None else {"tie_word_embeddings": tied}), **text}


def text_tensors(tensors: Tensors) -> Tensors:
  """The tensors of the text model under the names that a folder of text alone has."""
  names = {}
  for name in tensors.shapes:
    if not name.startswith(_PICTURES):
      prefix = next((p for p in _TEXT if name.startswith(p)), None)
      names[name if prefix is None else _TEXT[prefix] + name.removeprefix(prefix)] = name
  return tensors._replace(
    shapes={name: tensors.shapes[old] for name, old in names.items()},
    read=lambda name, index: tensors.read(names[name], index),
    files={name: tensors.file(old) for name, old in names.items()},
  )
