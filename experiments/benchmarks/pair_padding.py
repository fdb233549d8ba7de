"""How much of what a model reads of a file of pairs is padding, and in how many shapes; CPU only.

  python -m experiments.benchmarks.pair_padding --path=pairs.jsonl --tokenizer=FOLDER_OR_GGUF \
      --window=1024 --size=64

A JSON line for padded rows, one for packed rows of each of `--widths`, and one for rows in buckets
of `--lengths`. Without widths it tries those from the longest row to three times that, and prints
the best: take it for `train.pack`. The counts are those of an epoch, its last batch included.
"""

import json
import math
from typing import Any

import jax
import numpy as np
from absl import app, flags

from lcrl.data import batches, sources, tokenizers
from lcrl.registry import build, resolve
from lcrl.training.packing import Sizes, arrange, rounded, used_lengths

FLAGS = flags.FLAGS


def packed_padding(stream, steps: int, *, width: int, **cut: Any) -> dict:
  """Share of padding over the first `steps` batches in packed rows, and the sizes they need."""
  needed = jax.jit(lambda mask: arrange(mask, width=width, **cut)[2])
  sizes, used, read = set(), 0, 0
  for step in range(steps):
    mask = stream[step].mask
    size = rounded(Sizes(*np.asarray(needed(mask)).tolist()))
    sizes.add(size)
    used += int(used_lengths(mask).sum())
    read += size.rows * width * math.prod(cut.values())
  return {"width": width, "padding": 1 - used / read, "sizes": sorted(sizes)}


def main(_):
  rows = build(sources, {"fn": FLAGS.reader, "path": FLAGS.path}, field="rows")
  named = {"fn": "pretrained", "path": FLAGS.tokenizer}
  vocabulary = build(tokenizers, named, field="tokenizer")
  split = sources.pairs(vocabulary, rows=rows, window=FLAGS.window)
  lengths = np.array([one.lengths for one in split.train])
  spread = {f"p{q}": float(np.percentile(lengths, q)) for q in (50, 90, 99, 100)}
  print(json.dumps({**split.report, "tokens": spread}))
  cut = {"shards": FLAGS.shards, "pieces": FLAGS.pieces}
  steps = batches.per_epoch(len(split.train), FLAGS.size)

  def stream(**spec):
    make = resolve(batches, spec | {"size": FLAGS.size}, field="batches")
    return make(split.train, window=FLAGS.window, pad_id=vocabulary.pad_id, seed=0, **cut)

  def padded(data) -> dict:
    epoch = [data[step] for step in range(steps)]
    read = [batch.mask.size for batch in epoch]
    share = np.average([batches.padding(batch) for batch in epoch], weights=read)
    return {"padding": float(share), "lengths": sorted({b.mask.shape[-1] for b in epoch})}

  data = stream(fn="stratified")
  print(json.dumps({"rows": "padded"} | padded(data)))
  least = -(-int(lengths.max()) // 64) * 64
  widths = [*map(int, FLAGS.widths)] or range(least, max(3 * least, 1024) + 1, 64)
  packed = [packed_padding(data, steps, width=width, **cut) for width in widths]
  best = [] if FLAGS.widths else [min(packed, key=lambda found: found["padding"])]
  for found in best or packed:
    print(json.dumps({"rows": "packed"} | found))
  if FLAGS.lengths:
    data = stream(fn="bucketed", lengths=[*map(int, FLAGS.lengths)])
    print(json.dumps({"rows": "bucketed"} | padded(data)))


def define():
  """Flags, apart from what other modules import."""
  flags.DEFINE_string("path", None, "file of pairs", required=True)
  flags.DEFINE_string("reader", "jsonl", "jsonl, json or parquet")
  flags.DEFINE_string("tokenizer", None, "folder or GGUF file", required=True)
  flags.DEFINE_integer("window", 1024, "most tokens of prompt and answer")
  flags.DEFINE_integer("size", 64, "pairs a step")
  flags.DEFINE_list("widths", [], "tokens of a packed row, each")
  flags.DEFINE_list("lengths", [], "of the buckets")
  flags.DEFINE_integer("shards", 1, "devices along the batch")
  flags.DEFINE_integer("pieces", 1, "micro-batches")


if __name__ == "__main__":
  define()
  app.run(main)
