"""Low-rank adapters: start as nothing, add a low-rank change, leave the params alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.policies import lora
from tests.helpers.gpt_oss import OWN


def _make(**changes):
  policy = policies.make(policies.tiny(16, hidden_size=32, layers=2, mlp_size=48, **changes))
  return policy, policy.init(jax.random.key(0))


def test_adapters_start_as_nothing_and_then_add_their_product():
  policy, params = _make()
  init, axes = lora.adapters(policy, rank=2)
  adapters = init(jax.random.key(1))
  jax.tree.map(np.testing.assert_array_equal, lora.merge(params, adapters, alpha=8.0), params)
  jax.tree.map(lambda x, names: np.testing.assert_equal(x.ndim, len(names)), adapters, axes)
  adapters = jax.tree.map(lambda x: x + 0.1, adapters)
  merged = lora.merge(params, adapters, alpha=8.0)
  for name, adapter in adapters.items():
    change = merged["layers"][name]["kernel"] - params["layers"][name]["kernel"]
    want = 4 * np.einsum("lir,lro->lio", adapter["a"], adapter["b"])
    np.testing.assert_allclose(change, want, atol=1e-5)
  np.testing.assert_array_equal(merged["embed"], params["embed"])


@pytest.mark.parametrize("join", [lora.merge, lora.with_adapters])
def test_only_the_adapters_learn(join):
  policy, params = _make()
  init, _ = lora.adapters(policy, rank=2, targets=("value", "down"))
  adapters = init(jax.random.key(1))

  def loss(params, adapters):
    return jnp.sum(policy.apply(join(params, adapters, alpha=2.0), jnp.arange(5)) ** 2)

  frozen, learned = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, adapters)
  assert all(not np.any(x) for x in jax.tree.leaves(frozen))
  assert all(np.any(adapter["b"]) for adapter in learned.values())


def test_beside_is_what_merged_says():
  policy, params = _make()
  init, _ = lora.adapters(policy, rank=2)
  start = init(jax.random.key(1))
  tokens = jnp.arange(5)
  logits = lambda join, adapters: policy.apply(join(params, adapters, alpha=8.0), tokens)
  plain = policy.apply(params, tokens)
  np.testing.assert_array_equal(logits(lora.with_adapters, start), plain)
  moved = jax.tree.map(lambda x: x + 0.03, start)
  np.testing.assert_allclose(
    logits(lora.with_adapters, moved), logits(lora.merge, moved), atol=1e-4
  )
  assert np.abs(logits(lora.with_adapters, moved) - plain).max() > 0.1


@pytest.mark.slow
def test_adapters_beside_biases():
  """As gpt-oss has them, in training and in the sampler's copy."""
  policy, params = _make(**OWN)
  params = jax.tree.map(lambda x: x + 0.1, params)
  init, _ = lora.adapters(policy, rank=2, targets=("query", "key", "value", "out"))
  moved = jax.tree.map(lambda x: x + 0.1, init(jax.random.key(1)))
  beside, merged = (join(params, moved, alpha=8.0) for join in (lora.with_adapters, lora.merge))
  want = policy.hidden(merged, jnp.arange(5))
  assert jnp.abs(want - policy.hidden(params, jnp.arange(5))).max() > 0.03
  np.testing.assert_allclose(policy.hidden(beside, jnp.arange(5)), want, atol=1e-4)
  args = jnp.arange(5)[None], jnp.array([5]), policy.init_cache(1, 5)
  last, _ = policy.prefill(policy.unstack(beside), *args)
  np.testing.assert_allclose(last[0], want[-1], atol=1e-4)


def test_experts_have_no_adapters_but_their_attention_has():
  policy = policies.make(policies.tiny(16, experts=4, experts_per_token=2))
  init, _ = lora.adapters(policy, rank=1, targets=("query", "out"))
  assert {*init(jax.random.key(0))} == {"query", "out"}
  with pytest.raises(ValueError, match="targets has 'gate', but MLPs of this model are mixtures"):
    lora.adapters(policy, rank=1)


@pytest.mark.parametrize(
  "options, message",
  [({"rank": 0}, "rank=0"), ({"rank": 1, "targets": ("norm",)}, "targets has 'norm'")],
)
def test_bad_arguments_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    lora.adapters(_make()[0], **options)
