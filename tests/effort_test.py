"""Effort: levels of a budget, reference lengths of prompts, and what rewards make of both."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import budgets, recipes, rewards
from lcrl.training.rl.settings import read
from tests.helpers.rl_runs import changed
from tests.rollouts import random_rollouts


def rollouts(lengths, correct, *, level=None, prompt_ids=None, valid=None):
  """Answers [B, G] with levels, none truncated."""
  lengths, correct = jnp.asarray(lengths), jnp.asarray(correct, bool)
  r = random_rollouts(prompts=len(lengths), group=lengths.shape[1], length=64)
  level = jnp.zeros_like(lengths) if level is None else jnp.asarray(level)
  return dataclasses.replace(
    r,
    lengths=lengths,
    correct=correct,
    truncated=jnp.zeros_like(correct),
    valid=jnp.ones_like(correct) if valid is None else jnp.asarray(valid, bool),
    budget=dataclasses.replace(r.budget, level=level),
    prompt_ids=r.prompt_ids if prompt_ids is None else jnp.asarray(prompt_ids, jnp.int32),
  )


def paid(stage, *steps):
  """The rewards of each step in turn."""
  state, found = stage.init(), []
  for r in steps:
    reward, state = stage.apply(state, r)
    found.append(np.asarray(reward))
  return found, state


def test_levels_are_drawn_by_key_step_and_prompt_alone():
  stage = budgets.effort(efforts=(0.25, 1.0, 2.0), tokens=10, cap=32, shares=(0.0, 0.5, 0.5))
  draw = lambda ids, step: stage.apply(
    (), jnp.asarray(ids), step=step, key=jax.random.key(0), group_size=3
  )[0]
  budget = draw(range(400), 0)
  assert set(np.unique(budget.level)) == {1, 2}
  assert (budget.level == budget.level[:, :1]).all()
  assert 0.4 < (budget.level == 1).mean() < 0.6
  np.testing.assert_array_equal(budget.target, np.array([2, 10, 20])[budget.level])
  assert (budget.cap == 32).all()
  np.testing.assert_array_equal(draw([7, 3], 0).level, budget.level[jnp.array([7, 3])])
  assert (draw(range(400), 1).level != budget.level).any()
  shared = budgets.effort(efforts=(0.5, 1.0), tokens=1, cap=9, within_groups=True)
  levels = shared.apply((), jnp.arange(2), step=0, key=jax.random.key(0), group_size=4)[0].level
  np.testing.assert_array_equal(levels, [[0, 0, 1, 1]] * 2)


def test_e1_pays_right_answers_below_a_share_of_the_groups_mean():
  """Lengths 4, 8, 12 with mean 8; efforts 0.5, 1, 1: targets 4, 8, 8."""
  stage = rewards.effort(
    efforts=(0.5, 1.0), reference=rewards.group_mean_reference(), term=rewards.length_gate()
  )
  ((reward,), _) = paid(stage, rollouts([[4, 8, 12]], [[1, 1, 1]], level=[[0, 1, 1]]))
  np.testing.assert_array_equal(reward, [[1, 1, 0]])
  ((reward,), _) = paid(stage, rollouts([[4, 8, 12]], [[1, 1, 1]], level=[[0, 0, 0]]))
  np.testing.assert_array_equal(reward, [[1, 0, 0]])


def test_references_are_read_before_they_change():
  """Three visits of prompt 2 of three: means 6, 3, 9; right answers 4 (and 8), none, 9."""
  visits = [
    rollouts([[4, 8]], [[1, 1]], prompt_ids=[2]),
    rollouts([[2, 4]], [[0, 0]], prompt_ids=[2]),
    rollouts([[9, 9]], [[1, 0]], prompt_ids=[2]),
  ]
  for reference, seen, last in (
    (rewards.first_mean_reference(rows=3), [6, 6, 6], 6),
    (rewards.running_mean_reference(rows=3, decay=0.5), [6, 6, 4.5], 6.75),
    (rewards.right_percentile_reference(rows=3, percentile=0.25), [5, 5, 5], 5),
    (rewards.right_percentile_reference(rows=3, percentile=0.25, keep=False), [5, 5, 5], 9),
    (rewards.group_mean_reference(), [6, 3, 9], None),
    (rewards.fixed_reference(tokens=7), [7, 7, 7], None),
  ):
    state, found = reference.init(), []
    for r in visits:
      found.append(float(reference.read(state, r)[0]))
      state = reference.update(state, r)
    assert found == seen
    if last is not None:
      np.testing.assert_array_equal(state, [np.inf, np.inf, last])


def test_a_reference_is_not_touched_by_padding_and_takes_the_smaller_of_two():
  reference = rewards.first_mean_reference(rows=2)
  padded = rollouts([[3, 5], [9, 9]], [[1, 1]] * 2, prompt_ids=[0, 1], valid=[[1, 0], [0, 0]])
  np.testing.assert_array_equal(reference.update(reference.init(), padded), [3, np.inf])
  running = rewards.running_mean_reference(rows=1, decay=0.5)
  repeated = rollouts([[8, 8], [1, 1]], [[1, 1]] * 2, prompt_ids=[0, 0], valid=[[1, 1], [0, 0]])
  np.testing.assert_array_equal(running.update(jnp.array([4.0]), repeated), [6])
  twice = rollouts([[8, 8], [4, 4]], [[1, 1]] * 2, prompt_ids=[1, 1])
  np.testing.assert_array_equal(reference.update(reference.init(), twice), [np.inf, 4])


def test_k3_pays_minus_one_beyond_the_share_of_the_start():
  stage = rewards.effort(
    efforts=(0.5,),
    reference=rewards.first_mean_reference(rows=1),
    term=rewards.length_gate(outside=-1.0),
  )
  first = rollouts([[8, 12]], [[1, 0]], prompt_ids=[0])
  found, state = paid(stage, first, rollouts([[5, 6]], [[0, 1]], prompt_ids=[0]))
  np.testing.assert_array_equal(found[0], [[-1, -1]])  # the first group has a mean of its own
  np.testing.assert_array_equal(found[1], [[0, -1]])  # the target is 5
  assert stage.rows == 1
  np.testing.assert_array_equal(stage.targets(state, first)["effort"], [[5, 5]])


def test_efforts_change_by_step_while_the_reference_stays():
  """Shares 1 and, after two steps, 0.5 of the first mean, 8, which later lengths do not move."""
  stage = rewards.effort(
    efforts=((1.0,), (0.5,)),
    at=(2,),
    reference=rewards.first_mean_reference(rows=1),
    term=rewards.length_gate(),
  )
  visit = lambda n: rollouts([[n, n]], [[1, 1]], prompt_ids=[0])
  found, state = paid(stage, visit(8), visit(5), visit(5), visit(4))
  assert [x[0, 0] for x in found] == [1, 1, 0, 1]
  assert int(state.own.applied) == 4


def test_prompts_without_a_reference_are_neither_paid_for_length_nor_counted():
  """Two right answers of 20 tokens at a percentile of 20 and efforts of a half; no right answer."""
  stage = rewards.effort(
    efforts=(0.5,),
    reference=rewards.right_percentile_reference(rows=2),
    term=rewards.length_multiplier(levels=1, step_size=0.1),
  )
  r = rollouts([[20, 20], [60, 60]], [[1, 1], [0, 0]], prompt_ids=[0, 1])
  found, state = paid(stage, r, r)
  np.testing.assert_allclose(state.own.term, [0.2])  # 0.1 * (20 / 10 - 1), twice
  np.testing.assert_allclose(found[1], [[1 - 0.1 * 2] * 2, [0, 0]], rtol=1e-6)


def test_a_wrong_answer_does_not_gain_by_being_long():
  lengths, targets = jnp.array([4, 12]), jnp.full(2, 8.0)
  wrong = jnp.full(2, -0.5)
  np.testing.assert_array_equal(rewards.length_gate_reward(wrong, lengths, targets), wrong)
  ratio = rewards.length_ratio_reward(wrong, lengths, targets, weight=0.5)
  np.testing.assert_allclose(ratio, [-0.5, -0.75])


def test_a_cut_answer_has_not_ended_within_its_target():
  stage = rewards.effort(
    efforts=(1.0,), reference=rewards.fixed_reference(tokens=8), term=rewards.length_gate()
  )
  r = rollouts([[8, 8]], [[1, 1]])
  r = dataclasses.replace(r, truncated=jnp.array([[True, False]]))
  ((reward,), _) = paid(stage, r)
  np.testing.assert_array_equal(reward, [[0, 1]])


def test_other_terms_by_hand():
  r = rollouts([[5, 20]], [[1, 1]], level=[[0, 1]])
  of = lambda term, efforts=(1.0, 1.0): paid(
    rewards.effort(efforts=efforts, reference=rewards.fixed_reference(tokens=10), term=term), r
  )[0][0]
  # 1 + 0.5 * (1 - 5 / 10) and 1 + 2 * 0.5 * (1 - 20 / 10)
  np.testing.assert_allclose(of(rewards.length_ratio(weight=0.5, penalty=2.0)), [[1.25, 0.0]])
  np.testing.assert_allclose(of(rewards.target_band(full=3.0)), [[1.0, 0.5]])
  np.testing.assert_allclose(of(rewards.level_price(prices=(0.1, 0.01))), [[0.5, 0.8]])


def test_a_multiplier_climbs_for_its_own_level():
  """Level 0 spends 15 of 10 tokens, level 1 half of 20: prices 0.05 and, clipped, 0."""
  stage = rewards.effort(
    efforts=(1.0, 2.0),
    reference=rewards.fixed_reference(tokens=10),
    term=rewards.length_multiplier(levels=2, step_size=0.1),
  )
  r = rollouts([[15, 10]], [[1, 1]], level=[[0, 1]])
  found, state = paid(stage, r, r)
  np.testing.assert_allclose(found, [[[1, 1]], [[1 - 0.05 * 1.5, 1]]], rtol=1e-6)
  np.testing.assert_allclose(state.own.term, [0.1, 0.0], rtol=1e-6)


@pytest.mark.parametrize(
  ("make", "error"),
  [
    (lambda: budgets.effort(efforts=(0.0,), tokens=1, cap=1), "efforts must be positive, got"),
    (lambda: budgets.effort(efforts=(), tokens=1, cap=1), "efforts must be at least 1, got 0"),
    (
      lambda: budgets.effort(efforts=(1.0,), tokens=1, cap=1, shares=(1, 1)),
      "shares must be 1 numbers",
    ),
    (
      lambda: rewards.effort(
        efforts=(1.0,),
        reference=rewards.group_mean_reference(),
        term=rewards.level_price(prices=(1, 2)),
      ),
      "the term has 2 levels; there are 1 efforts",
    ),
    (
      lambda: budgets.effort(efforts=(1.0,), tokens=1, cap=1, shares=(1,), within_groups=True),
      "with within_groups=True there are none",
    ),
    (
      lambda: budgets.effort(efforts=(1.0,), tokens=1, cap=1, shares=(float("nan"),)),
      "shares must be 1 numbers",
    ),
    (
      lambda: rewards.effort(
        efforts=((1.0,), (2.0,)),
        at=(3, 2),
        reference=rewards.group_mean_reference(),
        term=rewards.length_gate(),
      ),
      "2 ascending steps `at` from 1 on need 3 rows",
    ),
    (
      lambda: rewards.effort(
        efforts=(-1.0,), reference=rewards.group_mean_reference(), term=rewards.length_gate()
      ),
      "efforts must be positive",
    ),
    (
      lambda: rewards.running_mean_reference(rows=1, decay=1.0),
      r"decay must be in \[0, 1\), got 1.0",
    ),
    (
      lambda: rewards.right_percentile_reference(rows=1, percentile=2),
      "percentile must be between 0 and 1",
    ),
    (lambda: rewards.fixed_reference(tokens=0), "tokens must be positive"),
    (lambda: rewards.target_band(free=2.0, full=1.0), "free must be below full, got 2.0 and 1.0"),
    (lambda: rewards.length_multiplier(levels=2, step_size=-1.0), "step_size must be positive"),
    (lambda: rewards.length_multiplier(levels=2, most=-1.0), "most must be positive"),
    (
      lambda: rewards.effort(
        efforts=((1.0,), (2.0,)),
        at=(-5,),
        reference=rewards.group_mean_reference(),
        term=rewards.length_gate(),
      ),
      r"steps `at` from 1 on need 2 rows .* \(-5,\)",
    ),
  ],
)
def test_bad_efforts_are_named(make, error):
  with pytest.raises(ValueError, match=error):
    make()


OWN = {"fn": "effort", "efforts": (0.5, 1.0), "reference": {"fn": "group_mean_reference"}}
OWN["term"] = {"fn": "length_gate"}
TLDR = {"fn": "level_penalty", "penalty_by_level": (0.0, 0.5, 1.0), "max_length": 9.0}
CORRECT = {"fn": "correctness"}
THREE = {"fn": "effort", "efforts": (0.5, 1.0, 2.0), "tokens": 8, "cap": 9}
TWO = THREE | {"efforts": (1.0, 2.0)}


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({}, "reward has numbers for 2 levels, and budget gives 3"),
    (
      {"reward": {"fn": "kimi", "base": OWN}},
      "reward has numbers for 2 levels, and budget gives 3",
    ),
    (
      {"reward": {"fn": "length_dual", "target": 8.0, "step_size": 0.1, "base": OWN}},
      "for 2 levels, and budget gives 3",
    ),
    ({"budget": {"fn": "uniform_level", "targets": (2, 4, 8), "cap": 9}}, "budget gives 3"),
    ({"budget": {"fn": "fixed", "target": 8}}, "budget gives 1"),
    ({"reward": dict(TLDR, penalty_by_level=(0.0, 1.0))}, "reward has numbers for 2 levels"),
    ({"reward": dict(TLDR, base=OWN)}, "it has numbers for 3 levels, and its base for 2"),
    ({"reward": CORRECT, "then": ({"at": 1, "reward": OWN},)}, "for 2 levels after step 1, and"),
    (
      {"reward": dict(fn="lagrangian", main=OWN, components=(CORRECT,), targets=(0.5,))},
      "for 2 levels, and budget gives 3",
    ),
    ({"budget": TWO, "then": ({"at": 1, "budget": THREE},)}, "after step 1, and budget gives 3"),
  ],
)
def test_a_budget_and_a_reward_have_the_same_levels(changes, message):
  sections = {"budget": THREE, "reward": OWN} | changes
  with pytest.raises(ValueError, match=message):
    recipes.from_config(read(changed(**sections)).slots)
  levels = {"budget": TWO, "then": ({"at": 1, "budget": THREE, "reward": CORRECT},)}
  recipes.from_config(read(changed(**sections | {"reward": OWN} | levels)).slots)
