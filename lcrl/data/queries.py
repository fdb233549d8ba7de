"""Queries that texts of users answer: prompts for PUGC, which compares answers with the text.

Source: PUGC, "Aligning Large Language Models with Implicit Preferences from User-Generated
Content", from its abstract: a model turns what users wrote into queries. The wording is ours, and
so is that the model may say that a text answers no query.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lcrl.tasks.task import Messages

__all__ = ["NONE", "REQUEST", "prompts", "query_of"]

Write = Callable[[Sequence[Messages]], list[str]]
NONE = "NONE"
REQUEST = """Here is a text that somebody published.

[Text]
{text}

Write the question or request, in the words of a reader, that this text answers best. It must make \
sense to somebody who has not seen the text. Reply with the request alone, or with NONE if the \
text answers none."""


def prompts(
  texts: Sequence[str],
  write: Write,
  *,
  request: str = REQUEST,
  max_characters: int = 16384,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
  """Rows {"prompt", "text"} for `task.fn="prompts"`, and how many texts were kept and skipped.

  Args:
    texts: what users wrote.
    write: the model.
    request: what it is asked, with {text}.
    max_characters: a longer text is skipped, as `long`; one without words as `empty`. A reply
      without a query is skipped as `none`, one that came before as `repeated`.

  >>> rows, counts = prompts(["Boil eggs for six minutes."], lambda requests: ["How long?"])
  >>> rows[0]["prompt"]
  'How long?'
  """
  if "{text}" not in request:
    raise ValueError("the request must hold {text}.")
  counts = Counter(dict.fromkeys(("kept", "empty", "long", "none", "repeated"), 0))
  asked = []
  for text in map(str.strip, texts):
    reason = "empty" if not text else "long" if len(text) > max_characters else None
    if reason:
      counts[reason] += 1
    else:
      asked.append(text)
  replies = write([({"role": "user", "content": request.replace("{text}", t)},) for t in asked])
  rows: dict[str, dict[str, Any]] = {}
  for text, query in zip(asked, map(query_of, replies), strict=True):
    reason = "none" if query is None else "repeated" if query in rows else "kept"
    counts[reason] += 1
    if query is not None and reason == "kept":
      rows[query] = {"prompt": query, "text": text}
  return list(rows.values()), dict(counts)


def query_of(reply: str) -> str | None:
  """The reply without its label and quotes; None if it names no query.

  >>> query_of(' Request: "How do I prune a rose?" '), query_of("NONE.")
  ('How do I prune a rose?', None)
  """
  text = reply.strip()
  for label in ("Request:", "Question:", "Query:"):
    text = text.removeprefix(label).strip()
  for opening, closing in ('""', "''", "\u201c\u201d"):
    if len(text) > 1 and text[0] == opening and text[-1] == closing:
      text = text[1:-1].strip()
  return text if text and text.rstrip(".").upper() != NONE else None
