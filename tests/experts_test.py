"""Mixtures of experts: every chosen expert counts, on one device and on several."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lcrl import policies, recipes
from lcrl.losses.weights import token_mean
from lcrl.merging.calibration import layers
from lcrl.mesh import batch_sharding, batch_shards, make_mesh, param_shardings, to_global
from lcrl.policies import experts
from lcrl.policies.block import gated
from lcrl.training.balance import balanced
from lcrl.training.dealing import deal, measure_lengths, piece_sizes
from lcrl.training.packed import arranged, placed
from lcrl.training.packing import Sizes, rounded, used_lengths
from lcrl.training.pairs.learner import build_learner as build_pair_learner
from lcrl.training.pairs.settings import read as read_pairs
from lcrl.training.piece_scorer import PieceScorer
from lcrl.training.rl.collect import pad_rows
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.pipeline import reference_log_probs
from lcrl.training.rl.settings import read
from lcrl.training.scorer import make_scorer, value_and_grad
from lcrl.training.step import update
from lcrl.types import TrainState
from tests.helpers import pair_runs, rl_runs
from tests.helpers.gpt_oss import OWN
from tests.helpers.sampling import B, G, V, engine_of, make_budget, make_rows
from tests.helpers.scoring import LOSSES, make_batch, make_recipe, with_prompts
from tests.helpers.slow import slow
from tests.rollouts import random_rollouts

SIZES = {"hidden_size": 16, "head_dim": 4, "mlp_size": 12, "experts": 4, "experts_per_token": 2}
GPT_OSS = {name: value for name, value in OWN.items() if name not in SIZES}
CLOSE = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
WIDTH = 32


def make(**changes):
  """A policy, and parameters whose routers prefer some experts."""
  policy = policies.make(policies.tiny(V, **(SIZES | changes)))
  rng = np.random.default_rng(0)
  noise = lambda x: jnp.asarray(rng.normal(0.0, 0.3, x.shape), x.dtype)
  return policy, jax.tree.map(noise, jax.eval_shape(policy.init, jax.random.key(0)))


def some_layer(c):
  """Tokens, a router and experts, of which the last is hardly ever chosen."""
  layer = jax.tree.map(lambda x: x[0], make(expert_bias=c.expert_bias)[1]["layers"])
  x = jax.random.normal(jax.random.key(1), (3, 7, c.hidden_size)) + 1
  router = layer["router"]["kernel"].at[:, -1].set(-1.0)
  return x, router, layer["experts"]


@pytest.mark.parametrize(
  "count, normalize, bias", [(1, True, False), (3, False, True), (4, True, False)]
)
def test_grouped_products_equal_all_experts_on_all_tokens(count, normalize, bias):
  changes = {"experts_per_token": count, "normalize_gates": normalize, "expert_bias": bias}
  c = policies.tiny(V, **SIZES | changes)
  args = some_layer(c)

  def loss(mix, x, router, weights):
    routing = experts.route(x, router, count=count, normalize=normalize)
    return jnp.sum(jnp.sin(mix(x, routing, weights, partial(gated, c))))

  want, got = (
    jax.jit(jax.value_and_grad(partial(loss, mix), argnums=(0, 1, 2)))(*args)
    for mix in (experts.plain, experts.mix)
  )
  jax.tree.map(CLOSE, got, want)
  chosen = experts.route(args[0], args[1], count=count, normalize=normalize).chosen
  assert len(np.unique(chosen)) == max(3, count)  # one of four has no token, unless all are chosen


def test_biases_of_a_router_and_of_experts_by_hand():
  c = policies.tiny(V, **SIZES, expert_bias=True)
  x, router, weights = some_layer(c)
  bias = jnp.array([0.0, 50.0, 0.0, 51.0])  # more than any product
  routing = experts.route(x, router, count=2, normalize=True, bias=bias)
  assert {*np.unique(routing.chosen)} == {1, 3}
  logits = np.asarray(x @ router + jnp.broadcast_to(bias, (3, 7, 4)))[..., [3, 1]]
  logits = np.take_along_axis(logits, (np.asarray(routing.chosen) == 1).astype(int), -1)
  CLOSE(routing.gates, jax.nn.softmax(logits))  # of the chosen alone
  w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
  plus = lambda y, name, i: np.asarray(y) @ w[name][i] + w[f"{name}_bias"][i]
  mlp = lambda i: plus(gated(c, plus(x, "gate", i), plus(x, "up", i)), "down", i)
  gates = [np.sum(np.where(routing.chosen == i, routing.gates, 0), -1) for i in range(4)]
  want = sum(gates[i][..., None] * mlp(i) for i in (1, 3))
  CLOSE(experts.mix(x, routing, weights, partial(gated, c)), want)


def test_no_token_is_dropped_where_all_choose_one_expert():
  c = policies.tiny(V, **SIZES)
  x, _, weights = some_layer(c)
  chosen = jnp.broadcast_to(jnp.array([2, 0]), (3, 7, 2))
  routing = experts.Routing(None, chosen, jnp.broadcast_to(jnp.array([0.75, 0.25]), (3, 7, 2)))
  got = experts.mix(x, routing, weights, partial(gated, c))
  mlp = lambda i: gated(c, x @ weights["gate"][i], x @ weights["up"][i]) @ weights["down"][i]
  CLOSE(got, 0.75 * mlp(2) + 0.25 * mlp(0))


def test_the_router_is_float32_in_a_model_of_bfloat16():
  """Its matrix is not rounded, in training and in the sampler's copy."""
  policy, params = make(dtype="bfloat16", layers=1, experts_per_token=1)
  assert policy.unstack(params)["layers"][0]["router"]["kernel"].dtype == jnp.float32
  assert policy.unstack(params)["layers"][0]["experts"]["down"].dtype == jnp.bfloat16
  x = jax.random.normal(jax.random.key(1), (64, 16), jnp.bfloat16)
  router = jax.random.normal(jax.random.key(2), (16, 4))
  want = jax.nn.softmax(np.asarray(x, np.float64) @ np.asarray(router, np.float64))
  routing = experts.route(x, router, count=2, normalize=False)
  np.testing.assert_allclose(routing.probs, want, rtol=1e-5)
  least = 1 + 2.0**-12  # bfloat16 would round it away

  def first(*scale):
    """What the model says if two experts are as good but for `scale`."""
    column = params["layers"]["router"]["kernel"][..., :1].astype("bfloat16").astype("float32")
    kernel = jnp.concatenate([column * x for x in (*scale, 0.0, 0.0)], axis=-1)
    router = {"router": {"kernel": kernel}}
    return policy.apply(params | {"layers": params["layers"] | router}, jnp.arange(9))

  assert np.abs(first(1.0, least) - first(least, 1.0)).max() > 0.1


def scored_on(mesh, policy, params, batch, loss, pieces=1):
  """The arguments and the result of a loss and its gradient, on packed rows of a mesh."""
  cut = {"width": WIDTH, "shards": batch_shards(mesh), "pieces": pieces}
  packed, _, sizes = arranged(batch, share=pieces > 1, **cut)
  score = make_scorer(policy, mesh=mesh, pack=WIDTH, needs=("balance",))
  score = partial(score, sizes=rounded(Sizes(*sizes.tolist())))
  run = partial(value_and_grad, loss, loss.init(), score, micro_batches=pieces)
  spread = jax.device_put(params, param_shardings(mesh, policy.axes, params))
  return jax.jit(run), spread, jax.device_put(packed, batch_sharding(mesh))


@pytest.mark.parametrize(
  "axes, changes, pieces, coefficient",
  [
    ({"fsdp": 2, "tensor": 4}, {"unroll": True, "remat": "dots"}, 2, 0.0),
    ({"data": 2, "fsdp": 1, "sequence": 2, "tensor": 2}, {"layers": 1} | GPT_OSS, 1, 0.3),
    (
      {"fsdp": 4, "tensor": 2},
      {"layers": 1, "experts": 5},
      1,
      0.3,
    ),  # undivided: all on every device
  ],
)
@pytest.mark.slow
def test_loss_and_gradients_equal_those_of_one_device(axes, changes, pieces, coefficient):
  policy, params = make(**changes)
  loss = balanced(LOSSES["surrogate"](), coefficient)
  batch = with_prompts(make_batch(make_recipe(loss)))
  score = make_scorer(policy, needs=("balance",))
  want = jax.jit(partial(value_and_grad, loss, loss.init(), score, micro_batches=1))(params, batch)
  run, spread, packed = scored_on(make_mesh(**axes), policy, params, batch, loss, pieces)
  depth, count, d, f = spread["layers"]["experts"]["gate"].shape
  own = count // axes["tensor"] if count % axes["tensor"] == 0 else count
  d //= axes["fsdp"] * axes.get("sequence", 1)
  assert {x.data.shape for x in spread["layers"]["experts"]["gate"].addressable_shards} == {
    (depth, own, d, f)
  }
  program = run.lower(spread, packed).compile()
  got = program(spread, packed)
  jax.tree.map(CLOSE, (got[0], got[3]), (want[0], want[3]))
  gathered = re.findall(r"f32\[(?:1,)?(\d+),(?:16,12|12,16)\]\S* all-gather\(", program.as_text())
  assert {*gathered} == {str(own)}  # no device reads the experts of others


def test_the_load_balance_loss_of_some_tokens():
  probs = jnp.array([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2], [0.0, 0.0, 1.0]])
  routing = experts.Routing(probs, jnp.array([[0, 1], [1, 2], [2, 0]]), None)
  each = experts.balance(routing, jnp.array([True, True, False]))
  # Of two tokens one chose the first, two the second, one the third: f is 1/2, 1, 1/2.
  np.testing.assert_allclose(each[:2], [3 * (0.25 + 0.3 + 0.1), 3 * (0.05 + 0.7 + 0.1)], rtol=1e-6)
  even = experts.Routing(jnp.full((3, 3), 1 / 3), jnp.array([[0, 1], [1, 2], [2, 0]]), None)
  np.testing.assert_allclose(experts.balance(even, jnp.ones(3, bool)), 2.0, rtol=1e-6)


def test_the_load_balance_loss_spreads_tokens_over_experts():
  """And its number is a metric. What stands behind the end of a response does not count."""
  policy, params = make(layers=1)
  recipe = make_recipe(balanced(LOSSES["surrogate"](), 1.0))
  batch = make_batch(recipe)
  score = make_scorer(policy, needs=("balance",))
  optimizer = optax.sgd(0.3)
  state = TrainState(jnp.int32(0), params, optimizer.init(params), recipes.init(recipe), 0, {})
  step = partial(update, score=score, recipe=recipe, weigh=token_mean, optimizer=optimizer)
  step = jax.jit(step)
  found = []
  for _ in range(8):
    state, metrics = step(state, batch)
    found.append(metrics["router/balance"].value())
  assert found[0] > 2.02
  assert abs(found[-1] - 2) < 0.005
  rollouts = batch.rollouts
  behind = np.arange(rollouts.mask.shape[-1]) >= np.asarray(used_lengths(rollouts.mask))[..., None]
  other = dataclasses.replace(rollouts, tokens=jnp.where(behind, 7, rollouts.tokens))
  assert (other.tokens != rollouts.tokens).any()
  np.testing.assert_array_equal(score(params, other).balance, score(params, rollouts).balance)


@pytest.mark.parametrize(
  "build",
  [
    lambda **c: build_learner(read(rl_runs.changed(**c))),
    lambda **c: build_pair_learner(read_pairs(pair_runs.changed("", **c))),
  ],
)
def test_a_balance_of_nothing_is_refused(build):
  with pytest.raises(ValueError, match=r"train\.balance=0\.1 balances experts, of which the pol"):
    build(train__balance=0.1, mesh__devices=1)


@pytest.mark.parametrize(
  "axes, slots",
  [slow({"data": 2, "fsdp": 2, "tensor": 2}, None), ({"fsdp": 4, "tensor": 2}, 2)],
)
def test_log_probs_of_the_sampler_are_those_of_the_update(axes, slots):
  policy, params = make(qk_norm=True, layers=1)
  mesh = make_mesh(**axes)
  spread = jax.device_put(params, param_shardings(mesh, policy.axes, params))
  engine = engine_of(policy, slots=slots, mesh=mesh)
  rows, budget = to_global(mesh, make_rows()), to_global(mesh, make_budget(16))
  out = engine.generate(spread, rows, budget, jax.random.key(1))
  tokens = np.asarray(out.tokens).reshape(B * G, -1)
  scored = jax.nn.log_softmax(policy.apply(params, tokens)[:, :-1])
  scored = jnp.take_along_axis(scored, tokens[:, 1:, None], -1)[..., 0].reshape(B, G, -1)
  scored = np.where(out.mask[..., 1:], scored, 0)
  np.testing.assert_allclose(out.sampler_log_probs[..., 1:], scored, atol=1e-4)


@pytest.mark.parametrize("chosen", [0, 5, -1])
def test_experts_per_token_must_fit(chosen):
  with pytest.raises(ValueError, match=rf"experts_per_token={chosen} must be from 1 to experts=4"):
    policies.tiny(V, experts=4, experts_per_token=chosen)


def tied(first, second):
  """A policy whose router hardly tells its first two experts apart."""
  policy, params = make(experts_per_token=1)
  column = 3 * params["layers"]["router"]["kernel"][..., :1]
  kernel = jnp.concatenate([first * column, second * column, 0 * column, 0 * column], axis=-1)
  router = {"router": {"kernel": kernel}}
  return policy, params | {"layers": params["layers"] | router}


@pytest.mark.parametrize(
  "fields, message",
  [
    ({}, "sampling.replay replays experts, of which the policy has none"),
    ({"revise": {"fn": "think_split"}}, "it does not go with a section revise"),
  ],
)
def test_a_replay_of_nothing_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    build_learner(read(rl_runs.changed(sampling__replay=True, mesh__devices=1, **fields)))


@pytest.mark.parametrize("slots", [None, 3])
@pytest.mark.slow
def test_the_update_replays_the_experts_of_the_sampler(slots):
  policy, sampled_by = tied(1.0, 1.001)
  _, learner = tied(1.001, 1.0)
  engine = engine_of(policy, slots=slots, keeps_experts=True)
  rows = make_rows(longest=1)  # experts of the last prompt token are kept, those before are not
  rollouts = engine.generate(sampled_by, rows, make_budget(12), jax.random.key(1))
  assert rollouts.signals[experts.CHOSEN].dtype == jnp.int8
  batch = dataclasses.replace(make_batch(make_recipe(LOSSES["drpo"]())), rollouts=rollouts)
  told = np.asarray(rollouts.signals[experts.CHOSEN])
  assert (told[np.asarray(rollouts.mask)] >= 0).all()
  assert (told[~np.asarray(rollouts.mask)] == -1).all()

  def gap(params, *needs, pack=None):
    packed, _, sizes = arranged(batch, share=True, width=WIDTH)
    score = make_scorer(policy, needs=needs, pack=pack)
    if pack:
      score = partial(score, sizes=rounded(Sizes(*sizes.tolist())))
    r = packed.rollouts if pack else rollouts
    found = jax.jit(score)(params, r).log_probs - r.sampler_log_probs
    return np.abs(np.where(r.mask, found, 0)).max()

  assert gap(learner, "balance") < 2e-3
  if slots is None:
    assert gap(sampled_by) < 1e-4
    assert gap(learner) > 0.1
    return
  assert gap(learner, "balance", pack=WIDTH) < 2e-3
  lengths = measure_lengths(rollouts.tokens, rollouts.mask, share=True)
  dealt, _ = deal(lengths, width=WIDTH, rows=2, shards=1)
  sizes = piece_sizes(2 * WIDTH, rows=2, width=WIDTH)
  pieces = PieceScorer(make_scorer(policy, needs=("balance",), rows=True), WIDTH)
  found = (
    pieces(learner, placed(rollouts, dealt), sizes=sizes).log_probs - rollouts.sampler_log_probs
  )
  assert np.abs(np.where(rollouts.mask, found, 0)).max() < 2e-3


def test_activations_of_experts_are_not_measured():
  with pytest.raises(ValueError, match="activations of a model with experts are not measured"):
    next(layers(*make(layers=1), [1, 2, 3]))


def test_padded_rows_chose_no_expert():
  rollouts = random_rollouts(prompts=2, group=2)
  shape = (*rollouts.tokens.shape, 2, 2)
  rollouts = dataclasses.replace(rollouts, signals={experts.CHOSEN: jnp.zeros(shape, jnp.int8)})
  wide = pad_rows(rollouts, shape[2] + 3).signals[experts.CHOSEN]
  assert (wide[:, :, : shape[2]] == 0).all()
  assert (wide[:, :, shape[2] :] == -1).all()


def test_the_reference_takes_its_own_experts():
  """Replay is of the update: the reference routes by itself."""
  config = rl_runs.changed(
    policy__experts=4,
    policy__experts_per_token=2,
    sampling__replay=True,
    loss={"fn": "clipped_surrogate", "kl": {"fn": "k3", "beta": 0.1}},
  )
  model = build_learner(read(config), devices=jax.devices()[:1])
  rollouts = random_rollouts(prompts=4, group=4)
  ids = jnp.zeros((*rollouts.tokens.shape, model.policy.config.layers, 2), jnp.int8)
  told = dataclasses.replace(rollouts, signals={experts.CHOSEN: ids.at[..., 1].set(1)})
  own = reference_log_probs(model)
  np.testing.assert_array_equal(own(told), own(rollouts))
  params = model.initial().params
  replayed, free = (model.measure(params, r).log_probs for r in (told, rollouts))
  assert jnp.abs(replayed - free).max() > 1e-3, "the update takes what it is told"


def test_a_dense_policy_has_nothing_to_balance():
  policy = policies.make(policies.tiny(16))
  with pytest.raises(ValueError, match="the policy has no experts to balance"):
    make_scorer(policy, needs=("balance",))
