"""The tokenizer files of a Hugging Face folder: read, checked field by field, and put together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from lcrl.policies.hf import read_json

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
_FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")


def read_folder(
  path: Path,
) -> tuple[tokenizers.Tokenizer, dict[str, Any], dict[str, Any], dict[str, Any]]:
  """(tokenizer, tokenizer_config.json, generation_config.json, config.json), each checked.

  The template stands in the second, wherever it stands in the folder.
  """
  file = path / "tokenizer.json"
  if not file.is_file():
    raise FileNotFoundError(f"{file} is missing: other kinds of tokenizer files are not read.")
  core = _core(file)
  settings = read_object(path / "special_tokens_map.json")
  settings |= read_object(path / "tokenizer_config.json")
  check_settings(settings, str(path / "tokenizer_config.json"))
  _add_tokens(core, path, settings)
  settings["chat_template"] = _template(path, settings)
  generation, config = (read_object(path / f"{x}.json") for x in ("generation_config", "config"))
  return core, settings, generation, config


def read_object(path: Path) -> dict[str, Any]:
  """A file with a JSON object; {} if it is not there."""
  if not path.is_file():
    return {}
  try:
    found = read_json(path)
  except RecursionError:
    raise ValueError(f"{path} is nested too deep.") from None
  if not isinstance(found, dict):
    raise ValueError(f"{path} must hold a JSON object, got {type(found).__name__}.")
  return found


def read_text(path: Path) -> str:
  """Raises ValueError, with the file's name, where it is not UTF-8."""
  try:
    return path.read_text(encoding="utf-8")
  except UnicodeDecodeError as why:
    raise ValueError(f"{path} is not UTF-8: {why}") from why


def check_settings(settings: Mapping[str, Any], place: str) -> None:
  """Raises ValueError, by place and field, for a special token that is no text."""
  for name in SPECIAL:
    token_text(settings.get(name), f"{place}: {name}")
  more = settings.get("additional_special_tokens") or []
  if not isinstance(more, list):
    raise ValueError(f"{place}: additional_special_tokens must be a list, got {more!r:.60}.")
  for token in more:
    token_text(token, f"{place}: additional_special_tokens")


def token_text(token: Any, place: str = "") -> str | None:
  """A special token, which stands as text or as {"content": text}."""
  text = token.get("content") if isinstance(token, Mapping) else token
  if not isinstance(text, str | None) or (text is None and token is not None):
    raise ValueError(f"{place} must be a text or an object with content, got {token!r:.60}.")
  if text is not None and re.search("[\ud800-\udfff]", text):  # JSON can write it, UTF-8 cannot
    raise ValueError(f"{place} has half a surrogate pair, {text!r:.60}.")
  return text


def token_ids(raw: Mapping[str, Any], field: str, core: tokenizers.Tokenizer, place: str):
  """The ids that a field names: a number, a list, or nothing.

  Raises:
    ValueError: by place and field, for what is no number or no token.
  """
  value = raw.get(field)
  ids = value if isinstance(value, list) else [] if value is None else [value]
  for i in ids:
    if not isinstance(i, int) or isinstance(i, bool):
      raise ValueError(f"{place}: {field} must be a number or a list of them, got {value!r:.60}.")
    if not 0 <= i < 2**32 or core.id_to_token(i) is None:
      raise ValueError(f"{place}: {field}={i} is no token; there are {core.get_vocab_size()}.")
  return ids


def _core(file: Path) -> tokenizers.Tokenizer:
  try:
    core = tokenizers.Tokenizer.from_file(str(file))
  except (KeyboardInterrupt, SystemExit):
    raise
  except BaseException as e:  # the library raises nothing more special, and panics
    raise ValueError(f"{file} cannot be read: {e}") from e
  core.no_truncation()
  core.no_padding()
  return core


def _template(path: Path, settings: Mapping[str, Any]) -> str | None:
  """The chat template, from one of the places where it may stand."""
  template, place = settings.get("chat_template"), path / "tokenizer_config.json"
  if (file := path / "chat_template.jinja").is_file():
    return read_text(file)
  if template is None:
    place = path / "chat_template.json"
    template = read_object(place).get("chat_template")
  if isinstance(template, list):  # several, by name
    if not all(isinstance(x, Mapping) and {"name", "template"} <= x.keys() for x in template):
      raise ValueError(f"{place}: chat_template must be a list of objects with name and template.")
    template = {str(entry["name"]): entry["template"] for entry in template}.get("default")
  if not isinstance(template, str | None):
    raise ValueError(f"{place}: chat_template must be a text, got {template!r:.60}.")
  return template


def _add_tokens(core: tokenizers.Tokenizer, path: Path, settings: Mapping[str, Any]) -> None:
  """Adds what only added_tokens.json or tokenizer_config.json names, under the ids given there."""
  named = [token_text(settings.get(name)) for name in SPECIAL]
  named += [token_text(token) for token in settings.get("additional_special_tokens") or []]
  special = {token for token in named if token}
  wanted: dict[int, tuple[tokenizers.AddedToken, str]] = {}
  place = f"{path / 'added_tokens.json'}"
  for token, i in read_object(path / "added_tokens.json").items():
    if not isinstance(i, int) or isinstance(i, bool):
      raise ValueError(f"{place}: {token!r} must have a number, got {i!r:.60}.")
    token_text(token, place)
    wanted[i] = tokenizers.AddedToken(token, special=token in special, normalized=False), place
  place = f"{path / 'tokenizer_config.json'}: added_tokens_decoder"
  listed = settings.get("added_tokens_decoder") or {}
  if not isinstance(listed, Mapping):
    raise ValueError(f"{place} must be an object, got {listed!r:.60}.")
  for key, entry in listed.items():
    if not (key.isdecimal() and len(key) < 20) or not isinstance(entry, Mapping):
      raise ValueError(f"{place} must map ids to objects, got {key!r:.20}: {entry!r:.60}.")
    text = token_text(entry, f"{place}.{key}")
    flags = {name: entry[name] for name in _FLAGS if name in entry}
    if wrong := [name for name, flag in flags.items() if not isinstance(flag, bool)]:
      raise ValueError(f"{place}.{key}.{wrong[0]} must be a flag, got {entry[wrong[0]]!r:.60}.")
    wanted[int(key)] = tokenizers.AddedToken(text, **flags), place
  known = {token.content for token in core.get_added_tokens_decoder().values()}
  for i, (added, place) in sorted(wanted.items()):
    if added.content not in known:
      core.add_tokens([added])
    if core.token_to_id(added.content) != i:
      raise ValueError(
        f"{place}: {added.content!r} has the number {i}; in tokenizer.json "
        f"{core.id_to_token(i) if 0 <= i < 2**32 else None!r} has it."
      )
  known |= {added.content for added, _ in wanted.values()}
  there = [t for t in sorted(special - known) if core.token_to_id(t) is not None]
  core.add_special_tokens([tokenizers.AddedToken(t, special=True, normalized=False) for t in there])
