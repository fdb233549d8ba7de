"""Thinking broken off at several places: the answers there, and what they are worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcrl import advantages, budgets, rewards
from lcrl.registry import build
from lcrl.training.rl import revise
from lcrl.training.rl.settings import read
from tests.helpers.revisions import WORDS, played, revised
from tests.helpers.rl_runs import changed
from tests.rollouts import random_rollouts

few = settings(max_examples=8, deadline=None)
SERIAL = dict(fn="serial_exits", force="</t>#", cap=3, close="</t>")
AT_BUDGETS = dict(fn="answer_at_budgets", force="</t>#", cap=3, samples=2, close="</t>")


def knows(row):
  """Right once the 8 has been thought of."""
  assert row.endswith("</t>#")
  return "8" if "8" in row else "1"


@pytest.mark.parametrize("train_forced", [True, False])
def test_a_group_becomes_exits_from_its_first_thinking(train_forced):
  thought = "a|b|8|c|d|e"
  texts = [[f"{thought}</t>8", *"xyz1234"], ["8</t>1", *"xyz1234"]]
  spec = SERIAL | dict(train_forced=train_forced)
  before, after, now, _ = revised(spec, texts, references="88", say=knows)
  exit_at = after.signals["exit_at"]
  assert exit_at[:, 0].tolist() == [11, 1]
  assert exit_at[1].tolist() == [1] * 8
  assert set(exit_at[0]) <= set(range(1, 12))
  assert len(set(exit_at[0, 1:])) > 2
  assert [row[0] for row in now] == [row[0] for row in texts]
  for g in range(1, 8):
    kept = thought[: exit_at[0, g]]
    right = "8" in kept
    assert now[0][g] == f"{kept}</t>#{'8' if right else '1'}"
    assert after.correct[0, g] == right
    drawn = [True] * len(kept) + [False] * 5 * train_forced + [True] * 2  # the answer and its end
    assert after.drawn[0, g][after.mask[0, g]].tolist() == drawn
    assert after.lengths[0, g] == len(drawn)
    log_probs = after.sampler_log_probs[0, g]
    assert (log_probs[np.asarray(after.drawn)[0, g]] == -0.5).all()
  for name in ("tokens", "mask", "sampler_log_probs", "lengths", "correct", "truncated"):
    np.testing.assert_array_equal(getattr(after, name)[:, 0], getattr(before, name)[:, 0])
  assert after.tokens.shape == before.tokens.shape


def test_exits_leave_room_for_an_answer():
  thought = "1234567890" * 3
  _, after, *_ = revised(SERIAL, [[thought + "12345...", *"1234567"]], say=knows)
  assert after.signals["exit_at"][0, 0] == 35  # all of it is thinking
  assert after.signals["exit_at"][0, 1:].max() <= 40 - 5 - 3
  assert after.truncated[0].tolist() == [True] + [False] * 7
  assert after.lengths[0, 1:].max() <= 40
  with pytest.raises(ValueError, match=r"revise\.cap=35 and 5 tokens of revise\.force leave no"):
    revised(SERIAL | dict(cap=35), [["8", "8"]], say=knows)
  with pytest.raises(ValueError, match=r"revise\.cap must be at least 1, got 0"):
    build(revise, SERIAL | dict(cap=0), field="revise")


def test_rollouts_that_are_replaced_cost_one_token():
  state = budgets.first_only(target=9).init()
  knobs = dict(step=0, key=jax.random.key(0), group_size=3)
  budget, _ = budgets.first_only(target=9).apply(state, jnp.arange(2), **knobs)
  assert budget.cap.tolist() == [[9, 1, 1]] * 2
  assert budget.target.tolist() == [[9, 9, 9]] * 2


def test_answers_at_budgets_are_those_of_the_thinking_so_far():
  texts = [["abc8ef</t>8", "8</t>1", "abcdefgh"]]
  spec = AT_BUDGETS | dict(budgets=(3, 4, 40))
  before, after, _, asked = revised(spec, texts, say=knows)
  assert after.signals["budget_scores"].tolist() == [[[0, 1, 1], [1, 1, 1], [0, 0, 0]]]
  jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(after, signals={}), before)
  thoughts = [text.split("</t>")[0] for text in asked]
  assert thoughts[::2] == ["abc", "8", "abc", "abc8", "8", "abcd", "abc8ef", "8", "abcdefgh"]


@pytest.mark.parametrize(
  "spec, what",
  [
    (AT_BUDGETS | dict(budgets=(4, 4)), r"revise\.budgets must be ascending .* got \(4, 4\)"),
    (AT_BUDGETS | dict(budgets=()), r"revise\.budgets must be ascending"),
    (AT_BUDGETS | dict(budgets=(4,), samples=0), r"revise\.samples must be at least 1, got 0"),
  ],
)
def test_budgets_that_cannot_be(spec, what):
  with pytest.raises(ValueError, match=what):
    build(revise, spec, field="revise")


def test_weights_that_cannot_be():
  scores, keep = jnp.zeros((1, 2, 3)), jnp.ones((1, 2), bool)
  for weights in ([1.0], [0.0] * 3, [1.0, -1.0, 1.0]):
    with pytest.raises(ValueError, match=r"weights must be 3 numbers"):
      advantages.budget_advantages(scores, keep, weights=weights)
  with pytest.raises(ValueError, match=r"budgets must be ascending .* got \(8, 4\)"):
    advantages.budget_relative(budgets=(8, 4))
  r = dataclasses.replace(random_rollouts(prompts=1, group=2), signals={"budget_scores": scores})
  with pytest.raises(ValueError, match=r"scores are at 3 budgets, advantage\.budgets=\(4, 8\)"):
    advantages.budget_relative(budgets=(4, 8)).apply((), scores[..., 0], keep, r)


def test_rollouts_of_one_token_are_not_trained_on():
  with pytest.raises(ValueError, match=r'"first_only" needs revise\.fn="serial_exits"'):
    read(changed(budget={"fn": "first_only", "target": 12}))


SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=12, max_size=12)


@few
@given(values=SCORES, shift=st.sampled_from([-1.0, 0.5, 2.0]))
def test_a_score_that_all_budgets_gain_is_no_advantage(values, shift):
  scores, keep = jnp.array(values).reshape(1, 4, 3), jnp.ones((1, 4), bool)
  got = advantages.budget_advantages(scores, keep, weights=(1.0, 2.0, 3.0))
  moved = advantages.budget_advantages(scores + shift, keep, weights=(1.0, 2.0, 3.0))
  np.testing.assert_allclose(got, moved, atol=1e-5)
  np.testing.assert_allclose(got[..., 0].sum(), 0.0, atol=1e-5)  # the first part: the group alone
  last = advantages.budget_advantages(scores, keep, weights=(0.0, 0.0, 1.0))
  want = advantages.group_centered_advantage(scores[..., 2], keep)
  np.testing.assert_allclose(last[..., 0], want, atol=1e-5)


def test_the_parts_of_a_thinking_and_its_answer_get_their_own():
  r = random_rollouts(prompts=1, group=3)
  at = jnp.arange(r.mask.shape[-1])[None, None]
  lengths = jnp.array([[8, 6, 3]])
  scores = jnp.array([[[0.0, 0.5], [0.25, 1.0], [0.5, 0.0]]])
  r = dataclasses.replace(
    r,
    mask=jnp.broadcast_to((at >= 2) & (at < 2 + lengths[..., None]), r.mask.shape),
    lengths=lengths,
    signals={"budget_scores": scores, "think_end": jnp.array([[4, -1, 1]])},
  )
  stage = advantages.budget_relative(budgets=(3, 6))
  verdicts, keep = jnp.array([[1.0, 0.0, 1.0]]), jnp.ones((1, 3), bool)
  got, _ = stage.apply((), verdicts, keep, r)
  parts = advantages.budget_advantages(scores, keep)[0]
  row = lambda i, *runs: [float(x) for value, count in runs for x in [value] * count]
  said = [x[m].tolist() for x, m in zip(got[0], r.mask[0], strict=True)]
  assert said[0] == row(0, (parts[0, 0], 3), (parts[0, 1], 2), (0.5, 3))  # the end tag thinks
  assert said[1] == row(1, (parts[1, 0], 3), (parts[1, 1], 3))
  assert said[2] == row(2, (parts[2, 0], 2), (1.0, 1))
  assert not got[~r.mask].any()


@few
@given(right=st.lists(st.booleans(), min_size=6, max_size=6), places=st.permutations(range(6)))
def test_of_right_answers_the_earlier_earns_twice_the_next(right, places):
  right, places = jnp.array([right]), jnp.array([places])
  got = rewards.serial_decay_reward(right, right, places, jnp.ones((1, 6), bool))
  in_order = got[0][jnp.argsort(places[0])]
  earned = in_order[in_order > 0].tolist()
  assert earned == [0.5**n for n in range(int(right.sum()))]
  assert not got[~right].any()


def test_forced_text_of_another_length_is_measured_in_tokens():
  r, grader = played([["abc</t>8", "x"]], say=lambda row: "8")
  spec = SERIAL | dict(force="\u00e9</t>")  # two bytes, so two tokens, for one letter
  after = build(revise, spec, field="revise").apply(r, grader)
  said = WORDS.decode(after.tokens[0, 1][after.mask[0, 1]].tolist())
  assert "\u00e9</t>8" in said
  assert (after.mask & ~np.asarray(after.drawn))[0, 1].sum() == 6


def test_who_is_alone_has_no_advantage():
  scores, keep = jnp.array([[[0.0, 0.5, 1.0]] * 2]), jnp.array([[True, False]])
  assert not advantages.budget_advantages(scores, keep).any()


def test_thinking_behind_the_last_budget_has_no_advantage():
  r = random_rollouts(prompts=1, group=2)
  mask = jnp.broadcast_to((jnp.arange(12) >= 2) & (jnp.arange(12) < 10), r.mask.shape)
  signals = {
    "budget_scores": jnp.array([[[0.0, 1.0], [0.5, 0.0]]]),
    "think_end": jnp.array([[-1, 6]]),
  }
  r = dataclasses.replace(r, mask=mask, lengths=jnp.full((1, 2), 8), signals=signals)
  stage = advantages.budget_relative(budgets=(3, 6))
  got, _ = stage.apply((), jnp.array([[0.0, 1.0]]), jnp.ones((1, 2), bool), r)
  assert got[0, 0, 2:8].all()
  assert not got[0, 0, 8:].any()
  assert got[0, 1, 8:10].tolist() == [0.0, 1.0]  # the end of the thinking, and the answer
