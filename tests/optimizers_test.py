"""Schedules count train steps; numbers out of range are refused; the state is that of optax."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lcrl.training import optimizers

PARAMS = {"a": jnp.ones(3), "b": jnp.ones((2, 2))}


def test_dapo_warms_up_for_twenty_rollout_steps():
  """The paper's warm-up, whatever the number of updates in a step, 16 there."""
  config = importlib.import_module("configs.dapo").get_config().to_dict()
  optimizer = optimizers.from_config(config["optimizer"])
  for t in range(25):
    assert float(optimizer.rate(jnp.int32(t))) == pytest.approx(1e-6 * min(t / 20, 1))


def test_all_updates_of_a_step_have_its_rate():
  optimizer = optimizers.sgd(learning_rate=1.0, clip_norm=np.inf, warmup_steps=2, decay_steps=4)
  state, grads = optimizer.init(PARAMS), jax.tree.map(jnp.ones_like, PARAMS)
  for t, want in enumerate([0.0, 0.5, 1.0, 0.5, 0.0, 0.0]):
    for _ in range(3):
      changes, state = optimizer.update(grads, state, PARAMS, step=jnp.int32(t))
      np.testing.assert_allclose(changes["a"], -want, atol=1e-6)


def test_without_a_step_every_call_is_one():
  optimizer = optimizers.sgd(learning_rate=1.0, clip_norm=np.inf, warmup_steps=2)
  state, grads = optimizer.init(PARAMS), jax.tree.map(jnp.ones_like, PARAMS)
  for want in (0.0, 0.5, 1.0):
    changes, state = optimizer.update(grads, state, PARAMS)
    np.testing.assert_allclose(changes["a"], -want)


@pytest.mark.parametrize(
  "ours, rule",
  [
    (
      optimizers.adamw(learning_rate=0.1, weight_decay=0.1),
      optax.adamw(lambda _: 0.1, weight_decay=0.1),
    ),
    (
      optimizers.lamb(learning_rate=0.1, weight_decay=0.1),
      optax.lamb(lambda _: 0.1, weight_decay=0.1),
    ),
    (optimizers.sgd(learning_rate=0.1), optax.sgd(lambda _: 0.1)),
    (optimizers.sgd(learning_rate=0.1, momentum=0.5), optax.sgd(lambda _: 0.1, 0.5)),
  ],
)
def test_states_and_updates_are_those_of_optax(ours, rule):
  theirs = optax.chain(optax.clip_by_global_norm(1.0), rule)
  grads = {"a": jnp.arange(3.0), "b": -jnp.ones((2, 2))}
  states = ours.init(PARAMS), theirs.init(PARAMS)
  assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])  # checkpoints restore
  for _ in range(2):
    (a, mine), (b, other) = (
      x.update(grads, s, PARAMS) for x, s in zip((ours, theirs), states, strict=True)
    )
    jax.tree.map(np.testing.assert_array_equal, (a, mine), (b, other))
    states = mine, other


@pytest.mark.parametrize("old, new", [("warmup", "warmup_steps"), ("decay", "decay_steps")])
def test_the_old_names_are_refused_with_the_new_ones_and_the_unit(old, new):
  message = rf"optimizer\.{old} is called optimizer\.{new} and counts train steps"
  with pytest.raises(ValueError, match=message):
    optimizers.from_config({"fn": "adamw", "learning_rate": 0.1, old: 8})


@pytest.mark.parametrize(
  "field, value",
  [
    ("learning_rate", float("nan")),
    ("learning_rate", float("inf")),
    ("learning_rate", 1e39),  # infinite in float32
    ("learning_rate", -1e-6),
    ("learning_rate", True),
    ("learning_rate", "1e-6"),
    ("clip_norm", 0.0),
    ("clip_norm", float("nan")),
    ("b1", 1.0),
    ("b2", -0.1),
    ("b2", float("nan")),
    ("eps", 0.0),
    ("weight_decay", float("nan")),
    ("weight_decay", -0.1),
    ("warmup_steps", 1.5),
    ("warmup_steps", float("nan")),
    ("decay_steps", -1),
  ],
)
def test_numbers_out_of_range_are_refused_by_field(field, value):
  with pytest.raises(ValueError, match=rf"optimizer\.{field} must be .*, got "):
    optimizers.adamw(**{"learning_rate": 0.1, field: value})


def test_the_decay_ends_after_the_warm_up():
  with pytest.raises(ValueError, match=r"optimizer\.decay_steps must be above .* got 4 and 4"):
    optimizers.adamw(learning_rate=0.1, warmup_steps=4, decay_steps=4)
