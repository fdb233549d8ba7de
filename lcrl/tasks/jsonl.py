"""Problems from a file, such as GSM8K and MATH: JSON lines, a JSON array or Parquet."""

from __future__ import annotations

import decimal
import functools
import inspect
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lcrl.registry import resolve
from lcrl.tasks import extract as extractors
from lcrl.tasks.references import References
from lcrl.tasks.task import Prompt, Render, Signals, Task, plain

CONTEXT = ("context", "passage", "background", "Body")  # of OlympiadBench, SVAMP and others


def jsonl(
  path: str,
  *,
  verifier: str = "math",
  question: str = "question",
  answer: str = "answer",
  reference: str = "whole",
  extract: str = "whole",
  template: str = "{question}",
  system_prompt: str | None = None,
  difficulty: str | None = None,
  threshold: float = 1.0,
  render: Render = plain,
  signals: Signals | None = None,
  variables: Mapping[str, Any] | None = None,
  keep: Sequence[str] = (),
) -> Task:
  """A file of questions and answers, one JSON object a line. The layouts of common sets:

  GSM8K: question="question", answer="answer", reference="after_hashes"
  MATH:  question="problem",  answer="answer", difficulty="level"

  Args:
    path: the file, UTF-8, with one object a line.
    verifier: compares answer and reference, a name in `lcrl.tasks.scorers`.
    question: field of the question.
    answer: field of the answer, a text or a number.
    reference: the part of that field for the verifier, a name in `lcrl.tasks.extract`.
    extract: the part of the response for the verifier, likewise.
    template: of the user's message, with {question}.
    system_prompt: first message; None: none.
    difficulty: field that holds a whole number; None: 0.
    threshold: least score of a correct answer.
    render: shows the budget in the prompt or response (`lcrl.tasks.render`).
    signals: values read from responses (`lcrl.tasks.signals`).
    variables: of the chat template, such as enable_thinking=False.
    keep: fields that stay in the prompt's row, for signals, teachers and measures of answers.
  Raises:
    ValueError: a row without one of these fields, whose answer the verifier cannot compare, or
      with a context that the question does not hold, by file and line.

  >>> import json as plain, tempfile
  >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
  ...   plain.dump([{"question": "1 + 1?", "answer": "2"}], file)
  ...   file.flush()
  ...   task = json(file.name, verifier="number")
  >>> task.prompts[0].reference
  '2'
  """
  options = {name: value for name, value in locals().items() if name != "path"}
  return _task("jsonl", path, **options)


@functools.wraps(jsonl, assigned=())
def json(path: str, **options: Any) -> Task:
  """Questions and answers in one JSON array of objects; the arguments are those of `jsonl`."""
  return _task("json", path, **_complete(path, options))


@functools.wraps(jsonl, assigned=())
def parquet(path: str, **options: Any) -> Task:
  """Questions and answers in a Parquet file; the arguments are those of `jsonl`. Needs pyarrow."""
  return _task("parquet", path, **_complete(path, options))


def _complete(path: str, options: dict[str, Any]) -> dict[str, Any]:
  bound = inspect.signature(jsonl).bind(path, **options)
  bound.apply_defaults()
  return bound.kwargs


def _task(
  layout: str,
  path: str,
  *,
  verifier: str,
  question: str,
  answer: str,
  reference: str,
  extract: str,
  template: str,
  system_prompt: str | None,
  difficulty: str | None,
  threshold: float,
  render: Render,
  signals: Signals | None,
  variables: Mapping[str, Any] | None,
  keep: Sequence[str],
) -> Task:
  """The task of `jsonl` for any layout of `lcrl.data.readers`."""
  from lcrl.data import readers
  from lcrl.tasks import scorers

  rows = getattr(readers, layout)(path)
  find = resolve(extractors, {"fn": reference}, field="task.reference")
  compare = resolve(scorers, {"fn": verifier}, field="task.verifier")
  before = ({"role": "system", "content": system_prompt},) if system_prompt else ()
  prompts: list[Prompt] = []
  for where, row in rows:
    expected = find(_answer(row, answer, where))
    if expected is None:
      raise ValueError(f"{where}: {reference} finds nothing in the field {answer!r}.")
    level = 0 if difficulty is None else _field(row, difficulty, where)
    if not isinstance(level, int) or isinstance(level, bool):
      raise ValueError(f"{where}: the difficulty {difficulty!r} is {level!r}, no whole number.")
    asked = _question(row, question, where)
    content = template.replace("{question}", asked)
    messages = (*before, {"role": "user", "content": content})
    kept = {name: _field(row, name, where) for name in keep} or None
    prompts.append(Prompt(len(prompts), messages, str(expected), level, asked, kept))
  _compare_all(
    [(where, p) for (where, _), p in zip(rows, prompts, strict=True)], compare, threshold
  )
  score = functools.partial(
    extractors.score_extracted,
    extract=resolve(extractors, {"fn": extract}, field="task.extract"),
    score=compare,
  )
  return Task(
    pathlib.Path(path).name, prompts, score, threshold, render, signals, variables=variables or {}
  )


def _compare_all(
  prompts: Sequence[tuple[str, Prompt]], compare: Callable[[str, Any], float], threshold: float
) -> None:
  """Raises ValueError with the location of the first reference that does not equal itself."""
  with References(compare, threshold) as references:
    reasons = references.why_not(prompt.reference for _, prompt in prompts)
  if reasons:
    reference, why = next(iter(reasons.items()))
    where = next(where for where, prompt in prompts if prompt.reference == reference)
    more = f" {len(reasons) - 1} more like it." if len(reasons) > 1 else ""
    raise ValueError(f"{where}: the verifier cannot compare: {why}.{more}")


def _question(row: dict[str, Any], name: str, where: str) -> str:
  text = _field(row, name, where)
  for other in CONTEXT:
    more = row.get(other)
    if other != name and isinstance(more, str) and more.strip() not in str(text):
      raise ValueError(
        f"{where}: {other}={more!r:.50} may belong to the question, and would be lost: write it "
        f"into the field {name!r}, or remove it."
      )
  if not isinstance(text, str) or not text.strip():
    raise ValueError(f"{where}: the question {name!r} is {text!r:.50}; it has to be a text.")
  return text


def _answer(row: dict[str, Any], name: str, where: str) -> str:
  value = _field(row, name, where)
  if isinstance(value, str):
    return value
  number = isinstance(value, int | float | decimal.Decimal) and not isinstance(value, bool)
  if not number or not math.isfinite(value):
    raise ValueError(
      f"{where}: the answer {name!r} is {value!r:.50}; it has to be a text or a number."
    )
  return str(value)


def _field(row: dict[str, Any], name: str, where: str) -> Any:
  if name not in row:
    from lcrl.data.public.hints import converting_command

    has = f"{', '.join(row)}.{converting_command(row)}"
    raise ValueError(f"{where}: no field {name!r}; it has {has}")
  return row[name]
