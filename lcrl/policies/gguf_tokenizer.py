"""The tokenizer in a GGUF file's metadata, rebuilt with `tokenizers`: byte-level BPE, or Gemma's,
which is BPE of characters with bytes for those that it does not know.
"""

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

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # token types of the format

# How text is cut before merging: part of what a vocabulary was trained with, so given by name.
# A file without a name, or with "default", is of a converter that did not know it.
_WORDS = {
  "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
  "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
_WORDS |= dict.fromkeys(("dbrx", "smaug-bpe"), _WORDS["llama-bpe"])
PRE_TOKENIZERS = ("gpt-2", "smollm", *_WORDS)


def read_gguf_tokenizer(path: Path) -> tuple[Tokenizer, dict[str, Any], dict[str, Any]]:
  """(tokenizer, tokenizer_config.json, generation_config.json).

  Raises:
    ValueError: by the field of the metadata, for one that is missing or not as the format has it.
  """
  fields = _Fields(path, metadata(open_gguf(path)))
  model = fields.get("model", str)
  by_scores = model == "llama" and not fields.get("add_space_prefix", bool, True)
  if model != "gpt2" and not by_scores:
    raise ValueError(
      f"{path}: tokenizer.ggml.model={model!r} is not supported, only byte-level BPE (gpt2), and "
      "'llama' where add_space_prefix is false."
    )
  tokens = fields.texts("tokens")
  core = _core_of_scores(fields, tokens) if by_scores else _core(fields, tokens)
  kinds = fields.get("token_type", list)
  if len(kinds) != len(tokens):
    raise fields.wrong("token_type", f"has {len(kinds)} entries for {len(tokens)} tokens")
  core.add_tokens(  # all at once: each call builds its index of all of them
    [
      AddedToken(token, normalized=False, special=kind == CONTROL)
      for token, kind in zip(tokens, kinds, strict=True)
      if kind in (CONTROL, USER_DEFINED)
    ]
  )

  names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
  given = {short: fields.token(f"{long}_token_id", tokens) for long, short in names.items()}
  ids = {short: i for short, i in given.items() if i is not None}
  if fields.get("add_bos_token", bool, False):
    if "bos" not in ids:
      raise fields.wrong("bos_token_id", "is missing beside add_bos_token")
    bos = tokens[ids["bos"]]
    core.post_processor = processors.TemplateProcessing(
      single=f"{bos} $A", special_tokens=[(bos, ids["bos"])]
    )
  settings: dict[str, Any] = {f"{short}_token": tokens[i] for short, i in ids.items()}
  settings["tokenizer_class"] = "PreTrainedTokenizerFast"
  if template := fields.get("chat_template", str, "", part="tokenizer"):
    settings["chat_template"] = template
  more = [fields.token(f"{name}_token_id", tokens) for name in ("eot", "eom")]
  ends = [i for i in (ids.get("eos"), *more) if i is not None]
  generation = {f"{name}_token_id": ids[name] for name in ("bos", "pad") if name in ids}
  return core, settings, {**generation, "eos_token_id": list(dict.fromkeys(ends))}


class _Fields:
  """The metadata of a tokenizer, checked as it is read."""

  def __init__(self, path: Path, meta: dict[str, Any]):
    self.path, self._meta = path, meta

  def wrong(self, key: str, what: str) -> ValueError:
    return ValueError(f"{self.path}: tokenizer.ggml.{key} {what}.")

  def get(self, key: str, kind: type, default: Any = None, *, part: str = "tokenizer.ggml") -> Any:
    value = self._meta.get(f"{part}.{key}", default)
    if value is None:
      raise self.wrong(key, "is missing")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
      raise ValueError(f"{self.path}: {part}.{key} must be a {kind.__name__}, got {value!r:.60}.")
    return value

  def texts(self, key: str) -> list[str]:
    found = self.get(key, list)
    if wrong := [x for x in found if not isinstance(x, str)]:
      raise self.wrong(key, f"must hold texts, got {wrong[0]!r:.60}")
    return found

  def token(self, key: str, tokens: list[str]) -> int | None:
    """A token's number, or None where the field is missing."""
    i = self.get(key, int, -1)
    if f"tokenizer.ggml.{key}" not in self._meta:
      return None
    if not 0 <= i < len(tokens):
      raise self.wrong(key, f"is {i}; there are {len(tokens)} tokens")
    return i


def _core(fields: _Fields, tokens: list[str]) -> Tokenizer:
  """Merges, and how text is cut before them."""
  merges: list[Any] = [tuple(merge.split(" ")) for merge in fields.texts("merges")]
  if wrong := [merge for merge in merges if len(merge) != 2]:
    raise fields.wrong("merges", f"must hold pairs of tokens, got {' '.join(wrong[0])!r:.60}")
  pre = fields.get("pre", str)
  if pre not in PRE_TOKENIZERS:
    known = ", ".join(PRE_TOKENIZERS)
    raise ValueError(f"{fields.path}: tokenizer.ggml.pre={pre!r} is not one of {known}.")
  try:
    return byte_level(pre, {token: i for i, token in enumerate(tokens)}, merges)
  except Exception as why:  # the library raises nothing more special
    raise fields.wrong("merges", f"do not fit the tokens: {why}") from why


def byte_level(pre: str, vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
  """BPE of bytes, after a text is cut as the name `pre` says."""
  core = Tokenizer(models.BPE(vocab, merges, ignore_merges=pre == "llama-bpe"))
  core.pre_tokenizer = _pre_tokenizer(pre)
  core.decoder = decoders.ByteLevel()
  if pre == "qwen2":
    core.normalizer = normalizers.NFC()
  return core


def _core_of_scores(fields: _Fields, tokens: list[str]) -> Tokenizer:
  """Of a SentencePiece model: a pair merges the earlier, the higher the score of the result."""
  scores = fields.get("scores", list)
  if len(scores) != len(tokens) or not all(isinstance(x, float) for x in scores):
    raise fields.wrong("scores", f"must hold a number for each of {len(tokens)} tokens")
  vocab = {token: i for i, token in enumerate(tokens)}
  unknown = fields.token("unknown_token_id", tokens)
  merges = [
    (-score, i, (token[:cut], token[cut:]))
    for i, (token, score) in enumerate(zip(tokens, scores, strict=True))
    for cut in range(1, len(token))
    if token[:cut] in vocab and token[cut:] in vocab
  ]
  core = Tokenizer(
    models.BPE(
      vocab,
      [pair for *_, pair in sorted(merges)],
      unk_token=None if unknown is None else tokens[unknown],
      fuse_unk=True,
      byte_fallback=True,
    )
  )
  core.normalizer = normalizers.Replace(" ", "▁")
  core.decoder = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
  )
  return core


def _pre_tokenizer(kind: str):
  if kind == "gpt-2":
    return pre_tokenizers.ByteLevel(add_prefix_space=False)
  if kind == "smollm":
    digits = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
  words = pre_tokenizers.Split(Regex(_WORDS[kind]), "isolated")
  return pre_tokenizers.Sequence(
    [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
  )
