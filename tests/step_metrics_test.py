"""What a run says of itself: metrics that merge, a check before the start, an alarm."""

import dataclasses
import functools
import itertools
import json
import math
import time

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as tokenizers_library
from tokenizers import models

from lcrl import tasks
from lcrl.data import tokenizers
from lcrl.policies import Tokenizer
from lcrl.tasks.extract import score_extracted
from lcrl.training.metrics import (
  Max,
  Mean,
  Sum,
  Writer,
  drop_after,
  json_line,
  known,
  merge,
  read_lines,
  values,
)
from lcrl.training.rl.samples import Samples
from lcrl.training.rl.step_metrics import (
  CollapseAlarm,
  TruncationAlarm,
  end_log_probs,
  preflight,
  state_section,
  step_metrics,
  truncation_section,
)
from lcrl.types import Batch
from tests.rollouts import random_rollouts


def facts(**changes):
  """Two groups of two: one right at 4 tokens, one right at 8, the rest wrong."""
  f = {
    "advantages": np.array([[1.0, -1.0], [-0.5, 0.5]]),
    "correct": np.array([[True, False], [True, False]]),
    "difficulty": np.array([[2, 2], [3, 3]]),
    "end_log_probs": np.log([[0.5, 0.25], [np.nan, 0.75]]),
    "keep": np.ones((2, 2), bool),
    "lengths": np.array([[4, 6], [8, 2]]),
    "level": np.zeros((2, 2), int),
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
  assert got["negative_adv_on_correct"] == 0.5  # the second right answer has advantage -0.5
  assert got["outcome/timeout"] == 1


def test_metrics_split_accuracy_and_length_by_the_levels_of_a_budget():
  assert not [name for name in values(step_metrics(facts())) if "level" in name]
  got = values(step_metrics(facts(level=np.array([[0, 0], [2, 2]]))))
  assert (got["length/level_0"], got["length/level_2"]) == (5.0, 5.0)
  got = values(step_metrics(facts(level=np.array([[0, 1], [0, 1]]))))
  assert (got["length/level_0"], got["length/level_1"]) == (6.0, 4.0)
  assert (got["accuracy/level_0"], got["accuracy/level_1"]) == (1.0, 0.0)


def test_metrics_have_quantiles_of_lengths_and_the_targets_compared_with():
  target = np.array([[4.0, 9.0], [np.inf, 3.0]])
  f = facts(**{"target/hapo": target, "budget/cap": np.full((2, 2), 16)})
  got = values(step_metrics(f))
  assert got["length/p50"] == 5.0  # of 2, 4, 6, 8
  assert got["length/right_p90"] == pytest.approx(7.6)  # of 4 and 8
  assert got["length/wrong_p10"] == pytest.approx(2.4)  # of 2 and 6
  assert got["target/hapo"] == pytest.approx(16 / 3)
  assert got["within_target/hapo"] == 1.0  # one right answer has a target, 4, and is as long
  assert got["budget/cap"] == 16
  (section,) = state_section([{"loss": 1.0}, got, got | {"target/hapo": 4.0}])
  assert "| `target/hapo` | 5.333 | 4 |" in section
  assert state_section([{"loss": 1.0}]) == []


def test_metrics_tell_what_the_length_term_did_to_right_answers():
  got = values(step_metrics(facts()))
  assert got["end_probability"] == 0.5  # of 0.5, 0.25 and 0.75; the fourth was cut
  assert got["length_term/negative_adv"] == 0.5  # score 1 in a group of mean 0.5, advantage -0.5
  assert got["length_term/no_reward"] == 0.0
  # Both right in the second group: 0.6 lies below its mean of 0.8, so the verdict alone did it.
  graded = facts(
    correct=np.array([[True, False], [True, True]]),
    scores=np.array([[1.0, 0.0], [0.6, 1.0]]),
    rewards=np.array([[0.0, -1.0], [0.1, 1.0]]),
    **{"term/length": np.array([[-1.0, -1.0], [-0.5, 0.0]])},
  )
  got = values(step_metrics(graded))
  assert got["negative_adv_on_correct"] == pytest.approx(1 / 3)
  assert got["length_term/negative_adv"] == 0.0
  assert got["length_term/no_reward"] == pytest.approx(1 / 3)  # a price of 1 took the first's 1
  assert got["term/length"] == -2.5 / 4
  unkept = facts(keep=np.array([[True, True], [False, True]]))
  assert values(step_metrics(unkept))["length_term/negative_adv"] == 0.0


def test_the_end_token_is_the_last_one_that_was_drawn():
  mask = jnp.array([[[0, 1, 1, 0], [0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0]]], bool)
  log_probs = -jnp.array([[[0.0, 1, 2, 0], [0, 1, 2, 3], [0, 4, 0, 0], [0, 1, 2, 0]]])
  cut = jnp.array([[False, True, False, False]])
  moved = jnp.zeros_like(mask).at[0, 3, 2].set(True)
  r = dataclasses.replace(
    random_rollouts(prompts=1, length=4),
    mask=mask,
    sampler_log_probs=log_probs,
    truncated=cut,
    undrawn=moved,
  )
  np.testing.assert_array_equal(end_log_probs(r), [[-2, np.nan, -4, np.nan]])


def test_truncation_rings_once_a_crossing_and_the_report_lists_it():
  shares = [0.1, 0.25, 0.3, 0.15, 0.25, 0.05, 0.21]
  alarm = TruncationAlarm()
  assert [alarm(share) for share in shares] == [False, True, False, False, False, False, True]
  assert not TruncationAlarm(above=True)(0.25)  # a run that resumes has been told
  steps = [{"step": i, "truncated": share} for i, share in enumerate(shares, start=1)]
  _, text = truncation_section(steps)
  assert "More than 20% of the answers were cut at their cap from step 2 (25.0%), 7 (21.0%)" in text
  assert truncation_section([{"step": 1, "truncated": 0.2}, {"step": 2}]) == []


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


def test_a_mean_of_nothing_is_left_out_and_nan_is_not():
  got = values({"x": Mean(0.0, 0.0), "loss": Mean(float("nan"), 1.0), "up": Max(np.inf)})
  assert got.keys() == {"loss", "up"}
  assert np.isnan(got["loss"])
  assert values({"x": known(jnp.nan), "y": known(jnp.array(2.0))}) == {"y": 2.0}


@pytest.mark.parametrize(
  "changes, warning",
  [
    ({"truncated": np.ones((2, 2), bool)}, "raise train.max_tokens"),
    ({"advantages": np.zeros((2, 2))}, "no group trains"),
    ({"rewards": np.full((2, 2), np.nan)}, "4 of 4 rewards are not finite"),
    ({"correct": np.zeros((2, 2), bool)}, "no answer is right"),
    ({"outcome": np.full((2, 2), 4, np.int8)}, "verifier failed on 4"),
  ],
)
def test_preflight_warns_when_a_run_cannot_learn(changes, warning):
  healthy = facts(outcome=np.array([[0, 1], [0, 1]], np.int8))
  assert preflight(healthy, rounds=1, sampling_s=1.0)[1] == []
  _, warnings = preflight({**healthy, **changes}, rounds=1, sampling_s=1.0)
  assert any(warning in text for text in warnings), warnings


def test_preflight_does_not_ask_for_rewards_of_a_run_with_teachers():
  nothing = dict(advantages=np.zeros((2, 2)), correct=np.zeros((2, 2), bool))
  unrewarded = facts(outcome=np.ones((2, 2), np.int8), **nothing)
  assert len(preflight(unrewarded, rounds=1, sampling_s=1.0)[1]) == 2
  assert preflight(unrewarded, rounds=1, sampling_s=1.0, taught=True)[1] == []


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


def test_numbers_of_older_runs_are_read_under_todays_names(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1, "trains": 0.5, "sampler_gap": 0, "pairs": {"surprise": 2}}\n')
  want = {"step": 1, "kept_fraction": 0.5, "sampler_logp_diff": 0, "pairs": {"nll": 2}}
  assert list(read_lines(path)) == [want]


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


def test_tensorboard_shows_every_step_once_after_kills(tmp_path, caplog, monkeypatch):
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  # Files are read in the order of their names, which begin with the second they were made in.
  monkeypatch.setattr(time, "time", functools.partial(next, itertools.count(1_700_000_000.0, 10.0)))
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
  told = [row["advantage"] for row in samples_of(tmp_path, batch, count=16)]
  np.testing.assert_allclose(told, 3 + (np.asarray(r.lengths).ravel() - 1) / 2)


def samples_of(folder, batch, **how):
  Samples(folder, tokenizers.sums(), step=0, every=1, **how).write(1, batch)
  (part,) = (folder / "samples").glob("*.jsonl")
  return [json.loads(line) for line in part.read_text().splitlines()]


@pytest.mark.parametrize("count, groups", [(0, []), (1, [0]), (5, [0, 3]), (99, [0, 1, 2, 3])])
def test_samples_show_whole_groups(tmp_path, count, groups):
  r = random_rollouts(vocab=10)
  r = dataclasses.replace(r, valid=r.valid.at[3, 1:].set(False), prompt_ids=r.prompt_ids + 7)
  batch = Batch(r, r.scores, r.valid, r.scores, jnp.ones(r.mask.shape))
  rows = samples_of(tmp_path, batch, count=count)
  want = [(b + 7, b, g) for b in groups for g in range(1 if b == 3 else 4)]
  assert [(row["prompt_id"], row["group"], row["rollout"]) for row in rows] == want


def test_a_sample_tells_reference_answer_and_what_its_length_was_compared_with(tmp_path):
  r = random_rollouts(vocab=10)
  targets = {"hapo": jnp.full((4, 4), jnp.inf), "gr3": jnp.full((4, 4), 5.5)}
  batch = Batch(r, r.scores, r.valid, r.scores, jnp.ones(r.mask.shape))
  task = tasks.arithmetic(size=64)
  first = lambda text: text[:1]
  task = dataclasses.replace(task, score=functools.partial(score_extracted, extract=first, score=0))
  for names, want in (
    (["gr3"], 5.5),
    (["hapo"], None),
    (["hapo", "gr3"], {"hapo": None, "gr3": 5.5}),
  ):
    here = dataclasses.replace(batch, targets={name: targets[name] for name in names})
    folder = tmp_path / "-".join(names)
    folder.mkdir()
    for row in samples_of(folder, here, count=16, task=task):
      assert row["target"] == want
      assert row["budget_target"] == 9
      assert row["reference"] == task.prompts[row["prompt_id"]].reference
      assert row["extracted"] == row["response"][:1]


def test_special_tokens_are_in_the_raw_text(tmp_path):
  core = tokenizers_library.Tokenizer(models.WordLevel({f"w{i}": i for i in range(15)}, "w0"))
  core.add_special_tokens(["<end>"])
  words = Tokenizer(core, {}, {}, None, (15,), 15)
  r = random_rollouts(vocab=15)
  r = dataclasses.replace(r, tokens=jnp.where(r.mask, 15, r.tokens))
  batch = Batch(r, r.scores, r.valid, r.scores, jnp.ones(r.mask.shape))
  Samples(tmp_path, words, step=0, every=1, count=1).write(1, batch)
  rows = [json.loads(line) for line in next((tmp_path / "samples").iterdir()).open()]
  assert [row["raw_text"].count("<end>") for row in rows] == np.asarray(r.lengths)[0].tolist()
  assert all(row["raw_prompt"].startswith("w") for row in rows)


def test_a_reward_that_is_no_number_is_null(tmp_path):
  r = random_rollouts(vocab=10)
  batch = Batch(r, r.scores * jnp.nan, r.valid, r.scores, jnp.ones(r.mask.shape))
  assert [row["reward"] for row in samples_of(tmp_path, batch, count=4)] == [None] * 4
