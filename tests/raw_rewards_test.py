"""What must not notice the shaped reward: filters on verdicts, evaluation, metrics, alarms."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import filters
from lcrl.registry import build
from lcrl.training import loop
from lcrl.training.rl.step_metrics import batch_stats, preflight, step_metrics
from tests.helpers.devices import limit_devices
from tests.helpers.rl_runs import changed
from tests.helpers.stages import TABLE, inputs

READ_REWARDS = {
  "positive_reward",
  "nonconstant_reward",
  "most_efficient",
  "adaptive_shortest",
}  # by their formulas
FILTERS = [spec for slot, spec in TABLE if slot == "filter"]


@pytest.mark.parametrize("spec", FILTERS, ids=lambda spec: spec["fn"])
def test_only_filters_whose_formula_says_so_read_the_shaped_reward(spec):
  stage = build(filters, spec, field="filter")
  r = inputs(0)[0].rollouts
  step = jax.jit(lambda rewards: stage.apply(stage.apply(stage.init(), rewards, r)[1], rewards, r))
  seen = [
    step(rewards)
    for rewards in (
      jnp.zeros(r.lengths.shape),
      jnp.cos(jnp.arange(16.0).reshape(4, 4)),
      -1.0 * r.lengths,
    )
  ]
  same = all(np.array_equal(seen[0][0], keep) for keep, _ in seen)
  assert same == (spec["fn"] not in READ_REWARDS)


def test_metrics_and_the_first_check_tell_reward_from_verdict():
  batch = inputs(0)[0]
  other = dataclasses.replace(batch, rewards=1e6 - batch.rewards)
  first, second = (jax.tree.map(np.asarray, batch_stats(b)) for b in (batch, other))
  one, two = ({k: m.value() for k, m in step_metrics(f).items()} for f in (first, second))
  assert {name for name in one if one[name] != two[name]} == {
    "reward",
    "length_term/no_reward",
  }
  blocks = [preflight(f, rounds=1, sampling_s=1.0) for f in (first, second)]
  lines = [block.splitlines() for block, _ in blocks]
  assert blocks[0][1] == blocks[1][1]
  assert [a.split()[0] for a, b in zip(*lines, strict=True) if a != b] == ["reward"]


REWARDED = {"reward", "loss", "grad_norm", "negative_adv_on_correct", "term/length_penalty"}
REWARDED |= {"length_term/negative_adv", "length_term/no_reward"}


@pytest.mark.slow
def test_a_run_is_judged_alike_whatever_it_is_paid(tmp_path, monkeypatch):
  """Two runs that learn nothing, of opposite rewards: only what speaks of rewards may differ."""
  limit_devices(monkeypatch)
  still = dict(optimizer={"fn": "sgd", "learning_rate": 0.0}, train__steps=2)
  rows = []
  for alpha in (0.02, -5.0):
    out = tmp_path / str(alpha)
    summary = loop.train(changed(reward__alpha=alpha, **still), out)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    rows.append([*map(json.loads, lines), {k: summary[k] for k in ("accuracy", "tokens")}])
  timed = lambda name: "time" in name or "per_s" in name
  different = {
    name
    for one, two in zip(*rows, strict=True)
    for name in one.keys() | two.keys()
    if not timed(name) and one.get(name) != two.get(name)
  }
  assert "reward" in different
  assert different <= REWARDED
