"""A model scores answers: data for a reward model, such as CRM's of conciseness.

  lcrl-score --model=models/Qwen2.5-72B-Instruct --rows=data/answers.jsonl \
      --out=data/conciseness.jsonl

Rows have a prompt and an answer in any layout of `lcrl.data.layouts`; answers.jsonl of an
evaluation will do. Writes prompt, response and score as JSON lines, what
configs/conciseness_reward_model.py reads, and says how many replies held no number. --question
names a file with another request, which holds {prompt} and {answer}.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lcrl.commands import command, writing
from lcrl.data import judged, readers
from lcrl.data.layouts import read_answer
from lcrl.evaluation.progress import to_stderr
from lcrl.rollouts.writer import Write
from lcrl.tasks.task import Messages

FLAGS = flags.FLAGS


def read_answers(path: str) -> list[tuple[Messages, str]]:
  """Prompts with an answer each; the text of an answer may be in the column `text`."""
  found = []
  for where, row in readers.by_name(path, field=f"--rows={path}"):
    columns = {"prompt": row["prompt"], "response": row["text"]} if "text" in row else row
    try:
      pair = read_answer(columns)
    except (ValueError, KeyError) as why:
      raise ValueError(f"{where}: {why}") from why
    found.append((pair.messages, pair.sides[0]))
  return found


def score(
  answers: Sequence[tuple[Messages, str]], write: Write, out: Path, *, question: str
) -> tuple[int, int]:
  """Writes the rows that have a score; returns how many there are and how many replies had none."""
  found = judged.scores(answers, write, question=question)
  kept = [(both, x) for both, x in zip(answers, found, strict=True) if x is not None]
  if not kept:
    raise ValueError("no reply of the model holds a number in the range.")
  out.parent.mkdir(parents=True, exist_ok=True)
  with out.open("w", encoding="utf-8") as file:
    for (messages, answer), x in kept:
      file.write(json.dumps({"prompt": [*messages], "response": answer, "score": x}) + "\n")
  return len(kept), len(answers) - len(kept)


def main(_) -> None:
  question = judged.CONCISENESS
  if FLAGS.question is not None:
    question = Path(FLAGS.question).read_text(encoding="utf-8")
  answers = read_answers(FLAGS.rows)
  write = writing.writer()
  kept, lost = score(answers, write, Path(FLAGS.out), question=question)
  to_stderr(f"{kept} scores in {FLAGS.out}; {lost} replies held no number in the range.")


if __name__ == "__main__":
  writing.define(max_tokens=16, max_prompt_tokens=8192)
  flags.DEFINE_string("rows", None, "File of prompts and answers.", required=True)
  flags.DEFINE_string("out", None, "File of JSON lines that is written.", required=True)
  flags.DEFINE_string("question", None, "File with the request; None: conciseness.")
  command.run(main, "score")
