"""`make dial` in small: an imitated start, a run with its curve, and the digits that it knows."""

from pathlib import Path

import jax
import numpy as np

from experiments import dial, testbed
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


def test_the_dial(tmp_path):
  config = Experiment(f"{CONFIG}:smoke").to_dict()
  summary = dial.dial(tmp_path, seed=3, steps=4, config=config)
  assert len(summary["curve"]["calibration"]) == len(config["budget"]["efforts"]) == dial.LEVELS
  assert "efforts.png" in (tmp_path / "run/report.md").read_text()
  policy, _ = policies.load(tmp_path / "start")
  assert policy.config.vocab_size == dial.SUMS.vocab_size
  steps = [x for x in lines(tmp_path / "run/metrics.jsonl") if "loss" in x]
  assert len(steps) == config["train"]["steps"]
