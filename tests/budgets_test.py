import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcrl import budgets


def draw(stage, step=0, prompts=8, seed=0):
  ids, key = jnp.arange(prompts), jax.random.key(seed)
  return stage.apply((), ids, step=jnp.array(step), key=key, group_size=3)[0]


def test_fixed_target_and_cap():
  budget = draw(budgets.fixed(target=7, cap=12))
  assert np.all(budget.target == 7)
  assert np.all(budget.cap == 12)
  assert np.all(draw(budgets.fixed(target=7)).cap == 7)


@settings(max_examples=5, deadline=None)
@given(step=st.integers(0, 1000), seed=st.integers(0, 2**16))
def test_uniform_is_one_draw_a_group_and_repeats(step, seed):
  stage = budgets.uniform(low=3, high=5)
  target = np.asarray(draw(stage, step, 64, seed).target)
  assert set(target.ravel()) == {3, 4, 5}  # both ends included; 64 draws miss one in 1e-11
  assert np.all(target == target[:, :1])
  np.testing.assert_array_equal(target, draw(stage, step, 64, seed).target)
  assert np.any(target != draw(stage, step + 1, 64, seed).target)


def test_a_draw_follows_the_prompt_not_its_place():
  stage = budgets.uniform(low=1, high=1000)
  knobs = dict(step=jnp.array(4), key=jax.random.key(1), group_size=2)
  forward = stage.apply((), jnp.array([5, 9]), **knobs)[0].target
  backward = stage.apply((), jnp.array([9, 5]), **knobs)[0].target
  np.testing.assert_array_equal(forward, backward[::-1])


def test_levels_choose_their_targets():
  budget = draw(budgets.uniform_level(targets=(100, 20, 5), cap=200), prompts=32)
  np.testing.assert_array_equal(budget.target, np.array([100, 20, 5])[np.asarray(budget.level)])
  assert set(np.ravel(budget.level)) == {0, 1, 2}
  assert np.all(budget.cap == 200)


def test_a_schedule_ends_on_its_last_length():
  # In float32 the last factor of 256 * (87 / 256)^(k / n) may give 86.99999, cut to 86.
  schedule = budgets.geometric_points(start=256, end=87, points=3, total=600)
  targets = [
    int(draw(budgets.scheduled(schedule=schedule), step).target[0, 0])
    for step in (0, 149, 150, 300, 450, 599, 10_000)
  ]
  assert targets == [256, 256, 178, 124, 87, 87, 87]


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: budgets.fixed(target=0), "budget.target must be at least 1, got 0"),
    (lambda: budgets.fixed(target=5, cap=-1), "budget.cap must be at least 1, got -1"),
    (lambda: budgets.uniform(low=5, high=4), "got 5 > 4"),
    (
      lambda: budgets.linear_points_length(jnp.array(0), start=9, end=1, points=9, total=5),
      "got 9",
    ),
  ],
)
def test_bad_limits_are_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()
