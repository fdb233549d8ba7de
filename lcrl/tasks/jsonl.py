"""Problems from a file with one JSON object a line, such as GSM8K and MATH."""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from lcrl.named import resolve
from lcrl.tasks import extract as extractors
from lcrl.tasks.task import Prompt, Render, Signals, Task, plain


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
) -> Task:
  """A file of questions and answers. The layouts of

  GSM8K: question="question", answer="answer", reference="after_hashes"
  MATH:  question="problem",  answer="answer", difficulty="level"

  Args:
    path: the file, UTF-8.
    verifier: what compares answer and reference, a name in `lcrl.tasks.scorers`.
    question: field of the question.
    answer: field of the answer.
    reference: which part of that field the verifier gets, a name in `lcrl.tasks.extract`.
    extract: which part of the response it gets, likewise.
    template: of the user's message, with {question}.
    system_prompt: first message; None: none.
    difficulty: field that holds a whole number; None: 0.
    threshold: least score of a correct answer.
    render: how a budget shows (`lcrl.tasks.render`).
    signals: what is read off responses (`lcrl.tasks.signals`).
    variables: of the chat template, such as enable_thinking=False.
  """
  from lcrl.tasks import scorers

  find = resolve(extractors, {"fn": reference}, field="task.reference")
  before = ({"role": "system", "content": system_prompt},) if system_prompt else ()
  prompts: list[Prompt] = []
  for number, row in read_jsonl(path):
    where = f"{path}, line {number}"
    expected = find(str(_field(row, answer, where)))
    if expected is None:
      raise ValueError(f"{where}: {reference} finds nothing in the field {answer!r}.")
    level = 0 if difficulty is None else _field(row, difficulty, where)
    if not isinstance(level, int):
      raise ValueError(f"{where}: the difficulty {difficulty!r} is {level!r}, no whole number.")
    content = template.replace("{question}", str(_field(row, question, where)))
    messages = (*before, {"role": "user", "content": content})
    prompts.append(Prompt(len(prompts), messages, expected, level))
  score = functools.partial(
    extractors.score_extracted,
    extract=resolve(extractors, {"fn": extract}, field="task.extract"),
    score=resolve(scorers, {"fn": verifier}, field="task.verifier"),
  )
  return Task(pathlib.Path(path).name, prompts, score, threshold, render, signals, variables or {})


def read_jsonl(path: str) -> list[tuple[int, dict[str, Any]]]:
  """(line number, object) of each line that is not blank.

  Raises:
    ValueError: a line that is no UTF-8, no JSON or no object, by file and number; an empty file.
  """
  rows = []
  for number, line in enumerate(pathlib.Path(path).read_bytes().split(b"\n"), start=1):
    if not line.strip():
      continue
    try:
      row = json.loads(line.decode())
    except ValueError as why:  # of the encoding or of the syntax; both say where
      raise ValueError(f"{path}, line {number}: {why}") from why
    if not isinstance(row, dict):
      raise ValueError(f"{path}, line {number}: an object was expected, got {row!r:.50}.")
    rows.append((number, row))
  if not rows:
    raise ValueError(f"{path} holds no rows.")
  return rows


def _field(row: dict[str, Any], name: str, where: str) -> Any:
  if name not in row:
    raise ValueError(f"{where}: no field {name!r}; it has {', '.join(row)}.")
  return row[name]
