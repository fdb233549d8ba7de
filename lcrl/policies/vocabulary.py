"""Text to tokens and back, from a Hugging Face folder or a GGUF file."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from lcrl.policies import chat
from lcrl.policies.gguf_tokenizer import read_gguf_tokenizer
from lcrl.policies.hf import read_json

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """A vocabulary, the tokens that end an answer, and a chat template."""

  core: tokenizers.Tokenizer
  settings: Mapping[str, Any]  # tokenizer_config.json
  generation: Mapping[str, Any]  # generation_config.json
  template: str | None  # Jinja
  end_ids: tuple[int, ...]  # every token that ends an answer; the first is the tokenizer's own
  pad_id: int

  @property
  def vocab_size(self) -> int:
    return self.core.get_vocab_size()

  def encode(self, text: str) -> list[int]:
    """Tokens of the text alone: special tokens are those that the text spells out."""
    return self.core.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
    return self.core.decode(list(ids), skip_special_tokens=skip_special_tokens)

  def render(self, messages, *, add_generation_prompt: bool = True, **variables: Any) -> str:
    """The conversation as the chat template writes it; see `chat.render`."""
    if self.template is None:
      raise ValueError("This tokenizer has no chat template.")
    special = {name: _text(self.settings.get(name)) for name in _SPECIAL}
    special = {name: text for name, text in special.items() if text is not None}
    options = special | variables
    return chat.render(
      self.template, messages, add_generation_prompt=add_generation_prompt, **options
    )

  def save(self, path: str | os.PathLike) -> None:
    """Writes the files that transformers reads into a folder."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    self.core.save(str(path / "tokenizer.json"))
    settings = {key: value for key, value in self.settings.items() if key != "chat_template"}
    for name, content in (("tokenizer_config", settings), ("generation_config", self.generation)):
      text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
      (path / f"{name}.json").write_text(text, encoding="utf-8")
    if self.template is not None:
      (path / "chat_template.jinja").write_text(self.template, encoding="utf-8")


def tokenizer(path: str | os.PathLike) -> Tokenizer:
  """The tokenizer of a Hugging Face folder (tokenizer.json) or of a GGUF file."""
  path = Path(path).expanduser()
  if path.suffix == ".gguf" and path.is_file():
    core, settings, generation = read_gguf_tokenizer(path)
    return _tokenizer(core, settings, generation, {}, settings.get("chat_template"))
  if not path.is_dir():
    raise FileNotFoundError(f"There is no model folder {path} (names are not looked up in a hub).")
  file = path / "tokenizer.json"
  if not file.is_file():
    raise FileNotFoundError(f"{file} is missing: other kinds of tokenizer files are not read.")
  try:
    core = tokenizers.Tokenizer.from_file(str(file))
  except Exception as e:  # the library raises nothing more special
    raise ValueError(f"{file} cannot be read: {e}") from e
  core.no_truncation()
  core.no_padding()
  optional = lambda name: read_json(path / name) if (path / name).is_file() else {}
  settings = optional("special_tokens_map.json") | optional("tokenizer_config.json")
  template = settings.get("chat_template")
  if (path / "chat_template.jinja").is_file():
    template = (path / "chat_template.jinja").read_text(encoding="utf-8")
  if isinstance(template, list):  # several, by name
    template = {entry["name"]: entry["template"] for entry in template}.get("default")
  generation = optional("generation_config.json")
  return _tokenizer(core, settings, generation, optional("config.json"), template)


def _tokenizer(core, settings, generation, config, template) -> Tokenizer:
  """Gathers the tokens that end an answer from every place that names some."""
  own = core.token_to_id(_text(settings.get("eos_token")) or "")
  ends = [] if own is None else [own]
  for place in (generation, config):
    named = place.get("eos_token_id")
    ends += named if isinstance(named, list) else [] if named is None else [named]
  if not ends:
    raise ValueError("No end token: neither the tokenizer nor generation_config.json names one.")
  pad = core.token_to_id(_text(settings.get("pad_token")) or "")
  pad = generation.get("pad_token_id") if pad is None else pad
  return Tokenizer(
    core=core,
    settings=settings,
    generation={**generation, "eos_token_id": list(dict.fromkeys(ends))},
    template=template,
    end_ids=tuple(dict.fromkeys(ends)),
    pad_id=ends[0] if pad is None else pad,
  )


def _text(token: str | Mapping[str, Any] | None) -> str | None:
  """A special token, which stands as text or as {"content": text}."""
  return token["content"] if isinstance(token, Mapping) else token
