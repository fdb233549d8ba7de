"""The functions that `batches.fn` of a config may name: endless, shuffled batches by step number.

An epoch is ceil(N / size) batches and holds every pair once; its last batch may be filled up with
rows that are not valid. The order comes from the seed and the epoch alone, so every process and
every restart reads the same stream.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import grain
import jax
import numpy as np

from lcrl.data.sources import Encoded
from lcrl.types import Pairs

__all__ = ["bucketed", "progressive", "stratified"]

Plan = Callable[[np.ndarray], list[np.ndarray]]  # shuffled pairs of an epoch -> pairs of each batch


def stratified(
  encoded: Sequence[Encoded],
  *,
  size: int,
  window: int,
  pad_id: int,
  seed: int,
  shards: int = 1,
  pieces: int = 1,
) -> grain.MapDataset:
  """step -> Pairs of T = window, for a scorer that packs rows.

  Sorts the pairs into `size` classes of similar length; every batch takes a random pair from each.
  So all batches hold about the same number of tokens, and a run compiles one or two programs.

  Args:
    encoded: pairs from `lcrl.data.sources`.
    size: B, pairs a step.
    window: T, the length of a row.
    pad_id: the tokenizer's padding token.
    seed: determines the order.
    shards: devices along the batch.
    pieces: micro-batches; size is a multiple of shards * pieces.
  """
  _check(encoded, size, window, shards * pieces)
  totals = np.array([sum(one.lengths) for one in encoded])
  plan = functools.partial(one_of_each_class, totals, size)

  def batch(chosen: np.ndarray) -> Pairs:
    return pad([encoded[i] for i in chosen], size, window, pad_id)

  return _stream(len(encoded), plan, batch, seed)


def bucketed(
  encoded: Sequence[Encoded],
  *,
  size: int,
  window: int,
  pad_id: int,
  seed: int,
  lengths: Sequence[int],
  shards: int = 1,
  pieces: int = 1,
) -> grain.MapDataset:
  """step -> Pairs of similar length, padded to T = one of `lengths`; for backends without segments.

  Pairs that do not fill a batch of their bucket go into one of the next longer bucket.

  Args:
    lengths: T of each bucket; the last holds every pair.
    The others are those of `stratified`.
  """
  _check(encoded, size, window, shards * pieces)
  longest = np.array([one.longest for one in encoded])
  edges = np.array(sorted(lengths))
  if edges[-1] < longest.max():
    raise ValueError(f"lengths end at {edges[-1]}; a pair needs {longest.max()}.")
  bucket = np.searchsorted(edges, longest)
  plan = functools.partial(of_one_bucket, bucket, size)

  def batch(chosen: np.ndarray) -> Pairs:
    length = int(edges[bucket[chosen].max()])
    return pad([encoded[i] for i in chosen], size, length, pad_id)

  return _stream(len(encoded), plan, batch, seed)


def progressive(
  encoded: Sequence[Encoded],
  *,
  size: int,
  window: int,
  pad_id: int,
  seed: int,
  shards: int = 1,
  pieces: int = 1,
) -> grain.MapDataset:
  """step -> Pairs of T = window, an epoch in the order of the data's scores, the least first.

  With the level of compression as the score this is progressive compression: answers of one level
  after those of the level before. Let train.steps be one epoch. Source: CoT-Valve,
  arXiv:2502.09601, which tunes on MixChain's solutions from long to short. The arguments are those
  of `stratified`; pairs have one score, or one for each side, of which the first counts.

  Raises:
    ValueError: a pair without a score.
  """
  _check(encoded, size, window, shards * pieces)
  if not all(one.scores and np.isfinite(one.scores[0]) for one in encoded):
    raise ValueError("batches.fn='progressive' goes by the column score, which a row lacks.")
  levels = np.array([one.scores[0] for one in encoded])

  def plan(order: np.ndarray) -> list[np.ndarray]:
    by_level = order[np.argsort(levels[order], kind="stable")]
    return [by_level[i : i + size] for i in range(0, len(by_level), size)]

  def batch(chosen: np.ndarray) -> Pairs:
    return pad([encoded[i] for i in chosen], size, window, pad_id)

  return _stream(len(encoded), plan, batch, seed)


def per_epoch(count: int, size: int) -> int:
  """Batches of an epoch over `count` pairs."""
  return -(-count // size)


def padding(pairs: Pairs) -> float:
  """Share of padding among the positions of rows that are not packed."""
  mask = np.asarray(pairs.mask)
  totals = np.where(mask.any(-1), mask.shape[-1] - mask[..., ::-1].argmax(-1), 0)
  return float(1 - totals.sum() / mask.size)


def part(pairs: Pairs, process: int, count: int) -> Pairs:
  """The part for the devices of process `process` of `count`: its share of every first axis."""

  def cut(x):
    return x[len(x) * process // count : len(x) * (process + 1) // count]

  return jax.tree.map(cut, pairs)


def one_of_each_class(totals: np.ndarray, size: int, order: np.ndarray) -> list[np.ndarray]:
  """Batches of one pair from each of `size` classes of similar length; the rest comes last.

  >>> one_of_each_class(np.array([9, 1, 8, 2, 7]), 2, np.arange(5))
  [array([1, 0]), array([3, 2]), array([4])]
  """
  full = len(order) // size
  dealt, rest = order[: full * size], order[full * size :]
  by_length = np.argsort(totals[dealt], kind="stable").reshape(size, full)
  classes = dealt[np.sort(by_length, axis=1)]  # each in the shuffled order
  return [*classes.T, *([rest] if rest.size else [])]


def of_one_bucket(bucket: np.ndarray, size: int, order: np.ndarray) -> list[np.ndarray]:
  """Batches from one bucket each, in the order in which they fill; the rest moves one bucket up.

  >>> of_one_bucket(np.array([0, 1, 0, 1, 1]), 2, np.arange(5))
  [array([0, 2]), array([1, 3]), array([4])]
  """
  filled: list[tuple[int, np.ndarray]] = []
  waiting = np.array([], int)  # positions in the order
  for b in range(int(bucket.max()) + 1):
    waiting = np.concatenate([waiting, np.flatnonzero(bucket[order] == b)])
    full = len(waiting) // size * size
    filled += [(int(positions.max()), positions) for positions in waiting[:full].reshape(-1, size)]
    waiting = waiting[full:]
  batches = [order[positions] for _, positions in sorted(filled, key=lambda one: one[0])]
  return [*batches, *([order[waiting]] if waiting.size else [])]


def pad(chosen: Sequence[Encoded], size: int, length: int, pad_id: int) -> Pairs:
  """Pairs of B = size, T = length; the last ones are not valid if there are fewer."""
  shape = (size, len(chosen[0].sides))
  count = len(chosen)
  signals: dict[str, Any] = {}
  scores: Any = np.full(shape, np.nan, np.float32)
  pair_ids: Any = np.full(size, -1, np.int32)
  valid: Any = np.arange(size) < count
  prompts = [one.prompt for one in chosen]
  tokens, mask = _rows(prompts, chosen, (*shape, length), pad_id)
  for name, value in chosen[0].signals.items():
    values = np.stack([np.asarray(one.signals[name]) for one in chosen])
    signals[name] = np.zeros((size, *np.shape(value)), values.dtype)
    signals[name][:count] = values
  if chosen[0].reference is not None:
    references = [one.reference for one in chosen if one.reference is not None]
    rows = _rows(references, chosen, (*shape, length), pad_id)
    signals["reference_tokens"], signals["reference_mask"] = rows
  for b, one in enumerate(chosen):
    scores[b] = one.scores or np.nan
  pair_ids[:count] = [one.id for one in chosen]
  return Pairs(
    tokens=tokens,
    mask=mask,
    lengths=mask.sum(-1, dtype=np.int32),
    valid=valid,
    pair_ids=pair_ids,
    scores=scores,
    signals=signals,
  )


def _rows(
  prompts: Sequence[np.ndarray], chosen: Sequence[Encoded], shape: tuple[int, ...], pad_id: int
) -> tuple[Any, Any]:
  """tokens, mask [B, G, T] of prompts, each with the sides of its pair."""
  tokens, mask = np.full(shape, pad_id, np.int32), np.zeros(shape, bool)
  for b, (prompt, one) in enumerate(zip(prompts, chosen, strict=True)):
    for g, side in enumerate(one.sides):
      end = len(prompt) + len(side)
      tokens[b, g, :end] = np.concatenate([prompt, side])
      mask[b, g, len(prompt) : end] = True
  return tokens, mask


def _check(encoded: Sequence[Encoded], size: int, window: int, multiple: int) -> None:
  if not encoded:
    raise ValueError("there are no pairs to make batches of.")
  if size < 1 or size % multiple:
    raise ValueError(f"batches.size must be a multiple of shards * pieces, {multiple}, got {size}.")
  if (longest := max(one.longest for one in encoded)) > window:
    raise ValueError(f"window is {window}; a pair needs {longest}.")


def _stream(
  count: int, plan: Plan, batch: Callable[[np.ndarray], Pairs], seed: int
) -> grain.MapDataset:
  order = grain.MapDataset.range(count).seed(seed).shuffle().repeat()
  return grain.MapDataset.source(_Batches(count, order, plan)).map(batch)


class _Batches:
  """step -> pairs of its batch."""

  def __init__(self, count: int, order, plan: Plan):
    @functools.lru_cache(maxsize=2)
    def epoch(number: int) -> list[np.ndarray]:
      return plan(np.array([order[number * count + i] for i in range(count)]))

    self._epoch, self._per_epoch = epoch, len(epoch(0))

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, step: int) -> np.ndarray:
    number, position = divmod(step, self._per_epoch)
    return self._epoch(number)[position]
