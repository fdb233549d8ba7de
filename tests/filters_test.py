import dataclasses

import jax.numpy as jnp
import numpy as np

from lcrl import filters
from tests.rollouts import random_rollouts

CORRECT = jnp.array([[1, 1, 1], [0, 0, 0], [1, 0, 1], [1, 0, 0]], bool)
VALID = jnp.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 0]], bool)


def rollouts():
  return dataclasses.replace(random_rollouts(prompts=4, group=3), correct=CORRECT, valid=VALID)


def keep(stage, rewards=None):
  rewards = CORRECT.astype(jnp.float32) if rewards is None else rewards
  return np.asarray(stage.apply(stage.init(), rewards, rollouts())[0])


def test_mixed_correctness_reads_verdicts_and_keeps_a_lone_rollout():
  rewards = jnp.arange(12.0).reshape(4, 3)  # shaped rewards differ everywhere: not its business
  want = [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]]
  np.testing.assert_array_equal(keep(filters.mixed_correctness(), rewards), want)


def test_nonconstant_reward_keeps_a_right_group_whose_lengths_differ():
  rewards = CORRECT.astype(jnp.float32).at[0, 1].set(0.9)
  want = [[1, 1, 1], [0, 0, 0], [1, 1, 1], [1, 0, 0]]
  np.testing.assert_array_equal(keep(filters.nonconstant_reward(), rewards), want)


def test_keep_all_keeps_no_padding():
  np.testing.assert_array_equal(keep(filters.keep_all()), VALID)


def test_untruncated_drops_cut_rollouts_of_what_its_base_keeps():
  r = dataclasses.replace(rollouts(), truncated=jnp.zeros((4, 3), bool).at[2, 0].set(True))
  stage = filters.untruncated(base=filters.mixed_correctness())
  got, _ = stage.apply(stage.init(), CORRECT * 1.0, r)
  np.testing.assert_array_equal(got, [[0, 0, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0]])


def test_all_right_keeps_what_a_length_term_trains_on():
  np.testing.assert_array_equal(
    keep(filters.all_right()), [[1, 1, 1], [0, 0, 0], [0, 0, 0], [1, 0, 0]]
  )
