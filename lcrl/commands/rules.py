"""AutoRule's three steps: a model explains preference pairs, extracts rules, and merges them.

  lcrl-rules --model=models/Qwen2.5-7B-Instruct --out=runs/rules \
      --rows=data/ultrafeedback_binarized.parquet --pairs=256

Writes explanations.jsonl, extracted.jsonl and rules.json, a list of sentences that the section
`learned` of a run names: `c.learned = dict(rules=dict(rules="runs/rules/rules.json"))`. A step
whose file is there is not done again: edit or delete files to change what follows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from lcrl.commands import command, writing
from lcrl.data import readers, rules
from lcrl.data.layouts import Pair, UnpairedTurns, read_pair
from lcrl.evaluation.progress import to_stderr
from lcrl.rollouts.writer import Write

FLAGS = flags.FLAGS


def read_pairs(path: str, count: int, seed: int) -> list[Pair]:
  """`count` pairs of a file, drawn by the seed; those whose turns do not pair are left out."""
  found = []
  for where, row in readers.by_name(path, field=f"--rows={path}"):
    try:
      found.append(read_pair(row))
    except UnpairedTurns:
      continue
    except ValueError as why:
      raise ValueError(f"{where}: {why}") from why
  order = np.random.default_rng(seed).permutation(len(found))[:count]
  return [found[i] for i in order]


def run(
  out: Path,
  pairs: Callable[[], Sequence[Pair]],
  write: Write,
  *,
  most: int = 20,
  seed: int = 0,
) -> list[str]:
  """The three steps, each from its file if it is there; `write` answers conversations."""
  out.mkdir(parents=True, exist_ok=True)

  def step(name: str, make: Callable[[], list[Any]]) -> list[Any]:
    file = out / f"{name}.jsonl"
    if file.is_file():
      to_stderr(f"{name}: read from {file}")
      return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    made = make()
    file.write_text("".join(json.dumps(x) + "\n" for x in made), encoding="utf-8")
    to_stderr(f"{name}: {len(made)} in {file}")
    return made

  explanations = step("explanations", lambda: rules.explain(pairs(), write, seed=seed))
  extracted = step("extracted", lambda: rules.extract(explanations, write))
  merged = rules.merge([rule for found in extracted for rule in found], write, most=most)
  (out / "rules.json").write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
  return merged


def main(_) -> None:
  write = writing.writer(seed=FLAGS.seed)
  pairs = lambda: read_pairs(FLAGS.rows, FLAGS.pairs, FLAGS.seed)
  found = run(Path(FLAGS.out), pairs, write, most=FLAGS.most, seed=FLAGS.seed)
  print("\n".join(found))


if __name__ == "__main__":
  writing.define(max_tokens=2048, max_prompt_tokens=6144, temperature=0.0)
  flags.DEFINE_string("rows", None, "File of preference pairs.", required=True)
  flags.DEFINE_string("out", None, "Folder of the results.", required=True)
  flags.DEFINE_integer("pairs", 256, "Pairs that are explained.")
  flags.DEFINE_integer("most", 20, "Rules, at most.")
  flags.DEFINE_integer("seed", 0, "Seed of the choice of pairs, of their order and of sampling.")
  command.run(main, "rules")
