r"""Puts Ruler's meta length tokens before the responses of a data set, for run="sft".

  lcrl-length-labels --rows=data/sft.jsonl --out=data/sft_mlt.jsonl
  lcrl-length-labels --rows=data/sft.jsonl --out=data/stated.jsonl \
    --template=$'\nThe response should have {words} words.'

Reads JSON lines, a JSON array or Parquet in any layout of `lcrl.data.layouts`, and prints how many
responses each token got and how many were dropped. `configs/sft.py` learns from the file by
--config.data.rows.fn=jsonl --config.data.rows.path=data/sft_mlt.jsonl; the measure `ruler` says how
well the policy then keeps to lengths.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl import flags

from lcrl.commands import command
from lcrl.data import readers
from lcrl.evaluation.length_labels import labelled

FLAGS = flags.FLAGS


def main(_: Any) -> None:
  rows = readers.by_name(FLAGS.rows, field=f"--rows={FLAGS.rows}")
  kept, counts = labelled(rows, most=FLAGS.most, template=FLAGS.template)
  if not kept:
    raise ValueError(f"{FLAGS.rows}: no response has a length that Ruler has a token for.")
  text = "".join(json.dumps(row) + "\n" for row in kept)
  Path(FLAGS.out).write_text(text, encoding="utf-8")
  print("\n".join(f"{name:10s} {count:,}" for name, count in counts.items()))


if __name__ == "__main__":
  flags.DEFINE_string("rows", None, "Prompts with responses.", required=True)
  flags.DEFINE_string("out", None, "File of JSON lines to write.", required=True)
  flags.DEFINE_integer("most", 20_000, "Responses that each token gets, at most.")
  flags.DEFINE_string("template", None, "Added to the prompt, with {words}; none if not given.")
  command.run(main, "length_labels")
