"""Kernels that multiply rows with their experts' matrices, interpreted; and lowered for a GPU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.mesh import make_mesh
from lcrl.policies import experts, triton_experts
from lcrl.policies.attention.choice import Device
from tests import gpu
from tests.helpers.gpt_oss import OWN

D, F, E, K = 48, 32, 5, 2


def made(tokens, dtype, biases=False, seed=0):
  keys = iter(jax.random.split(jax.random.key(seed), 6))
  normal = lambda *shape: (jax.random.normal(next(keys), shape) * 0.2).astype(dtype)
  weights = {"gate": normal(E, D, F), "up": normal(E, D, F), "down": normal(E, F, D)}
  router = jax.random.normal(next(keys), (D, E)).at[:, 1].set(-9.0)
  x = jnp.abs(jax.random.normal(next(keys), (2, tokens, D))).astype(dtype)
  for name in ("gate", "up", "down") if biases else ():
    weights[f"{name}_bias"] = 3 * weights[name][:, 0]
  return x, router, weights


def value(mix, x, router, weights):
  routing = experts.route(x, router, count=K, normalize=True)
  return jnp.sin(mix(x, routing, weights, lambda gate, up: jax.nn.silu(gate) * up)).sum()


@pytest.fixture
def interpreted(monkeypatch):
  """Kernels in place of ragged_dot, as on a GPU."""
  chosen = triton_experts.tiles
  monkeypatch.setattr(Device, "here", lambda: Device("nvidia", (9, 0)))
  monkeypatch.setattr(
    triton_experts, "tiles", lambda mean: chosen(mean)._replace(interpret=True, wide=16, deep=16)
  )


@pytest.mark.parametrize(
  "tokens, dtype, most, biases",
  [
    (3, "float32", None, False),
    (40, "float32", None, True),
    (40, "float32", 8000, False),
    (40, "bfloat16", None, True),
  ],
)
@pytest.mark.slow
def test_kernels_equal_all_experts_on_all_tokens(
  interpreted, monkeypatch, tokens, dtype, most, biases
):
  """Experts of no token, blocks that rows do not fill, gradients of tokens, router and experts, and
  arrays with more numbers than a kernel counts."""
  monkeypatch.setattr(triton_experts, "MOST", most or triton_experts.MOST)
  args = made(tokens, dtype, biases)
  chosen = experts.route(args[0], args[1], count=K, normalize=True).chosen
  assert 1 not in np.unique(chosen)
  both = (
    jax.value_and_grad(partial(value, mix), (0, 1, 2))(*args)
    for mix in (experts.plain, experts.mix)
  )
  rtol, atol = (1e-4, 1e-5) if dtype == "float32" else (0.03, 0.05)

  def same(a, b):
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    # Sums round by the size of their terms, also where the terms cancel.
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol * max(1.0, np.abs(b).max() / 10))

  jax.tree.map(same, *both)


@pytest.mark.slow
def test_experts_of_other_devices_add_nothing(interpreted):
  """The first two experts here, the others there: together they are all."""
  x, router, weights = made(20, "float32", biases=True)
  routing = experts.route(x, router, count=K, normalize=True)
  gated = lambda gate, up: jax.nn.silu(gate) * up
  part = lambda lo, hi: experts.dropless(
    x, routing.chosen - lo, routing.gates, {n: w[lo:hi] for n, w in weights.items()}, gated
  )
  want = experts.plain(x, routing, weights, gated)
  np.testing.assert_allclose(part(0, 2) + part(2, E), want, rtol=1e-4, atol=1e-5)
  foreign = routing._replace(chosen=jnp.full_like(routing.chosen, -1))
  np.testing.assert_array_equal(experts.mix(x, foreign, weights, gated), 0)


@pytest.mark.parametrize("block", [1, 2, 16])
def test_rows_are_in_the_order_of_experts_and_fill_blocks(block):
  rng = np.random.default_rng(0)
  chosen = rng.integers(-1, 7, (30, 2))
  source, place, sizes = map(np.asarray, experts.arrange(jnp.asarray(chosen), 5, block))
  pairs = chosen.reshape(-1)
  assert not (sizes % block).any()
  assert len(source) % block == 0
  owner = np.repeat(np.arange(5), sizes)
  for pair, expert in enumerate(pairs):
    if 0 <= expert < 5:
      assert (source[place[pair]], owner[place[pair]]) == (pair, expert)
    else:
      assert place[pair] == len(source)
  assert (source < len(pairs)).sum() == ((pairs >= 0) & (pairs < 5)).sum()


def test_where_all_pairs_are_as_bad_as_can_be_rows_suffice():
  """One pair an expert, whose block is otherwise empty."""
  source, place, _ = experts.arrange(jnp.arange(6).reshape(3, 2), 6, 16)
  assert len(source) == 96
  assert place.tolist() == [0, 16, 32, 48, 64, 80]


@pytest.mark.parametrize("remat, products", [("none", 3), ("dots", 3), ("full", 6)])
def test_products_of_experts_are_kept_with_those_of_dense_layers(remat, products):
  """Of a layer's three, none is computed again; a gradient of each is two more kernels."""
  sizes = {"hidden_size": 32, "head_dim": 16, "mlp_size": 32, "experts": 4, "experts_per_token": 2}
  policy = policies.make(policies.tiny(64, layers=1, remat=remat, **sizes))
  params = jax.eval_shape(policy.init, jax.random.key(0))
  loss = lambda params, ids: policy.apply(params, ids).sum()
  text = gpu.lowered(jax.grad(loss), params, jnp.zeros((2, 128), jnp.int32))
  assert text.count('name = "expert_product"') == products + 6


@pytest.mark.parametrize("tensor", [1, 2, 4])
def test_blocks_are_for_the_rows_that_an_expert_gets(monkeypatch, tensor):
  """However many devices share the experts; four do not divide six, so that each has all."""
  means, chosen = [], triton_experts.tiles
  monkeypatch.setattr(Device, "here", lambda: Device("nvidia", (9, 0)))
  monkeypatch.setattr(triton_experts, "tiles", lambda mean: means.append(mean) or chosen(mean))
  weights = {"gate": (6, D, F), "up": (6, D, F), "down": (6, F, D)}
  array = lambda shape, dtype=jnp.float32: jax.ShapeDtypeStruct(shape, dtype)
  pairs = (1, 60, K)
  routing = experts.Routing(None, array(pairs, jnp.int32), array(pairs))
  mix = partial(experts.mix, gated=lambda gate, up: gate * up)
  with jax.set_mesh(make_mesh(data=1, fsdp=1, tensor=tensor, devices=jax.devices()[:tensor])):
    jax.eval_shape(mix, array((1, 60, D)), routing, {n: array(s) for n, s in weights.items()})
  assert means == [60 * K / 6]


@pytest.mark.parametrize("mean, own", [(0.1, 16), (16, 32), (40, 64), (100, 64), (128, 128)])
def test_blocks_grow_with_the_rows_of_an_expert(mean, own):
  assert triton_experts.tiles(mean).own == own


def test_on_a_gpu_a_policy_takes_the_kernels():
  sizes = {"hidden_size": 32, "head_dim": 16, "mlp_size": 32, "experts": 4, "experts_per_token": 2}
  make = lambda **changes: policies.make(policies.tiny(64, **sizes | changes))
  for policy, kernels in ((make(), True), (make(mlp_size=24), False), (make(**OWN), True)):
    params = jax.eval_shape(policy.init, jax.random.key(0))
    loss = lambda params, ids, policy=policy: policy.apply(params, ids).sum()
    text = gpu.lowered(jax.grad(loss), params, jnp.zeros((2, 128), jnp.int32))
    assert ("expert_product" in text) == kernels
    assert ("ragged_dot" in text) != kernels
