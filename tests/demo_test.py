"""The demo in small: everything it promises to leave, from numbers that belong together."""

import json

import jax
import numpy as np
import pytest

from experiments import demo
from lcrl import evaluation, policies

SEEDS = (3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("demo")
  printed = demo.demo(SEEDS, demo.SMALL, folder)
  (folder / "printed").write_text(printed)
  return folder


def curve(folder, name, seed):
  lines = (folder / name / f"seed{seed}" / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_every_run_leaves_its_summary_and_curve(folder):
  for name in demo.REWARDS:
    for seed in SEEDS:
      summary = evaluation.read_summary(folder / name / f"seed{seed}" / "summary.json")
      assert (summary["reward"], summary["seed"]) == (name, seed)
      assert sum(p["n"] for p in summary["by_difficulty"].values()) == demo.SMALL.evaluated
      steps = [line["step"] for line in curve(folder, name, seed)]
      assert steps == list(range(1, demo.SMALL.steps + 1))


def test_runs_start_alike_and_differ_in_their_reward_alone(folder):
  one, laser, naive = (curve(folder, name, 3)[0] for name in demo.REWARDS)
  assert one["accuracy"] == laser["accuracy"] == naive["accuracy"]
  assert one["tokens"] == laser["tokens"] == naive["tokens"]
  assert one["reward"] == pytest.approx(one["accuracy"])
  assert naive["reward"] == pytest.approx(
    one["accuracy"] - demo.REWARDS["naive"].price * one["tokens"], rel=1e-5
  )
  assert one["tokens"] != curve(folder, "correctness", 4)[0]["tokens"]  # another seed, another run


def test_the_whole_is_the_mean_over_seeds(folder):
  whole = evaluation.read_summary(folder / "summary.json")
  assert whole["runs"].keys() == demo.REWARDS.keys()
  for name, pooled in whole["runs"].items():
    seeds = [
      json.loads((folder / name / f"seed{s}" / "summary.json").read_text())["tokens"] for s in SEEDS
    ]
    assert pooled["tokens"] == pytest.approx(np.mean(seeds))
  laser, one = whole["runs"]["laser"], whole["runs"]["correctness"]
  change = whole["against_correctness"]["laser"]
  assert change["tokens_percent"] == pytest.approx(100 * (laser["tokens"] / one["tokens"] - 1))
  assert whole["tokens"] == laser["tokens"]


def test_the_report_has_its_pictures_and_words(folder):
  text = (folder / "report.md").read_text()
  for name in ("pareto.png", "by_difficulty.png", "curves.png"):
    assert name in text
    assert (folder / name).read_bytes().startswith(b"\x89PNG")
  for name in demo.REWARDS:
    assert name in (folder / "printed").read_text()
  assert "tokens above the shortest" in text
  assert "make demo SEEDS=2 SEED=3" in text
  assert "{" not in text.partition("## What was compared")[2]


def test_the_start_can_be_trained_on(folder):
  policy, params = policies.load(folder / "start" / "seed3")
  assert policy.config.vocab_size == len(demo.SUMS.symbols)
  init = demo.POLICY.init(jax.random.key(0))
  assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, init)
