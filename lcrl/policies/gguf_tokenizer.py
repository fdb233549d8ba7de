"""The tokenizer in a GGUF file's metadata: byte-level BPE, rebuilt with `tokenizers`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import (
  AddedToken,
  Regex,
  Tokenizer,
  decoders,
  models,
  normalizers,
  pre_tokenizers,
  processors,
)

from lcrl.policies.gguf import metadata, open_gguf

_CONTROL, _USER_DEFINED = 3, 4  # token types of the format

# How text is cut before merging: part of what a vocabulary was trained with, so given by name.
_WORDS = {
  "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
  "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def read_gguf_tokenizer(path: Path) -> tuple[Tokenizer, dict[str, Any], dict[str, Any]]:
  """(tokenizer, tokenizer_config.json, generation_config.json)."""
  meta = metadata(open_gguf(path))

  def get(key: str, default: Any = None) -> Any:
    return meta.get(f"tokenizer.ggml.{key}", default)

  if get("model") != "gpt2":
    raise ValueError(f"{path}: tokenizer.ggml.model={get('model')!r} is not byte-level BPE (gpt2).")
  tokens, kinds = get("tokens"), get("token_type")
  vocab = {token: i for i, token in enumerate(tokens)}
  merges = [tuple(merge.split(" ")) for merge in get("merges")]
  kind = get("pre", "default")
  core = Tokenizer(models.BPE(vocab, merges, ignore_merges=kind == "llama-bpe"))
  core.pre_tokenizer = _pre_tokenizer(kind, path)
  core.decoder = decoders.ByteLevel()
  if kind == "qwen2":
    core.normalizer = normalizers.NFC()
  for token, token_kind in zip(tokens, kinds, strict=True):
    if token_kind in (_CONTROL, _USER_DEFINED):
      special = token_kind == _CONTROL
      core.add_tokens([AddedToken(token, normalized=False, special=special)])

  names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
  ids = {short: get(f"{long}_token_id") for long, short in names.items()}
  ids = {short: i for short, i in ids.items() if i is not None}
  if get("add_bos_token", False):
    bos = tokens[ids["bos"]]
    core.post_processor = processors.TemplateProcessing(
      single=f"{bos} $A", special_tokens=[(bos, ids["bos"])]
    )
  settings: dict[str, Any] = {f"{short}_token": tokens[i] for short, i in ids.items()}
  settings["tokenizer_class"] = "PreTrainedTokenizerFast"
  if template := meta.get("tokenizer.chat_template"):
    settings["chat_template"] = template
  ends = [i for i in (ids.get("eos"), get("eot_token_id")) if i is not None]
  generation = {f"{name}_token_id": ids[name] for name in ("bos", "pad") if name in ids}
  return core, settings, {**generation, "eos_token_id": list(dict.fromkeys(ends))}


def _pre_tokenizer(kind: str, path: Path):
  if kind in ("default", "gpt-2"):
    return pre_tokenizers.ByteLevel(add_prefix_space=False)
  if kind == "smollm":
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
  if kind not in _WORDS:
    known = ", ".join(["default", "gpt-2", "smollm", *_WORDS])
    raise ValueError(f"{path}: tokenizer.ggml.pre={kind!r} is not one of {known}.")
  words = pre_tokenizers.Split(Regex(_WORDS[kind]), "isolated")
  return pre_tokenizers.Sequence(
    [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
  )
