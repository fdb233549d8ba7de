"""The length-controlled win rate: its optimum, its neutral cases, and what it is there to undo."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcrl.evaluation.length_controlled import (
  Gamed,
  choose_strength,
  fit,
  length_controlled_win_rate,
  standard_length_difference,
  win_rate,
)


def problem(seed, n=60):
  rng = np.random.default_rng(seed)
  x = np.stack([np.tanh(rng.normal(size=n)), rng.normal(size=n), np.ones(n)], 1)
  return x, rng.random(n), rng.choice([0.1, 1.0], n)


@given(seed=st.integers(0, 2**16), strength=st.sampled_from([0.01, 0.5, 10.0, 1e4]))
def test_fit_meets_the_conditions_of_an_optimum(seed, strength):
  """|gradient| is 1 against the sign of each weight, and at most 1 where the weight is 0."""
  x, y, s = problem(seed)
  w = fit(x, y, s, strength)
  gradient = strength * (x.T @ (s * (1 / (1 + np.exp(-x @ w)) - y)))
  scale = strength * s.sum()
  np.testing.assert_allclose(gradient[w != 0], -np.sign(w[w != 0]), atol=1e-8 * max(scale, 1))
  assert (np.abs(gradient[w == 0]) <= 1 + 1e-9).all()


def test_draws_and_halves():
  got = win_rate([0.0, 1.5, 1.51, 1.2])
  assert (got.wins, got.losses, got.draws) == (1, 1, 2)
  assert got.discrete_rate == 50.0
  assert got.rate == pytest.approx(100 * (0.5 + 0.5 + 0.51 + 0.2) / 4)


def test_the_baseline_itself_is_at_fifty():
  lengths = np.arange(10) + 100
  got = length_controlled_win_rate(np.full(10, 1.5), lengths, lengths, np.linspace(-1, 1, 10))
  assert got.rate == 50.0
  np.testing.assert_array_equal(got.weights, 0)


def test_wins_by_length_alone_are_undone():
  """A judge who looks at length only, in the model's own terms; most answers are longer."""
  rng = np.random.default_rng(0)
  lengths, baseline = 1000 + rng.integers(-50, 200, 2000), np.full(2000, 1000)
  z = standard_length_difference(lengths, baseline)
  preference = 1 + (rng.random(2000) < 1 / (1 + np.exp(2 * np.tanh(z))))
  assert win_rate(preference).rate > 65
  got = length_controlled_win_rate(preference, lengths, baseline, strength=100.0)
  assert got.weights[0] == pytest.approx(-2, abs=0.3)  # longer wins: negative
  assert got.rate == pytest.approx(50, abs=5)


def test_gamed_rows_hold_the_length_weight():
  """Without them three one-sided wins send the length weight far away."""
  rng = np.random.default_rng(1)
  z = rng.normal(size=(2, 40))
  gamed = Gamed(z, 1 / (1 + np.exp(2 * np.tanh(z))))
  data = np.r_[np.full(20, 2.0), np.full(20, 1.0)], np.arange(40) + 90, np.full(40, 110)
  difficulty = rng.normal(size=40)
  free = length_controlled_win_rate(*data, difficulty, strength=100.0).weights[0]
  held = length_controlled_win_rate(*data, difficulty, gamed, strength=100.0).weights[0]
  assert abs(held + 2) < abs(free + 2)


def test_strength_is_chosen_by_held_out_loss():
  x, y, s = problem(3)
  strong = (np.tanh(3 * x[:, 0]) + 1) / 2  # a clear signal wants little shrinkage, noise wants much
  assert choose_strength(x, strong, s) > choose_strength(x, y, s)
