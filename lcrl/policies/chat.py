"""Chat templates: Jinja in its immutable sandbox, in a process with limits on time and memory."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import json
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

Message = Mapping[str, Any]  # role, content, and what else the template reads
MEMORY, SECONDS, CHARACTERS = 1 << 30, 5, 1 << 24  # bytes, CPU time of a template, of its text
TEXT, FAILED, REFUSED = range(3)  # kinds of replies, as in chat_process.py
REASONING = ("reasoning_content", "thinking", "reasoning")
_READS_ARGUMENTS = re.compile(r"arguments['\"\]]*\s*(\|\s*(tojson|items)|\.items)")


def render(
  template: str,
  messages: Sequence[Message],
  *,
  add_generation_prompt: bool = True,
  tools: Sequence[Mapping[str, Any]] | None = None,
  documents: Sequence[Mapping[str, Any]] | None = None,
  now: datetime.datetime | None = None,
  **variables: Any,
) -> str:
  """The text of a conversation.

  Args:
    template: Jinja.
    messages: what was said. Null content is written as nothing.
    add_generation_prompt: end where the assistant is to speak.
    tools: JSON schemas of what the assistant may call.
    documents: what the assistant may read.
    now: the time that `strftime_now` writes; None: the present.
    **variables: bos_token and the like, and whatever else the template reads.
  Raises:
    jinja2.TemplateError: the template fails.
    ValueError: it takes more than SECONDS of CPU time or MEMORY, or writes more than CHARACTERS.

  >>> render("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}",
  ...        [{"role": "user", "content": "Hi"}])
  '<user>Hi'
  """
  calls = _READS_ARGUMENTS.search(template) is not None
  given = {
    "add_generation_prompt": add_generation_prompt,
    "tools": _plain(tools),
    "documents": _plain(documents),
    **_plain(variables),
    "messages": [_message(message, calls) for message in _plain(messages)],
  }
  return _process.render(template, given, now or datetime.datetime.now())


def content_text(parts: Sequence[Any]) -> str:
  r"""The text of content that is a list of parts, a line break between two.

  Raises:
    ValueError: by its type, for a part that is no text.

  >>> content_text([{"type": "text", "text": "1 + 2?"}, {"type": "text", "text": "Think."}])
  '1 + 2?\nThink.'
  """
  texts: list[str] = []
  for part in parts:
    given = part if isinstance(part, Mapping) else {"text": part}
    if given.get("type", "text") != "text" or not isinstance(given.get("text"), str):
      raise ValueError(f"content must be text; there is a part {part!r:.80}.")
    texts.append(given["text"])
  return "\n".join(texts)


def _message(message: Any, parse_calls: bool) -> dict[str, Any]:
  """A message as templates read it: no null fields but the content, reasoning under all of its
  names, and arguments of calls as objects where the template writes them as JSON itself."""
  if not isinstance(message, Mapping):
    raise ValueError(f"A message must be an object with role and content, got {message!r:.60}.")
  message = {key: x for key, x in message.items() if x is not None or key == "content"}
  said = [message[name] for name in REASONING if name in message]
  if said:
    message = {"thinking": said[0], **message, "reasoning_content": said[0]}
  if parse_calls and isinstance(message.get("tool_calls"), list):
    message["tool_calls"] = [_call(call) for call in message["tool_calls"]]
  return message


def _call(call: Any) -> Any:
  """A call whose arguments are an object, where they were the JSON text of one."""
  if not isinstance(call, Mapping):
    return call
  if "function" in call:
    return {**call, "function": _call(call["function"])}
  try:
    arguments = json.loads(call["arguments"])
  except (KeyError, TypeError, ValueError, RecursionError):
    return call
  return {**call, "arguments": arguments} if isinstance(arguments, dict) else call


def _plain(value: Any, depth: int = 0) -> Any:
  """JSON types only: a template, which comes with the weights, meets no object with methods."""
  if depth > 100:
    raise ValueError("What a chat template reads is nested more than 100 deep.")
  if isinstance(value, Mapping):
    return {_plain(key): _plain(item, depth + 1) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(item, depth + 1) for item in value]
  if isinstance(value, str):
    return str(value)
  if value is None or isinstance(value, bool | int | float):
    return value
  raise ValueError(f"A chat template takes plain data only, got {type(value).__name__}.")


class _Process:
  """Starts when a template is rendered, and again after one that had to be stopped."""

  def __init__(self):
    self._lock, self._running = threading.Lock(), None
    self._owner = 0

  def render(self, template: str, variables: dict[str, Any], now: datetime.datetime) -> str:
    request = pickle.dumps((template, variables, now.isoformat()))
    with self._lock:
      kind, text = self._ask(struct.pack("!Q", len(request)) + request)
    if kind == TEXT:
      return text
    if kind == FAILED:
      raise jinja2.TemplateError(text)
    raise ValueError(f"The chat template was stopped: it {text}.")

  def _ask(self, request: bytes) -> tuple[int, str]:
    if self._running is None or self._owner != os.getpid():  # a fork shares no process
      self._running, self._owner = self._start(), os.getpid()
    _, channel = self._running
    try:
      channel.write(request)
      channel.flush()
      kind, size = struct.unpack("!BQ", channel.read(9))
      text = channel.read(size).decode(errors="surrogatepass")
    except (OSError, struct.error):  # it is gone
      return REFUSED, self._why(self.close())
    except BaseException:  # a reply that was not read would answer the next request
      self.close()
      raise
    if kind == REFUSED:
      self.close()
    return kind, text

  @staticmethod
  def _why(code: int) -> str:
    if code == -signal.SIGXCPU:
      return f"takes more than {SECONDS} s of CPU time"
    return f"ended its process, which had limits of {SECONDS} s and {MEMORY >> 20} MiB ({code})"

  @staticmethod
  def _start():
    ours, theirs = socket.socketpair()
    keep = {x: os.environ[x] for x in ("LD_LIBRARY_PATH", "PYTHONHOME") if x in os.environ}
    given = map(str, (MEMORY, SECONDS, CHARACTERS, Path(jinja2.__file__).parents[1]))
    with ours, theirs:
      process = subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("chat_process.py")), *given],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env=keep,
        start_new_session=True,  # Ctrl-C is for the run, which then ends this process
      )
      return process, ours.makefile("rwb")

  def close(self) -> int:
    """The exit code; it is killed if it has not ended by itself."""
    if self._running is None:
      return 0
    (process, channel), self._running = self._running, None
    with contextlib.suppress(OSError):  # of what was not written yet
      channel.close()
    try:
      return process.wait(1)
    except subprocess.TimeoutExpired:
      process.kill()
      return process.wait()


_process = _Process()
atexit.register(_process.close)
