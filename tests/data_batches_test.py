"""Every pair once an epoch, in few shapes, with little padding."""

import dataclasses

import grain
import jax
import numpy as np
import pytest

from experiments.benchmarks.pair_padding import packed_padding
from lcrl.data import batches
from lcrl.data.sources import Encoded
from lcrl.registry import resolve

END, PAD = 1, 0
KINDS = {"stratified": {}, "progressive": {}, "bucketed": dict(lengths=(64, 128, 256))}


def make_pairs(count, *, seed=0, sides=2, longest=256, median=24.0, **others) -> list[Encoded]:
  """Lengths spread as those of chats do: log-normal, a few of them very long."""
  rng = np.random.default_rng(seed)

  def text(limit):
    length = int(np.clip(rng.lognormal(np.log(median), 0.8), 1, limit - 1))
    return np.append(rng.integers(2, 32, length), END).astype(np.int32)

  prompts = [text(longest // 2) for _ in range(count)]
  return [
    Encoded(i, p, tuple(text(longest - len(p)) for _ in range(sides)), (1.0, 0.0)[:sides], **others)
    for i, p in enumerate(prompts)
  ]


def stream(pairs, *, fn="stratified", size=8, window=256, seed=0, **options):
  build = resolve(batches, dict(fn=fn, size=size, **options), field="batches")
  return build(pairs, window=window, pad_id=PAD, seed=seed)


def content(pairs, b):
  """Prompts, answers of a row as lists."""
  out = []
  for tokens, mask in zip(pairs.tokens[b], pairs.mask[b], strict=True):
    first, last = np.flatnonzero(mask)[[0, -1]]
    assert mask[first : last + 1].all()
    assert (tokens[last + 1 :] == PAD).all()
    out.append((tokens[:first].tolist(), tokens[first : last + 1].tolist()))
  return out


@pytest.mark.parametrize("fn", KINDS)
def test_every_pair_once_an_epoch(fn):
  pairs = make_pairs(43)
  batch_of = stream(pairs, fn=fn, **KINDS[fn])
  count = batches.per_epoch(43, 8)
  assert count == 6
  epochs = [[batch_of[e * count + k] for k in range(count)] for e in range(3)]
  orders = []
  for epoch in epochs:
    ids = np.concatenate([batch.pair_ids for batch in epoch])
    valid = np.concatenate([batch.valid for batch in epoch])
    assert valid.sum() == 43
    assert not epoch[-1].valid.all()
    assert sorted(ids[valid]) == list(range(43))
    assert (ids[~valid] == -1).all()
    orders.append(tuple(ids))
  assert len(set(orders)) == 3, "each epoch has its own order"


@pytest.mark.parametrize("fn", KINDS)
def test_a_row_is_its_pair(fn):
  signals = lambda i: {"weight": 2.0 + i, "vector": np.full(3, i)}
  pairs = [dataclasses.replace(one, signals=signals(one.id)) for one in make_pairs(19)]
  for step in range(3):
    batch = stream(pairs, fn=fn, **KINDS[fn])[step]
    for b in np.flatnonzero(batch.valid):
      one = pairs[batch.pair_ids[b]]
      want = [(one.prompt.tolist(), side.tolist()) for side in one.sides]
      assert content(batch, b) == want
      assert batch.lengths[b].tolist() == [len(side) for side in one.sides]
      assert batch.scores[b].tolist() == [1.0, 0.0]
    assert not batch.mask[~batch.valid].any()
    assert np.isnan(batch.scores[~batch.valid]).all()
    weights = np.where(batch.valid, 2.0 + batch.pair_ids, 0.0)
    assert batch.signals["weight"].tolist() == weights.tolist()
    assert (batch.signals["vector"] == np.where(batch.valid, batch.pair_ids, 0)[:, None]).all()
    assert batch.signals["vector"].shape == (8, 3)


@pytest.mark.parametrize("fn", KINDS)
def test_a_step_depends_on_the_seed_and_nothing_else(fn):
  pairs, options = make_pairs(43), KINDS[fn]
  first, again = (stream(pairs, fn=fn, **options) for _ in range(2))
  ahead = [first[k] for k in range(9)]
  jax.tree.map(np.testing.assert_array_equal, again[8], ahead[8])  # resumed, not read up to it
  other = stream(pairs, fn=fn, seed=1, **options)
  assert other[0].pair_ids.tolist() != ahead[0].pair_ids.tolist()


def test_processes_share_a_batch():
  batch = stream(make_pairs(43), shards=2)[0]
  halves = [batches.part(batch, process, 2) for process in range(2)]
  assert halves[0].tokens.shape[0] == 4
  jax.tree.map(
    lambda a, b, c: np.testing.assert_array_equal(np.concatenate([a, b]), c), *halves, batch
  )


def test_it_is_a_grain_data_set():
  batch_of = stream(make_pairs(20))
  assert isinstance(batch_of, grain.MapDataset)
  rest = iter(batch_of[3:].to_iter_dataset())
  jax.tree.map(np.testing.assert_array_equal, next(rest), batch_of[3])


@pytest.mark.parametrize(
  "longest, median, width, cut",
  [(2048, 150, 2048, {}), (512, 40, 768, dict(pieces=4)), (2048, 150, 2048, dict(shards=4))],
)
def test_packed_rows_hold_little_padding_in_few_sizes(longest, median, width, cut):
  batch_of = stream(make_pairs(512, longest=longest, median=median), size=64, window=longest, **cut)
  found = packed_padding(batch_of, 8, width=width, **cut)
  assert len(found["sizes"]) <= 4
  assert found["padding"] < 0.1
  assert batches.padding(batch_of[0]) > 0.5  # without packing


def test_batches_hold_about_the_same_number_of_tokens():
  pairs = make_pairs(512)
  totals = np.array([sum(one.lengths) for one in pairs])
  batch_of = stream(pairs, size=32)
  spread = lambda ids: np.std([totals[i].sum() for i in ids]) / totals.mean() / 32
  ids = [batch_of[k].pair_ids for k in range(16)]
  assert spread(ids) < 0.03
  assert spread(np.arange(512).reshape(16, 32)) > 0.06  # at random


def test_the_shortest_pair_is_anywhere_in_an_epoch():
  pairs = make_pairs(64)
  shortest = np.argmin([sum(one.lengths) for one in pairs])
  batch_of = stream(pairs)
  places = [k % 8 for k in range(48) if shortest in batch_of[k].pair_ids]
  assert len(places) == 6
  assert len(set(places)) > 2


def test_padding_counts_positions():
  one = Encoded(
    0, np.array([5, 6], np.int32), (np.array([7, 1], np.int32), np.array([1], np.int32))
  )
  batch = stream([one], fn="bucketed", size=1, lengths=(4, 10))[0]
  assert batch.tokens.tolist() == [[[5, 6, 7, 1], [5, 6, 1, PAD]]]
  assert batches.padding(batch) == 1 / 8


def test_buckets_hold_pairs_of_like_length():
  pairs = make_pairs(200)
  batch_of = stream(pairs, fn="bucketed", lengths=(64, 96, 128, 256))
  shapes = []
  for k in range(24):  # the last of the 25 mixes what is left
    batch = batch_of[k]
    need = max(max(pairs[i].lengths) for i in batch.pair_ids)
    shapes.append(batch.tokens.shape[-1])
    assert need <= shapes[-1]
  assert set(shapes) == {64, 96, 128, 256}
  assert shapes != sorted(shapes)


def test_answers_without_a_contrast_and_reference_prompts():
  reference = np.array([9, 9], np.int32)
  batch = stream(make_pairs(9, sides=1, reference=reference), size=4)[0]
  assert batch.tokens.shape == (4, 1, 256)
  tokens, mask = batch.signals["reference_tokens"], batch.signals["reference_mask"]
  for b in range(4):
    said = batch.tokens[b, 0][batch.mask[b, 0]].tolist()
    assert tokens[b, 0][: 2 + len(said)].tolist() == [9, 9, *said]
    assert np.flatnonzero(mask[b, 0]).tolist() == list(range(2, 2 + len(said)))


def test_a_bucket_holds_the_rows_of_the_reference_model_too():
  pairs = make_pairs(9, longest=32, median=4, reference=np.full(60, 9, np.int32))
  batch = stream(pairs, fn="bucketed", lengths=(32, 64, 128), window=128)[0]
  longest = max(one.longest for one in pairs)
  assert 64 < longest <= batch.tokens.shape[-1] == 128
  with pytest.raises(ValueError, match=f"window is 64; a pair needs {longest}"):
    stream(pairs, window=64)


def test_what_does_not_fit_is_named():
  pairs = make_pairs(9)
  longest = max(max(one.lengths) for one in pairs)
  for options, message in (
    (dict(size=6, shards=4), "batches.size must be a multiple of .* 4, got 6"),
    (dict(window=20), f"window is 20; a pair needs {longest}"),
    (dict(fn="bucketed", lengths=(9, 20)), f"lengths end at 20; a pair needs {longest}"),
  ):
    with pytest.raises(ValueError, match=message):
      stream(pairs, **options)
  with pytest.raises(ValueError, match="no pairs"):
    stream([])


def test_progressive_batches_go_from_level_to_level():
  pairs = [dataclasses.replace(p, scores=(float(i % 3),)) for i, p in enumerate(make_pairs(9))]
  batch_of = stream(pairs, fn="progressive", size=3)
  epochs = [[batch_of[3 * e + k].pair_ids % 3 for k in range(3)] for e in range(2)]
  np.testing.assert_array_equal(epochs, [[[0] * 3, [1] * 3, [2] * 3]] * 2)
  assert (batch_of[0].pair_ids != batch_of[3].pair_ids).any()  # shuffled within a level
  with pytest.raises(ValueError, match="goes by the column score, which a row lacks"):
    stream([dataclasses.replace(p, scores=()) for p in pairs], fn="progressive")
