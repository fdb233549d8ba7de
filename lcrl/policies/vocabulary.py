"""Text to tokens and back, from a Hugging Face folder or a GGUF file."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import tokenizers

from lcrl.policies import chat
from lcrl.policies.gguf_tokenizer import read_gguf_tokenizer
from lcrl.policies.hub import local_path
from lcrl.policies.spelled import Control, Marked, tags
from lcrl.policies.token_bytes import token_bytes
from lcrl.policies.tokenizer_files import (
  SPECIAL,
  check_settings,
  read_folder,
  read_text,
  token_ids,
  token_text,
)

_ASKED, _SAID = "lcrlquestion", "lcrlanswer"  # stand in a conversation that shows what a turn is


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """A vocabulary, the tokens that end an answer, and a chat template."""

  core: tokenizers.Tokenizer
  settings: Mapping[str, Any]  # tokenizer_config.json
  generation: Mapping[str, Any]  # generation_config.json
  template: str | None  # Jinja
  end_ids: tuple[int, ...]  # every token that ends an answer; the first is the template's own
  pad_id: int
  variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the template
  now: datetime.datetime = dataclasses.field(default_factory=datetime.datetime.now)  # a run's start
  ends: Mapping[str, str] = dataclasses.field(default_factory=dict)  # end tokens -> who names them

  @property
  def vocab_size(self) -> int:
    """One more than the largest token."""
    return self._size

  @functools.cached_property
  def _size(self) -> int:
    return max(self.core.get_vocab().values(), default=-1) + 1

  def encode(self, text: str) -> list[int]:
    """Tokens of the text alone: special tokens are those that the text spells out, unless it is a
    text of `render` or `literal`, whose control tokens are the template's."""
    if isinstance(text, Marked):
      return self._control.encode(text)
    return self.core.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
    """The text with its special tokens: tags such as <think> are often among them."""
    return self.core.decode(list(ids), skip_special_tokens=skip_special_tokens)

  def render(self, messages, *, add_generation_prompt: bool = True, **variables: Any) -> str:
    """The conversation as the chat template writes it; see `chat.render`.

    Control tokens that messages, tools or documents spell out stay text when it is encoded.
    """
    read = [self._as_read(m) for m in messages] if self.template else []
    data = {name: x for name, x in variables.items() if name in ("tools", "documents")}
    marked = self._control.mark({"messages": read, **data})
    text = self._render(add_generation_prompt=add_generation_prompt, **variables | marked)
    return self._control.text(text)

  def literal(self, text: str) -> str:
    """A text whose control tokens are not meant as such, for `encode`."""
    return self._control.text(self._control.mark(text))

  def answer(self, text: str) -> list[int]:
    """Tokens of an answer and the end of its turn; ends that it spells out there are dropped."""
    names, kept = tuple(filter(None, self.names(self.end_ids))), text
    while (bare := kept.rstrip()).endswith(names):
      kept = next(bare.removesuffix(name) for name in names if bare.endswith(name))
    return [*self.encode(self.literal(kept)), self.end_ids[0]]

  def token_bytes(self) -> list[bytes]:
    """What each token adds to a text."""
    return token_bytes(self.core)

  def names(self, ids: Sequence[int]) -> list[str]:
    """How tokens are called."""
    return [str(self.core.id_to_token(i)) for i in ids]

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

  def turn_end(self) -> int | None:
    """The token with which the template ends an answer; None: it ends in none."""
    after = self._around(_SAID, _turn("user", _ASKED), _turn("assistant", _SAID))[1].lstrip()
    first = self.core.encode(after, add_special_tokens=False).ids[:1]
    known = {*self.core.get_added_tokens_decoder(), *self.end_ids}
    return first[0] if first and first[0] in known else None

  def _render(self, *, messages, **variables: Any) -> str:
    if self.template is None:
      raise ValueError("This tokenizer has no chat template.")
    special = {name: token_text(self.settings.get(name)) for name in SPECIAL}
    special = {name: text for name, text in special.items() if text is not None}
    options = {"now": self.now} | special | dict(self.variables) | variables
    return chat.render(self.template, messages, **options)

  def _around(self, probe: str, *messages: Mapping[str, Any]) -> tuple[str, str]:
    """What the template writes before and after one of the texts; nothing if it does not."""
    if self.template is None:
      return "", ""
    try:
      text = self._render(messages=messages, add_generation_prompt=False)
    except jinja2.TemplateError:
      return "", ""
    before, _, after = text.rpartition(probe)
    return before, after if probe in text else ""

  @functools.cached_property
  def _reads(self) -> tuple[bool, bool]:
    """Does the template read content that is a text, and content that is a list of parts?"""
    try:
      text = self._render(messages=[_turn("user", _ASKED)])
    except jinja2.TemplateError:
      text = ""
    try:
      parts = self._render(messages=[_turn("user", [{"type": "text", "text": _ASKED}])])
    except jinja2.TemplateError:
      parts = ""
    return _ASKED in text, _ASKED in parts and f"'{_ASKED}'" not in parts

  def _as_read(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message with its content as a text or in parts, whichever the template reads."""
    content, (text, parts) = message.get("content"), self._reads
    if isinstance(content, str) and parts and not text:
      return {**message, "content": [{"type": "text", "text": content}]}
    if isinstance(content, list | tuple) and not parts:
      return {**message, "content": chat.content_text(content)}
    return message

  @functools.cached_property
  def _control(self) -> Control:
    """Special tokens but for tags; ends of turns, and what stands beside what a user says."""
    added = {
      token.content: token.special for token in self.core.get_added_tokens_decoder().values()
    }
    special = {name for name, is_special in added.items() if is_special}
    named = {str(token_text(self.settings.get(name))) for name in SPECIAL}
    named |= {*self.names(self.end_ids)}
    before, after = self._around(_ASKED, _turn("user", _ASKED), _turn("assistant", _SAID))
    beside = sorted((name for name in added if name in before), key=before.rfind)[-1:]
    beside += sorted((name for name in added if name in after), key=after.find)[:1]
    return Control(self.core, (special - tags(special)) | (named & added.keys()) | {*beside})


def _turn(role: str, content: Any) -> dict[str, Any]:
  return {"role": role, "content": content}


def tokenizer(
  path: str | os.PathLike,
  *,
  template: str | os.PathLike | None = None,
  end_tokens: Sequence[str] = (),
  variables: Mapping[str, Any] | None = None,
) -> Tokenizer:
  """The tokenizer of a Hugging Face folder (tokenizer.json) or of a GGUF file.

  Args:
    path: the folder, a file that ends in .gguf, or a hub id, as in `policies.pretrained`.
    template: a file with a chat template, in place of the tokenizer's own.
    end_tokens: tokens that end an answer, besides those that the template, the tokenizer,
      generation_config.json and config.json name.
    variables: of the chat template, such as enable_thinking=False.
  Raises:
    FileNotFoundError: a file is missing.
    ValueError: by file and field, for what cannot be read, and for an end token that is none.

  >>> tokenizer("no/such/folder")
  Traceback (most recent call last):
      ...
  FileNotFoundError: There is no model folder no/such/folder.
  """
  path = local_path(path)
  if path.suffix == ".gguf" and path.is_file():
    core, settings, generation = read_gguf_tokenizer(path)
    check_settings(settings, str(path))
    config: dict[str, Any] = {}
  elif path.is_dir():
    core, settings, generation, config = read_folder(path)
  else:
    raise FileNotFoundError(f"There is no model folder {path}.")
  text = settings.get("chat_template")
  if template is not None:
    text = read_text(Path(template).expanduser())
  bare = Tokenizer(core, settings, generation, text, (), 0, dict(variables or {}))
  ends = _ends(bare, path, config, end_tokens)
  if not ends:
    raise ValueError(
      f"{path}: no end token: neither template, tokenizer nor generation_config.json names one."
    )
  pad = _named(core, settings, "pad_token", path)
  if not pad and generation.get("pad_token_id") != -1:  # which stands for none
    pad = token_ids(generation, "pad_token_id", core, f"{path / 'generation_config.json'}")
  return dataclasses.replace(
    bare,
    generation={**generation, "eos_token_id": list(ends)},
    end_ids=tuple(ends),
    pad_id=(pad or list(ends))[0],
    ends=dict(zip(bare.names(list(ends)), map(", ".join, ends.values()), strict=True)),
  )


def _ends(
  bare: Tokenizer, path: Path, config: Mapping[str, Any], more: Sequence[str]
) -> dict[int, list[str]]:
  """The tokens that end an answer -> who names them: the template's first, then the tokenizer's."""
  core = bare.core
  own = _named(core, bare.settings, "eos_token", path)
  found = {"tokenizer": own}
  for name, raw in (("generation_config.json", bare.generation), ("config.json", config)):
    found[name] = token_ids(raw, "eos_token_id", core, f"{path / name}")
  for token in more:
    if core.token_to_id(token) is None:
      raise ValueError(f"tokenizer.end_tokens: {token!r} is no token of {path}.")
  found["end_tokens"] = [core.token_to_id(token) for token in more]
  known = dataclasses.replace(bare, end_ids=tuple(i for ids in found.values() for i in ids))
  turn = None if bare.template is None else known.turn_end()
  ends: dict[int, list[str]] = {}
  for name, ids in ({"chat template": [] if turn is None else [turn]} | found).items():
    for i in ids:
      ends.setdefault(i, []).append(name)
  return ends


def _named(core: tokenizers.Tokenizer, settings: Mapping[str, Any], name: str, path: Path):
  """The id of a special token, in a list; [] if there is none."""
  text = token_text(settings.get(name))
  if text is None:
    return []
  if core.token_to_id(text) is None:
    raise ValueError(f"{path}: {name}={text!r} is no token.")
  return [core.token_to_id(text)]
