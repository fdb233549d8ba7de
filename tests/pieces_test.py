"""Pieces by tokens: every rollout is in one, and neither gradients nor metrics depend on them."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lcrl.losses import policy as losses
from lcrl.losses.distillation import TEACHER
from lcrl.mesh import make_mesh, shard_batch
from lcrl.training.dealing import Dealt, Lengths, deal, measure_lengths, piece_sizes
from lcrl.training.packed import PackedUpdate, placed
from lcrl.training.piece_scorer import PieceScorer
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from lcrl.training.scorer import make_scorer
from lcrl.types import Stage, TokenScores
from tests.helpers.rl_runs import changed
from tests.helpers.scoring import (
  LOSSES,
  PARAMS,
  POLICY,
  make_batch,
  make_recipe,
  make_update,
  with_prompts,
)
from tests.rollouts import random_rollouts

WIDTH = 16


def group_contrast():
  """Adds over groups, but not over their rollouts."""

  def apply(state, scores, batch):
    sums = jnp.sum(batch.weights * scores.log_probs, -1)
    return jnp.sum(batch.rewards * jax.nn.softmax(20 * sums, -1)), state

  return Stage(init=lambda: (), apply=apply)


KINDS = LOSSES | {"group": group_contrast}
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("rows, shards, parts", [(1, 1, 1), (3, 4, 1), (2, 3, 2)])
def test_each_rollout_has_columns_of_its_own(rows, shards, parts, share):
  rng = np.random.default_rng(0)
  used = np.minimum(rng.lognormal(2.5, 0.8, (40, 6)).astype(int) + 3, 64)
  used[rng.random((40, 6)) < 0.1] = 0
  shared = rng.integers(0, 4, 40) * share
  scored = np.maximum(used - np.maximum(shared, 1)[:, None], 0)
  cut = {"width": 64, "rows": rows, "shards": shards, "parts": parts, "share": share}
  dealt, most = jax.jit(partial(deal, **cut))(Lengths(used, scored, shared))
  at = Dealt(*np.moveaxis(np.asarray(dealt), -1, 0))
  taken = {}
  loads = np.zeros((parts, shards, most[0]), int)
  for b, g in zip(*np.nonzero(used), strict=True):
    row = (b % parts, at.device[b, g], at.row[b, g])
    own = np.arange(at.start[b, g], at.start[b, g] + used[b, g] - shared[b])
    stem = np.arange(at.stem[b, g], at.stem[b, g] + shared[b])
    assert at.shared[b, g] == shared[b]
    assert max([*own, *stem]) < 64
    for columns, owner in ((own, (b, g)), (stem, b)):
      assert all(taken.setdefault((row, c), owner) == owner for c in columns)
    loads[row[0], row[1], row[2] // rows] += scored[b, g]
  assert loads.max() == most[1]
  for part in range(parts):  # rows are full, and devices have as many
    mine = {row for row, _ in taken if row[0] == part}
    counts = [sum(row[1] == d for row in mine) for d in range(shards)]
    assert max(counts) - min(counts) <= 1
    assert max(row[2] for row in mine) < max(counts)
    assert sum(row[0] == part for row, _ in taken) > 0.9 * 64 * len(mine)


def test_a_stem_ends_before_the_first_sampled_token():
  tokens = jnp.array([[[7, 8, 1, 2, 3], [7, 8, 1, 2, 4]], [[7, 8, 1, 0, 0], [7, 8, 1, 9, 0]]])
  mask = (jnp.arange(5)[None, None] >= 2) & (tokens > 0)
  lengths = measure_lengths(tokens, mask.at[1, 0].set(False), share=True)
  np.testing.assert_array_equal(lengths.shared, [2, 2])
  np.testing.assert_array_equal(lengths.used, [[5, 5], [0, 4]])
  np.testing.assert_array_equal(lengths.scored, [[3, 3], [0, 2]])


def test_a_piece_has_one_of_four_sizes():
  sizes = {n: piece_sizes(n, rows=3, width=5000).tokens for n in range(15_001)}
  assert all(n <= size for n, size in sizes.items())
  assert sorted(set(sizes.values())) == [3840, 7680, 11264, 15104]


@pytest.mark.parametrize("name, rows", [("surrogate", 3), *((name, 1) for name in KINDS)])
def test_pieces_change_no_update(name, rows):
  recipe, mesh = make_recipe(KINDS[name]()), make_mesh(fsdp=1, devices=jax.devices()[:1])
  batch = with_prompts(make_batch(recipe))
  state, whole = make_update(recipe)
  want, want_metrics = whole(state, batch)
  scorer = PieceScorer(make_scorer(POLICY, rows=True), WIDTH)
  state, run = make_update(recipe, score=scorer)
  step = PackedUpdate(run, mesh, POLICY, {"width": WIDTH, "rows": rows, "shards": 1})
  got, metrics = step(state, batch)
  jax.tree.map(close, (got.params, metrics), (want.params, want_metrics))
  device, row = jnp.moveaxis(step.ready(batch).batch.rollouts.signals["packed_place"], -1, 0)[:2]
  piece = row // rows
  assert (piece.max(1) > piece.min(1)).any()
  assert piece.max() > 1
  assert not device.any()


@pytest.mark.slow
def test_a_loss_that_reads_the_group_is_no_rowwise_one():
  """The test above can fail: such a loss needs the scores of the whole group. And parameters may
  be below those of the policy, as adapters are."""
  recipe = make_recipe(group_contrast())
  batch = make_batch(recipe)
  lengths = measure_lengths(batch.rollouts.tokens, batch.rollouts.mask, share=True)
  dealt, _ = deal(lengths, width=WIDTH, rows=1, shards=1)
  scorer = PieceScorer(make_scorer(POLICY, rows=True), WIDTH)

  @partial(jax.jit, static_argnums=0)
  def gradient(rowwise, times=1.0):
    loss = recipe.loss._replace(rowwise=rowwise)
    scaled = scorer.on(lambda params: jax.tree.map(lambda x: times * x, params))
    params = jax.tree.map(lambda x: x / times, PARAMS)
    sizes = piece_sizes(WIDTH, rows=1, width=WIDTH)
    return scaled.value_and_grad(loss, (), params, placed(batch, dealt), sizes=sizes)[3]

  right, wrong = gradient(False), gradient(True)
  gap = optax.tree.norm(jax.tree.map(jnp.subtract, right, wrong))
  assert gap > 0.1 * optax.tree.norm(right)
  doubled = jax.tree.map(lambda x: x / 2, gradient(False, times=2.0))
  jax.tree.map(close, doubled, right)  # the same policy, from parameters of half the size


@pytest.mark.parametrize(
  "make",
  [
    losses.clipped_surrogate,
    losses.sequence_clipped_surrogate,
    partial(losses.cispo, distill=losses.reverse_kl()),
    partial(losses.sapo, kl=losses.k3(beta=0.1), correction=losses.rejected(), entropy_bonus=0.1),
  ],
)
def test_rowwise_losses_are(make):
  """Their gradient at a rollout does not change with the scores of the others."""
  loss = make()
  assert loss.rowwise
  batch = make_batch(make_recipe(loss))
  log_probs = batch.rollouts.sampler_log_probs
  taught = dataclasses.replace(batch.rollouts, signals={TEACHER: 2 * log_probs})
  batch = dataclasses.replace(batch, rollouts=taught, ref_log_probs=log_probs)

  def slope(others):
    x = log_probs.at[1:].add(others).at[0, 1:].add(others) - 0.1
    scores = TokenScores(x, entropy=-x)
    return jax.grad(lambda scores: loss.apply((), scores, batch)[0])(scores).log_probs[0, 0]

  np.testing.assert_array_equal(slope(0.0), slope(0.3))
  assert slope(0.0).any()


TRAIN = {"steps": 4, "prompts": 8, "group_size": 5, "max_tokens": 16, "max_prompt_tokens": 9}
TRAIN |= {"updates": 2}
PIECES = {"pack": 32, "micro_tokens": 64}


@pytest.mark.slow
def test_a_run_on_eight_devices_takes_pieces_and_compiles_once():
  """Parts of 4 groups on 8 devices, of 5 rollouts each; batches of all lengths."""
  loss = {"fn": "clipped_surrogate", "kl": {"fn": "k3", "beta": 0.1}}
  fields = {"loss": loss, "optimizer": {"fn": "sgd", "learning_rate": 0.1}, "train": TRAIN}
  whole = build_learner(read(changed(**fields, mesh={"devices": 1})))
  model = build_learner(
    read(changed(**fields | {"train": TRAIN | PIECES}, mesh={"data": 4, "fsdp": 2}))
  )
  key, states = jax.random.key(0), [whole.initial(), model.initial()]
  first = whole.initial().params
  for step, most in enumerate((16, 5, 1)):
    rollouts = random_rollouts(step, prompts=8, group=5, length=25, prompt_length=9, vocab=20)
    place = jnp.arange(25)[None, None]
    mask = rollouts.mask & (place < 9 + most)
    rollouts = dataclasses.replace(rollouts, mask=mask, lengths=mask.sum(-1))
    results = []
    for i, learner in enumerate((whole, model)):
      at = shard_batch(learner.mesh, rollouts)
      ref = learner.measure(jax.device_put(first, learner.shardings.params), at).log_probs
      batch, _ = learner.shape(states[i].recipe, at, step=jnp.int32(step), key=key)
      batch = dataclasses.replace(batch, ref_log_probs=ref)
      states[i], metrics = learner.update(states[i], batch)
      results.append((states[i].params, metrics, jnp.where(mask, ref, 0)))
    jax.tree.map(close, results[1], results[0])
  assert model.update.run._cache_size() == 1
  assert model.measure.run._cache_size() == 1


@pytest.mark.parametrize(
  "train, message",
  [
    ({"micro_tokens": 24}, r"micro_tokens must hold a whole rollout.* = 25 tokens, got 24"),
    (
      {"micro_tokens": 64, "pack": None},
      r"micro_tokens=64 counts tokens of packed rows: set train\.pack",
    ),
    (
      {"micro_tokens": 80, "pack": 32},
      r"micro_tokens must be a multiple of train\.pack=32, got 80",
    ),
    ({**PIECES, "micro_batches": 2}, r"micro_tokens=64 .*train\.micro_batches must be 1.* got 2"),
    (
      {**PIECES, "prompts": 12},
      r"prompts must be a multiple of mesh\.data \* mesh\.fsdp = 8, got 12",
    ),
    ({**PIECES, "updates": 3}, r"prompts must be a multiple of train\.updates = 3, got 8"),
  ],
)
def test_bad_pieces_are_refused_by_name(train, message):
  with pytest.raises(ValueError, match="train\\." + message):
    build_learner(read(changed(train=TRAIN | train, mesh={"data": 4, "fsdp": 2})))
