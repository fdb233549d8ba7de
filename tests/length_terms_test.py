"""What must hold for all inputs, method by method; the common laws of stages are in laws_test."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lcrl import advantages, filters, losses, rewards
from lcrl.data import bucketing
from lcrl.training.rl import cropping
from tests.rollouts import random_rollouts

few = settings(max_examples=4, deadline=None)
LENGTHS = st.lists(st.integers(1, 20), min_size=6, max_size=6)
VERDICTS = st.lists(st.booleans(), min_size=6, max_size=6)
VALUES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=6, max_size=6)
ALL = jnp.ones((1, 6), bool)  # one group of six
BUDGETS = jnp.full((1, 6), 8)
TAGS = jnp.array([[1, 1, 2, 2, 0, 0]])

REWARDS = {
  "acoer": lambda c, n: rewards.acoer_reward(c, n, BUDGETS, alpha=0.5),
  "adactrl": lambda c, n: rewards.adactrl_reward(c, n, TAGS, ALL),
  "alp": lambda c, n: rewards.alp_reward(c, c, n, ALL, beta=0.01, apply_to_incorrect=False),
  "conciser": lambda c, n: rewards.conciser_reward(c, c, n, ALL, max_length=20),
  "cosine": lambda c, n: rewards.cosine_length_reward(c, n, max_length=64),
  "gr3": lambda c, n: rewards.gr3_reward(c, n, ALL),
  "hbpo": lambda c, n: rewards.hbpo_reward(c, n, BUDGETS, max_length=20, alpha=0.01),
  "lcr1": lambda c, n: rewards.lcr1_reward(c, c, n, ALL),
  "shorter": lambda c, n: rewards.shorter_better_reward(c, n, ALL, apply_to_incorrect=False),
}

REWARDS = {name: jax.jit(reward) for name, reward in REWARDS.items()}


@pytest.mark.parametrize("name", REWARDS)
@few
@given(lengths=LENGTHS, verdicts=VERDICTS)
def test_a_wrong_answer_never_gains_by_being_short(name, lengths, verdicts):
  correct = jnp.array([verdicts]).at[0, 0].set(False)
  lengths = jnp.array([lengths])
  got = REWARDS[name](correct, lengths)[0, 0]
  assert REWARDS[name](correct, lengths.at[0, 0].set(1))[0, 0] <= got + 1e-6


@pytest.mark.parametrize("name", sorted(set(REWARDS) - {"adactrl"}))  # its tags differ
@few
@given(lengths=LENGTHS)
def test_of_right_answers_the_shorter_never_earns_less(name, lengths):
  got = REWARDS[name](ALL, jnp.sort(jnp.array([lengths])))
  assert np.all(np.diff(got) <= 1e-6)


@pytest.mark.parametrize("released", [False, True])
def test_only_the_released_lcr1_pays_short_wrong_answers(released):
  knobs = {"apply_to_incorrect": released, "eps": 1e-4 * released}
  right, lengths = jnp.array([[1, 0, 0]]), jnp.array([[10, 5, 30]])
  got = rewards.lcr1_reward(right, right, lengths, jnp.ones((1, 3), bool), **knobs)
  np.testing.assert_array_equal(jnp.sign(got[0, 1:]), [1, -1] if released else [0, 0])


@few
@given(lengths=LENGTHS, verdicts=VERDICTS, scale=st.integers(2, 9), shift=st.integers(0, 9))
def test_the_unit_of_length_does_not_matter(lengths, verdicts, scale, shift):
  correct, lengths = jnp.array([verdicts]), jnp.array([lengths])
  gr3 = [rewards.gr3_reward(correct, n, ALL) for n in (lengths, scale * lengths)]
  np.testing.assert_allclose(*gr3, rtol=1e-6)
  kimi = [rewards.kimi_reward(correct, correct, n, ALL) for n in (lengths, scale * lengths + shift)]
  np.testing.assert_allclose(*kimi, atol=1e-6)


@few
@given(lengths=LENGTHS, verdicts=VERDICTS)
def test_adactrl_stays_in_range(lengths, verdicts):
  got = REWARDS["adactrl"](jnp.array([verdicts]), jnp.array([lengths]))
  assert np.all((got >= -1.5) & (got <= 2.0))


def test_adactrl_of_groups_without_tokens():
  nothing = jnp.zeros((1, 6), jnp.int32)
  assert np.isfinite(REWARDS["adactrl"](jnp.ones((1, 6)), nothing)).all()


def scan_repetition(tokens, ngram, first_only):
  """The definition: left to right, what was seen, and where the last repeated n-gram ends."""
  seen, punished, end = set(), np.zeros(len(tokens)), -1
  for start in range(len(tokens) - ngram + 1):
    window = tuple(tokens[start : start + ngram])
    if window in seen:
      if start > end or not first_only:
        punished[start : start + ngram] = -1.0
      end = start + ngram
    seen.add(window)
  return punished


@pytest.mark.parametrize("first_only", [False, True])
@settings(max_examples=8, deadline=None)
@given(tokens=st.lists(st.integers(0, 2), min_size=12, max_size=12), length=st.integers(0, 12))
@example(tokens=[0, 1, 0, 2, 0, 1, 1, 0, 0, 0, 0, 0], length=8)  # repeated again exactly at the end
def test_dense_repetition_is_the_scan(first_only, tokens, length):
  mask = jnp.arange(12) < length
  got = advantages.dense_repetition_reward(
    jnp.array(tokens), mask, ngram=2, penalty=-1.0, first_only=first_only
  )
  want = np.zeros(12)
  want[:length] = scan_repetition(tokens[:length], 2, first_only)
  np.testing.assert_array_equal(got, want)


@few
@given(values=VALUES, seed=st.integers(0, 99))
def test_canon_between_and_within_halves(values, seed):
  r, metric = jnp.array([values]), jax.random.permutation(jax.random.key(seed), 6)[None]
  half = advantages.canon_advantage(r, metric, ALL)
  np.testing.assert_allclose(half, advantages.group_centered_advantage(r, ALL), atol=1e-6)
  full = advantages.canon_advantage(r, metric, ALL, mu=0.8)
  np.testing.assert_allclose(jnp.sum(full), 0.0, atol=1e-5)
  order = jax.random.permutation(jax.random.key(seed + 1), 6)
  moved = advantages.canon_advantage(r[:, order], metric[:, order], ALL, mu=0.8)
  np.testing.assert_allclose(moved, full[:, order], atol=1e-6)
  long = advantages.canon_advantage(jnp.ones((1, 6)), metric, ALL, mu=1.0, high_weight=0.9)
  np.testing.assert_allclose(long, jnp.where(metric >= 3, -0.1, 0.1), atol=1e-6)


@few
@given(values=VALUES, lengths=LENGTHS)
def test_qglas_keeps_every_sign(values, lengths):
  r = jnp.array([values])
  base = advantages.group_normalized_advantage(r, ALL, ddof=0, eps=0.0)
  got = advantages.qglas_advantage(r, jnp.array([lengths]), ALL)
  np.testing.assert_array_equal(jnp.sign(got), jnp.sign(base))
  np.testing.assert_array_equal(got[base <= 0], base[base <= 0])
  assert np.all(got >= base)


@few
@given(values=VALUES, others=VALUES, scale=st.integers(2, 50), shift=st.integers(-3, 3))
def test_no_component_wins_by_its_scale(values, others, scale, shift):
  small = large = jnp.array([[values], [others]])
  large = large.at[1].set(scale * large[1] + shift)
  got = [advantages.component_average_advantage(x, ALL) for x in (small, large)]
  np.testing.assert_allclose(*got, atol=2e-4)


def test_without_discount_all_channels_count_alike():
  rewards_ = jax.random.normal(jax.random.key(0), (2, 5, 3))
  mask = jnp.arange(5)[None] < jnp.array([[5], [3]])
  hidden = jnp.where(mask[..., None], rewards_, jnp.nan)
  got = advantages.multi_discount_return(hidden, mask, gammas=(1.0, 1.0, 1.0))
  total = jnp.where(mask, rewards_.sum(-1), 0.0)
  np.testing.assert_allclose(got, jnp.where(mask, total[:, ::-1].cumsum(-1)[:, ::-1], 0), atol=1e-6)
  # And the advantage of that return is its difference from the values.
  values = jnp.where(mask, rewards_[..., 0], jnp.nan)
  gae = advantages.generalized_advantage(hidden.sum(-1), values, mask)
  np.testing.assert_allclose(gae, jnp.where(mask, got - values, 0.0), atol=1e-6)


@few
@given(values=VALUES, lengths=LENGTHS, count=st.integers(1, 6))
def test_gfpo_keeps_exactly_k(values, lengths, count):
  r, lengths = jnp.array([values]), jnp.array([lengths])
  keep = filters.lowest(lengths, ALL, count)
  assert int(keep.sum()) == count
  assert lengths[keep].max() <= jnp.where(keep, 99, lengths).min()
  everyone = filters.lowest(lengths, ALL, 6)
  grpo = [advantages.group_normalized_advantage(r, k, ddof=0) for k in (everyone, ALL)]
  np.testing.assert_array_equal(*grpo)


def test_adaptive_count_follows_what_was_seen():
  stage = filters.adaptive_shortest(counts=(4, 3, 2, 1), window=8, warmup=4)
  r = random_rollouts(prompts=4, group=4)
  means = jnp.array([0.0, 0.4, 0.6, 1.0])
  group = jnp.broadcast_to(means[:, None], (4, 4))
  keep, state = stage.apply(stage.init(), group, r)
  np.testing.assert_array_equal(keep.sum(-1), [4, 4, 4, 4])  # nothing to compare with yet
  keep, state = stage.apply(state, group, r)
  np.testing.assert_array_equal(keep.sum(-1), [4, 3, 2, 1])
  np.testing.assert_allclose(state.ring, [*means, *means])


@few
@given(lengths=st.lists(st.integers(1, 9999), min_size=6, max_size=6), verdicts=VERDICTS)
def test_dot_cuts_only_outliers_of_solved_groups(lengths, verdicts):
  lengths, solved = jnp.array([lengths]), jnp.array([verdicts])
  kept = cropping.outlier_kept_length(ALL, lengths, ALL, alpha=1.0)
  assert np.all(kept <= lengths)
  never = cropping.outlier_kept_length(ALL, lengths, ALL, alpha=5 / math.sqrt(6) + 1e-3)
  np.testing.assert_array_equal(never, lengths)
  partly = cropping.outlier_kept_length(solved.at[:, 0].set(False), lengths, ALL, alpha=1.0)
  np.testing.assert_array_equal(partly, lengths)


def test_cropping_hides_what_follows():
  r = random_rollouts()
  kept = jnp.minimum(r.lengths, 4)
  got = cropping.cropped(r, kept)
  np.testing.assert_array_equal(got.lengths, kept)
  np.testing.assert_array_equal(got.mask.sum(-1), kept)
  np.testing.assert_array_equal(got.truncated, r.truncated | (r.lengths > 4))
  assert not np.any(got.sampler_log_probs[~got.mask])
  np.testing.assert_array_equal(got.mask & ~r.mask, False)


def test_multipliers_rest_at_the_target_and_stay_positive():
  target = jnp.array([0.5, 0.2])
  state = rewards.Multipliers(jnp.array([0.3, -0.1]), jnp.zeros(2))
  rest = rewards.update_multipliers(state, target, target)
  np.testing.assert_array_equal(rest.raw, state.raw)
  up = rewards.update_multipliers(state, target - 0.1, target)
  assert np.all(up.raw > state.raw)
  for _ in range(30):
    state = rewards.update_multipliers(state, target + 1.0, target, squash=None)
  np.testing.assert_array_equal(state.raw, 0.0)


def rollouts_of(lengths, correct):
  r = random_rollouts(prompts=1, group=len(lengths))
  return dataclasses.replace(r, lengths=jnp.array([lengths]), correct=jnp.array([correct]))


def test_the_price_of_length_climbs_while_answers_are_long():
  stage = rewards.length_dual(target=10, step_size=0.5)
  state, prices = stage.init(), []
  for lengths in ([20, 20], [20, 20], [10, 10], [2, 2]):
    _, state = stage.apply(state, rollouts_of(lengths, [True, True]))
    prices.append(float(state.own))
  np.testing.assert_allclose(prices, [0.5, 1.0, 1.0, 0.6])


def test_acoer_weight_follows_accuracy():
  stage = rewards.acoer(alpha=1.0, interval=2, share=0.5, decay=0.5)
  state, weights = stage.init(), []
  for correct in [(True, True), (True, True), (True, False), (False, False)]:
    _, state = stage.apply(state, rollouts_of([8, 8], correct))
    weights.append(float(state.weight))
  # Up by 2 % after the first two steps, down by 5 % after the next two.
  np.testing.assert_allclose(weights, [1.0, 1.02, 1.02, 1.02 * 0.95], rtol=1e-6)
  np.testing.assert_allclose(state.length, 8.0)


@few
@given(seed=st.integers(0, 99), share=st.floats(0.01, 0.9))
def test_covariance_picks_a_share_of_real_tokens(seed, share):
  keys = jax.random.split(jax.random.key(seed), 2)
  log_probs, adv = jax.random.normal(keys[0], (3, 5)), jax.random.normal(keys[1], (3, 5))
  mask = jnp.arange(5)[None] < jnp.array([[5], [3], [2]])
  held = losses.policy.high_covariance(log_probs, adv, mask, share=share)
  assert int(held.sum()) == max(1, int(10 * share))
  assert not np.any(held & ~mask)
  hidden = [jnp.where(mask, x, jnp.nan) for x in (log_probs, adv)]
  np.testing.assert_array_equal(losses.policy.high_covariance(*hidden, mask, share=share), held)


def test_draft_trees_ignore_padding():
  probs, mask = jnp.array([[0.5, 0.5], [0.9, 7.0]]), jnp.array([[True, True], [True, False]])
  hidden = jnp.where(mask, probs, jnp.nan)
  grad = jax.grad(lambda p: losses.expected_accepted_length(p, mask).sum())(hidden)
  np.testing.assert_allclose(grad, [[1.5, 0.5], [1.0, 0.0]], rtol=1e-6)
  one = losses.tree_reward(jnp.array([0.75, jnp.nan]), jnp.array([True, False]), eta=2.0)
  np.testing.assert_allclose(one, 0.75)
  np.testing.assert_array_equal(losses.tree_advantage(jnp.ones(4), jnp.zeros(4)), 0.0)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(0, 3000), seed=st.integers(0, 9))
def test_pieces_cover_a_document_from_its_start(length, seed):
  rng = np.random.default_rng(seed) if seed else None
  pieces = bucketing.decomposed(length, min_log2=4, max_log2=8, rng=rng)
  cuts = sorted(cut for found in pieces.values() for cut in found)
  ends = [start + size for start, size in cuts]
  assert [start for start, _ in cuts] == [0, *ends[:-1]][: len(cuts)]
  assert all(size == 2**k + 1 for k, found in pieces.items() for _, size in found)
  assert 0 <= length - (ends[-1] if ends else 0) < 2**4 + 1


@few
@given(lengths=LENGTHS)
def test_hbpo_pays_the_budget_that_fits(lengths):
  budgets = jnp.sort(jnp.array(lengths))[:, None] * 10  # 10 to 200
  one = lambda length: rewards.hbpo_reward(
    jnp.ones((6, 1)), jnp.full((6, 1), length), budgets, max_length=400, alpha=0.01
  )[:, 0]
  # Below every budget the smaller one pays more; beyond all of them the larger one.
  assert np.all(np.diff(one(5)) <= 1e-6)
  assert np.all(np.diff(one(300)) >= -1e-6)


@few
@given(lengths=LENGTHS, verdicts=VERDICTS, alpha=st.sampled_from([0.05, 0.4, 0.9]))
def test_what_length_may_take_from_a_right_answer_has_a_limit(lengths, verdicts, alpha):
  correct, lengths = jnp.array([verdicts]), jnp.array([lengths])
  wrong = np.asarray(~correct)
  got = rewards.sigmoid_length_reward(correct, correct, lengths, ALL, alpha=alpha)
  assert np.all((got[~wrong] > 1 - alpha) & (got[~wrong] < 1))
  most = rewards.max_length_reward(correct, lengths, BUDGETS)
  factors = jnp.stack([1 / (1 + lengths), jnp.ones((1, 6))], -1)
  soft = rewards.multiplicative_reward(correct, factors)
  for rewarded in (got, most, soft):
    assert not np.any(rewarded[wrong])


@few
@given(lengths=LENGTHS)
def test_in_a_solved_group_every_linear_length_term_is_the_same_advantage(lengths):
  lengths = jnp.array([lengths]).at[0, 0].set(21)  # they differ
  linear = [
    rewards.conciser_reward(ALL, ALL, lengths, ALL, max_length=64),
    rewards.alp_reward(ALL, ALL, lengths, ALL, beta=0.5),
    rewards.kimi_reward(ALL, ALL, lengths, ALL, alpha=0.4),
    rewards.max_length_reward(ALL, lengths, jnp.full((1, 6), 15), alpha=0.01),
  ]
  want = (lengths.mean() - lengths) / lengths.std(ddof=1)
  for rewarded in linear:
    got = advantages.group_normalized_advantage(rewarded, ALL, eps=0.0)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
