import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcrl import advantages
from tests.rollouts import random_rollouts

GROUP = [
  advantages.group_normalized_advantage,
  advantages.group_centered_advantage,
  advantages.leave_one_out_advantage,
  advantages.batch_scaled_advantage,
]
KEEP = jnp.array([[True] * 5, [True, True, True, False, False]])


def rewards(seed):
  return jax.random.normal(jax.random.key(seed), (2, 5))


@pytest.mark.parametrize("advantage", GROUP)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**16), shift=st.floats(-100, 100))
def test_a_constant_added_to_all_rewards_of_a_group_changes_nothing(advantage, seed, shift):
  shifts = jnp.array([[shift], [0.0]]) if advantage is not GROUP[-1] else shift
  got = advantage(rewards(seed) + shifts, KEEP)
  np.testing.assert_allclose(got, advantage(rewards(seed), KEEP), rtol=2e-3, atol=2e-3)
  np.testing.assert_allclose(got.sum(-1), 0, atol=1e-4)


@pytest.mark.parametrize("advantage", GROUP)
def test_equal_rewards_give_exactly_zero(advantage):
  # In float32 the mean of seven times 1.2 is not 1.2: dividing that error by eps would give 0.1.
  got = advantage(jnp.full((3, 7), 1.2), jnp.ones((3, 7), bool))
  assert not np.any(got)


@pytest.mark.parametrize("advantage", GROUP[:3])
def test_a_lone_rollout(advantage):
  keep = jnp.array([[True, False]])
  reward = jnp.array([[0.5, jnp.nan]])
  np.testing.assert_allclose(advantage(reward, keep, lone_raw=True), [[0.5, 0.0]], rtol=1e-5)
  assert not np.any(advantage(reward, keep))


def test_shapes_must_agree():
  with pytest.raises(ValueError, match=r"\(2, 5\), \(2,\)"):
    advantages.group_normalized_advantage(rewards(0), KEEP[:, 0])


def shape(stage, keep, values):
  r = dataclasses.replace(random_rollouts(prompts=2, group=5), valid=jnp.ones((2, 5), bool))
  return np.asarray(stage.apply(stage.init(), values, keep, r)[0]), r


def test_over_valid_takes_the_mean_over_the_whole_group():
  values = jnp.array([[1.0, 0.0, 0.0, 0.0, 0.0]] * 2)
  keep = jnp.array([[True, True, False, False, False]] * 2)
  kept, _ = shape(advantages.group_centered(), keep, values)
  whole, _ = shape(advantages.group_centered(over_valid=True), keep, values)
  np.testing.assert_allclose(kept[0], [0.5, -0.5, 0, 0, 0])
  np.testing.assert_allclose(whole[0], [0.8, -0.2, 0, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("per_token", [True, False])
def test_whitening_has_mean_zero_and_variance_one_in_its_own_count(per_token):
  got, r = shape(advantages.reinforce_baseline(per_token=per_token), KEEP, rewards(1))
  counts = np.where(KEEP, r.lengths if per_token else 1, 0)
  np.testing.assert_allclose((got * counts).sum(), 0, atol=1e-4)
  np.testing.assert_allclose((got**2 * counts).sum(), counts.sum() - 1, rtol=1e-4)


def test_returns_to_go_are_per_token():
  got, r = shape(advantages.reinforce(gamma=0.5), KEEP, rewards(2))
  assert got.shape == r.mask.shape
  assert not np.any(got[~np.asarray(r.mask & KEEP[..., None])])


def spoken(tokens, **signals):
  """One group of two responses of four tokens after a prompt of one."""
  r = random_rollouts(prompts=1, group=2, length=5, prompt_length=1)
  mask = jnp.broadcast_to(jnp.arange(5) > 0, (1, 2, 5))
  return dataclasses.replace(
    r, tokens=jnp.array([tokens]), mask=mask, correct=jnp.array([[True, False]]), signals=signals
  )


def test_repetition_is_discounted_by_itself():
  r = spoken([[0, 5, 5, 5, 6], [0, 1, 2, 3, 4]])
  stage = advantages.multi_discount(ngram=2, penalty=-1.0, gamma=0.5)
  got, _ = stage.apply((), jnp.array([[1.0, 0.0]]), jnp.ones((1, 2), bool), r)
  # The second "5 5" covers the second and third 5; 0.5 from the group's mean of the verdicts.
  np.testing.assert_allclose(got[0, 0], [0, 0.5 - 0.75, 0.5 - 1.5, 0.5 - 1, 0.5])
  np.testing.assert_allclose(got[0, 1], [0, -0.5, -0.5, -0.5, -0.5])


def test_only_the_token_that_ends_thinking_gets_the_compression():
  signals = dict(needed=[[1, 1]], think_length=[[2, 2]], think_end=[[1, 1]])
  signals = {name: jnp.array(x) for name, x in signals.items()}
  r = spoken([[0, 1, 2, 3, 4]] * 2, **signals)
  stage = advantages.thinking_compression(weight=2.0, base=advantages.raw())
  got, _ = stage.apply((), jnp.array([[1.0, 0.25]]), jnp.ones((1, 2), bool), r)
  # 1 - needed / (thought + 1e-4) is a half, twice; a wrong answer gets none.
  np.testing.assert_allclose(got[0, 0], [0, 1, 2, 1, 1], atol=1e-3)
  np.testing.assert_allclose(got[0, 1], [0, 0.25, 0.25, 0.25, 0.25])


def test_each_episode_is_paid_for_its_own_progress():
  # Two right of three: centred 1/3, 1/3 and -2/3; the first adds 0.5 * (0.4, 0.4, -0.2).
  mask = jnp.ones((1, 3, 3), bool).at[0, 2, 2].set(False)
  progress = jnp.zeros((1, 3, 3)).at[0, 0].set(jnp.array([0.4, 0.4, -0.2])).at[0, 2, 2].set(9.0)
  r = dataclasses.replace(random_rollouts(prompts=1, group=3), mask=mask)
  r = dataclasses.replace(r, signals={"progress": progress})
  stage = advantages.block_progress(alpha=0.5)
  rewards, keep = jnp.array([[1.0, 1.0, 0.0]]), jnp.ones((1, 3), bool)
  got, _ = stage.apply(stage.init(), rewards, keep, r)
  third = 1 / 3
  want = [[third + 0.2, third + 0.2, third - 0.1], [third] * 3, [-2 * third, -2 * third, 0.0]]
  np.testing.assert_allclose(got[0], want, rtol=1e-5)


def test_within_the_target_is_right_and_ended():
  r = random_rollouts(prompts=1, group=4)
  r = dataclasses.replace(
    r,
    lengths=jnp.array([[8, 9, 8, 8]]),
    correct=jnp.array([[True, True, True, False]]),
    truncated=jnp.array([[False, False, True, False]]),
    budget=dataclasses.replace(r.budget, target=jnp.full((1, 4), 8, jnp.int32)),
  )
  stage = advantages.gdpo(components=("within_target",))
  got, _ = stage.apply((), jnp.zeros((1, 4)), r.valid, r)
  np.testing.assert_allclose(got, [[1.5, -0.5, -0.5, -0.5]], rtol=1e-6)


def test_gdpo_has_a_weight_for_each_component():
  with pytest.raises(ValueError, match="weights must be one a component"):
    advantages.gdpo(components=("reward", "correct"), weights=(1.0,))
  with pytest.raises(ValueError, match="weights must be one a component"):
    advantages.gdpo_advantage(rewards(0)[None], KEEP, weights=(1.0, 2.0))
