"""Builds the data of stages before RL from the answers of evaluations.

  lcrl-cold-start --kind=light_r1_first --answers=weak/answers.jsonl \
      --other=teacher/answers.jsonl --out=data/light_r1_first.jsonl
  lcrl-cold-start --kind=light_r1_second --answers=teacher/answers.jsonl --out=...
  lcrl-cold-start --kind=problems --answers=weak/answers.jsonl --out=...
  lcrl-cold-start --kind=adactrl --answers=short/... --other=long/... --out=...
  lcrl-cold-start --kind=two_modes --answers=short/... --other=long/... --out=...
  lcrl-cold-start --kind=budget_modes --answers=long/... --out=...
  lcrl-cold-start --kind=mixchain --answers=long/...,short/... --out=...
  lcrl-cold-start --kind=cot_valve --answers=long/...,short/... --out=...

`lcrl-evaluate --samples=8` on the training file writes the answers. configs/cold_start.py
trains on the results, and configs/light_r1_rl.py on the problems. --low, --high, --below,
--threshold and --openings are arguments of the builders in `lcrl/data/cold_start.py`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from lcrl.commands import command
from lcrl.data import cold_start, readers
from lcrl.evaluation.progress import to_stderr

FLAGS = flags.FLAGS


def build(
  kind: str, answers: str | Sequence[str], other: str | None, options: Mapping[str, Any]
) -> list[Any]:
  """The rows of a builder; `answers` is one file, or several levels.

  Raises:
    ValueError: an unknown kind; a file or an option that the builder does not take, or lacks; no
      row is left.
  """
  if kind not in cold_start.__all__:
    raise ValueError(f"--kind={kind} is not one of {', '.join(cold_start.__all__)}.")
  function = getattr(cold_start, kind)
  parameters = inspect.signature(function).parameters
  files = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
  given = [answers] if isinstance(answers, str) else [*answers]
  levels = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
  if len(given) > 1 and not levels:
    raise ValueError(f"--kind={kind} reads one file of --answers, got {len(given)}.")
  if (other is not None) != (len(files) == 2):
    takes = " and of --other" if len(files) == 2 else " alone"
    raise ValueError(f"--kind={kind} reads the answers of --answers{takes}.")
  if strange := sorted(options.keys() - parameters.keys()):
    raise ValueError(f"--{strange[0]} is nothing that --kind={kind} takes.")
  read = lambda path: cold_start.by_prompt(row for _, row in readers.jsonl(path))
  rows = function(*map(read, filter(None, (*given, other))), **options)
  if not rows:
    raise ValueError(f"--kind={kind} leaves no row of these answers.")
  return rows


def main(_) -> None:
  given = ("low", "high", "below", "threshold", "openings", "seed")
  options = {name: FLAGS[name].value for name in given if FLAGS[name].present}
  rows = build(FLAGS.kind, FLAGS.answers, FLAGS.other, options)
  out = Path(FLAGS.out)
  out.parent.mkdir(parents=True, exist_ok=True)
  out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
  to_stderr(f"{len(rows)} rows in {out}.")


if __name__ == "__main__":
  flags.DEFINE_string("kind", None, f"One of {', '.join(cold_start.__all__)}.", required=True)
  flags.DEFINE_list("answers", None, "answers.jsonl of an evaluation.", required=True)
  flags.DEFINE_string("other", None, "Those of the teacher, or of the long mode.")
  flags.DEFINE_string("out", None, "File of JSON lines that is written.", required=True)
  flags.DEFINE_float("low", 0.25, "Least pass rate of a problem.")
  flags.DEFINE_float("high", 0.625, "Highest pass rate of a problem.")
  flags.DEFINE_float("below", 0.5, "Pass rate below which a prompt is hard.")
  flags.DEFINE_float("threshold", 0.625, "Pass rate above which a prompt is easy.")
  flags.DEFINE_list("openings", ["", ""], "Text before the answers of the short and long mode.")
  flags.DEFINE_integer("seed", 0, "Of the choice among right answers.")
  command.run(main, "cold_start")
