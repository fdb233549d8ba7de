"""The search for thresholds: a function with a known optimum, and runs that are replayed."""

import json
import math

import pytest

from lcrl.commands import search
from lcrl.commands.command import Experiment

LAGRANGIAN = Experiment("configs/lagrangian.py:smoke")
FIELDS = ["reward.targets[0]", "reward.targets[1]"]


def test_a_known_optimum_is_found():
  """A quadratic with its top of 3 at (0.7, -2), of unlike and mixed curvature."""

  def score(values):
    x, y = values[0] - 0.7, values[1] + 2.0
    return 3.0 - 4 * x**2 - 0.5 * y**2 - x * y

  points = search.nelder_mead(score, [0.0, 0.0], [0.1, 0.5], runs=80)
  assert len(points) <= 80
  assert [point.values for point in points[:3]] == [[0.0, 0.0], [0.1, 0.0], [0.0, 0.5]]
  assert search.best(points).values == pytest.approx([0.7, -2.0], abs=1e-3)
  assert search.best(points).score == pytest.approx(3.0, abs=1e-5)


def test_what_is_not_finite_counts_as_worst():
  score = lambda values: math.nan if values[0] < 0 else -((values[0] - 1) ** 2)
  points = search.nelder_mead(score, [-0.5], [0.6], runs=30)
  assert search.best(points).values == pytest.approx([1.0], abs=1e-2)
  with pytest.raises(ValueError, match="no run of the search has a finite score"):
    search.best([search.Point([0.0], math.nan)])


def test_runs_are_judged_and_a_stopped_search_goes_on(tmp_path):
  """In place of a run: a summary that knows what is best, and a stop at the fifth."""
  trained = []

  def train(config, folder, method):
    if len(trained) == 4:
      trained.append("stop")
      return {"stopped": 3}
    trained.append(folder.name)
    x, y = config["reward"]["targets"]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": config}))
    summary = {"stopped": None, "pairs": {"score": 1 - (x - 0.5) ** 2 - (y + 1.5) ** 2}}
    (folder / "summary.json").write_text(json.dumps(summary))
    return summary

  ask = lambda: search.search(
    LAGRANGIAN,
    tmp_path,
    train,
    fields=FIELDS,
    spread=[0.1, 0.5],
    runs=40,
    objective="pairs.score",
  )
  with pytest.raises(search.Stopped):
    ask()
  first = trained[:4]
  points = ask()
  assert len(set(trained)) == len(trained), "a finished run was trained again"
  assert trained[:4] == first
  assert first[0] == "reward.targets.0=0.8+reward.targets.1=-1"
  record = json.loads((tmp_path / "search.json").read_text())
  assert len(record["points"]) == len(points) == 40
  assert record["best"]["values"] == pytest.approx([0.5, -1.5], abs=0.02)


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    (lambda: search.nelder_mead(sum, [0.0, 1.0], [0.1], runs=9), "spread must be a number"),
    (lambda: search.nelder_mead(sum, [0.0], [0.0], runs=9), "spread must be a number other than 0"),
    (lambda: search.nelder_mead(sum, [0.0], [0.1], runs=1), "runs must be above the number of"),
    (lambda: search.judge("accuracy.x")({"accuracy": 1}), "the summary has no 'x'"),
    (lambda: search.judge("accuracy")({"accuracy": None}), "is None in the summary, no number"),
    (lambda: search.at({"a": [1]}, "a[1]"), r"the config has no a\[1\]"),
    (lambda: search.at({"a": "x"}, "a"), "a is 'x', no number"),
  ],
)
def test_errors_name_the_argument(wrong, message):
  with pytest.raises(ValueError, match=message):
    wrong()
