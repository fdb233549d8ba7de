"""What a run says of itself: metrics that merge, a check before the start, an alarm."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.data import tokenizers
from lcrl.training.metrics import (
  Max,
  Mean,
  Sum,
  Writer,
  drop_after,
  json_line,
  merge,
  read_lines,
  values,
)
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


def test_only_what_is_garbled_goes_from_the_lines(tmp_path, caplog):
  path = tmp_path / "metrics.jsonl"
  path.write_bytes(b'{"step": 1}\n{"st\xff\n7\n{"step": 3}\n{"step": 2}\n{"step": 9}\n{"ste')
  drop_after(path, 3)
  assert path.read_bytes() == b'{"step": 1}\n{"step": 3}\n{"step": 2}\n'
  assert (tmp_path / "metrics.jsonl.garbled").read_bytes() == b'{"st\xff\n7\n'
  assert "2 lines are no JSON" in caplog.text
  drop_after(path, -1)
  assert path.read_bytes() == b""


def test_a_line_that_lacks_only_its_end_stays(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n{"step": 2}')
  drop_after(path, 2)
  assert [row["step"] for row in read_lines(path)] == [1, 2]
  assert path.read_text().endswith("\n")


def test_what_is_not_finite_is_null_in_the_lines_and_stays_in_the_numbers(tmp_path):
  assert values({"loss": Mean(math.nan, 1), "none": Mean(math.nan, 0)}).keys() == {"loss"}
  assert json_line({"a": [math.inf, {"b": math.nan}], "c": 1.5}) == (
    '{"a": [null, {"b": null}], "c": 1.5}\n'
  )
  writer = Writer(tmp_path)
  writer.write(1, {"loss": math.nan})
  writer.close()
  assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": null}\n'


def test_tensorboard_shows_every_step_once_after_kills(tmp_path, caplog):
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  for step, last in ((0, 3), (-1, 4), (2, 6)):  # began, began anew, went on from step 2
    writer = Writer(tmp_path, step=step)
    for at in range(step + 1, last + 1):
      writer.write(at, {"loss": float(at)})
    writer.close()
  for file in (tmp_path / "events").iterdir():
    file.open("ab").write(b"torn")
  events = EventAccumulator(str(tmp_path / "events")).Reload()
  assert [e.step for e in events.Scalars("loss")] == [0, 1, 2, 3, 4, 5, 6]
  assert "out of order" not in caplog.text
  steps = [row["step"] for row in read_lines(tmp_path / "metrics.jsonl")]
  assert steps == [0, 1, 2, 3, 4, 5, 6]


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
