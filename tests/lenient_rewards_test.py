"""Rewards that leave tokens free, and when they press."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcrl import rewards
from tests.helpers.graded import rollouts

few = settings(max_examples=8, deadline=None)
LENGTHS = st.lists(st.integers(1, 400), min_size=6, max_size=6)
VERDICTS = st.lists(st.booleans(), min_size=6, max_size=6)
ALL = jnp.ones((1, 6), bool)


def paid(stage, steps):
  """The rewards of each step and its state before it; a step is (verdicts, lengths)."""
  state, found = stage.init(), []
  for verdicts, lengths in steps:
    got, new = stage.apply(state, rollouts(verdicts, lengths, prompt_ids=[0, 1]))
    found.append((np.asarray(got).tolist(), float(state.own)))
    state = new
  return found


@few
@given(lengths=LENGTHS, verdicts=VERDICTS, slack=st.integers(0, 200))
def test_within_the_slack_right_answers_earn_alike(lengths, verdicts, slack):
  right, lengths = jnp.array([verdicts]), jnp.array([lengths])
  best = jnp.zeros(())
  got = rewards.short_rl_reward(right, right, lengths, best, ALL, slack=slack)
  shortest = jnp.min(jnp.where(right, lengths, 999))
  near = right & (lengths <= shortest + slack)
  np.testing.assert_array_equal(got[near], 1.5)
  np.testing.assert_array_equal(got[~right], 0.0)
  assert np.all(got[right & ~near] < 1.5)
  assert np.all(got[right] >= 0.5)


def test_short_rl_presses_only_near_its_best_accuracy():
  stage = rewards.short_rl(slack=0, tolerance=0.2)
  good, bad = [[1, 1, 1], [1, 1, 0]], [[1, 1, 0], [0, 0, 0]]
  lengths = [[10, 20, 30], [5, 7, 9]]
  (first, _), (second, best), (third, _) = paid(
    stage, [(bad, lengths), (good, lengths), (bad, lengths)]
  )
  assert first == [[1.5, 0.5, 0.0], [0.0] * 3]
  assert best == pytest.approx(1 / 3)
  assert second == [[1.5, 1.0, 0.5], [1.5, 0.5, 0.0]]
  assert third == bad  # 1/3 is below 5/6 - 0.2: correctness alone


@few
@given(lengths=LENGTHS, verdicts=VERDICTS, price=st.sampled_from([0.0, 0.5, 1.0]))
def test_leash_leaves_tokens_below_its_target_alone(lengths, verdicts, price):
  r, lengths = jnp.where(jnp.array([verdicts]), 1.0, -1.0), jnp.array([lengths])
  got = rewards.leash_reward(r, lengths, jnp.array(price), target=200)
  np.testing.assert_array_equal(got[lengths <= 200], r[lengths <= 200])
  np.testing.assert_array_equal(got[r < 0], -1.0)
  assert np.all(got >= -1.0)
  assert (price == 0) or np.all(got[(r > 0) & (lengths > 200)] < 1)


def test_the_price_of_leash_climbs_above_the_target_and_falls_below():
  stage = rewards.leash(target=10, start=0.5, step_size=0.5)
  right = [[1, 1, 1], [1, 1, 1]]
  long, short = [[20] * 3, [20] * 3], [[5] * 3, [5] * 3]
  found = paid(stage, [(right, long), (right, long), (right, short), (right, short)])
  assert [price for _, price in found] == [0.5, 1.0, 1.0, 0.75]  # at most 1
  assert found[0][0] == [[0.5] * 3] * 2
  assert found[2][0] == right  # nothing to pay, whatever the price


@pytest.mark.parametrize(
  "build, what",
  [
    (lambda: rewards.leash(target=0), "target must be positive, got 0"),
    (lambda: rewards.short_rl_reward(ALL, ALL, 1 * ALL, jnp.zeros(()), ALL, slack=-1), "slack"),
  ],
)
def test_what_cannot_be_is_refused(build, what):
  with pytest.raises(ValueError, match=what):
    build()


def test_short_rl_keeps_its_best_accuracy():
  stage = rewards.short_rl(slack=0, tolerance=0.2)
  good, bad, lengths = [[1, 1, 1], [1, 1, 0]], [[1, 1, 0], [0, 0, 0]], [[10, 20, 30], [5, 7, 9]]
  *_, (last, best) = paid(stage, [(good, lengths), (bad, lengths), (bad, lengths)])
  assert best == pytest.approx(5 / 6)  # not that of the batch before
  assert last == bad
