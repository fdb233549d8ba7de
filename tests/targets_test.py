"""Rewards tell the length that they compared with, and logs show it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import recipes, rewards
from lcrl.registry import build
from lcrl.rewards.base import terms_of
from lcrl.training import loop
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.devices import limit_devices
from tests.helpers.files import lines
from tests.helpers.graded import rollouts
from tests.helpers.rl_runs import changed
from tests.helpers.stages import TABLE, inputs

INF = np.inf


@pytest.mark.parametrize(
  "asked, want",
  [
    ((5, 51, 3), [*range(5, 54, 3)]),
    ((4, 16, 4), [4, 8, 12, 16]),
    ((100, 1500, 100), [*range(100, 1501, 100)]),
    ((512, 2048, 1024), [512, 1024, 2048]),  # LASER's code begins its steps at 1024
    ((1000, 2000, 500), [1000, 1024, 1524, 2024]),  # likewise
    ((4096, 6000, 1024), [4096, 5120, 6144]),
  ],
)
def test_laser_d_chooses_among_steps_of_the_interval_that_was_asked_for(asked, want):
  np.testing.assert_array_equal(rewards.length_thresholds(*asked), want)


@pytest.mark.parametrize(
  "asked", [(8, 8, 2), (9, 8, 2), (0, 8, 2), (2, 8, 0), (2, 8, -1), (2, 8, 0.5)]
)
def test_laser_d_refuses_what_leaves_no_choice(asked):
  with pytest.raises(ValueError, match=r"must be .*, got "):
    rewards.laser_d(**dict(zip(("lower", "upper", "interval"), asked, strict=True)))


RIGHT, LENGTHS = [[1, 1, 0], [1, 0, 0]], [[4, 10, 6], [8, 2, 5]]
HISTORY = jnp.array([3.0, INF])  # of the two prompts
TELL = {
  "exact_length": (rewards.exact_length(), 8),
  "step_bonus": (rewards.step_bonus(), 8),
  "max_length": (rewards.max_length(), 8),
  "truncation": (rewards.truncation(), 8),
  "hbpo": (rewards.hbpo(), 8),
  "curriculum": (rewards.curriculum(format_weight=0.0), 8),
  "tiered_truncation": (rewards.tiered_truncation(limits=(9, 5)), [5, 9]),
  "hapo": (rewards.hapo(rows=2), [3, INF]),
  "hapo_mean": (rewards.hapo_mean(rows=2), [INF, INF]),
  "length_dual": (rewards.length_dual(target=7), 7),
  "acoer": (rewards.acoer(share=0.5), 22 / 3 / 2),  # of the mean length of right answers
  "shorter_better": (rewards.shorter_better(), [4, 8]),
  "lcr1": (rewards.lcr1(), [10, 8]),
  "gr3": (rewards.gr3(), [20 / 3, 5]),
  "o1_pruner": (rewards.o1_pruner(), [20 / 3, 5]),
  "kimi": (rewards.kimi(), [7, 5]),
  "sigmoid_length": (rewards.sigmoid_length(), [7, 8]),
  "grpo_lambda": (rewards.grpo_lambda(share=0.5), [7, INF]),
  "grpo_lead": (rewards.grpo_lead(), [7, 8]),
  "toggle": (rewards.toggle(rows=2, threshold=0.5, quantile=0.5, period=1), [INF, INF]),
  "length_suite": (rewards.length_suite(relative=0.1), [7, 8]),
  "profiled_penalty": (rewards.profiled_penalty(rows=2), [INF, INF]),
  "smart_thinker": (rewards.smart_thinker(), [4, 8]),
  "short_rl": (rewards.short_rl(slack=3), [7, 11]),
  "leash": (rewards.leash(target=7), 7),
}


@pytest.mark.parametrize("name", TELL)
def test_a_stage_tells_the_length_that_it_compares_with(name):
  stage, want = TELL[name]
  state = stage.init()
  if name == "hapo":
    state = state._replace(own=HISTORY)
  found = stage.targets(state, rollouts(RIGHT, LENGTHS, prompt_ids=[0, 1]))
  assert found.keys() == {name}
  want = jnp.broadcast_to(jnp.asarray(want, jnp.float32).reshape(-1, 1), (2, 3))
  np.testing.assert_allclose(found[name], want, rtol=1e-6)


@pytest.mark.parametrize("name", ["step_bonus", "laser_d", "tiered_truncation"])
def test_the_target_is_where_the_bonus_ends(name):
  targets = jnp.array([3, 5, 7], jnp.int32)
  laser_d = rewards.laser_d(lower=2, upper=9, interval=1)
  stage = TELL[name][0] if name in TELL else laser_d
  state = stage.init()
  if name == "laser_d":
    state = state._replace(own=state.own._replace(targets=targets))
  r = rollouts([[1] * 12, [1] * 5 + [0] * 7, [1] + [0] * 11], [range(1, 13)] * 3, target=6)
  got, _ = stage.apply(state, r)
  best = got >= jnp.max(got, -1, keepdims=True)
  within = r.correct & (r.lengths <= stage.targets(state, r)[name])
  np.testing.assert_array_equal(best, within)


def test_stages_above_each_other_and_in_turn_tell_their_own():
  r = rollouts(RIGHT, LENGTHS, prompt_ids=[0, 1])
  both = rewards.truncation(base=rewards.soft_overlong(max_length=9, buffer=3, base=rewards.gr3()))
  assert both.targets(both.init(), r).keys() == {"truncation", "gr3"}
  assert rewards.correctness().targets is None
  stage = recipes.switch_after([1], [rewards.length_dual(target=7), rewards.gr3()])
  state = stage.init()
  for turn, (dual, mean) in enumerate([(7, INF), (INF, 20 / 3)]):
    found = stage.targets(state, r)
    assert [float(found[x][0, 0]) for x in ("length_dual", "gr3")] == pytest.approx([dual, mean])
    numbers = stage.numbers(state)
    assert int(numbers["turn"]) == turn
    assert np.isnan(numbers["length_dual/price"]) == turn
    _, state = stage.apply(state, r)


def test_terms_of_a_reward_are_what_each_stage_adds():
  price = rewards.length_penalty(alpha=0.1)
  stage = rewards.soft_overlong(max_length=10, buffer=4, base=price)
  r = rollouts([[1, 0]], [[8, 2]], prompt_ids=[0])
  found = stage.terms(stage.init(), r)
  # 8 tokens are 2 of the buffer's 4 above 6.
  want = {"correctness": [1, 0], "length_penalty": [-0.8, -0.2], "soft_overlong": [-0.5, 0]}
  assert list(found) == list(want)
  for name, x in want.items():
    np.testing.assert_allclose(found[name], [x], atol=1e-6)
  twice = rewards.length_penalty(alpha=0.2, base=price)
  np.testing.assert_allclose(
    twice.terms(twice.init(), r)["length_penalty"], [[-2.4, -0.6]], rtol=1e-6
  )
  turns = recipes.switch_after([1], [rewards.correctness(), price])
  state = turns.init()
  for length in (0.0, -0.8):
    found = turns.terms(state, r)
    assert float(found["length_penalty"][0, 0]) == pytest.approx(length)
    assert float(found["correctness"][0, 0]) == 1
    _, state = turns.apply(state, r)
  assert rewards.correctness().terms is None  # its one term is the reward


@pytest.mark.parametrize(
  "spec", [s for slot, s in TABLE if slot == "reward"], ids=lambda s: s["fn"]
)
def test_terms_sum_to_the_reward(spec):
  stage, r = build(rewards, spec, field="reward"), inputs(0)[0].rollouts
  found, (total, _) = terms_of(stage)(stage.init(), r), stage.apply(stage.init(), r)
  assert spec["fn"] in found
  np.testing.assert_allclose(sum(found.values()), total, atol=1e-6)


def test_mixed_rewards_tell_the_targets_and_numbers_of_their_parts():
  parts = [rewards.hapo(rows=2), rewards.length_dual(target=7)]
  stage = rewards.lagrangian(components=parts, targets=[1.0, 1.0], main=rewards.gr3(), start=0.5)
  r, state = rollouts(RIGHT, LENGTHS, prompt_ids=[0, 1]), stage.init()
  assert stage.targets(state, r).keys() == {"gr3", "hapo", "length_dual"}
  numbers = stage.numbers(state)
  assert float(numbers["lagrangian/multiplier_1"]) == pytest.approx(np.tanh(0.5))
  assert float(numbers["length_dual/price"]) == 0.0


def test_hapo_tells_how_much_it_remembers():
  stage = rewards.hapo(rows=4)
  state = stage.init()
  assert np.isnan(stage.numbers(state)["hapo/length"])
  _, state = stage.apply(state, rollouts(RIGHT, LENGTHS, prompt_ids=[0, 1]))
  numbers = {name: float(x) for name, x in stage.numbers(state).items()}
  assert numbers == {"hapo/rows_known": 0.5, "hapo/length": 6.0}


@pytest.mark.slow
def test_a_run_shows_targets_states_rate_and_clipping(tmp_path, monkeypatch, caplog):
  limit_devices(monkeypatch)
  base = {"fn": "length_penalty", "alpha": 0.02}  # else a fresh policy learns nothing
  config = changed(
    reward={"fn": "laser_d", "lower": 3, "upper": 12, "interval": 3, "base": base},
    monitor={"every": 1, "prompts": 4},
    loss={
      "fn": "clipped_surrogate",
      "clip_low": 1e-4,
      "clip_high": 1e-4,
      "kl": {"fn": "k3", "beta": 0.1},
    },
    optimizer={"fn": "adamw", "learning_rate": 1e-2, "warmup_steps": 2, "decay_steps": 4},
    train__updates=2,
  )
  loop.train(config, tmp_path)
  steps = [row for row in lines(tmp_path / "metrics.jsonl") if "loss" in row]
  rates = [row["learning_rate"] for row in steps]
  np.testing.assert_allclose(rates, [0.0, 0.005, 0.01, 0.005], atol=1e-8)
  assert steps[0]["clip_fraction"] == steps[0]["approx_kl"] == 0  # the rate is 0
  assert steps[2]["clip_fraction"] > 0
  assert steps[2]["approx_kl"] != 0
  assert steps[0]["kl"] == pytest.approx(0, abs=1e-6)
  assert steps[3]["kl"] > 0
  assert all(row["skipped_updates"] == 0 and 0 < row["entropy"] < np.log(20) + 1 for row in steps)
  rows = [json.loads(x) for part in sorted((tmp_path / "samples").iterdir()) for x in part.open()]
  for row in rows:
    level = [steps[row["step"] - 1][f"state/reward/laser_d/target_level_{i}"] for i in range(3)]
    assert row["target"] in level
    assert row["budget_target"] == 12
  for row in steps:
    names = ("correctness", "length_penalty", "laser_d")
    assert sum(row[f"term/{name}"] for name in names) == pytest.approx(row["reward"], abs=1e-6)
    assert 0 < row["end_probability"] < 1
  assert steps[0]["alarm/truncated"] == 1  # a fresh policy does not know how to end
  rang = [row["step"] for row in steps if row["truncated"] > 0.2]
  assert len(rang) > 1  # and is told once
  assert caplog.text.count("of the answers were cut at their cap") == 1
  report = (tmp_path / "report.md").read_text()
  assert report.count("**Warning. More than 20%") == 1
  assert "(dynamics.png)" in report
  assert "state/reward/laser_d/target_level_2" in (tmp_path / "report.md").read_text()


def test_targets_that_are_learned_from_a_monitor_set_need_one():
  reward = {"fn": "laser_d", "lower": 3, "upper": 12, "interval": 3}
  with pytest.raises(ValueError, match=r"monitor\.every must be at least 1: reward\.fn='laser_d'"):
    build_learner(read(changed(reward=reward)))
