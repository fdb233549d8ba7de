"""PUGC's first step: a model writes the query that a user's text answers.

  lcrl-queries --model=models/Mistral-7B-Instruct-v0.2 --rows=data/posts.jsonl \
      --field=text --out=data/user_texts.jsonl

Writes prompt and text as JSON lines, what configs/pugc.py reads: there the policy answers the
query, and an answer is paid for what it shares with the text. --request names a file with another
request, which holds {text}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lcrl.commands import command, writing
from lcrl.data import queries, readers
from lcrl.evaluation.progress import to_stderr
from lcrl.rollouts.writer import Write

FLAGS = flags.FLAGS


def read_texts(path: str, field: str) -> list[str]:
  """The column `field` of a file of rows.

  Raises:
    ValueError: a row has no text there; it names file and line.
  """
  found = []
  for where, row in readers.by_name(path, field=f"--rows={path}"):
    if not isinstance(row.get(field), str):
      raise ValueError(f"{where}: there is no text {field!r}, but {sorted(row)}.")
    found.append(row[field])
  return found


def run(
  texts: Sequence[str], write: Write, out: Path, *, request: str, max_characters: int
) -> dict[str, int]:
  """Writes the rows; returns how many texts were kept and skipped."""
  rows, counts = queries.prompts(texts, write, request=request, max_characters=max_characters)
  if not rows:
    raise ValueError(f"none of {len(texts)} texts got a query: {counts}.")
  out.parent.mkdir(parents=True, exist_ok=True)
  lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
  out.write_text("".join(lines), encoding="utf-8")
  return counts


def main(_) -> None:
  request = queries.REQUEST
  if FLAGS.request is not None:
    request = Path(FLAGS.request).read_text(encoding="utf-8")
  texts = read_texts(FLAGS.rows, FLAGS.field)
  write = writing.writer()
  limit = FLAGS.max_characters
  counts = run(texts, write, Path(FLAGS.out), request=request, max_characters=limit)
  said = ", ".join(f"{count} {name}" for name, count in counts.items() if name != "kept")
  to_stderr(f"{counts['kept']} queries in {FLAGS.out}; skipped: {said}.")


if __name__ == "__main__":
  writing.define(max_tokens=128, max_prompt_tokens=8192, temperature=0.0)
  flags.DEFINE_string("rows", None, "File of rows with users' texts.", required=True)
  flags.DEFINE_string("field", "text", "The column of the texts.")
  flags.DEFINE_string("out", None, "File of JSON lines that is written.", required=True)
  flags.DEFINE_string("request", None, "File with the request; None: the one built in.")
  flags.DEFINE_integer("max_characters", 16384, "Longer texts are skipped.")
  command.run(main, "queries")
