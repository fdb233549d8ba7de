"""Dataset decomposition: sequences of 2^k tokens, each from one document, batched by length.

Source: arXiv:2405.13226, and its code. Host side. One compiled program serves a bucket.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Bucket", "Plan", "bucket_plan", "decomposed"]


def decomposed(
  length: int, *, min_log2: int, max_log2: int, rng: np.random.Generator | None = None
) -> dict[int, list[tuple[int, int]]]:
  """Cuts a document into pieces of 2^k + 1 tokens: bucket k -> (start, length) of each.

  The largest k that fits comes first. One beyond `max_log2` is drawn from the buckets with odds
  2^-k, so that all get the same tokens, or is `max_log2` without an `rng`. A rest shorter
  than the smallest piece is dropped. `length` counts the end-of-text token.

  >>> decomposed(300, min_log2=4, max_log2=8)
  {8: [(0, 257)], 5: [(257, 33)]}
  """
  pieces: dict[int, list[tuple[int, int]]] = {}
  buckets = np.arange(min_log2, max_log2 + 1)
  start = 0
  while length - start > 1:
    k = (length - start - 1).bit_length() - 1
    if k < min_log2:
      break
    if k > max_log2:
      odds = 2.0 ** (max_log2 - buckets)
      k = max_log2 if rng is None else int(rng.choice(buckets, p=odds / odds.sum()))
    pieces.setdefault(k, []).append((start, 2**k + 1))
    start += 2**k + 1
  return pieces


class Bucket(NamedTuple):
  """Shards of sequences of one length, and how a step draws from them."""

  num_shards: int
  seq_per_shard: int
  seq_len: int
  batch_mult: int  # sequences per step, in units of the global batch
  odds: int  # of the curriculum


class Plan(NamedTuple):
  """What an epoch takes from the buckets; `bucket_plan` makes it."""

  tokens_per_epoch: int
  seq_per_epoch: list[int]  # by bucket
  mix_weights: list[int]  # by bucket


def bucket_plan(
  buckets: Sequence[Bucket],
  *,
  total_tokens: int,
  epochs: int,
  devices: int,
  global_batch: int,
  workers: int = 1,
) -> Plan:
  """The number of sequences that an epoch takes from each bucket to spend the budget of tokens.

  `buckets` go from short to long. Each starts with whole units of shards in proportion to its
  tokens. Then the longest gains or loses one unit at a time, or the next shorter one once a plan
  repeats, until the epoch has its tokens or no bucket is left (the last unit is then the longest
  bucket's, as in the code).
  """
  units = [b.seq_per_shard * devices * workers for b in buckets]
  for bucket, unit in zip(buckets, units, strict=True):
    if not unit > bucket.batch_mult * global_batch * workers:
      raise ValueError(f"a unit of {unit} sequences must exceed a batch, got {bucket}.")
  sizes = [unit * b.seq_len for unit, b in zip(units, buckets, strict=True)]
  tokens = [b.num_shards * b.seq_per_shard * b.seq_len for b in buckets]
  counts = [
    round(total_tokens * (n / sum(tokens)) / (epochs * size))
    for n, size in zip(tokens, sizes, strict=True)
  ]
  spent = lambda: sum(count * size for count, size in zip(counts, sizes, strict=True))
  tried: set[tuple[int, ...]] = set()
  pointer = len(buckets) - 1
  while pointer >= 0 and (missing := total_tokens / epochs - spent()):
    if tuple(counts) in tried:
      pointer -= 1
    tried.add(tuple(counts))
    counts[pointer] += int(math.copysign(1, missing))
  return Plan(
    tokens_per_epoch=spent(),
    seq_per_epoch=[count * unit for count, unit in zip(counts, units, strict=True)],
    mix_weights=[
      int(b.odds * count * size / sizes[0])
      for b, count, size in zip(buckets, counts, sizes, strict=True)
    ],
  )
