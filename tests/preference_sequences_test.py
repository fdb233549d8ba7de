"""Weightings: which tokens of a pair count, and by how much."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.losses import preference as pref


def prefix(lengths, width):
  return jnp.arange(width)[None] < jnp.asarray(lengths)[:, None]


def test_gradient_mass_grows_with_length_unless_weights_say_otherwise():
  """At the reference DPO moves every token by beta / 2: 7 tokens move 7 times as much as one."""
  mask, other = prefix([7], 7), prefix([1], 7)
  zeros = jnp.zeros((1, 7))

  def mass(weigh):
    ratios = lambda chosen: pref.sequence_log_ratios(chosen, zeros, weigh(mask, other))
    loss = lambda chosen: pref.dpo_loss(ratios(chosen), jnp.zeros(1)).sum()
    return np.abs(jax.grad(loss)(zeros)).sum() / 0.05

  np.testing.assert_allclose(mass(pref.sum_weights), 7, rtol=1e-5)
  np.testing.assert_allclose(mass(pref.mean_weights), 1, rtol=1e-5)
  np.testing.assert_allclose(mass(partial(pref.desensitized_weights, alpha=0.5)), 4, rtol=1e-5)
  np.testing.assert_allclose(mass(partial(pref.desensitized_weights, alpha=0.0)), 1, rtol=1e-5)
  np.testing.assert_allclose(mass(pref.common_length_weights), 4, rtol=1e-5)


def test_an_empty_side_weighs_nothing():
  for weigh in (pref.mean_weights, pref.batch_mean_weights, pref.common_length_weights):
    assert (weigh(jnp.zeros((2, 3), bool), jnp.ones((2, 3), bool)) == 0).all()


def test_desensitized_weights_count_tokens_of_the_mask():
  mask = jnp.array([False, True, True, False, True, True])  # a prompt, and tool output inside
  other = jnp.array([True, True, True, False, False, False])
  got = pref.desensitized_weights(mask, other, alpha=0.25)
  np.testing.assert_array_equal(got, [0, 1, 1, 0, 1, 0.25])
  np.testing.assert_array_equal(pref.desensitized_weights(other, mask, alpha=0.25), other)
  np.testing.assert_array_equal(pref.desensitized_weights(mask, other, alpha=1.0), mask)


def test_sampled_weights_draw_as_many_as_the_shorter_side_has():
  mask, other = (prefix(x, 12) for x in np.random.default_rng(0).integers(1, 12, (2, 50)))
  keys = jax.random.split(jax.random.key(3), 50)
  weights = pref.sampled_weights(keys, mask, other)
  assert not (weights * ~mask).any()
  np.testing.assert_array_equal(weights.sum(-1), jnp.minimum(mask.sum(-1), other.sum(-1)))
  # The draw of a pair depends on its key only: not on its neighbours, not on padding.
  np.testing.assert_array_equal(
    pref.sampled_weights(keys[7:9], mask[7:9], other[7:9]), weights[7:9]
  )
  wide = pref.sampled_weights(keys, jnp.pad(mask, ((0, 0), (0, 4))), other)
  np.testing.assert_array_equal(wide[:, :12], weights)


def test_sampled_weights_are_uniform():
  n = 4000
  keys = jax.random.split(jax.random.key(0), n)
  mask, other = jnp.ones((n, 4), bool), prefix(np.full(n, 1), 4)
  share = pref.sampled_weights(keys, mask, other).mean(0)
  np.testing.assert_allclose(share, 0.25, atol=5 * np.sqrt(0.25 * 0.75 / n))


def test_log_ratios_of_long_sequences_keep_small_differences():
  """Summed first, two sums near -2e5 would differ by a multiple of 1/64."""
  ref = jnp.full(40_000, -5.3, jnp.float32)
  got = pref.sequence_log_ratios(ref + 2.0**-20, ref, jnp.ones(40_000))
  np.testing.assert_allclose(got, 40_000 * 2.0**-20, rtol=0.01)


def test_bfloat16_is_summed_in_float32():
  got = pref.sequence_log_probs(jnp.full(1000, -1, jnp.bfloat16), jnp.ones(1000))
  assert got.dtype == jnp.float32
  assert got == -1000  # bfloat16 stops at -256


def test_batch_mean_nll_is_the_token_mean():
  log_probs, mask = jnp.linspace(-3.0, 0.0, 12).reshape(3, 4), prefix([4, 1, 2], 4)
  got = pref.nll_loss(log_probs, pref.batch_mean_weights(mask)).mean()
  np.testing.assert_allclose(got, -log_probs[mask].mean(), rtol=1e-5)
