"""Measures of the answers that an evaluation kept, by name.

  lcrl-measures --answers=out/answers.jsonl --measures='castillo, cap_saturation'
  lcrl-measures --answers=a/answers.jsonl,b/answers.jsonl --sizes=1.35e8,3.6e8 \\
    --measures='pass_until(passes=2)' --out=law

`lcrl.evaluation.answers` lists the measures and what they need of the prompts. Writes
measures.json, measures.md, pictures and NAME.csv to --out, else to the folder of the first file.
--sizes, the parameters of the models whose answers these are, also fits PassUntil's law.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from lcrl.commands import command
from lcrl.evaluation.answers import report

FLAGS = flags.FLAGS


def measured(
  files: Sequence[str | Path], text: str, out: Path, sizes: Sequence[str] | None = None
) -> str:
  """Applies the measures that `text` names to the files, and writes all; returns the tables."""
  specs, several = command.read_calls(text, "measures"), len(files) > 1
  report.check_specs(specs)
  points = {
    f"{Path(file).parent if several else ''} {label}".strip(): rows
    for file in files
    for label, rows in report.read_answers(file).items()
  }
  found = report.apply(points, specs)
  return report.write(out, found, None if sizes is None else report.law_of(found, _numbers(sizes)))


def _numbers(texts: Sequence[str]) -> list[float]:
  try:
    return [float(text) for text in texts]
  except ValueError:
    raise ValueError(f"sizes must be numbers, got {','.join(texts)}.") from None


def main(_: Any) -> None:
  if not FLAGS.answers or FLAGS.measures is None:
    raise ValueError("name --answers, files that lcrl-evaluate wrote, and --measures.")
  out = Path(FLAGS.out or Path(FLAGS.answers[0]).parent)
  print(measured(FLAGS.answers, FLAGS.measures, out, FLAGS.sizes))


if __name__ == "__main__":
  flags.DEFINE_list("answers", None, "Answers files.")
  flags.DEFINE_string("measures", None, "Measures as name, name(field=value), ...")
  flags.DEFINE_list("sizes", None, "Parameters of the model of each file, for PassUntil's law.")
  flags.DEFINE_string("out", None, "Folder; that of the first answers file.")
  command.run(main, "measures")
