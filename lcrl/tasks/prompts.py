"""Prompts from a file without a verifier: answers are measured, and none is right or wrong."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from lcrl.tasks.task import Messages, Prompt, Render, Signals, Task, plain, question_text

_PROMPT = ("messages", "prompt")  # fields that are not kept in `Prompt.row`


def prompts(
  path: str,
  *,
  template: str = "{prompt}",
  reference: str | None = None,
  system_prompt: str | None = None,
  render: Render = plain,
  signals: Signals | None = None,
  variables: Mapping[str, Any] | None = None,
) -> Task:
  """Chat prompts from JSON lines, a JSON array or Parquet, by the ending of the file's name.

  A row has `messages`, or a `prompt`, an `instruction` or a `question` as `lcrl.data.layouts` reads
  them. Its other fields are kept for measures of the answers (`lcrl.evaluation.answers`), such as a
  category, a minimal answer, words asked for, a source text.

  Args:
    path: the file; .jsonl, .json or .parquet.
    template: of the last message, with {prompt} and any {field} of the row.
    reference: field of a reference answer, for `render` and measures.
    system_prompt: first message, where the row has none; None: none.
    render: shows the budget or the reference's length (`lcrl.tasks.render`).
    signals: values read from responses and from the other fields (`lcrl.tasks.signals`).
    variables: of the chat template, such as enable_thinking=False.
  Raises:
    ValueError: a row without a prompt, a reference or a field of the template, or with a context
      that the template does not show, by file and line.
  """
  from lcrl.data import readers
  from lcrl.data.layouts import context_columns, read_prompt

  found: list[Prompt] = []
  for where, row in readers.by_name(path):
    try:
      bare = read_prompt(row)
      messages = _filled(bare, template, row)
      expected = None if reference is None else row[reference]
    except KeyError as missing:
      raise ValueError(f"{where}: no field {missing}; it has {', '.join(row)}.") from None
    except ValueError as why:
      raise ValueError(f"{where}: {why}") from why
    if lost := [name for name in context_columns(row) if f"{{{name}}}" not in template]:
      raise ValueError(
        f"{where}: {lost[0]} may belong to the prompt, and would be lost: show {{{lost[0]}}} in "
        "the template, or remove it."
      )
    if system_prompt is not None and messages[0]["role"] != "system":
      messages = ({"role": "system", "content": system_prompt}, *messages)
    kept = {name: value for name, value in row.items() if name not in _PROMPT}
    found.append(Prompt(len(found), messages, expected, question=question_text(bare), row=kept))
  return Task(
    pathlib.Path(path).name,
    found,
    no_score,
    render=render,
    signals=signals,
    variables=variables or {},
    judged=False,
  )


def no_score(response: str, reference: Any) -> float:
  """0 for every response: there is nothing to compare with."""
  del response, reference
  return 0.0


def _filled(messages: Messages, template: str, row: Mapping[str, Any]) -> Messages:
  """Raises KeyError for a field that the row lacks."""
  *before, last = messages
  known = {**row, "prompt": last["content"]}
  content = re.sub(r"\{(\w+)\}", lambda field: str(known[field[1]]), template)
  return (*before, {**last, "content": content})
