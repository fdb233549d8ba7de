"""Answers of models: histograms of their lengths, and the same prompts side by side."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lcrl.commands.comparison.models import Model
from lcrl.tasks.task import question_text

__all__ = ["Answer", "Source", "answers", "histograms", "side_by_side", "source_of"]

FILES = ("evaluation_answers.jsonl", "answers.jsonl")  # the last evaluation, or that of a run
BINS, MOST_SAMPLES = 24, 4  # samples of a prompt, at most
LAST = 0.1  # of training, whose samples stand for the trained model


class Answer(NamedTuple):
  """An answer, from a file of answers or of samples."""

  key: str  # the text that tells prompts apart
  text: str
  correct: bool | None  # None: not judged
  tokens: int | None
  truncated: bool
  reference: str
  extracted: str


class Source(NamedTuple):
  """Files of answers, and which of their rows count."""

  files: tuple[Path, ...]
  words: str  # of what the answers are
  field: str | None = None  # rows count whose value here is at least `least`
  least: int = 0
  set: str | None = None  # and that answer this evaluation set, the first of the file


def source_of(home: Path) -> Source | None:
  """The best answers of a folder: of its evaluation, else sampled in the last steps of training."""
  for name in FILES:
    path = home / name
    if path.exists():
      of = next(_rows(path), {}).get("set")
      rows = [
        {field: _whole(row, field) for field in ("budget", "step")}
        for row in _rows(path)
        if row.get("set") == of
      ]
      for field, words in (("budget", "the cap"), ("step", "step")):
        if last := max((row[field] for row in rows), default=0):
          return Source((path,), f"evaluation at {words} {last}", field, last, of)
      return Source((path,), "evaluation", set=of) if rows else None
  parts = sorted((home / "samples").glob("*.jsonl"))
  last = max((_whole(row, "step") for row in _rows(parts[-1])), default=0) if parts else 0
  if not last:
    return None
  least = int(last - max(LAST * last, 1)) + 1
  words = f"training, steps {least} to {last}" if least < last else f"training, step {last}"
  return Source(tuple(parts), words, "step", least)


def _whole(row: Mapping[str, Any], field: str) -> int:
  """A whole number of a row; 0 if it has none."""
  value = row.get(field)
  return value if isinstance(value, int) else 0


def _rows(path: Path) -> Iterator[dict[str, Any]]:
  with path.open(encoding="utf-8", errors="replace") as file:
    for line in file:
      try:
        row = json.loads(line)
      except ValueError:
        continue  # a line that is being written
      if isinstance(row, dict):
        yield row


def answers(source: Source) -> Iterator[Answer]:
  """The answers of a source, in the order of its files."""
  for row in itertools.chain.from_iterable(map(_rows, source.files)):
    counts = source.field is None or _whole(row, source.field) >= source.least
    if counts and row.get("set") == source.set:
      yield _answer(row)


def _answer(row: Mapping[str, Any]) -> Answer:
  prompt = row.get("prompt", "")
  is_chat = isinstance(prompt, list) and all(isinstance(m, dict) and "role" in m for m in prompt)
  text = next((row[key] for key in ("text", "response", "raw_text") if row.get(key)), "")
  shown = lambda x: "" if x is None else x if isinstance(x, str) else json.dumps(x)
  return Answer(
    key=question_text(tuple(prompt)) if is_chat else shown(prompt),
    text=shown(text),
    correct=row["correct"] if isinstance(row.get("correct"), bool) else None,
    tokens=next((row[k] for k in ("tokens", "length") if isinstance(row.get(k), int)), None),
    truncated=bool(row.get("truncated")),
    reference=shown(row.get("reference")),
    extracted=shown(row.get("extracted")),
  )


class Lengths(NamedTuple):
  """Lengths of the answers of a model."""

  right: list[int]
  wrong: list[int]  # and those that were not judged
  judged: bool
  words: str


def _sources(model: Model) -> list[Source]:
  """Of each seed's folder; where some were evaluated, of these alone."""
  found = [source for home in model.homes if (source := source_of(home))]
  return [source for source in found if source.files[0].name in FILES] or found


def _lengths(model: Model) -> Lengths | None:
  sources = _sources(model)
  every = [x for x in itertools.chain.from_iterable(map(answers, sources)) if x.tokens is not None]
  if not every:
    return None
  judged = any(one.correct is not None for one in every)
  right = [one.tokens or 0 for one in every if one.correct]
  wrong = [one.tokens or 0 for one in every if not one.correct]
  return Lengths(right, wrong, judged, "; ".join(dict.fromkeys(x.words for x in sources)))


def histograms(models: Sequence[Model]) -> dict[str, Any]:
  """Counts of lengths by right and wrong in bins that all models share; the last bin is open.

  Returns: {"edges": [BINS + 1], "models": [{"right": [BINS], "wrong": [BINS], ...} or None]}.
  """
  found = [_lengths(model) for model in models]
  known = [np.array(one.right + one.wrong) for one in found if one]
  if not known:
    return {}
  top = max(float(np.percentile(x, 99)) for x in known)
  width = max(int(np.ceil((top + 1) / BINS)), 1)
  edges = width * np.arange(BINS + 1)
  count = lambda x: np.bincount(np.minimum(np.array(x, int) // width, BINS - 1), minlength=BINS)
  return {
    "edges": edges.tolist(),
    "models": [
      one
      and {
        "right": count(one.right).tolist(),
        "wrong": count(one.wrong).tolist(),
        "means": [float(np.mean(x)) if x else None for x in (one.right, one.wrong)],
        "judged": one.judged,
        "words": one.words,
      }
      for one in found
    ],
  }


def side_by_side(models: Sequence[Model], *, prompts: int, letters: int) -> list[dict[str, Any]]:
  """Prompts that most models answered, those first on which models disagree, with the answers.

  Args:
    models: whose first folders with answers are read.
    prompts: how many, at most.
    letters: of a text; longer ones are cut.
  """
  sources = [next(iter(_sources(model)), None) for model in models]
  seen: dict[str, dict[int, bool]] = {}
  for i, source in enumerate(sources):
    for one in answers(source) if source else ():
      seen.setdefault(one.key, {}).setdefault(i, bool(one.correct))
  disagree = lambda key: len(set(seen[key].values())) > 1
  order = sorted(seen, key=lambda key: (-len(seen[key]), not disagree(key)))[:prompts]
  at = {key: place for place, key in enumerate(order)}
  found: list[dict[str, Any]] = [{"prompt": cut(key, letters), "answers": {}} for key in order]
  for i, source in enumerate(sources):
    for one in answers(source) if source else ():
      if one.key not in at:
        continue
      row = found[at[one.key]]
      row.setdefault("reference", cut(one.reference, letters))
      given = row["answers"].setdefault(i, [])
      if len(given) < MOST_SAMPLES:
        given.append([cut(one.text, letters), one.correct, one.tokens, one.truncated])
  return found


def cut(text: str, letters: int) -> str:
  """The text, or its first and last parts around a mark of what is left out.

  >>> cut("0123456789", 4)
  '012 [... 6 characters ...] 9'
  """
  if len(text) <= letters:
    return text
  tail = letters // 4
  return f"{text[: letters - tail]} [... {len(text) - letters} characters ...] {text[-tail:]}"
