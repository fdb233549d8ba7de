"""Rewards that remember prompts or accuracy: what a step sees, and what it leaves."""

import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import rewards
from tests.helpers.graded import rollouts


def paid(stage, steps):
  """The rewards of each step, and the last state; a step is (verdicts, lengths) of prompts 0, 1."""
  state, found = stage.init(), []
  for verdicts, lengths in steps:
    got, state = stage.apply(state, rollouts(verdicts, lengths, prompt_ids=[0, 1]))
    found.append(np.asarray(got).tolist())
  return found, state.own


LONG, SHORT = [[10, 20, 30], [6, 6, 6]], [[5, 19, 21], [6, 7, 6]]
SOLVED, HALF = [[1, 1, 1], [0, 0, 0]], [[1, 1, 1], [1, 1, 0]]


def test_toggle_keeps_the_first_budget_and_lifts_it_in_every_other_phase():
  stage = rewards.toggle(rows=2, threshold=0.5, quantile=0.5, period=2)
  steps = [(SOLVED, LONG), (HALF, SHORT), (HALF, LONG), (HALF, LONG), (HALF, SHORT)]
  found, state = paid(stage, steps)
  # Prompt 0 has budget 20 after the first step, prompt 1 has 6.5 after the second.
  assert found[0] == SOLVED
  assert found[1] == [[1, 1, 0], [1, 1, 0]]
  assert found[2] == found[3] == HALF
  assert found[4] == [[1, 1, 0], [1, 0, 0]]
  assert state.budgets.tolist() == [20, 6.5]


def test_toggle_leaves_prompts_alone_that_are_not_mastered():
  stage = rewards.toggle(rows=2, threshold=0.9, quantile=0.0, period=9)
  found, _ = paid(stage, [(HALF, LONG), (HALF, LONG)])
  assert found[1] == [[1, 0, 0], [1, 1, 0]]


def test_the_price_of_a_dlp_follows_the_accuracy():
  stage = rewards.a_dlp(reference=0.5, start=0.125, step_size=0.25)
  found, price = paid(stage, [(SOLVED, SHORT), (HALF, SHORT)])
  np.testing.assert_allclose(found[0][1], -0.125 * jnp.array(SHORT[1]))
  np.testing.assert_allclose(found[1][1], found[0][1] + np.array(HALF[1]))  # half are right
  assert price == pytest.approx(0.125 + 0.25 / 3)


def test_a_profile_is_the_first_group_with_enough_right_answers():
  stage = rewards.profiled_penalty(rows=2, penalty=0.25, deviations=0.0, min_right=2)
  found, limits = paid(stage, [(SOLVED, LONG), (HALF, SHORT), (HALF, LONG)])
  assert found[0] == SOLVED
  assert found[1] == [[1, 1, 0.75], [1, 1, 0]]
  assert found[2] == [[1, 0.75, 0.75], [1, 1, 0]]
  assert limits.tolist() == [20, 6.5]


def test_a_length_term_of_the_base_replaces_that_of_the_profile():
  base = rewards.length_suite(longest_penalty=0.5)
  stage = rewards.profiled_penalty(rows=2, penalty=0.25, deviations=0.0, base=base)
  found, _ = paid(stage, [(SOLVED, LONG), (SOLVED, LONG)])
  assert found[1][0] == [1, 0.75, 0.5]


@pytest.mark.parametrize(
  "build",
  [
    lambda: rewards.toggle(rows=2, threshold=0.5, quantile=0.5, period=0),
    lambda: rewards.length_suite(part="prompt"),
    lambda: rewards.band_factor(jnp.ones(2), low=2.0, high=2.0, floor=0.5),
  ],
)
def test_what_cannot_be_is_refused(build):
  with pytest.raises(ValueError, match=r"must be .*, got "):
    build()
