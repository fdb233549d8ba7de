"""Laws and verbosity benchmarks beyond their golden numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcrl.evaluation import laws, verbosity


@given(operators=st.integers(5, 60), capability=st.integers(2, 10), scale=st.integers(2, 40))
def test_best_steps_is_the_peak(operators, capability, scale):
  task = {"operators": operators, "capability": capability, "noise_scale": scale * operators}
  best = laws.best_steps(**task)
  around = laws.steps_accuracy(np.array([0.99, 1.0, 1.01]) * best, **task)
  assert around.argmax() == 1
  assert best > operators / capability


@given(st.integers(0, 2**16))
def test_regret_is_the_area_left_open(seed):
  """Against a fine sum under the line; a larger pass rate never has more regret."""
  rng = np.random.default_rng(seed)
  tokens, rates = np.cumsum(rng.integers(1, 40, 6)), np.sort(rng.random(6))
  grid = (np.arange(20_000) + 0.5) / 20_000 * 100
  area = np.interp(grid, [0, *tokens], [0, *rates]).mean()
  regret = laws.token_regret(tokens, rates, budget=100)
  assert regret == pytest.approx(1 - area, abs=1e-3)
  assert laws.token_regret(tokens, rates**0.5, budget=100) <= regret


@given(st.integers(-2, 2), st.integers(1, 3000), st.integers(1, 3000))
def test_wildbench_treats_both_sides_alike(outcome, ours, theirs):
  there = verbosity.wildbench_reward([outcome], [ours], [theirs])
  back = verbosity.wildbench_reward([-outcome], [theirs], [ours])
  np.testing.assert_array_equal(there, -back)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: verbosity.meets_length("60", 60), "got '60'"),
    (lambda: verbosity.ruler_scores(["10"], [1, 2]), "got 1 and 2"),
    (lambda: verbosity.length_score(0, 10), "required must be positive, got 0"),
    (lambda: laws.pass_until(3, passes=4), "got 4 of 3"),
    (lambda: laws.pass_law([1, 2], [0.5, 1.0]), "between 0 and 1"),
    (lambda: laws.token_regret([5, 5], [0, 1], budget=9), "must be positive and grow"),
  ],
)
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
