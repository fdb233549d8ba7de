"""`make dial` in small: an imitated start, a run with its curve, and the digits that it knows."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import dial, testbed
from experiments.studies.dial import singles
from lcrl import policies
from lcrl.commands.command import Experiment
from lcrl.tasks.sums import ZERO
from tests.helpers.files import lines

CONFIG = Path(__file__).parent.parent / "configs" / "arithmetic_effort.py"


def test_each_digit_has_its_way_of_working():
  """Three operands a step, two, one; and one with half of the steps repeated."""
  ways = {"recheck": dial.RECHECK, "sizes": dial.SIZES, "levels": dial.LEVELS}
  rows = testbed.demonstrations(dial.SUMS, jax.random.key(0), batch=512, **ways)
  level, lengths = np.asarray(rows.tokens[:, 0]) - ZERO, np.asarray(rows.mask.sum(-1))
  means = [lengths[level == i].mean() for i in range(dial.LEVELS)]
  assert means == sorted(means)
  assert means[-1] > 1.5 * means[0]
  assert lengths.max() <= Experiment(str(CONFIG)).to_dict()["budget"]["cap"]


@pytest.mark.slow
def test_the_dial(tmp_path):
  config = Experiment(f"{CONFIG}:smoke").to_dict()
  summary = dial.dial(tmp_path, seed=3, steps=4, config=config)
  assert len(summary["curve"]["calibration"]) == len(config["budget"]["efforts"]) == dial.LEVELS
  assert "efforts.png" in (tmp_path / "run/report.md").read_text()
  policy, _ = policies.load(tmp_path / "start")
  assert policy.config.vocab_size == dial.SUMS.vocab_size
  steps = [x for x in lines(tmp_path / "run/metrics.jsonl") if "loss" in x]
  assert len(steps) == config["train"]["steps"]


def test_the_page_has_the_numbers_of_the_results():
  results = json.loads(singles.RESULTS.read_text())
  text = singles.RESULTS.with_name("README.md").read_text()
  assert text == singles.page(results)
  best = max(results["dial"], key=lambda point: point["accuracy"])
  assert f"{100 * best['accuracy']:.1f} [" in text
  readme = " ".join((CONFIG.parent.parent / "README.md").read_text().split())
  tokens = sorted(point["tokens"] for point in results["dial"])
  assert f"{tokens[0]:.1f} to {tokens[-1]:.1f} tokens" in readme
  start, end = results["start"][-1], results["dial"][-1]
  gained = 100 * (end["accuracy"] - start["accuracy"])
  dropped = 100 * (1 - end["tokens"] / start["tokens"])
  assert f"gains {gained:.1f} points and drops {dropped:.0f} % of its tokens" in readme
  missing = max(
    own["accuracy"] - dial["accuracy"]
    for own, dial in zip(list(results["singles"].values())[2:], results["dial"][2:], strict=True)
  )
  assert f"up to {100 * missing:.1f} points above it at equal tokens" in readme
