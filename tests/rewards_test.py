import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcrl import rewards
from lcrl.registry import build
from lcrl.types import Outcome
from tests.helpers.graded import rollouts


def run(stage, *steps):
  """Rewards of each step, states handed on."""
  state, got = stage.init(), []
  for r in steps:
    out, state = stage.apply(state, r)
    got.append(np.asarray(out))
  return got, state


# Each reward as a function of (correct, lengths) of one group, the way its paper sets it.
TARGETS = jnp.full((1, 5), 8)
VALID = jnp.ones((1, 5), bool)
BASE = lambda correct: correct.astype(jnp.float32)
SHORTER_IS_BETTER = {
  "step bonus": lambda c, n: rewards.step_bonus_reward(BASE(c), c, n, TARGETS),
  "max": lambda c, n: rewards.max_length_reward(c, n, TARGETS, alpha=0.1),
  "truncated": lambda c, n: rewards.truncated_reward(BASE(c), n, TARGETS),
  "sigmoid": lambda c, n: rewards.sigmoid_length_reward(BASE(c), c, n, VALID),
  "kimi": lambda c, n: rewards.kimi_reward(BASE(c), c, n, VALID),
  "lambda": lambda c, n: rewards.grpo_lambda_reward(BASE(c), c, n, VALID, share=1.0),
  "cosine": lambda c, n: rewards.cosine_history_score(c, n, jnp.full((1, 5), 6.0)),
  "linear": lambda c, n: rewards.linear_history_score(c, n, jnp.full((1, 5), 6.0)),
  "overlong": lambda c, n: rewards.soft_overlong_reward(BASE(c), n, max_length=12, buffer=6),
  "naive": lambda c, n: rewards.length_penalty_reward(BASE(c), n, alpha=0.1),
}
GATED = sorted(set(SHORTER_IS_BETTER) - {"overlong", "naive", "kimi", "cosine", "linear"})


@pytest.mark.parametrize("name", SHORTER_IS_BETTER)
@settings(max_examples=5, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=5, max_size=5))
def test_a_right_answer_never_loses_by_being_shorter(name, lengths):
  lengths = jnp.array([sorted(lengths)])
  got = np.asarray(SHORTER_IS_BETTER[name](VALID, lengths))[0]
  assert np.all(np.diff(got) <= 1e-6)


@pytest.mark.parametrize("name", GATED)
@settings(max_examples=5, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=5, max_size=5), right=st.integers(0, 4))
def test_a_wrong_answer_s_length_is_not_priced(name, lengths, right):
  correct = jnp.zeros((1, 5), bool).at[0, right].set(True)
  got = SHORTER_IS_BETTER[name](correct, jnp.array([lengths]))
  assert np.all(np.asarray(got)[~np.asarray(correct)] == 0)


@pytest.mark.parametrize("name", ["kimi", "cosine", "linear"])
@settings(max_examples=5, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=5, max_size=5))
def test_a_wrong_answer_never_gains_by_being_short(name, lengths):
  assert np.all(np.asarray(SHORTER_IS_BETTER[name](~VALID, jnp.array([lengths]))) <= 0)


def test_exact_length_prices_both_sides():
  got = rewards.exact_length_reward(jnp.ones(3), jnp.array([6, 8, 10]), jnp.full(3, 8), alpha=0.1)
  np.testing.assert_allclose(got, [0.8, 1.0, 0.8], rtol=1e-6)


def test_terms_compose_and_states_pass_through():
  spec = dict(
    fn="soft_overlong",
    max_length=8,
    buffer=4,
    base=dict(fn="step_bonus", base=dict(fn="hapo", rows=3, weight=0.5)),
  )
  stage = build(rewards, spec, field="reward")
  first, second = rollouts([[1, 0]], [[4, 6]]), rollouts([[1, 1]], [[4, 8]])
  (a, b), state = run(stage, first, second)
  # No history yet: 1 + 0.5 in time; wrong 0 - 2/4 overlong. Then history 4: cos(pi/2) = 0 at 4;
  # twice the history gives the floor: 1 + 0.5 - 0.5 * 0.7 - 1.
  np.testing.assert_allclose(a, [[1.5, -0.5]], atol=1e-6)
  np.testing.assert_allclose(b, [[1.5, 0.15]], atol=1e-6)
  np.testing.assert_array_equal(state.own, [4, np.inf, np.inf])


def test_verdicts_have_their_numbers():
  r = rollouts([[1, 0, 0]], [[1, 1, 1]])
  outcome = jnp.array([[Outcome.OK, Outcome.WRONG, Outcome.BAD_FORMAT]], jnp.int8)
  r = dataclasses.replace(r, outcome=outcome)
  laser = rewards.correctness(right=1.0, wrong=-0.5, bad_format=-1.0)
  np.testing.assert_array_equal(run(laser, r)[0][0], [[1.0, -0.5, -1.0]])
  np.testing.assert_array_equal(run(rewards.correctness(wrong=-1.0), r)[0][0], [[1, -1, -1]])


def test_history_is_of_the_prompt_is_read_before_it_is_written_and_skips_padding():
  stage = rewards.hapo(rows=4)
  # Prompt 2 twice in one batch: both groups see no history, the shorter right answer stays.
  first = rollouts([[1, 0], [1, 1]], [[5, 1], [6, 9]], prompt_ids=[2, 2])
  padded = rollouts([[1, 0], [1, 1]], [[4, 4], [1, 1]], prompt_ids=[3, 0])
  padded = dataclasses.replace(padded, valid=jnp.array([[True, True], [False, False]]))
  longer = rollouts([[1, 1]], [[7, 8]], prompt_ids=[2])
  (a, *_), state = run(stage, first, padded, longer)
  np.testing.assert_array_equal(a, [[1, 0], [1, 1]])
  np.testing.assert_array_equal(state.own, [np.inf, np.inf, 5, 4])
  beyond = rollouts([[1, 0]], [[3, 3]], prompt_ids=[9])
  out, after = stage.apply(state, beyond)  # a row that the state does not have: no history
  np.testing.assert_array_equal(out, [[1, 0]])
  np.testing.assert_array_equal(after.own, state.own)


def test_mean_history_is_the_running_mean_of_all_right_lengths():
  stage = rewards.hapo_mean(rows=2)
  steps = rollouts([[1, 1]], [[10, 20]]), rollouts([[0, 1]], [[1, 30]])
  (_, b), state = run(stage, *steps)
  np.testing.assert_array_equal(state.own.total / state.own.answers, [20, np.nan])
  np.testing.assert_allclose(b, [[0, 0.3]], atol=1e-6)  # 30 is twice the mean of 15: the floor
  mean, count = rewards.mean_right_length(
    jnp.array([15.0]), jnp.array([2]), steps[1].correct, steps[1].lengths, steps[1].valid
  )
  np.testing.assert_array_equal([mean, count], [[20], [3]])


def monitor():
  # Two hard prompts, one of medium and one of high accuracy; 3 samples each.
  correct = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]
  return rollouts(correct, [[9, 3, 3], [3, 3, 3], [5, 7, 9], [2, 4, 9]])


def test_laser_d_searches_its_targets_on_the_monitor_set():
  stage = rewards.laser_d(lower=1024, upper=4096, interval=1024, initial=10)
  assert np.all(stage.init().own.targets == 10)
  r = monitor()
  r = dataclasses.replace(r, lengths=r.lengths * 500)
  state = stage.observe(stage.init(), r)
  # A third (1 of 3) of the hard, and exactly two thirds, lie one level lower in the monitor set.
  # Low needs all of its six within the target: 4500 > 4096 + the last threshold, so the fallback,
  # the longest response. Medium expects ceil(3 / 3) = 1 right of [2500, 3500, 4500]: also all.
  # High expects 2 of 3: coverage of 1/2; [1000, 2000, 4500] has 1/3 within 1024, 2/3 within 2048.
  np.testing.assert_array_equal(state.own.targets, [4500, 4500, 2048])


def test_laser_d_falls_back_on_the_last_training_batch():
  stage = rewards.laser_d(lower=2, upper=4, interval=2, initial=10)
  _, state = stage.apply(stage.init(), rollouts([[1, 0, 0]], [[7, 1, 1]]))
  assert state.own.longest == 7
  hard = rollouts([[0, 0, 0]], [[99, 1, 1]])
  np.testing.assert_array_equal(stage.observe(state, hard).own.targets, [7, 7, 7])


def test_laser_d_bonus_is_by_the_level_of_the_group():
  stage = rewards.laser_d(lower=2, upper=8, interval=2, alpha=0.5, explore=0.25)
  state = stage.init()
  state = state._replace(own=state.own._replace(targets=jnp.array([8, 6, 4])))
  r = rollouts([[1, 1, 1], [1, 0, 0], [0, 0, 0]], [[4, 5, 6], [6, 6, 7], [8, 9, 1]])
  got, _ = stage.apply(state, r)
  np.testing.assert_allclose(got, [[1.5, 1, 1], [1.5, 0, 0.25], [0, 0.25, 0]])


def test_tiers_cut_easy_groups_shorter():
  stage = rewards.tiered_truncation(thresholds=(0.5,), limits=(8, 4))
  r = rollouts([[1, 1, 0, 0], [1, 0, 0, 0]], [[4, 6, 1, 1], [6, 1, 1, 1]])
  np.testing.assert_array_equal(run(stage, r)[0][0], [[1, 0, 0, 0], [1, 0, 0, 0]])
  with pytest.raises(ValueError, match="one more than thresholds, got 1 and 1"):
    rewards.tiered_limit(r.correct, r.valid, thresholds=(0.5,), limits=(8,))


def test_easiest_groups_break_ties_by_place_and_are_never_none():
  correct = jnp.array([[1, 0], [1, 1], [1, 1], [0, 0]], bool)
  valid = jnp.ones((4, 2), bool)
  easiest = partial(rewards.easiest_groups, correct, valid)
  np.testing.assert_array_equal(easiest(share=0.01), [0, 1, 0, 0])
  np.testing.assert_array_equal(easiest(share=0.5), [0, 1, 1, 0])
  np.testing.assert_array_equal(easiest(share=0.51), [1, 1, 1, 0])


def test_conciseness_anneals():
  r = dataclasses.replace(
    rollouts([[1, 0]], [[3, 3]]), signals={"conciseness": jnp.array([[0.5, 1.0]])}
  )
  got, state = run(rewards.conciseness(alpha=1.0, anneal_steps=1), r, r)
  d = np.exp(0.5)  # half of the group is right
  np.testing.assert_allclose(got[0], [[1 + 0.5 * (1 + d), 0]], rtol=1e-6)
  np.testing.assert_allclose(got[1], [[1 + 0.5 * d, 0]], rtol=1e-6)
  assert state == 2


REPEATED = jax.jit(rewards.repeated_tokens, static_argnames="ngram")


@settings(max_examples=10, deadline=None)
@given(
  tokens=st.lists(st.integers(0, 2), min_size=12, max_size=12),
  start=st.integers(0, 3),
  stop=st.integers(4, 12),
  ngram=st.sampled_from([1, 2, 3]),
)
def test_repeated_tokens_are_those_of_a_plain_loop(tokens, start, stop, ngram):
  covered, seen = [False] * 12, set()
  for i in range(start, stop - ngram + 1):
    window = tuple(tokens[i : i + ngram])
    if window in seen:
      covered[i : i + ngram] = [True] * ngram
    seen.add(window)
  mask = (jnp.arange(12) >= start) & (jnp.arange(12) < stop)
  got = REPEATED(jnp.array(tokens), mask, ngram=ngram)
  np.testing.assert_array_equal(got, covered)


def test_pear_leaves_the_tag_out_and_floors():
  entropy = jnp.array([9.0, 1.0, 3.0, 9.0, 0.5, 0.5])  # a prompt token, thinking, tag, answer
  mask = jnp.arange(6) > 0
  thinking, answer = rewards.phase_entropy(entropy, mask, jnp.array(2))
  np.testing.assert_array_equal([thinking, answer], [2.0, 0.5])
  gap = rewards.entropy_gap(thinking, answer)
  assert rewards.pear_reward(jnp.array(True), gap) == -0.5
  assert rewards.pear_reward(jnp.array(True), gap, floor=0.1) == pytest.approx(0.1)
  thinking, answer = rewards.phase_entropy(entropy, mask, jnp.array(-1))
  np.testing.assert_allclose([thinking, answer], [2.8, 0.0], rtol=1e-6)


def test_shapes_must_agree():
  with pytest.raises(ValueError, match=r"rewards, lengths and targets .*\(2,\), \(2,\), \(3,\)"):
    rewards.exact_length_reward(jnp.ones(2), jnp.ones(2), jnp.ones(3))


def test_multipliers_rise_while_a_component_is_short_of_its_target():
  stage = rewards.lagrangian(
    main=rewards.correctness(right=0.0),
    components=(rewards.correctness(), rewards.length_penalty(alpha=0.1)),
    targets=(0.9, -0.4),
    momentum=0.0,
    max_norm=9.0,
  )
  r = rollouts([[True, False, True, False]], [[2, 4, 6, 8]])
  (first, second), _ = run(stage, r, r)
  # The start is all main reward, 0 everywhere. J = (0.5, 0.5 - 0.5 = 0): J - target is -0.4
  # for the verdict and 0.4 for length, so raw becomes 0.04 and -0.04, squashed by tanh.
  np.testing.assert_allclose(first, 0, atol=1e-6)
  verdict = np.array([1, -1, 1, -1]) * np.sqrt(3) / 2
  lengths = 0.1 * np.array([2, 4, 6, 8]) - np.array([1, 0, 1, 0])  # length_penalty holds a verdict
  length = (lengths.mean() - lengths) / lengths.std(ddof=1)
  np.testing.assert_allclose(second[0], np.tanh(0.04) * (verdict - length), rtol=1e-4)
  with pytest.raises(ValueError, match="targets must be one a component, got 1 for 2"):
    rewards.lagrangian(
      main=rewards.correctness(), components=[rewards.correctness()] * 2, targets=[1]
    )


def test_o1_pruner_compares_with_its_own_group():
  r = rollouts([[True, True, False]], [[10, 20, 30]])
  (got,), _ = run(rewards.o1_pruner(accuracy_weight=3.0, high=1.5), r)
  # mean length 20, two thirds right: 20/10 - 1 + 1 = 2 clipped to 1.5, 0 + 1, -1/3 - 2.
  np.testing.assert_allclose(got, [[1.5, 1.0, -7 / 3]], rtol=1e-5)


def test_kl_in_the_reward_and_progress_read_their_signals():
  r = rollouts([[True, False]], [[2, 3]])
  ref = r.sampler_log_probs - 0.5
  signals = dict(
    ref_log_probs=jnp.where(r.mask, ref, jnp.nan),
    value_before=jnp.array([[0.25, 0.5]]),
    value_after=jnp.array([[0.75, 0.0]]),
  )
  r = dataclasses.replace(r, signals=signals)
  stage = rewards.mrt(alpha=1.0, base=rewards.kl_penalty(beta=0.1))
  forced = jnp.zeros_like(r.mask).at[0, 0, 3].set(True)  # nobody drew the first one's first token
  (got, less), _ = run(stage, r, dataclasses.replace(r, undrawn=forced))
  tokens = np.asarray(r.mask.sum(-1))
  np.testing.assert_allclose(got, [[1.5, -0.5]] - 0.05 * tokens, rtol=1e-5)
  np.testing.assert_allclose(less - got, [[0.05, 0.0]], atol=1e-6)


@pytest.mark.parametrize(
  "stage", [rewards.truncation(), rewards.tiered_truncation(limits=(8, 8))], ids=["one", "tiers"]
)
def test_an_answer_that_the_cap_cut_is_not_finished_in_time(stage):
  cut = jnp.array([[False, True, False]])
  r = rollouts([[True, True, True]], [[8, 8, 9]], truncated=cut)
  (got,), _ = run(stage, r)
  np.testing.assert_array_equal(got, [[1.0, 0.0, 0.0]])


def test_the_price_is_for_as_many_tokens_as_the_target_has():
  r = rollouts([[True, False]], [[30, 10]])
  (first, second), _ = run(rewards.length_dual(target=10, step_size=0.5), r, r)
  np.testing.assert_array_equal(first, [[1.0, 0.0]])
  # The mean of 20 is once the target too long: the price is 0.5 for each 10 tokens.
  np.testing.assert_allclose(second, [[1.0 - 1.5, -0.5]], rtol=1e-6)


def test_component_mix_sees_the_batch_as_one_and_no_padding():
  parts = jax.random.normal(jax.random.key(0), (3, 2, 5))
  valid = jnp.arange(5)[None] < jnp.array([[5], [3]])
  multipliers = jnp.array([0.3, -0.2])
  got = rewards.component_mix(parts[0], jnp.where(valid, parts[1:], jnp.nan), multipliers, valid)
  flat = np.asarray(parts)[:, valid]  # [3, 8]
  scores = (flat - flat.mean(1, keepdims=True)) / flat.std(1, ddof=1, keepdims=True)
  np.testing.assert_allclose(got[valid], np.array([1.9, 0.3, -0.2]) @ scores, atol=1e-5)
  assert not got[~valid].any()


def test_lagrangian_hands_on_what_its_components_ask_for():
  monitored = rewards.laser_d(lower=2, upper=8, interval=2, initial=8)
  parts = dict(components=[rewards.hapo(rows=7), monitored], targets=[0.5, 0.5])
  stage = rewards.lagrangian(main=rewards.correctness(), **parts)
  assert stage.rows == 7
  seen = stage.observe(stage.init(), rollouts([[True] * 3], [[2, 2, 2]]))
  assert (seen.components[1].own.targets != stage.init().components[1].own.targets).any()


CUT = {
  "step_bonus": (rewards.step_bonus(), 1.5, 1.0),
  "late": (rewards.step_bonus(alpha=0.0, late=0.5), 1.0, 0.5),
  "laser_d": (rewards.laser_d(lower=2, upper=8, interval=2, initial=8), 1.5, 1.0),
  "truncation": (rewards.truncation(), 1.0, 0.0),
  "tiers": (rewards.tiered_truncation(limits=(8, 8)), 1.0, 0.0),
  "max_length": (rewards.max_length(alpha=0.1), 0.5, 0.4),
  "exact_length": (rewards.exact_length(alpha=0.1), 1.0, 0.9),
  "hbpo": (rewards.hbpo(max_length=8.0), 0.0, 0.0),
  "length_range": (rewards.length_range(low=2, high=8, max_length=10), 1.0, 0.5),
  "curriculum": (rewards.curriculum(format_weight=0.0), 0.9, 0.6 + 0.3 * 7 / 8),
  "no buffer": (rewards.soft_overlong(max_length=8, buffer=0), 1.0, 0.0),
}


@pytest.mark.parametrize("name", CUT)
def test_what_was_cut_at_its_target_has_not_ended_by_it(name):
  stage, ended, cut = CUT[name]
  r = rollouts([[1, 1]], [[8, 8]], truncated=jnp.array([[False, True]]))
  np.testing.assert_allclose(run(stage, r)[0][0], [[ended, cut]], atol=1e-6)


def test_a_wrong_answer_earns_nothing_by_being_cut():
  r = rollouts([[0, 0]], [[8, 9]], truncated=jnp.array([[True, True]]))
  np.testing.assert_allclose(run(rewards.step_bonus(explore=0.5), r)[0][0], [[0.0, 0.5]])


@pytest.mark.parametrize("name", ["step_bonus", "truncation", "max_length"])
def test_what_was_cut_below_its_target_has_not_ended_by_it_either(name):
  stage, _, cut = CUT[name]
  r = rollouts([[1]], [[5]], truncated=jnp.array([[True]]))
  np.testing.assert_allclose(run(stage, r)[0][0], [[cut]], atol=1e-6)
