"""float16 computes the gradient of float32, for a share of the loss that it cannot hold itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.training import float16, loop, scorer
from tests.helpers.devices import limit_devices
from tests.helpers.files import lines
from tests.helpers.rl_runs import changed
from tests.rollouts import random_rollouts

CONFIG = policies.tiny(vocab_size=64, hidden_size=32, layers=2, mlp_size=64)
PARAMS = policies.make(CONFIG).init(jax.random.key(0))
ROLLOUTS = random_rollouts(prompts=4, group=4)


def gradient(dtype, share, *, unroll=False):
  """With unrolled layers as a step in pieces takes it: of what `unstack_for_grad` gives."""
  policy = policies.make(dataclasses.replace(CONFIG, dtype=dtype, unroll=unroll))
  score = scorer.make_scorer(policy)
  weights = share * jax.random.normal(jax.random.key(1), ROLLOUTS.mask.shape)

  @jax.grad
  def slope(params):
    return jnp.sum(jnp.where(ROLLOUTS.mask, weights * score(params, ROLLOUTS).log_probs, 0))

  return np.concatenate(
    [np.asarray(x, float).ravel() for x in jax.tree.leaves(slope(policy.unstack_for_grad(PARAMS)))]
  )


def cosine(x, y):
  return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("share", [1.0, 1e-8, 0.0])
@pytest.mark.slow
def test_a_gradient_is_that_of_float32(share, unroll, monkeypatch):
  want, found = (gradient(dtype, share, unroll=unroll) for dtype in ("float32", "float16"))
  np.testing.assert_allclose(np.linalg.norm(found), np.linalg.norm(want), rtol=1e-2)
  if share:
    assert cosine(want, found) > 0.9999
  if 0 < share < 1:
    monkeypatch.setattr(scorer, "scaled", lambda score: score)
    assert not cosine(want, gradient("float16", share)) > 0.99


def test_a_sum_over_many_alike_tokens_stays_finite():
  score = float16.scaled(lambda weights, x: x.astype("float16") @ weights.astype("float16"))
  x = jnp.ones((2**17, 8))
  slope = jax.grad(lambda weights: jnp.sum(score(weights, x).astype("float32") / 2**17))
  np.testing.assert_allclose(slope(jnp.ones(8)), 1.0, rtol=1e-2)


@pytest.mark.slow
def test_a_run_with_adapters_in_float16(tmp_path):
  """The sampler, pieces of packed rows and the adapters."""
  config = changed(
    lora={"rank": 2, "alpha": 4.0},
    policy__dtype="float16",
    policy__param_dtype="float16",
    sampling__dtype="float16",
    train__micro_tokens=64,
    train__steps=2,
  )
  with pytest.MonkeyPatch.context() as patch:
    limit_devices(patch)
    loop.train(config, tmp_path)
  steps = [x for x in lines(tmp_path / "metrics.jsonl") if "loss" in x]
  assert [x["skipped_updates"] for x in steps] == [0, 0]
  assert 0 < steps[0]["sampler_logp_diff"] < 2e-3
  assert steps[0]["grad_norm"] > 0
