"""DECS, AdaptThink, Thinkless, LAPO, AALC and ThinkDial: what must hold, and what is refused."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import advantages, budgets, filters, losses, rewards, tasks
from lcrl.registry import build
from lcrl.tasks.task import Response
from lcrl.types import Batch, TokenScores
from tests.helpers.graded import rollouts
from tests.rollouts import random_rollouts


@pytest.mark.parametrize("seed", [0, 1])
def test_decs_pushes_waste_of_solved_groups_down_and_nothing_else(seed):
  r = random_rollouts(seed)
  needed, think = jnp.maximum(r.lengths // 3, 1), jnp.maximum(2 * r.lengths // 3, 1)
  signals = {"needed": needed, "think_length": think}
  r = dataclasses.replace(r, correct=jnp.ones_like(r.correct), signals=signals)
  stage = advantages.decs(max_length=9)
  got, _ = jax.jit(stage.apply)((), r.scores, r.valid, r)
  place = np.cumsum(r.mask, -1) - 1
  waste = r.mask & (place >= needed[..., None]) & (place < think[..., None])
  assert (got[waste] < 0).all()
  assert (got[~waste] >= 0).all()
  assert (got > 0).any()
  unmarked = dataclasses.replace(r, signals=signals | {"needed": jnp.zeros_like(needed)})
  assert not jax.jit(stage.apply)((), r.scores, r.valid, unmarked)[0].any()


def test_a_wrong_answer_of_decs_is_compared_at_every_place():
  """Lengths 1 and 3: behind its end the right answer still counts with 1.1."""
  r = dataclasses.replace(random_rollouts(prompts=1, group=2), correct=jnp.array([[True, False]]))
  mask = jnp.arange(12)[None, None] < jnp.array([[4, 6]])[..., None]
  mask = mask & (jnp.arange(12) >= 3)[None, None]
  zero = jnp.zeros((1, 2), jnp.int32)
  r = dataclasses.replace(r, mask=mask, signals={"needed": zero, "think_length": zero})
  got, _ = jax.jit(advantages.decs(max_length=9).apply)((), r.scores, r.valid, r)
  np.testing.assert_allclose(got[0, 1, 3:6], -(0.5**0.5) * np.ones(3), rtol=1e-5)


def test_decs_finds_the_answer_behind_forced_tokens_that_count():
  """Each row draws three tokens, is forced two that end its thinking of five, and draws two; the
  first one needed two."""
  r = random_rollouts(prompts=1, group=2)
  at = jnp.broadcast_to(jnp.arange(12), (1, 2, 12))
  forced = (at == 6) | (at == 7)
  r = dataclasses.replace(
    r,
    correct=jnp.ones((1, 2), bool),
    mask=(at >= 3) & (at < 10) & ~forced,
    forced=forced,
    lengths=jnp.full((1, 2), 7),
    signals={"needed": jnp.array([[2, 7]]), "think_length": jnp.full((1, 2), 5)},
  )
  got, _ = jax.jit(advantages.decs(max_length=9).apply)((), r.scores, r.valid, r)
  assert (got[0, 0] < 0).tolist() == (at[0, 0] == 5).tolist()
  # Likewise the tag of LC-R1 and PEAR, the second forced token: it is no token that trains.
  signals = {"think_end": jnp.full((1, 2), 4), "think_length": jnp.full((1, 2), 4)}
  signals |= {"needed": jnp.full((1, 2), 2), "entropy": 1.0 * (at == 8)}
  r = dataclasses.replace(r, signals=signals)
  base, _ = advantages.group_centered().apply((), r.scores, r.valid, r)
  compressed, _ = advantages.thinking_compression().apply((), r.scores, r.valid, r)
  np.testing.assert_array_equal(compressed, jnp.where(r.mask, base[..., None], 0))
  paid, _ = rewards.pear().apply((), r)  # the answer's mean entropy is .5, the thinking's 0
  assert paid.tolist() == [[1.0, 1.0]]
  thinking, answer = rewards.phase_entropy(
    signals["entropy"], r.mask, signals["think_end"], places=r.places
  )
  assert (thinking.tolist(), answer.tolist()) == ([[0.0, 0.0]], [[0.5, 0.5]])


@pytest.mark.parametrize("share, kept", [(0.0, 0), (0.34, 1), (0.5, 2), (0.9, 3)])
def test_easy_groups_are_rationed(share, kept):
  easy, mixed, hard = [1, 1], [1, 0], [0, 0]
  correct = jnp.array([easy, hard, mixed, easy, mixed, easy])
  got = filters.easy_share_groups(correct, jnp.ones((6, 2), bool), jnp.array(share))
  assert got[2].all()
  assert got[4].all()
  assert not got[1].any()
  assert got[jnp.array([0, 3, 5])].all(-1).tolist() == [i < kept for i in range(3)]


def test_the_share_of_easy_groups_follows_what_answers_needed():
  stage = filters.easy_share(step_size=1.0, needed=0.5)
  state, shares, apply = stage.init(), [], jax.jit(stage.apply)
  r = rollouts([[1, 1, 0]], [[10, 10, 10]])
  for needed in (6, 9, 0, 3):  # of 10; nothing is known of the third
    signals = {"needed": np.full((1, 3), needed), "think_length": r.lengths}
    _, state = apply(state, None, dataclasses.replace(r, signals=signals))
    shares.append(float(state.share))
  np.testing.assert_allclose(shares, [0.1, 0.4, 0.4, 0.0], atol=1e-6)


def read(text):
  signals = build(tasks, dict(fn="answer_chunk", extract="last_number"), field="signals")
  tokens = tuple(range(len(text)))
  return signals.read(Response(tokens, [True] * len(text), False, lambda t: text[: len(t)]))


def test_a_chunk_has_the_answer_or_joins_the_next():
  text = "So 3\nand 3.\nBut 4\nWait, 3\nor so.\nLet us see: 4\nyes</think>4"
  got = read(text)
  assert got["think_length"] == text.index("</think>")
  assert text[: got["needed"]].endswith("or so.\n")  # "But 4" is one line: it joins "Wait"
  assert read(text.replace("</think>4", "</think>9"))["needed"] == 0
  assert read(text.replace("But 4", "But 40"))["needed"] == text.index("</think>") + 1


ADAPT = dict(reference=rewards.first_accuracy_reference(rows=2))


def asked(r, level):
  return dataclasses.replace(r, budget=dataclasses.replace(r.budget, level=jnp.array(level)))


def test_skipping_pays_where_it_costs_less_accuracy_than_its_bonus():
  stage = rewards.adapt_think(bonus=0.3, **ADAPT)
  level = [[0, 0, 0, 1, 1, 1]]
  cheap = asked(rollouts([[1, 1, 0, 1, 0, 1]], [[5] * 6], prompt_ids=[0]), level)
  dear = asked(rollouts([[1, 1, 0, 0, 1, 0]], [[5] * 6], prompt_ids=[1]), level)
  state, apply = stage.init(), jax.jit(stage.apply)
  for r, pays in ((cheap, True), (dear, False)):
    got, state = apply(state, r)
    assert float(got[0, :3].sum()) == pytest.approx(0.0, abs=1e-6)  # against themselves
    assert (float(got[0, 3:].mean()) > 0) == pays
  again, _ = apply(state, asked(rollouts([[1] * 6], [[5] * 6], prompt_ids=[1]), level))
  np.testing.assert_allclose(again[0, :3], 1 / 3, rtol=1e-5)  # against the first group


def test_accuracies_of_the_start_come_from_the_rows():
  stage = rewards.adapt_think(bonus=0.5, reference=rewards.signal_reference(name="start"))
  assert stage.needs == ("start",)
  r = asked(rollouts([[1, 0]], [[5, 5]]), [[0, 1]])
  start = tasks.row_numbers(start="pass_rate").read(Response((), (), False, str, {"pass_rate": 1}))
  r = dataclasses.replace(r, signals={"start": jnp.full((1, 2), start["start"] / 4)})
  np.testing.assert_allclose(stage.apply(stage.init(), r)[0], [[0.75, 0.25]])


def forced_batch(level):
  r = asked(random_rollouts(4, prompts=1, group=2), [level])
  first = r.mask & (jnp.cumsum(r.mask, -1) == 1)
  weights = losses.sequence_mean(r.mask, r.valid)
  advantages_ = jnp.array([[1.0, -1.0]])
  return Batch(
    dataclasses.replace(r, undrawn=first), r.scores, r.valid, advantages_, weights
  ), first


def test_a_forced_opening_is_learned_although_the_policy_never_draws_it():
  """The first update compares it with how often it was forced, not with the policy itself."""
  stage = losses.forced_opening(shares=(0.5, 0.5), base=losses.sequence_clipped_surrogate())
  batch, first = forced_batch([1, 0])
  log_probs = jnp.where(first, -20.0, batch.rollouts.sampler_log_probs)
  pay = lambda x: stage.apply((), TokenScores(x), batch)[0]
  loss, slope = jax.jit(jax.value_and_grad(pay))(log_probs)
  ratio = jnp.exp((-20.0 - jnp.log(0.5)) / batch.rollouts.lengths)
  clipped = jnp.maximum(ratio[0, 1], 1 - 3e-4)  # of the negative advantage
  np.testing.assert_allclose(loss, (clipped - ratio[0, 0]) / 2, rtol=1e-5)
  assert (slope[0, 0][batch.rollouts.mask[0, 0]] < 0).all()
  assert stage.rowwise


@pytest.mark.parametrize("per_sequence", [True, False])
def test_the_control_token_weighs_alike_in_long_and_short_responses(per_sequence):
  r = random_rollouts(3)
  weigh = partial(losses.control_token, alpha=0.25, per_sequence=per_sequence)
  weights = np.asarray(weigh(r.mask, r.valid))
  first = np.asarray(r.mask & (jnp.cumsum(r.mask, -1) == 1))
  np.testing.assert_allclose(weights[first], 0.25 / r.valid.size, rtol=1e-5)
  assert weights[~first].sum() == pytest.approx(1.0, rel=1e-5)


def test_a_target_is_the_latest_median_and_then_only_falls():
  stage = budgets.right_median(rows=3, fallback=64, shown_from=2, cap=32)
  state, told, learn = stage.init(), [], jax.jit(stage.learn)
  ask = jax.jit(partial(stage.apply, prompt_ids=jnp.array([0, 2]), key=None, group_size=3))
  steps = [  # of prompts 0 and 2
    ([[1, 1, 1], [0, 0, 0]], [[9, 20, 30], [6, 6, 6]]),
    ([[1, 1, 0], [1, 0, 0]], [[41, 44, 1], [50, 1, 1]]),
    ([[1, 0, 0], [0, 0, 0]], [[60, 1, 1], [1, 1, 1]]),
    ([[1, 0, 0], [1, 0, 0]], [[7, 1, 1], [60, 1, 1]]),
  ]
  for step, (verdicts, lengths) in enumerate(steps):
    budget, _ = ask(state, step=jnp.array(step))
    told.append((budget.target[:, 0].tolist(), budget.level[:, 0].tolist()))
    r = dataclasses.replace(rollouts(verdicts, lengths, prompt_ids=[0, 2]), budget=budget)
    state = learn(state, r)
  assert told == [([64, 64], [0, 0]), ([20, 64], [0, 0]), ([42, 50], [1, 1]), ([42, 50], [1, 1])]
  assert state.tolist() == [7.0, float("inf"), 50.0]
  assert (budget.cap == 32).all()


def test_an_unknown_target_is_the_median_of_the_group():
  stage = rewards.bell_length(weight=1.0, sigma=1.0)
  r = asked(rollouts([[1, 1, 1], [1, 1, 1]], [[4, 5, 6], [4, 5, 6]]), [[1] * 3, [2] * 3])
  r = dataclasses.replace(r, budget=dataclasses.replace(r.budget, target=jnp.full((2, 3), 6)))
  got, _ = stage.apply((), r)
  assert got.argmax(-1).tolist() == [2, 1]
  assert stage.targets((), r)["bell_length"][:, 0].tolist() == [6, 5]
  wrong = dataclasses.replace(r, correct=jnp.zeros_like(r.correct))
  assert stage.targets((), wrong)["bell_length"][:, 0].tolist() == [6, np.inf]
  assert jnp.isfinite(stage.apply((), wrong)[0]).all()


def test_brevity_pays_once_the_accuracy_is_near_its_target():
  stage = rewards.aalc(max_length=10, alpha=1.0, beta=64.0, decay=0.5)
  r = rollouts([[1, 1, 1]], [[2, 5, 9]])
  observed = lambda right: rollouts([[1] * right + [0] * (4 - right)], [[3] * 4])
  state, paid, apply, observe = stage.init(), [], jax.jit(stage.apply), jax.jit(stage.observe)
  for right in (None, 2, 2, 2, 2, 2, 2, 2, 2):
    state = state if right is None else observe(state, observed(right))
    got, state = apply(state, r)
    paid.append(np.asarray(got[0]))
  np.testing.assert_array_equal(paid[0], 1.0)  # nothing was observed
  assert np.ptp(paid[1]) < 1e-6  # half are right of all that the target asks for
  assert (np.diff(paid[-1]) < -0.1).all()
  assert stage.numbers(state)["aalc/target"] == pytest.approx(0.5, abs=0.01)


def test_the_dial_leaves_high_effort_alone_and_prices_low_effort_most():
  term = rewards.level_shortness(weights=(0.0, 0.5, 1.0))
  stage = rewards.effort(
    efforts=(1.0, 0.5, 0.25),
    reference=rewards.first_mean_reference(rows=3),
    term=term,
    base=rewards.leak_penalty(size=0.5),
  )
  r = asked(rollouts([[1, 1, 0]] * 3, [[4, 8, 4]] * 3), [[0] * 3, [1] * 3, [2] * 3])
  leak = jnp.array([[False, False, True]] * 3)
  got, _ = jax.jit(stage.apply)(stage.init(), dataclasses.replace(r, signals={"leak": leak}))
  want = [[1.5, 1.5, -0.5], [1.75, 1.25, -0.5], [2.0, 1.0, -0.5]]
  np.testing.assert_allclose(got, want, rtol=1e-6)


BASE = losses.sequence_clipped_surrogate()


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: filters.easy_share(most=1.0), r"most must be in \[0, 1\), got 1.0"),
    (lambda: rewards.aalc(max_length=9, decay=0.0), r"decay must be in \(0, 1\], got 0.0"),
    (
      lambda: losses.forced_opening(shares=(0.5, 0.6), base=BASE),
      r"shares must be positive and sum to 1, got \(0.5, 0.6\)",
    ),
    (
      lambda: losses.forced_opening(shares=(1.0,), base=BASE).apply(
        (), TokenScores(jnp.zeros((1, 2, 12))), _unforced()
      ),
      r"needs openings that are forced and count: a section task.render",
    ),
    (
      lambda: budgets.right_median(rows=4, fallback=0, shown_from=1),
      "budget.fallback must be at least 1, got 0",
    ),
    (
      lambda: budgets.right_median(rows=4, fallback=9, shown_from=-1),
      "budget.shown_from must be at least 0, got -1",
    ),
    (
      lambda: tasks.row_numbers(start="pass_rate").read(Response((), (), False, str)),
      "the row of a prompt has no number 'pass_rate', got None",
    ),
  ],
)
def test_what_cannot_be_is_refused_by_name(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def _unforced():
  batch, _ = forced_batch([0, 0])
  return dataclasses.replace(batch, rollouts=dataclasses.replace(batch.rollouts, undrawn=None))


def test_a_length_outside_the_range_counts_less_the_wider_the_margin():
  right, lengths = jnp.ones((1, 3), bool), jnp.array([[100, 200, 350]])
  knobs = dict(weight=1.0, low=0.5, high=1.0, width=400.0)
  got = rewards.right_range_reward(jnp.zeros((1, 3)), right, lengths, right, **knobs)
  np.testing.assert_allclose(got, [[0.75, 1.0, 1.0]])


def test_stages_of_lapo_and_s_grpo_pass_their_settings_on():
  lone = rollouts([[1, 0, 0]], [[5, 6, 7]])
  for told, paid_ in ((True, 1.5), (False, 1.0)):
    got, _ = rewards.right_range(weight=0.5, lone=told).apply((), lone)
    assert got.tolist() == [[paid_, 0.0, 0.0]]
  r = dataclasses.replace(
    rollouts([[1, 1, 0]], [[5, 6, 7]]), signals={"exit_at": jnp.array([[4, 2, 1]])}
  )
  got, _ = rewards.serial_decay(decay=0.25).apply((), r)
  assert got.tolist() == [[0.25, 1.0, 0.0]]


@pytest.mark.parametrize("lengths", [(9, 7), (7, 9)])
def test_of_a_prompt_twice_in_a_batch_the_smaller_median_counts(lengths):
  """And a row of padding, which names prompt 0, changes nothing."""
  stage = budgets.right_median(rows=2, fallback=64, shown_from=9)
  r = rollouts([[1], [1], [1]], [[lengths[0]], [lengths[1]], [3]], prompt_ids=[1, 1, 0])
  budget, _ = stage.apply(
    stage.init(), jnp.array([1, 1, 0]), step=jnp.array(0), key=None, group_size=1
  )
  r = dataclasses.replace(r, budget=budget, valid=jnp.array([[True], [True], [False]]))
  assert stage.learn(jnp.array([20.0, 30.0]), r).tolist() == [20.0, 7.0]


def test_a_leak_costs_what_the_stage_says():
  leak = jnp.array([[False, True]])
  r = dataclasses.replace(rollouts([[1, 1]], [[4, 4]]), signals={"leak": leak})
  got, _ = rewards.leak_penalty(size=0.25).apply((), r)
  assert got.tolist() == [[1.25, 0.75]]
