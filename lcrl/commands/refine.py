"""EVOLVE's second turn: a model refines its answers, and what gets better becomes pairs.

  lcrl-evaluate --workdir=RUN --samples=4 ...     # writes answers.jsonl
  lcrl-export --workdir=RUN --out=exported
  lcrl-refine --model=exported --answers=answers.jsonl --out=data/evolve.jsonl

The pairs are rows for run="preference" (prompt, chosen, rejected). Both answers are scored as the
task does, by --verifier and --extract of `lcrl.tasks`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from lcrl.commands import command, writing
from lcrl.data import readers, refined
from lcrl.evaluation.progress import to_stderr
from lcrl.registry import resolve
from lcrl.rollouts.writer import Write
from lcrl.tasks import extract as extractors
from lcrl.tasks import scorers
from lcrl.tasks.task import BadFormat

FLAGS = flags.FLAGS


def scorer(verifier: str, extract: str) -> Callable[[str, Any], float]:
  """text, reference -> the verifier's score, 0 where no answer can be read."""
  find = resolve(extractors, {"fn": extract}, field="--extract")
  compare = resolve(scorers, {"fn": verifier}, field="--verifier")
  score = functools.partial(extractors.score_extracted, extract=find, score=compare)

  def read(text: str, reference: Any) -> float:
    try:
      return float(score(text, reference))
    except BadFormat:
      return 0.0

  return read


def run(
  rows: Sequence[refined.Row],
  write: Write,
  score: Callable[[str, Any], float],
  out: Path,
  *,
  instruction: str = refined.INSTRUCTION,
) -> int:
  """Writes the pairs; returns how many there are.

  Raises:
    ValueError: a row lacks a field; no answer gets better.
  """
  for number, row in enumerate(rows, 1):
    if missing := {"prompt", "text", "reference"} - row.keys():
      raise ValueError(f"answer {number} has no {sorted(missing)[0]!r}.")
  better = refined.refine(rows, write, instruction=instruction)
  pairs = refined.preferences(rows, better, score, instruction=instruction)
  if not pairs:
    raise ValueError(f"none of {len(rows)} answers got better by refining.")
  out.parent.mkdir(parents=True, exist_ok=True)
  out.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
  return len(pairs)


def main(_) -> None:
  rows = [row for _, row in readers.jsonl(FLAGS.answers)]
  write = writing.writer()
  score = scorer(FLAGS.verifier, FLAGS.extract)
  count = run(rows, write, score, Path(FLAGS.out), instruction=FLAGS.instruction)
  to_stderr(f"{count} pairs of {len(rows)} answers in {FLAGS.out}.")


if __name__ == "__main__":
  writing.define(max_tokens=4096, max_prompt_tokens=6144, temperature=1.0)
  flags.DEFINE_string("answers", None, "answers.jsonl of an evaluation.", required=True)
  flags.DEFINE_string("out", None, "File of JSON lines that is written.", required=True)
  flags.DEFINE_string("instruction", refined.INSTRUCTION, "The request to refine.")
  flags.DEFINE_string("verifier", "math", "A name in lcrl.tasks.scorers.")
  flags.DEFINE_string("extract", "boxed", "A name in lcrl.tasks.extract.")
  command.run(main, "refine")
