"""Chat templates: Jinja in its immutable sandbox, with the helpers that templates count on."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, Any]  # role, content, and what else the template reads
_REASONING = ("reasoning_content", "thinking", "reasoning")


def render(
  template: str,
  messages: Sequence[Message],
  *,
  add_generation_prompt: bool = True,
  tools: Sequence[Mapping[str, Any]] | None = None,
  **variables: Any,
) -> str:
  """The text of a conversation.

  Args:
    template: Jinja.
    messages: what was said.
    add_generation_prompt: end where the assistant is to speak.
    tools: JSON schemas of what the assistant may call.
    **variables: bos_token and the like, and whatever else the template reads.

  >>> render("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}",
  ...        [{"role": "user", "content": "Hi"}])
  '<user>Hi'
  """
  return _compile(template).render(
    messages=[_with_reasoning(message) for message in _plain(messages)],
    add_generation_prompt=add_generation_prompt,
    tools=_plain(tools),
    **_plain(variables),
  )


class _Generation(Extension):
  """`{% generation %}` marks what the assistant said; the text stays as it is."""

  tags = {"generation"}  # noqa: RUF012

  def parse(self, parser):
    line = next(parser.stream).lineno
    body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
    return nodes.Scope(body).set_lineno(line)


@functools.cache
def _compile(template: str) -> jinja2.Template:
  environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
  )
  environment.filters["tojson"] = _tojson
  environment.globals["raise_exception"] = _raise
  environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
  return environment.from_string(template)


def _tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
  """Plain JSON: Jinja's own filter would escape HTML."""
  return json.dumps(
    x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
  )


def _raise(message: str):
  raise jinja2.TemplateError(message)


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
  """Reasoning under the names that templates read it by, whatever the caller called it."""
  said = [message[name] for name in _REASONING if message.get(name) is not None]
  return {"thinking": said[0], **message, "reasoning_content": said[0]} if said else message


def _plain(value: Any) -> Any:
  """JSON types only: a template, which comes with the weights, meets no object with methods."""
  if isinstance(value, Mapping):
    return {_plain(key): _plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  if value is None or isinstance(value, bool | int | float | str):
    return value
  raise ValueError(f"A chat template takes plain data only, got {type(value).__name__}.")
