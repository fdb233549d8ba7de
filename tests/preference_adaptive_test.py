"""What the batch does to a pair loss: weights, beta and margins."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.losses import preference as pref


def test_wpo_weighs_by_how_likely_the_policy_made_it():
  """Under a uniform policy each token is as likely as its own samples on average: weight 1."""
  mask = jnp.arange(6)[None] < jnp.array([3, 5])[:, None]
  uniform = jnp.full((2, 6), -np.log(50.0), jnp.float32)
  weights = pref.wpo_weights(uniform, uniform, uniform, uniform, mask, mask)
  np.testing.assert_allclose(weights, 1.0, rtol=1e-5)
  likely = partial(pref.wpo_weights, uniform + 1, uniform, uniform, uniform, mask, mask)
  np.testing.assert_allclose(likely(), 1.0)
  np.testing.assert_allclose(likely(most=None), np.e, rtol=1e-5)


def test_dynamic_beta_follows_the_kept_margins():
  margins, moments = jnp.array([1.0, 3.0, -50.0]), pref.Moments(jnp.array(1.0), jnp.array(1.0))
  keep = jnp.array([True, True, False])
  np.testing.assert_allclose(pref.dynamic_beta(margins, keep, moments), 0.1 * 1.6)
  np.testing.assert_allclose(pref.dynamic_beta(margins, ~keep, moments), 1e-3)


def test_typical_pairs_drop_the_unusual():
  moments = pref.Moments(jnp.array(0.0), jnp.array(1.0))
  margins = jnp.array([0.0, 0.5, -0.5, 30.0, 1.0])
  keys = jax.random.split(jax.random.key(0), 200)
  keep = jax.vmap(lambda key: pref.typical_pairs(key, margins, moments))(keys)
  np.testing.assert_array_equal(keep.sum(-1), 4)
  assert not keep[:, 3].any()  # weight exp(-450)
  flat = jax.vmap(lambda k: pref.typical_pairs(k, margins, moments._replace(std=jnp.zeros(()))))
  np.testing.assert_allclose(flat(keys).mean(0), 0.8, atol=0.15)  # nothing known yet: any four


def test_moments_of_one_pair_are_no_news():
  old = pref.Moments(jnp.array(2.0), jnp.array(3.0))
  assert pref.updated_moments(old, jnp.array([9.0])) == old
  term, new = pref.lmpo_margins(*(jnp.array([x]) for x in (-1.0, -2.0, 3.0, 4.0)), old)
  assert new == old
  assert np.isfinite(term).all()
