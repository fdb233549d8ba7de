"""Scores are those of the model, and pieces never change a gradient, whatever the loss."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lcrl import policies
from lcrl.losses import policy as losses
from lcrl.losses.weights import fixed_length, sequence_mean, token_mean
from lcrl.mesh import batch_sharding, make_mesh, param_shardings
from lcrl.training.scorer import join, make_scorer, split, value_and_grad
from tests.helpers.scoring import LOSSES, PARAMS, POLICY, make_batch, make_recipe, make_update
from tests.helpers.slow import slow
from tests.rollouts import random_rollouts


def test_scores_are_teacher_forced_log_probs():
  rollouts = random_rollouts()
  got = make_scorer(POLICY, temperature=0.7)(PARAMS, rollouts).log_probs
  logits = POLICY.apply(PARAMS, rollouts.tokens) / 0.7
  want = jnp.take_along_axis(
    jax.nn.log_softmax(logits)[..., :-1, :], rollouts.tokens[..., 1:, None], axis=-1
  )[..., 0]
  want = jnp.where(rollouts.mask[..., 1:], want, 0.0)
  np.testing.assert_allclose(got[..., 1:], want, atol=1e-5)
  assert not got[..., 0].any()


def test_on_cpus_products_and_tiles_are_what_is_fast_there():
  policy = policies.make(policies.tiny(vocab_size=4096, hidden_size=24, mlp_size=40))
  params = policy.init(jax.random.key(0))
  rollouts = random_rollouts(prompts=32, group=8)  # 3072 tokens

  def loss(params):
    return make_scorer(policy)(params, rollouts).log_probs.sum()

  text = jax.jit(jax.grad(loss)).lower(params).compile().as_text()
  shapes = set(re.findall(r"f32\[([\d,]+)\][^ ]* dot\(", text))
  assert {"24,2048", "24,40"} <= shapes  # gradients of matrices: narrow by wide
  assert not {"2048,24", "40,24"} & shapes
  assert "1536,2048" not in text  # a tile of logits has 512 tokens
  assert "512,2048" in text


def test_split_and_join_are_inverse():
  x = {"a": jnp.arange(24).reshape(8, 3)}
  np.testing.assert_array_equal(join(split(x, 4))["a"], x["a"])
  with pytest.raises(ValueError, match="got 3 for 8"):
    split(x, 3)


@pytest.mark.parametrize(
  "name, weigh",
  [
    ("surrogate", token_mean),
    slow("drpo", sequence_mean),
    slow("surrogate", functools.partial(fixed_length, length=9)),
  ],
)
def test_micro_batches_equal_one_batch(name, weigh):
  recipe = make_recipe(LOSSES[name]())
  batch, score = make_batch(recipe, weigh), make_scorer(POLICY)

  @functools.partial(jax.jit, static_argnums=0)
  def run(pieces):
    value, _, scores, grads = value_and_grad(
      recipe.loss, recipe.loss.init(), score, PARAMS, batch, micro_batches=pieces
    )
    return value, scores.log_probs, grads

  whole = run(1)
  assert optax.tree.norm(whole[2]) > 1e-3
  for pieces in (2, 4):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, run(pieces)
    )


@pytest.mark.parametrize("name", [slow("surrogate"), "drpo"])
def test_layers_apart_give_the_gradient_of_stacked_ones(name):
  """Unrolled, in several pieces: params are taken apart once, gradients are stacked once."""
  policy = policies.make(dataclasses.replace(POLICY.config, unroll=True))
  loss, calls = LOSSES[name](), []
  batch = make_batch(make_recipe(loss), prompts=4)

  def unstack_for_grad(params):
    calls.append(params)
    return policy.unstack_for_grad(params)

  def grads(policy, **options):
    score = make_scorer(policy, needs=loss.needs, token_chunk=32)
    return value_and_grad(loss, loss.init(), score, PARAMS, batch, micro_batches=2, **options)[3]

  want = grads(POLICY)
  for options in ({}, {"unstack_for_grad": unstack_for_grad}):
    got = grads(policy, **options)
    assert jax.tree.structure(got) == jax.tree.structure(PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, want)
  assert len(calls) == 1
  assert isinstance(policy.unstack_for_grad(PARAMS)["layers"], tuple)
  assert POLICY.unstack_for_grad(PARAMS) is PARAMS


def test_a_coupled_loss_taken_for_additive_would_differ():
  """The test above can fail: DRPO summed over pieces is another loss."""
  recipe = make_recipe(LOSSES["drpo"]())
  batch, score = make_batch(recipe), make_scorer(POLICY)
  wrong = recipe.loss._replace(coupled=False)
  gradient = lambda loss, pieces: value_and_grad(
    loss, loss.init(), score, PARAMS, batch, micro_batches=pieces
  )[3]
  right, summed = gradient(recipe.loss, 1), gradient(wrong, 4)
  gap = optax.tree.norm(jax.tree.map(jnp.subtract, right, summed))
  assert gap > 0.1 * optax.tree.norm(right)


@pytest.mark.parametrize(
  "name, axes",
  [
    slow("surrogate", {"data": 8, "fsdp": 1}),
    slow("surrogate", {"data": 2, "fsdp": 2, "tensor": 2}),
    ("drpo", {"data": 2, "fsdp": 2, "tensor": 2}),
  ],
)
def test_eight_devices_equal_one(name, axes):
  recipe = make_recipe(LOSSES[name]())
  batch = make_batch(recipe, prompts=8)
  state, step = make_update(recipe)
  want, want_metrics = step(state, batch)

  mesh = make_mesh(**axes)
  at = param_shardings(mesh, POLICY.axes, PARAMS)
  spread = dataclasses.replace(state, params=jax.device_put(PARAMS, at))
  _, step = make_update(recipe, mesh=mesh)
  got, metrics = step(spread, jax.device_put(batch, batch_sharding(mesh)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got.params, want.params)
  np.testing.assert_allclose(metrics["loss"].total, want_metrics["loss"].total, rtol=1e-5)


def test_a_vocabulary_that_does_not_divide_is_split_all_the_same():
  policy = policies.make(dataclasses.replace(POLICY.config, vocab_size=13))
  params, mesh = policy.init(jax.random.key(1)), make_mesh(data=2, tensor=4, fsdp=1)
  rollouts = random_rollouts(vocab=13)
  scores = lambda params, mesh: make_scorer(policy, mesh=mesh)(params, rollouts).log_probs
  want, got = scores(params, None), jax.jit(scores, static_argnums=1)(params, mesh)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_two_updates_train_on_disjoint_halves():
  recipe = make_recipe(LOSSES["surrogate"]())
  batch = dataclasses.replace(make_batch(recipe), old_log_probs=None)
  state, step = make_update(recipe, updates=2)
  got, _ = step(state, batch)

  score = make_scorer(POLICY)
  old = score(PARAMS, batch.rollouts).log_probs
  state, once = make_update(recipe)
  for half in (0, 1):
    part = jax.tree.map(lambda x: x[half::2], dataclasses.replace(batch, old_log_probs=old))  # noqa: B023
    part = dataclasses.replace(part, weights=token_mean(part.rollouts.mask, part.keep))
    state, _ = once(state, part)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), got.params, state.params)
  assert got.step == 1


def test_mesh_errors_name_the_numbers():
  with pytest.raises(ValueError, match=r"'data': 3.*8 devices"):
    make_mesh(data=3, fsdp=1)


@pytest.mark.parametrize("pieces", [{}, {"micro_batches": 4}, {"updates": 2}])
def test_clipping_and_approximate_kl_are_measured_without_another_forward_pass(pieces):
  recipe = make_recipe(LOSSES["surrogate"]())
  batch = make_batch(recipe)
  score, calls = make_scorer(POLICY), []
  counted = lambda *args: calls.append(args) or score(*args)
  state, step = make_update(recipe, score=counted, **pieces)
  _, metrics = step(state, batch)
  assert len(calls) == 1  # traced once: in the scan over pieces or updates, or alone

  old, mask = batch.old_log_probs, batch.rollouts.mask
  got = {name: metrics[name].value() for name in ("clip_fraction", "approx_kl", "nll")}
  log_probs = score(PARAMS, batch.rollouts).log_probs
  want = losses.surrogate_fractions(log_probs, old, batch.advantages, mask, clip_high=0.28)
  assert 0.1 < want.clipped < 0.9
  close = functools.partial(
    np.testing.assert_allclose, rtol=0.05 if "updates" in pieces else 1e-5
  )  # the second update meets a policy that has moved a little
  close(got["clip_fraction"], want.clipped)
  close(got["approx_kl"], want.old_kl)
  close(got["nll"], -log_probs[mask].mean())
