"""The study's files from the publishers' own: one row a problem, fields `question` and `answer`.

Run     python -m experiments.studies.qwen_math.data --gsm8k=DIR --math500=DIR --svamp=DIR --out=DIR
Gives   train.jsonl and validation.jsonl (GSM8K train, split by a hash of the question); to judge
        on: gsm8k.jsonl (GSM8K test), math500.jsonl, svamp.jsonl
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import app, flags

from lcrl.data import readers
from lcrl.tasks.extract import after_hashes

HELD_OUT = 1 / 16  # of GSM8K train, to choose coefficients on

Row = dict[str, Any]


def gsm8k(folder: Path, split: str) -> list[Row]:
  rows = [row for _, row in readers.jsonl(str(folder / f"{split}.jsonl"))]
  return [{"question": r["question"], "answer": after_hashes(r["answer"])} for r in rows]


def math500(folder: Path) -> list[Row]:
  rows = [row for _, row in readers.jsonl(str(folder / "test.jsonl"))]
  return [{"question": r["problem"], "answer": r["answer"], "level": r["level"]} for r in rows]


def svamp(folder: Path) -> list[Row]:
  rows = json.loads((folder / "SVAMP.json").read_text(encoding="utf-8"))
  return [
    {"question": f"{r['Body'].strip()} {r['Question'].strip()}", "answer": f"{r['Answer']:g}"}
    for r in rows
  ]


def is_held_out(question: str) -> bool:
  """Whether a problem serves validation: the question alone decides."""
  digest = hashlib.sha256(question.strip().encode()).digest()
  return int.from_bytes(digest[:8], "big") < HELD_OUT * 2**64


def write(path: Path, rows: Iterable[Row]) -> None:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main(_) -> None:
  out = Path(FLAGS.out)
  out.mkdir(parents=True, exist_ok=True)
  train = gsm8k(Path(FLAGS.gsm8k), "train")
  files = {
    "train": [row for row in train if not is_held_out(row["question"])],
    "validation": [row for row in train if is_held_out(row["question"])],
    "gsm8k": gsm8k(Path(FLAGS.gsm8k), "test"),
    "math500": math500(Path(FLAGS.math500)),
    "svamp": svamp(Path(FLAGS.svamp)),
  }
  trained_on = {row["question"] for row in files["train"]}
  for name, rows in files.items():
    if name != "train" and (both := trained_on & {row["question"] for row in rows}):
      raise SystemExit(f"data: {len(both)} problems of {name} stand in GSM8K train, too.")
    write(out / f"{name}.jsonl", rows)
    print(f"{name:11} {len(rows):5} problems")


if __name__ == "__main__":
  FLAGS = flags.FLAGS
  for name in ("gsm8k", "math500", "svamp", "out"):
    flags.DEFINE_string(name, None, "Folder.", required=True)
  app.run(main)
