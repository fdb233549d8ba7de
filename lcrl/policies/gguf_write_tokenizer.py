"""A tokenizer as metadata of a GGUF file: the inverse of `gguf_tokenizer`, whose names it uses."""

from __future__ import annotations

import json
from typing import Any

import tokenizers

from lcrl.policies.gguf_tokenizer import (
  CONTROL,
  NORMAL,
  PRE_TOKENIZERS,
  UNUSED,
  USER_DEFINED,
  byte_level,
)
from lcrl.policies.tokenizer_files import token_text
from lcrl.policies.vocabulary import Tokenizer

_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token"}
_UNREAD = {"vocab", "merges", "unk_token", "fuse_unk"}  # bytes leave nothing unknown


def tokenizer_fields(tokenizer: Tokenizer, rows: int) -> dict[str, Any]:
  """Metadata of a tokenizer for a model with `rows` embeddings.

  Raises:
    ValueError: a GGUF file cannot say how the tokenizer works, or it has more tokens than `rows`.
  """
  core, vocab = tokenizer.core, tokenizer.core.get_vocab()
  if tokenizer.vocab_size > rows:
    raise ValueError(f"There are {tokenizer.vocab_size} tokens, but {rows} embeddings.")
  tokens, kinds = [f"[PAD{i}]" for i in range(rows)], [UNUSED] * rows
  for token, i in vocab.items():
    tokens[i], kinds[i] = token, NORMAL
  for i, added in core.get_added_tokens_decoder().items():
    kinds[i] = CONTROL if added.special else USER_DEFINED
    if added.lstrip or added.rstrip or added.single_word:
      raise ValueError(
        f"Token {added.content!r} takes spaces beside it, or stands as a word of its own only, "
        "which a GGUF file cannot say."
      )
  raw = json.loads(core.to_str())
  fields = {
    "model": "gpt2",
    "pre": _pre_tokenizer(core),
    "tokens": tokens,
    "token_type": kinds,
    "merges": [" ".join(merge) for merge in raw["model"]["merges"]],
    **{f"{name}_token_id": i for name, i in _special_ids(tokenizer).items()},
    "add_bos_token": _adds_bos(tokenizer),
    "add_eos_token": False,
  }
  template = {} if tokenizer.template is None else {"tokenizer.chat_template": tokenizer.template}
  return {f"tokenizer.ggml.{key}": value for key, value in fields.items()} | template


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
  """Which tokens have which part. Up to three end an answer: eos, and two with names of turns."""
  named = {name: token_text(tokenizer.settings.get(key)) for name, key in _SPECIAL.items()}
  found = {name: tokenizer.core.token_to_id(token) for name, token in named.items() if token}
  ids = {name: i for name, i in found.items() if i is not None}
  ids.setdefault("eos", tokenizer.end_ids[0])
  more = [i for i in tokenizer.end_ids if i != ids["eos"]]
  if len(more) > 2:
    names = ", ".join(tokenizer.names(tokenizer.end_ids))
    raise ValueError(f"A GGUF file names at most three end tokens, there are {names}.")
  return ids | dict(zip(("eot", "eom"), more, strict=False)) | {"padding": tokenizer.pad_id}


def _adds_bos(tokenizer: Tokenizer) -> bool:
  bos = token_text(tokenizer.settings.get("bos_token"))
  before = [tokenizer.core.token_to_id(bos)] if bos else []
  plain, whole = (tokenizer.core.encode("a", add_special_tokens=x).ids for x in (False, True))
  if whole not in (plain, before + plain):
    names = ", ".join(tokenizer.names(whole))
    raise ValueError(f"A GGUF file cannot say that texts become {names}: only bos stands before.")
  return whole != plain


def _pre_tokenizer(core: tokenizers.Tokenizer) -> str:
  """The name of how texts are cut: the one whose tokenizer is this one, but for the vocabulary."""
  if not isinstance(core.model, tokenizers.models.BPE) or core.decoder is None:
    raise ValueError("A GGUF file is written for byte-level BPE tokenizers only.")
  cut = _cuts(core)
  for name in PRE_TOKENIZERS:
    if _cuts(byte_level(name, {}, [])) == cut:
      return name
  raise ValueError(
    f"The tokenizer cuts texts as no GGUF file can say: {json.dumps(cut)}. Known are "
    f"{', '.join(PRE_TOKENIZERS)}."
  )


def _cuts(core: tokenizers.Tokenizer) -> dict[str, Any]:
  """All that decides tokens but the vocabulary; offsets do not, nor do options that are unset."""
  raw = json.loads(core.to_str())
  options = {key: x for key, x in raw["model"].items() if x and key not in _UNREAD}
  cut = {"normalizer": raw["normalizer"], "pre_tokenizer": raw["pre_tokenizer"], "model": options}
  text = json.dumps(cut | {"decoder": raw["decoder"]["type"]})
  return json.loads(text, object_hook=lambda x: {k: v for k, v in x.items() if k != "trim_offsets"})
