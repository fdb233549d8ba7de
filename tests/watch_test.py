"""What a run says of itself: metrics that merge, a check before the start, an alarm."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.data import tokenizers
from lcrl.training.metrics import Max, Mean, Sum, Writer, drop_after, merge, values
from lcrl.training.samples import Samples
from lcrl.training.watch import CollapseAlarm, preflight, step_metrics
from lcrl.types import Batch
from tests.rollouts import random_rollouts


def facts(**changes):
  """Two groups of two: one right at 4 tokens, one right at 8, the rest wrong."""
  f = {
    "advantages": np.array([[1.0, -1.0], [-0.5, 0.5]]),
    "correct": np.array([[True, False], [True, False]]),
    "difficulty": np.array([[2, 2], [3, 3]]),
    "keep": np.ones((2, 2), bool),
    "lengths": np.array([[4, 6], [8, 2]]),
    "outcome": np.array([[0, 1], [0, 3]], np.int8),
    "rewards": np.array([[1.5, 0.0], [1.0, 0.0]]),
    "scores": np.array([[1.0, 0.0], [1.0, 0.0]]),
    "truncated": np.array([[False, False], [True, False]]),
    "valid": np.ones((2, 2), bool),
  }
  return {**f, **changes}


def test_metrics_split_length_and_count_right_answers_pushed_down():
  got = values(step_metrics(facts()))
  assert got["accuracy"] == 0.5
  assert got["length/right"] == 6.0
  assert got["length/wrong"] == 4.0
  assert got["length/difficulty_3"] == 5.0
  assert got["right_pushed_down"] == 0.5  # the second right answer has advantage -0.5
  assert got["outcome/timeout"] == 1


def test_rows_that_only_pad_do_not_count():
  valid = np.array([[True, True], [False, False]])
  got = values(step_metrics(facts(valid=valid)))
  assert got["length/right"] == 4.0
  assert got["outcome/timeout"] == 0
  assert "accuracy/difficulty_3" not in got


def test_merge_follows_the_type():
  a = {"x": Mean(2.0, 1.0), "n": Sum(1.0), "m": Max(3.0)}
  b = {"x": Mean(1.0, 3.0), "n": Sum(2.0), "m": Max(1.0), "only": Sum(5.0)}
  assert values(merge(a, b)) == {"x": 0.75, "n": 3.0, "m": 3.0, "only": 5.0}
  with pytest.raises(ValueError, match="'x' is Mean and Sum"):
    merge(a, {"x": Sum(1.0)})


def test_a_mean_of_nothing_is_left_out():
  assert values({"x": Mean(0.0, 0.0)}) == {}


@pytest.mark.parametrize(
  "changes, warning",
  [
    ({"truncated": np.ones((2, 2), bool)}, "raise train.max_tokens"),
    ({"advantages": np.zeros((2, 2))}, "no group trains"),
    ({"correct": np.zeros((2, 2), bool)}, "no answer is right"),
    ({"outcome": np.full((2, 2), 4, np.int8)}, "verifier failed on 4"),
  ],
)
def test_preflight_warns_when_a_run_cannot_learn(changes, warning):
  healthy = facts(outcome=np.array([[0, 1], [0, 1]], np.int8))
  assert preflight(healthy, rounds=1, sampling_s=1.0)[1] == []
  _, warnings = preflight({**healthy, **changes}, rounds=1, sampling_s=1.0)
  assert any(warning in text for text in warnings), warnings


def test_alarm_rings_once_when_both_fall():
  alarm = CollapseAlarm(window=2)
  run = [(0.5, 40), (0.6, 40), (0.6, 20), (0.6, 12), (0.1, 3), (0.0, 1), (0.0, 1)]
  assert [alarm(*point) for point in run] == [False] * 4 + [True, False, False]


@pytest.mark.parametrize("run", [[(0.5, 40), (0.6, 5)] * 5, [(0.6, 40)] * 4 + [(0.1, 45)] * 4])
def test_alarm_is_silent_when_only_one_falls(run):
  alarm = CollapseAlarm(window=2)
  assert not any(alarm(*point) for point in run)


def test_lines_past_a_restored_step_are_dropped(tmp_path):
  with_lines = Writer(tmp_path)
  for step in (1, 2, 3):
    with_lines.write(step, {"x": float(step)})
  with_lines.close()
  path = tmp_path / "metrics.jsonl"
  path.open("a").write('{"step": 4, "x"')  # cut off while it was written
  drop_after(path, 2)
  assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_tensorboard_reads_the_events(tmp_path):
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  writer = Writer(tmp_path)
  writer.write(1, {"loss": 0.5})
  writer.close()
  events = EventAccumulator(str(tmp_path / "events")).Reload()
  assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5)]


def test_a_sample_tells_the_mean_of_token_level_advantages(tmp_path):
  r = random_rollouts(vocab=10)
  place = jnp.arange(12.0)
  advantages = jnp.where(r.mask, place, 99.0)
  batch = Batch(r, r.scores, r.valid, advantages, jnp.ones(r.mask.shape))
  Samples(tmp_path, tokenizers.sums(), step=0, every=1, count=4).write(1, batch)
  (part,) = (tmp_path / "samples").glob("*.jsonl")
  told = [json.loads(line)["advantage"] for line in part.read_text().splitlines()]
  np.testing.assert_allclose(told, 3 + (np.asarray(r.lengths)[:, 0] - 1) / 2)
