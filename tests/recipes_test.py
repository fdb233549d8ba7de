"""Two-stage runs: sections that take the place of others from a step on."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import advantages, budgets, losses, recipes, rewards
from lcrl.training import loop
from lcrl.training.rl.settings import read
from lcrl.types import Batch, TokenScores
from tests.helpers.rl_runs import changed, final_state
from tests.rollouts import random_rollouts

pytestmark = pytest.mark.usefixtures("one_device")


def test_each_stage_has_its_turn_and_its_own_state():
  dual = rewards.length_dual(target=4, step_size=1.0)
  stage = recipes.switch_after([2, 3], [dual, rewards.hapo(rows=3), dual])
  assert stage.rows == 3
  r = random_rollouts()
  state, got = stage.init(), []
  for _ in range(4):
    out, state = jax.jit(stage.apply)(state, r)
    got.append(np.asarray(out))
  price, paid = dual.init(), []
  for _ in range(2):
    out, price = jax.jit(dual.apply)(price, r)
    paid.append(np.asarray(out))
  np.testing.assert_array_equal(got[:2], paid)
  np.testing.assert_array_equal(got[2], r.correct)  # HAPO knows no length yet
  np.testing.assert_array_equal(got[3], paid[0])  # the third begins with a price of its own
  assert float(state.states[0].own) == float(price.own)
  assert np.isfinite(state.states[1].own).sum() == np.any(np.asarray(r.correct)[:3], -1).sum()


def test_only_the_stage_whose_turn_it_is_observes():
  laser = rewards.laser_d(lower=2, upper=9, interval=2, initial=5)
  stage = recipes.switch_after([1], [rewards.correctness(), laser])
  r = random_rollouts()
  before = stage.init()
  observe = jax.jit(stage.observe)
  jax.tree.map(np.testing.assert_array_equal, observe(before, r), before)
  _, state = jax.jit(stage.apply)(before, r)
  seen = observe(state, r).states[1]
  want = jax.jit(laser.observe)(laser.init(), r)
  jax.tree.map(np.testing.assert_array_equal, seen, want)
  assert np.any(want.own.targets != 5)


def test_only_the_budget_whose_turn_it_is_learns():
  median = budgets.right_median(rows=4, fallback=9, shown_from=0)
  r = random_rollouts()
  for counts, stages, learns in (
    ([1], [median, budgets.fixed(target=8)], True),
    ([1], [budgets.fixed(target=8), median], False),
  ):
    stage = recipes.switch_after(counts, stages)
    new = jax.jit(stage.learn)(stage.init(), r).states[not learns]
    assert np.isfinite(new).any() == learns
  assert recipes.switch_after([1], [budgets.fixed(target=8)] * 2).learn is None


def test_budgets_advantages_and_losses_take_turns():
  r = random_rollouts()
  budget = recipes.switch_after([1], [budgets.fixed(target=8), budgets.uniform(low=2, high=4)])
  knobs = dict(step=jnp.int32(9), key=jax.random.key(0), group_size=4)
  ask = jax.jit(lambda state: budget.apply(state, r.prompt_ids, **knobs))
  first, state = ask(budget.init())
  second, _ = ask(state)
  assert np.all(first.target == 8)
  assert np.all(second.target <= 4)

  advantage = recipes.switch_after([1], [advantages.raw(), advantages.reinforce()])
  state = advantage.init()
  compare = jax.jit(advantage.apply)
  per_rollout, state = compare(state, r.scores, r.valid, r)
  per_token, _ = compare(state, r.scores, r.valid, r)
  assert per_rollout.shape == per_token.shape == r.mask.shape
  np.testing.assert_array_equal(per_rollout[..., 5], r.scores)

  one, two = losses.clipped_surrogate(), losses.clipped_surrogate(kl=losses.policy.k2(beta=1.0))
  loss = recipes.switch_after([1], [one, two], coupled=True)
  assert loss.needs == ("ref",)
  ref = jnp.zeros(r.mask.shape)
  batch = Batch(
    r, r.scores, r.valid, r.scores - 0.5, losses.token_mean(r.mask, r.valid), ref_log_probs=ref
  )

  def gradient(stage):
    objective = lambda x, state: stage.apply(state, TokenScores(x), batch)
    return jax.jit(jax.grad(objective, has_aux=True))

  take, state = gradient(loss), loss.init()
  for stage in (one, two):
    got, state = take(r.sampler_log_probs, state)
    want, _ = gradient(stage)(r.sampler_log_probs, ())
    np.testing.assert_allclose(got, want, atol=1e-7)


TWO = {"fn": "length_dual", "target": 1, "base": {"fn": "correctness", "right": 2.0}}
STAGES = changed(
  reward={"fn": "length_penalty", "alpha": 0.02, "base": {"fn": "hapo", "rows": 64}},
  train__updates=2,
  then=[
    {"at": 2, "reward": TWO, "loss": {"fn": "cispo"}, "budget": {"fn": "fixed", "target": 10}},
    {"at": 3, "filter": {"fn": "nonconstant_reward"}},
  ],
)


def stopping_after(steps):
  """In place of the loop's watch for SIGTERM."""

  @contextlib.contextmanager
  def watching():
    left = iter([False] * (steps - 1))
    yield lambda: next(left, True)

  return watching


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_resumes_across_the_border(stop, whole, tmp_path, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(loop, "watching_for_sigterm", stopping_after(stop))
    loop.train(STAGES, tmp_path)
  assert int(final_state(tmp_path, STAGES).step) == stop
  loop.train(STAGES, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, final_state(tmp_path, STAGES), whole)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_device):
  workdir = tmp_path_factory.mktemp("whole")
  loop.train(STAGES, workdir)
  return final_state(workdir, STAGES)


def test_every_slot_counts_steps_and_the_loss_its_updates(whole):
  states = whole.recipe
  assert [int(s.applied) for s in (states.budget, states.reward, states.filter)] == [4, 4, 4]
  assert int(states.loss.applied) == 8
  assert float(states.reward.states[1].own) > 0  # the price rose in the two steps of its turn


@pytest.mark.parametrize(
  "then, message",
  [
    ([{"at": 2, "weights": {"fn": "token_mean"}}], r"then\[0\] has \['weights'\]; it may replace"),
    ([{"at": 2}], r"then\[0\] needs the step `at`, and what it replaces"),
    ([{"reward": TWO}], r"then\[0\] needs the step `at`"),
    ([{"at": 0, "reward": TWO}], r"then\[0\]\.at must be above 0, got 0"),
    ([{"at": 2, "reward": TWO}, {"at": 2, "reward": TWO}], r"then\[1\]\.at must be above 2, got 2"),
    ([{"at": 4, "reward": TWO}], r"then\[0\]\.at must be below train\.steps=4, got 4"),
    ([{"at": 2, "reward": {"fn": "no"}}], r"then\[0\]\.reward\.fn='no' is not one of"),
    ([{"at": 2, "reward": {"fn": "gr3_reward"}}], r"then\[0\]\.reward"),
  ],
)
def test_bad_changes_by_then_are_refused_by_name(then, message):
  with pytest.raises(ValueError, match=message):
    recipes.from_config(read(changed(then=then)).slots)


def test_a_loss_has_its_turn_after_steps_not_updates():
  recipe, _ = recipes.from_config(read(STAGES).slots, updates=2)
  r = random_rollouts()
  batch = Batch(r, r.scores, r.valid, r.scores - 0.5, losses.token_mean(r.mask, r.valid))
  pay = jax.jit(lambda state: recipe.loss.apply(state, TokenScores(r.sampler_log_probs), batch))
  state, values = recipe.loss.init(), []
  for _ in range(5):
    value, state = pay(state)
    values.append(float(value))
  assert values[:4] == values[:1] * 4  # `at=2`: two steps of two updates
  assert values[4] != values[0]
