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


def test_moments_in_bfloat16_follow_those_in_float32():
  """Two large gradients, then small ones: rounded to the nearest, nu would never fall again."""
  params = {"w": jnp.ones((32, 32), jnp.bfloat16)}
  rule = optax.scale_by_adam(b1=0.9, b2=0.999)
  plain, short = optimizers.stored_in("float32", rule), optimizers.stored_in("bfloat16", rule)
  nearest = lambda state: jax.tree.map(
    lambda x: x if x.dtype == jnp.int32 else x.astype(jnp.bfloat16).astype(jnp.float32), state
  )

  @jax.jit
  def run(params):
    grads = jnp.where(jnp.arange(2000) < 2, 1.0, 0.01)
    start = plain.init(params), short.init(params), plain.init(params)

    def one(states, g):
      grads = {"w": jnp.full((32, 32), g, jnp.bfloat16)}
      ups, states = zip(
        *(f.update(grads, s) for f, s in zip((plain, short, plain), states, strict=True)),
        strict=True,
      )
      return (*states[:2], nearest(states[2])), ups

    return jax.lax.scan(one, start, grads)

  (want, got, stuck), (ups, shorts, _) = run(params)
  assert jax.tree.structure(got) == jax.tree.structure(rule.init(params)), "checkpoints restore"
  dtypes = lambda state: {x.dtype for x in jax.tree.leaves((state.mu, state.nu))}
  assert (dtypes(want), dtypes(got)) == ({jnp.dtype("float32")}, {jnp.dtype("bfloat16")})
  mean = lambda state: float(state.nu["w"].astype(jnp.float32).mean())
  assert mean(got) == pytest.approx(mean(want), rel=0.02)
  assert mean(stuck) > 3 * mean(want)
  for both in zip(ups["w"], shorts["w"], strict=True):
    np.testing.assert_allclose(*(x.mean() for x in both), rtol=0.05)


@pytest.mark.parametrize("moments", optimizers.MOMENTS)
@pytest.mark.parametrize("fn", ["adamw", "lamb"])
def test_training_goes_down_with_either_moments(fn, moments):
  spec = {"fn": fn, "learning_rate": 0.02, "moments": moments, "b2": 0.999}
  optimizer = optimizers.from_config(spec)
  x = jax.random.normal(jax.random.key(0), (64, 8))
  y = x @ jnp.arange(8.0)

  @jax.jit
  def run(w):
    loss = lambda w: jnp.mean((x @ w - y) ** 2)

    def one(carry, _):
      value, grads = jax.value_and_grad(loss)(carry[0])
      changes, state = optimizer.update(grads, carry[1], carry[0])
      return (optax.apply_updates(carry[0], changes), state), value

    return jax.lax.scan(one, (w, optimizer.init(w)), length=800)[1]

  losses = run(jnp.ones(8))
  assert losses[-1] < losses[0] / 50


def test_random_rounding_keeps_what_is_representable_and_what_is_not_finite():
  x = jnp.array([0.0, 1.0, -2.5, jnp.inf, -jnp.inf, jnp.nan])
  got = optimizers.round_randomly(jax.random.key(0), x)
  np.testing.assert_array_equal(got.astype(jnp.float32), x)


def test_unknown_moments_are_named():
  with pytest.raises(ValueError, match="moments='float16' is not one of float32, bfloat16"):
    optimizers.adamw(learning_rate=0.1, moments="float16")


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


def test_allora_slows_outputs_that_have_changed():
  # ||b_o|| of (0, 3, 0.75) at rank 1 with eta 2: 1 / sqrt(norm + 1 / 4) = 2, 0.5547 and 1.
  adapters = {"query": {"a": jnp.ones((1, 2, 1)), "b": jnp.array([[[0.0, 3.0, 0.75]]])}}
  grads = jax.tree.map(jnp.ones_like, adapters)
  spec = dict(fn="allora", eta=2.0, base=dict(fn="sgd", learning_rate=0.1, clip_norm=1e9))
  optimizer = optimizers.from_config(spec)
  changes, _ = optimizer.update(grads, optimizer.init(adapters), adapters, step=jnp.int32(0))
  np.testing.assert_allclose(changes["query"]["b"][0, 0], [-0.2, -0.05547, -0.1], rtol=1e-4)
  np.testing.assert_allclose(changes["query"]["a"], -0.1)
  assert float(optimizer.rate(jnp.int32(0))) == pytest.approx(0.1)
  of_adam = optimizers.from_config({**spec, "base": dict(fn="adamw", learning_rate=0.1)})
  changes, _ = of_adam.update(grads, of_adam.init(adapters), adapters, step=jnp.int32(0))
  np.testing.assert_allclose(changes["query"]["b"][0, 0], [-0.2, -0.05547, -0.1], rtol=1e-3)
  with pytest.raises(ValueError, match="the config needs a section lora"):
    optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
  with pytest.raises(ValueError, match=r"optimizer\.eta must be above 0"):
    optimizers.from_config({**spec, "eta": 0.0})
