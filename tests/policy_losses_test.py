import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from lcrl import losses
from lcrl.types import Batch, TokenScores
from tests.rollouts import random_rollouts

ONE = jnp.ones((1, 1), bool)


def token(log_ratio, advantage, **knobs):
  """Loss and gradient of one token whose old probability is 1."""
  loss = lambda x: losses.clipped_surrogate_loss(
    x[None, None], jnp.zeros((1, 1)), jnp.array([advantage]), ONE, **knobs
  ).sum()
  return jax.value_and_grad(loss)(jnp.array(log_ratio))


def test_clip_binds_for_a_good_token():
  # ratio = exp(0.5) = 1.65 > 1.2 and A = 2, so the loss is -(1.2 * 2). Unclipped: -3.30.
  loss, grad = token(0.5, 2.0)
  np.testing.assert_allclose(loss, -2.4, rtol=1e-6)
  assert grad == 0
  # Clip-higher leaves room to 1.7: the gradient is -A * ratio.
  np.testing.assert_allclose(token(0.5, 2.0, clip_high=0.7)[1], -2 * np.exp(0.5), rtol=1e-6)


def test_a_bad_token_is_bounded_only_by_dual_clip_or_cap():
  # ratio = e^2 = 7.39, A = -1: the loss is the ratio, without end.
  np.testing.assert_allclose(token(2.0, -1.0), [np.exp(2.0)] * 2, rtol=1e-6)
  np.testing.assert_allclose(token(2.0, -1.0, dual_clip=3.0), [3.0, 0.0])
  np.testing.assert_allclose(token(2.0, -1.0, ratio_cap=4.0), [4.0, 0.0])
  # Neither touches a good token.
  np.testing.assert_allclose(
    token(-0.1, 1.0, dual_clip=3.0, ratio_cap=4.0), token(-0.1, 1.0), rtol=1e-6
  )


def test_dual_clip_must_exceed_one():
  with pytest.raises(ValueError, match=r"dual_clip must exceed 1, got 0\.5"):
    token(0.0, 1.0, dual_clip=0.5)


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_gradients(seed):
  keys = jax.random.split(jax.random.key(seed), 3)
  log_probs, old = (-jnp.abs(jax.random.normal(k, (3, 4))) for k in keys[:2])
  advantages = jax.random.normal(keys[2], (3,))
  mask = jnp.arange(4)[None] < jnp.array([4, 2, 1])[:, None]
  for loss in (
    lambda x: losses.clipped_surrogate_loss(x, old, advantages, mask, clip_low=9, clip_high=99),
    lambda x: losses.clipped_surrogate_loss(
      x, old, advantages, mask, clip_low=9, clip_high=99, ratio=losses.sequence_ratio
    ),
    lambda x: losses.k3_kl(x, old, mask),
  ):
    check_grads(jax.jit(loss), (log_probs,), order=1, modes="rev", rtol=2e-2, atol=2e-2)


def batch_of(r, **fields):
  keep = r.valid
  fields = dict(weights=losses.token_mean(r.mask, keep), **fields)
  return Batch(r, r.scores, keep, r.scores - 0.5, **fields)


def test_first_update_is_on_policy_reinforce():
  r = random_rollouts(1)
  batch = batch_of(r)
  stage = losses.clipped_surrogate()
  loss = lambda x: stage.apply((), TokenScores(x), batch)[0]
  value, grad = jax.value_and_grad(loss)(r.sampler_log_probs)
  want = -jnp.where(r.mask, batch.weights * batch.advantages[..., None], 0)
  np.testing.assert_allclose(grad, want, rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(value, want.sum(), rtol=1e-4, atol=1e-6)


def test_advantages_per_token_or_per_rollout_and_nothing_else():
  r = random_rollouts(1)
  args = r.sampler_log_probs, r.sampler_log_probs
  flat = losses.clipped_surrogate_loss(*args, r.scores, r.mask)
  spread = jnp.broadcast_to(r.scores[..., None], r.mask.shape)
  np.testing.assert_array_equal(flat, losses.clipped_surrogate_loss(*args, spread, r.mask))
  with pytest.raises(ValueError, match=r"advantages must be \(4, 4\) or \(4, 4, 12\)"):
    losses.clipped_surrogate_loss(*args, r.scores[0], r.mask)


def test_correction_scales_surrogate_kl_and_entropy():
  r = random_rollouts(2)
  old = r.sampler_log_probs + jnp.log(1.5)  # every ratio 1.5, above the cap of 1.25
  scores = TokenScores(old, entropy=jnp.full(r.mask.shape, 2.0))
  batch = batch_of(r, old_log_probs=old, ref_log_probs=old + 0.3)
  value = lambda **knobs: losses.clipped_surrogate(**knobs).apply((), scores, batch)[0]
  kl = losses.policy.k1(beta=0.1)
  correction = losses.policy.truncated(high=1.25)
  # k1 is -0.3 at every token, the entropy 2, and the weights sum to 1
  want = 1.25 * (value() - 0.1 * 0.3 - 0.1 * 2)
  got = value(kl=kl, correction=correction, entropy_bonus=0.1)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  assert not value(kl=kl, correction=losses.policy.rejected(high=1.25, per_sequence=False))
  assert losses.clipped_surrogate(kl=kl).needs == ("ref",)
  assert losses.clipped_surrogate().needs == ()


def test_gspo_weighs_a_response_once_and_luspo_by_its_length():
  r = random_rollouts(3)
  old = r.sampler_log_probs
  new = jnp.where(r.mask, old + 0.1 * jnp.sin(jnp.arange(12.0))[None, None], 0)
  loss = losses.clipped_surrogate_loss(
    new, old, r.scores, r.mask, clip_low=9, clip_high=9, ratio=losses.sequence_ratio
  )
  mean = jnp.sum(jnp.where(r.mask, new - old, 0), -1) / r.lengths
  want = -jnp.exp(mean) * r.scores
  got = losses.sequence_mean(r.mask, r.valid) * loss
  np.testing.assert_allclose(got.sum(), want.mean(), rtol=1e-5)
  got = losses.sequence_sum(r.mask, r.valid) * loss
  np.testing.assert_allclose(got.sum(), (want * r.lengths).mean(), rtol=1e-5)


def test_cispo_teaches_clipped_tokens():
  # ratio e > 2: the surrogate's gradient is 0, CISPO's is -clip * A.
  grad = jax.grad(
    lambda x: losses.cispo_loss(x, jnp.zeros((1, 1)), jnp.ones(1), ONE, upper=2.0).sum()
  )(jnp.ones((1, 1)))
  np.testing.assert_allclose(grad, [[-2.0]])


def drpo(seed=0, **changes):
  r = dataclasses.replace(random_rollouts(seed), **changes)
  old = r.sampler_log_probs
  log_probs = jnp.where(r.mask, old - 0.2, 0)
  knobs = dict(max_length=9, temperature=0.5, tau=2.0, delta=0.1, beta=10.0)
  loss = lambda x, **more: losses.drpo_loss(x, old, r.correct, r.mask, r.valid, **knobs, **more)
  return loss, log_probs, r


def test_drpo_value_is_the_paper_s_and_the_released_value_has_its_gradient():
  loss, log_probs, r = drpo()
  check_grads(jax.jit(loss), (log_probs,), order=1, modes="rev", rtol=2e-2, atol=2e-2)
  released = lambda x: loss(x, released_value=True)
  np.testing.assert_allclose(
    jax.grad(loss)(log_probs), jax.grad(released)(log_probs), rtol=1e-4, atol=1e-7
  )
  # By hand: KL is 0.2 everywhere, so the penalty is 10 / 2 * (0.2 - 0.1)^2.
  scores = np.asarray(jnp.sum(log_probs, -1) / r.lengths, np.float64)
  right, lengths = np.asarray(r.correct), np.asarray(r.lengths)
  total = 0.0
  for s, c, length in zip(scores, right, lengths, strict=True):
    if c.any() and not c.all():
      w = np.exp((1 - length[c] / 9) / 0.5)
      total += (w / w.sum()) @ s[c] - 2.0 * np.log(np.mean(np.exp(s[~c] / 2.0)))
  np.testing.assert_allclose(loss(log_probs), -total / 4 + 0.05, atol=1e-5)


@pytest.mark.parametrize("verdict", [True, False])
def test_drpo_without_contrast_is_the_penalty_alone(verdict):
  loss, log_probs, _ = drpo(correct=jnp.full((4, 4), verdict))
  np.testing.assert_allclose(loss(log_probs), 0.05, rtol=1e-5)


def test_drpo_never_pushes_a_right_answer_down():
  loss, _, r = drpo()
  grad = jax.grad(loss)(r.sampler_log_probs)  # on policy: no penalty
  assert np.all(grad[r.correct] <= 0)
  assert np.all(grad[~r.correct] >= 0)


def test_sapo_fades_and_never_ends():
  # At ratio 1 the gradient is -A; far off it is 4 sigmoid'(tau (ratio - 1)) * ratio * -A, not 0.
  def grad(log_ratio, advantage):
    loss = lambda x: losses.sapo_loss(x, jnp.zeros((1, 1)), jnp.array([advantage]), ONE).sum()
    return float(jax.grad(loss)(jnp.full((1, 1), log_ratio))[0, 0])

  np.testing.assert_allclose([grad(0.0, 2.0), grad(0.0, -2.0)], [-2.0, 2.0], rtol=1e-6)
  ratio, gate = 3.0, 1 / (1 + np.exp(-1.05 * 2.0))
  want = 4 * gate * (1 - gate) * ratio
  np.testing.assert_allclose(grad(np.log(ratio), -1.0), want, rtol=1e-5)
  assert 0 < -grad(np.log(9.0), 1.0) < 0.1


def test_entropy_bonus_counts_tokens_as_the_weights_do():
  r = random_rollouts(4)
  scores = TokenScores(r.sampler_log_probs, entropy=jnp.full(r.mask.shape, 2.0))
  value = lambda **knobs: losses.cispo(**knobs).apply((), scores, batch_of(r))[0]
  np.testing.assert_allclose(value(entropy_bonus=0.1), value() - 0.2, rtol=1e-5)
  assert losses.cispo(entropy_bonus=0.1).needs == ("entropy",)


def test_mode_switch_reads_the_opening_token_of_each_mode():
  r = random_rollouts(5, prompts=2)
  long = jnp.array([1, 1, 0, 0])
  level = jnp.broadcast_to(long, (2, 4))
  # Long is right and short is not in the first group, so long is preferred; second: all right.
  correct = jnp.array([long > 0, long >= 0])
  r = dataclasses.replace(
    r, correct=correct, budget=dataclasses.replace(r.budget, level=level), scores=0.5 + 0 * r.scores
  )
  logits = jnp.broadcast_to(10.0 * jnp.arange(12.0), r.mask.shape)  # prompts have 3 tokens
  logits = logits.at[:, :, 3].set(jnp.array([[2.0, 4.0, 1.0, 0.0], [5.0, 5.0, 0.0, 0.0]]))
  base = losses.clipped_surrogate()
  assert losses.mode_switch(base=base).coupled
  scores = TokenScores(r.sampler_log_probs, logits_at=logits)
  value = lambda pair: losses.mode_switch(base=base, weight=2.0, pair=pair).apply(
    (), scores, batch_of(r)
  )
  # Differences 3 - 0.5 and 0 - 5: the hinge at margin 4 gives 1.5 and 9; advantages are all 0.
  np.testing.assert_allclose(
    value(losses.policy.hinge(margin=4.0))[0], 2 * (1.5 + 9) / 2, rtol=1e-5
  )
  want = np.log1p(np.exp([-2.5, 5.0])).sum()
  np.testing.assert_allclose(value(losses.policy.logistic())[0], want, rtol=1e-5)
