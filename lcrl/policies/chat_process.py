"""The process in which chat templates run. `chat.py` runs this file; nothing imports it.

A template comes with the weights, so it may loop for ever or build gigabytes, in ways that no
sandbox of Jinja sees (`10 ** 10 ** 9`). Here the kernel sets the limits: memory for good, CPU time
anew before each template. Standard input is a socket. In come pickles from a trusted process, out
go frames of text. It ends when the socket closes.
"""

from __future__ import annotations

import functools
import json
import math
import pickle
import resource
import struct
import sys
import time
from datetime import datetime
from typing import Any

sys.path += sys.argv[4:5]  # where Jinja lies; nothing where this is imported to be tested

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEXT, FAILED, REFUSED = range(3)  # kinds of replies


class Null(str):
  """Null content: empty text that the test `is none` tells from a text."""

  __slots__ = ()


class Generation(Extension):
  """`{% generation %}` marks what the assistant said; the text stays as it is."""

  tags = {"generation"}  # noqa: RUF012

  def parse(self, parser):
    line = next(parser.stream).lineno
    body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
    return nodes.Scope(body).set_lineno(line)


@functools.lru_cache(maxsize=64)
def compiled(template: str) -> jinja2.Template:
  environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
  )
  environment.filters["tojson"] = tojson
  environment.globals["raise_exception"] = fail
  environment.tests["none"] = lambda value: value is None or isinstance(value, Null)
  environment.tests["string"] = lambda x: isinstance(x, str) and not isinstance(x, Null)
  return environment.from_string(template)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
  """Plain JSON: Jinja's own filter would escape HTML."""
  return json.dumps(
    x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
  )


def fail(message: str):
  raise jinja2.TemplateError(message)


def rendered(
  template: str, variables: dict[str, Any], now: str, characters: int
) -> tuple[int, str]:
  """The kind of the reply and its text."""
  for message in variables["messages"]:
    if message.get("content", "") is None:
      message["content"] = Null()
  try:
    text = compiled(template).render(**variables, strftime_now=datetime.fromisoformat(now).strftime)
  except MemoryError:
    return REFUSED, "needs more memory than a template may take"
  except jinja2.TemplateError as why:
    return FAILED, f"{why!s:.1000}"
  except Exception as why:
    return FAILED, f"{type(why).__name__}: {why!s:.1000}"
  if len(text) > characters:
    return REFUSED, f"writes {len(text)} characters; at most {characters} are allowed"
  return TEXT, text


def main() -> None:
  memory, seconds, characters = map(int, sys.argv[1:4])
  resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  most = resource.getrlimit(resource.RLIMIT_CPU)[1]
  with open(0, "rb") as given, open(0, "wb", closefd=False) as out:
    while head := given.read(8):
      template, variables, now = pickle.loads(given.read(*struct.unpack("!Q", head)))
      until = math.ceil(time.process_time()) + seconds
      resource.setrlimit(resource.RLIMIT_CPU, (until, most))
      kind, text = rendered(template, variables, now, characters)
      reply = text.encode(errors="surrogatepass")
      out.write(struct.pack("!BQ", kind, len(reply)) + reply)
      out.flush()


if __name__ == "__main__":
  main()
