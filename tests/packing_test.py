"""Packed rows: nothing overlaps, nothing is lost, and gradients are those of padded rows."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.mesh import batch_sharding, make_mesh, param_shardings
from lcrl.training import packing
from lcrl.training.packed import arranged
from lcrl.training.packing import Sizes, arrange, first_fit, pack, rounded
from lcrl.training.scorer import make_scorer, split, value_and_grad
from lcrl.training.step import loss_metrics, update_metrics
from lcrl.types import PairBatch, Pairs
from tests.helpers.scoring import LOSSES, PARAMS, POLICY, make_batch, make_recipe, with_prompts
from tests.helpers.slow import slow
from tests.rollouts import random_rollouts

WIDTH = 16


@pytest.mark.parametrize("group", [1, 4])
def test_first_fit_overlaps_nothing_and_wastes_little(group):
  rng = np.random.default_rng(0)
  used = rng.integers(group > 1, 65 // group, (200, group))
  shared = used.min(1) // 2
  place = first_fit(jnp.asarray(used), jnp.asarray(shared), 64)
  owner = np.full((1 + int(place.row.max()), 64), -1)
  for g, i in np.ndindex(used.shape):
    row, stem, start = (int(x[g, i]) for x in place[:3])
    begins = owner[row, stem : stem + shared[g]]
    assert (begins == g).all() or (begins == -1).all()
    begins[:] = g
    rest = owner[row, start : start + used[g, i] - shared[g]]
    assert rest.size == used[g, i] - shared[g]
    assert (rest == -1).all()
    rest[:] = g
  for g, i in np.ndindex(used.shape):  # a segment is in one piece
    row, stem, start = (int(x[g, i]) for x in place[:3])
    assert (owner[row, stem:start] == g).all()
  assert (owner >= 0).mean() > 0.95
  assert (owner >= 0).sum() < used.sum() or group == 1


@pytest.mark.parametrize("shards, pieces, parts", [(1, 1, 1), (2, 2, 1), (2, 1, 2), (1, 2, 2)])
def test_dealing_keeps_parts_and_evens_out_pieces(shards, pieces, parts):
  rng = np.random.default_rng(0)
  lengths = np.sort(rng.integers(1, 33, 32))[:, None]  # all long groups at one end
  place_ = np.arange(33)
  mask = jnp.asarray((place_ <= lengths[..., None]) & (place_ > 0))
  order, place, sizes = arrange(mask, width=33, shards=shards, pieces=pieces, parts=parts)
  assert sorted(order.tolist()) == list(range(32))
  np.testing.assert_array_equal(order % parts, np.arange(32) % parts)
  tokens = mask[order].sum((1, 2)).reshape(shards, -1)
  loads = [split(split(s, parts)[p], pieces).sum(1) for s in tokens for p in range(parts)]
  assert np.max(loads) < 1.1 * np.mean(loads)
  assert sizes[1] == np.max(loads)
  assert sizes[0] == 1 + place[..., 0].max()


def test_sizes_are_few_and_never_too_small():
  for n in range(1, 3000):
    rows, tokens = rounded(Sizes(n, n))
    assert n <= rows <= max(n + 1, 1.25 * n)
    assert n <= tokens <= max(n + 255, 1.25 * n + 256)
  assert len({rounded(Sizes(n, 1)).rows for n in range(1, 1025)}) < 40


def test_short_responses_share_sizes():
  """At most twenty of each kind; those of at least a 16th of the largest are as fine as ever."""
  largest = Sizes(1024, 1 << 20)
  sizes = {n: rounded(Sizes(n, n << 10), largest) for n in range(1, 1025)}
  assert all(n <= rows and n << 10 <= tokens for n, (rows, tokens) in sizes.items())
  for kind in zip(*sizes.values(), strict=True):
    assert len(set(kind)) <= 20
  assert all(size == rounded(Sizes(n, n << 10)) for n, size in sizes.items() if n >= 64)


def test_a_prompt_stands_in_its_row_once():
  tokens = jnp.array([[[7, 8, 1, 2], [7, 8, 3, 0], [7, 9, 0, 0]], [[4, 5, 6, 0]] * 3])
  mask = jnp.zeros(tokens.shape, bool).at[:, :2, 2].set(True).at[0, 0, 3].set(True)
  _, place, sizes = arrange(mask, tokens, width=8)
  np.testing.assert_array_equal(sizes, [1, 5])
  rows = pack(tokens, mask, place, sizes=Sizes(1, 5), width=8)
  np.testing.assert_array_equal(rows.tokens[0], [7, 8, 1, 2, 3, 4, 5, 6])
  np.testing.assert_array_equal(rows.positions[0], [0, 1, 2, 3, 2, 0, 1, 2])
  np.testing.assert_array_equal(rows.branches[0], [0, 0, 1, 1, 2, 0, 0, 0])
  np.testing.assert_array_equal(rows.segments[0], [0] * 5 + [5] * 3)
  np.testing.assert_array_equal(rows.targets[0], [1, 2, 3, 6, 6])
  np.testing.assert_array_equal(rows.before[0], [1, 2, 1, 6, 6])


def test_a_row_holds_its_rollouts():
  tokens = jnp.arange(1, 13).reshape(1, 3, 4)
  mask = jnp.array([[[0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]], bool)
  _, place, _ = arrange(mask, width=8)
  rows = pack(tokens, mask, place, sizes=Sizes(1, 4), width=8)
  np.testing.assert_array_equal(rows.tokens[0, :6], [5, 6, 7, 8, 1, 2])
  np.testing.assert_array_equal(rows.positions[0, :6], [0, 1, 2, 3, 0, 1])
  np.testing.assert_array_equal(rows.targets[0, :3], [2, 7, 8])
  np.testing.assert_array_equal(rows.before[0, :3], [4, 1, 2])
  assert len(set(rows.segments[0].tolist())) == 4  # two rollouts, two tokens alone
  assert not pack(tokens, mask, place, sizes=Sizes(1, 2), width=8).fits[0]


@pytest.mark.parametrize(
  "name, pieces, share",
  [
    ("surrogate", 1, True),
    ("drpo", 2, False),
    slow("drpo", 1, True),
    slow("surrogate", 2, True),
    slow("drpo", 2, True),
    slow("surrogate", 2, False),
  ],
)
def test_packed_gradients_equal_padded_ones(name, pieces, share):
  recipe = make_recipe(LOSSES[name]())
  batch = with_prompts(make_batch(recipe))
  run = partial(
    value_and_grad, recipe.loss, recipe.loss.init(), params=PARAMS, micro_batches=pieces
  )
  want = run(make_scorer(POLICY), batch=batch)
  packed, _, sizes = arranged(batch, share=share, width=WIDTH, pieces=pieces)
  score = partial(make_scorer(POLICY, pack=WIDTH), sizes=rounded(Sizes(*sizes.tolist())))
  got = run(score, batch=packed)
  assert rounded(Sizes(*sizes.tolist())).rows < 16 / pieces
  close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, (got[0], got[3]), (want[0], want[3]))
  measured = metrics_of(recipe.loss, got, packed)
  assert "approx_kl" in measured
  assert ("clip_fraction" in measured) == (name == "surrogate")
  jax.tree.map(close, measured, metrics_of(recipe.loss, want, batch))


def metrics_of(loss, run, batch):
  value, state, scores, grads = run
  return update_metrics(value, grads, scores, batch) | loss_metrics(loss, state, scores, batch)


def test_packed_rows_on_eight_devices_equal_one():
  recipe = make_recipe(LOSSES["surrogate"]())
  batch = with_prompts(make_batch(recipe))
  run = partial(value_and_grad, recipe.loss, recipe.loss.init(), micro_batches=1)
  want = run(make_scorer(POLICY), PARAMS, batch)
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  packed, _, sizes = arranged(batch, share=True, width=WIDTH, shards=4)
  sizes = rounded(Sizes(*sizes.tolist()))
  score = partial(make_scorer(POLICY, mesh=mesh, pack=WIDTH), sizes=sizes)
  params = jax.device_put(PARAMS, param_shardings(mesh, POLICY.axes, PARAMS))
  got = jax.jit(partial(run, score))(params, jax.device_put(packed, batch_sharding(mesh)))
  close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, (got[0], got[3]), (want[0], want[3]))


def test_pairs_pack_like_rollouts():
  """Two sides that share a prompt, and a row that only fills the batch."""
  rollouts = random_rollouts(prompts=3, group=2)
  alike = jnp.arange(12)[None, None] < 3
  mask = rollouts.mask & jnp.array([True, True, False])[:, None, None]
  pairs = Pairs(
    tokens=jnp.where(alike, rollouts.tokens[:, :1], rollouts.tokens),
    mask=mask,
    lengths=mask.sum(-1),
    valid=mask.any((1, 2)),
    pair_ids=jnp.arange(3),
    scores=jnp.zeros((3, 2)),
    signals={},
  )
  batch = PairBatch(pairs, jnp.ones(3), jnp.zeros((3, 12)), jax.random.split(jax.random.key(0), 3))
  packed, order, sizes = arranged(batch, share=True, width=WIDTH)
  shared = packed.scored.signals[packing.PLACE][..., 3]
  np.testing.assert_array_equal(shared >= 3, packed.scored.valid[:, None] & jnp.ones((3, 2), bool))
  score = make_scorer(POLICY, pack=WIDTH)
  got = score(PARAMS, packed.scored, sizes=Sizes(*sizes.tolist())).log_probs
  want = make_scorer(POLICY)(PARAMS, pairs).log_probs
  np.testing.assert_allclose(got, want[order], atol=1e-5)
  assert got.any()


def test_garbage_behind_the_last_sampled_token_is_not_seen():
  rollouts = random_rollouts()
  score = make_scorer(POLICY, pack=WIDTH)

  def run(rollouts):
    _, place, _ = arrange(rollouts.mask, rollouts.tokens, width=WIDTH)
    placed = dataclasses.replace(rollouts, signals={packing.PLACE: place})
    return score(PARAMS, placed, sizes=Sizes(16, 256)).log_probs

  beyond = jnp.arange(12)[None, None] >= packing.used_lengths(rollouts.mask)[..., None]
  other = dataclasses.replace(rollouts, tokens=jnp.where(beyond, 7, rollouts.tokens))
  np.testing.assert_array_equal(run(rollouts), run(other))
  np.testing.assert_allclose(
    run(rollouts), make_scorer(POLICY)(PARAMS, rollouts).log_probs * rollouts.mask, atol=1e-5
  )
