"""Endless, shuffled batches that one integer addresses: what `batches.fn` of a config may name.

An epoch is ceil(N / size) batches and holds every pair once; its last batch may be filled up with
rows that are not valid. The order comes from the seed and the epoch alone, so every process and
every restart reads the same stream.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import grain
import jax
import numpy as np

from lcrl.data.packing import first_fit, pack, round_up
from lcrl.data.sources import Encoded
from lcrl.types import Pairs

__all__ = ["bucketed", "packed"]

Plan = Callable[[np.ndarray], list[np.ndarray]]  # shuffled pairs of an epoch -> pairs of each batch


def packed(
  encoded: Sequence[Encoded],
  *,
  size: int,
  window: int,
  pad_id: int,
  seed: int,
  row_tokens: int | None = None,
  shards: int = 1,
  pieces: int = 1,
) -> grain.MapDataset:
  """step -> Pairs of T = window, with `packed` rows of which little is padding.

  Every batch takes one pair, at random, of each of `size` classes of like length. So batches need
  about the same number of rows, and a run compiles a program or two.

  Args:
    encoded: of `lcrl.data.sources`.
    size: B, pairs a step.
    window: T.
    pad_id: of the tokenizer.
    seed: of the order.
    row_tokens: L; None: such that the rows of the usual batch are full.
    shards: devices along the batch; B and R are multiples of shards * pieces.
    pieces: micro-batches; each is packed apart.
  """
  totals, longest = _check(encoded, size, window, shards * pieces)
  plan = functools.partial(stratified, totals.sum(1), size)

  def padded(chosen: np.ndarray) -> tuple[Pairs, np.ndarray]:
    chosen = chosen[dealt(totals[chosen].sum(1), pieces)]
    return pad([encoded[i] for i in chosen], size, window, pad_id)

  if row_tokens is None:
    trials = [padded(chosen)[1] for chosen in plan(np.arange(len(encoded)))[:8]]
    row_tokens = _row_tokens(trials, longest, pieces, shards)
  elif row_tokens < longest:
    raise ValueError(f"row_tokens is {row_tokens}; a pair needs {longest}.")
  rows: dict[str, Any] = dict(row_tokens=row_tokens, pad_id=pad_id, pieces=pieces, multiple=shards)

  def batch(chosen: np.ndarray) -> Pairs:
    pairs, lengths = padded(chosen)
    laid = pack(pairs.tokens, pairs.mask, lengths, **rows)
    return dataclasses.replace(pairs, packed=laid)

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
  """step -> Pairs of like length, padded to T = one of `lengths`; for back ends without segments.

  Pairs that do not fill a batch of their length go into one of the next.

  Args:
    lengths: T of each bucket; the last holds every pair.
    The others are those of `packed`.
  """
  totals, longest = _check(encoded, size, window, shards * pieces)
  edges = np.array(sorted(lengths))
  if edges[-1] < longest:
    raise ValueError(f"lengths end at {edges[-1]}; a pair needs {longest}.")
  bucket = np.searchsorted(edges, totals.max(1))
  plan = functools.partial(grouped, bucket, size)

  def batch(chosen: np.ndarray) -> Pairs:
    length = int(edges[bucket[chosen].max()])
    return pad([encoded[i] for i in chosen], size, length, pad_id)[0]

  return _stream(len(encoded), plan, batch, seed)


def per_epoch(count: int, size: int) -> int:
  """Batches of an epoch over `count` pairs."""
  return -(-count // size)


def padding(pairs: Pairs) -> float:
  """Share of the positions that the model reads for nothing."""
  if pairs.packed is not None:
    return float(1 - np.mean(pairs.packed.segments > 0))
  mask = np.asarray(pairs.mask)
  totals = np.where(mask.any(-1), mask.shape[-1] - mask[..., ::-1].argmax(-1), 0)
  return float(1 - totals.sum() / mask.size)


def part(pairs: Pairs, process: int, count: int) -> Pairs:
  """What process `process` of `count` puts on its devices: its share of every first axis."""

  def cut(x):
    return x[len(x) * process // count : len(x) * (process + 1) // count]

  return jax.tree.map(cut, pairs)


def stratified(totals: np.ndarray, size: int, order: np.ndarray) -> list[np.ndarray]:
  """Batches of one pair of each of `size` classes of like length; what does not fill one is last.

  >>> stratified(np.array([9, 1, 8, 2, 7]), 2, np.arange(5))
  [array([1, 0]), array([3, 2]), array([4])]
  """
  full = len(order) // size
  dealt, rest = order[: full * size], order[full * size :]
  by_length = np.argsort(totals[dealt], kind="stable").reshape(size, full)
  classes = dealt[np.sort(by_length, axis=1)]  # each in the shuffled order
  return [*classes.T, *([rest] if rest.size else [])]


def dealt(totals: np.ndarray, pieces: int) -> np.ndarray:
  """An order in which every pieces-th pair makes micro-batches of like total length.

  >>> dealt(np.array([9, 5, 1, 4]), 2)
  array([0, 1, 2, 3])
  """
  members: list[list[int]] = [[] for _ in range(pieces)]
  room = [len(range(piece, len(totals), pieces)) for piece in range(pieces)]
  load = lambda piece: totals[members[piece]].sum()
  for i in np.argsort(-totals, kind="stable").tolist():
    members[min((p for p in range(pieces) if len(members[p]) < room[p]), key=load)].append(i)
  return np.array([i for turn in zip_longest(*members) for i in turn if i is not None])


def grouped(bucket: np.ndarray, size: int, order: np.ndarray) -> list[np.ndarray]:
  """Batches of one bucket each, in the order in which they fill; what does not fill one goes up.

  >>> grouped(np.array([0, 1, 0, 1, 1]), 2, np.arange(5))
  [array([0, 2]), array([1, 3]), array([4])]
  """
  filled: list[tuple[int, np.ndarray]] = []
  waiting = np.array([], int)  # places in the order
  for b in range(int(bucket.max()) + 1):
    waiting = np.concatenate([waiting, np.flatnonzero(bucket[order] == b)])
    full = len(waiting) // size * size
    filled += [(int(places.max()), places) for places in waiting[:full].reshape(-1, size)]
    waiting = waiting[full:]
  batches = [order[places] for _, places in sorted(filled, key=lambda one: one[0])]
  return [*batches, *([order[waiting]] if waiting.size else [])]


def pad(chosen: Sequence[Encoded], size: int, length: int, pad_id: int) -> tuple[Pairs, np.ndarray]:
  """Pairs of B = size, T = length, the last ones not valid if there are fewer; and [B, G] tokens
  of each row."""
  shape = (size, len(chosen[0].sides))
  count = len(chosen)
  signals: dict[str, Any] = {}
  scores: Any = np.full(shape, np.nan, np.float32)
  pair_ids: Any = np.full(size, -1, np.int32)
  valid: Any = np.arange(size) < count
  prompts = [one.prompt for one in chosen]
  tokens, mask, totals = _rows(prompts, chosen, (*shape, length), pad_id)
  for name, value in chosen[0].signals.items():
    values = np.stack([np.asarray(one.signals[name]) for one in chosen])
    signals[name] = np.zeros((size, *np.shape(value)), values.dtype)
    signals[name][:count] = values
  if chosen[0].reference is not None:
    references = [one.reference for one in chosen if one.reference is not None]
    shown = _rows(references, chosen, (*shape, length), pad_id)
    signals["reference_tokens"], signals["reference_mask"] = shown[:2]
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
  ), totals


def _rows(
  prompts: Sequence[np.ndarray], chosen: Sequence[Encoded], shape: tuple[int, ...], pad_id: int
) -> tuple[Any, Any, np.ndarray]:
  """tokens, mask [B, G, T] and totals [B, G] of prompts, each with the sides of its pair."""
  tokens, mask = np.full(shape, pad_id, np.int32), np.zeros(shape, bool)
  totals = np.zeros(shape[:2], np.int32)
  for b, (prompt, one) in enumerate(zip(prompts, chosen, strict=True)):
    for g, side in enumerate(one.sides):
      totals[b, g] = end = len(prompt) + len(side)
      tokens[b, g, :end] = np.concatenate([prompt, side])
      mask[b, g, len(prompt) : end] = True
  return tokens, mask, totals


def _row_tokens(batches: Sequence[np.ndarray], longest: int, pieces: int, shards: int) -> int:
  """L, up to twice the longest row or 1,024, that packs these batches in the fewest positions."""
  least = round_up(longest, 128)

  def positions(length: int) -> int:
    rows = (_rows_of_a_piece(lengths, length, pieces) for lengths in batches)
    return sum(round_up(count, shards) * length for count in rows)

  candidates = range(least, max(2 * least, 1024) + 1, round_up(least // 16, 128))
  return min(candidates, key=positions)


def _rows_of_a_piece(lengths: np.ndarray, row_tokens: int, pieces: int) -> int:
  """Rows of the fullest micro-batch, of [B, G] sequences."""
  laid = (first_fit(lengths[piece::pieces].ravel(), row_tokens) for piece in range(pieces))
  return max(map(len, laid))


def _check(
  encoded: Sequence[Encoded], size: int, window: int, multiple: int
) -> tuple[np.ndarray, int]:
  """[N, G] tokens of each row and the most of them."""
  if not encoded:
    raise ValueError("there are no pairs to make batches of.")
  if size < 1 or size % multiple:
    raise ValueError(f"batches.size must be a multiple of shards * pieces, {multiple}, got {size}.")
  totals = np.array([one.lengths for one in encoded])
  longest = int(totals.max())
  if longest > window:
    raise ValueError(f"window is {window}; a pair needs {longest}.")
  return totals, longest


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
    number, place = divmod(step, self._per_epoch)
    return self._epoch(number)[place]
