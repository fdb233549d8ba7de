"""Intervals, measures and summaries: numbers worked by hand, laws, and coverage by simulation."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcrl.evaluation import (
  Estimate,
  accuracy_estimate,
  difference,
  hypervolume,
  mean_estimate,
  measure,
  on_front,
  pass_at_k,
  pool,
  read_summary,
  summary,
  write_json,
)

KEYS = {"accuracy", "accuracy_ci", "tokens", "tokens_ci", "start", "by_difficulty", "reward"}
KEYS |= {"seed", "wall_s", "device", "commit"}


def example(seed=0, shift=0, reward="laser"):
  rng = np.random.default_rng(seed)
  correct = rng.random((12, 4)) < 0.8
  lengths = rng.integers(5, 20, (12, 4)) + shift
  found = measure(correct, lengths, rng.integers(2, 4, 12))
  about = {"wall_s": 2.5, "device": "CPU, 2 cores", "commit": "0123456789ab"}
  return summary(found, found, reward=reward, seed=seed, **about)


def test_clustered_interval_by_hand():
  # Prompt means 2, 6, 10; cluster sums about 6 are -8, 0, 8: var = 3/2 * 128 / 36 = 16/3.
  # t(2) at 97.5 % = 4.302653. Independent answers would give var = 58 / 30 * ..., half width 3.6.
  got = mean_estimate([[1, 3], [5, 7], [9, 11]])
  half = 4.302652729749462 * math.sqrt(16 / 3)
  np.testing.assert_allclose(got, [6, 6 - half, 6 + half], rtol=1e-12)


def test_ragged_groups_weigh_answers_and_ignore_invalid():
  values, valid = [[1.0, 2.0], [6.0, math.nan]], [[True, True], [True, False]]
  got = mean_estimate(values, valid)
  assert got.value == 3.0  # (1 + 2 + 6) / 3; the mean of prompt means would be 3.75
  # Cluster sums about 3 are -3 and 3: var = 2 * 18 / 9 = 4, t(1) = 12.7062.
  np.testing.assert_allclose(got.high - 3, 2 * 12.706204736, rtol=1e-8)


@pytest.mark.parametrize("right", [0.7, 1.0])
def test_copies_of_answers_add_no_certainty(right):
  once = np.random.default_rng(0).random((20, 1)) < right
  one, ten = accuracy_estimate(once), accuracy_estimate(np.repeat(once, 10, 1))
  np.testing.assert_allclose(ten, one, rtol=1e-12)


@pytest.mark.parametrize("agreement", [0.0, 0.9])
def test_coverage(agreement):
  """Of 400 simulated 95 % intervals at least 92 % hold the truth, alike answers or not."""
  rng, held = np.random.default_rng(1), 0
  for _ in range(400):
    skill = rng.random((40, 1)) < 0.7  # agreement: answers follow the prompt, else the mean
    correct = rng.random((40, 4)) < np.where(rng.random((40, 1)) < agreement, skill, 0.7)
    _, low, high = accuracy_estimate(correct)
    held += low <= 0.7 <= high
  assert 0.92 <= held / 400 <= 0.985


@given(right=st.integers(0, 12), prompts=st.integers(2, 12))
def test_accuracy_interval_is_a_proper_one(right, prompts):
  correct = np.arange(prompts)[:, None] < min(right, prompts)
  p, low, high = accuracy_estimate(correct)
  assert 0 <= low <= p <= high <= 1
  assert high - low > 0  # a t interval has no width when everything is right


def test_one_prompt_has_no_interval():
  assert np.isnan(accuracy_estimate([[True, False]])[1:]).all()
  assert measure([[1, 0]], [[3, 4]], [2])["tokens_ci"] == [None, None]


def test_difference_of_lopsided_intervals():
  got = difference(Estimate(0.9, 0.8, 0.93), Estimate(0.5, 0.46, 0.9))
  np.testing.assert_allclose(got, [0.4, 0.4 - math.hypot(0.1, 0.4), 0.45], rtol=1e-12)


def test_measure_splits_by_difficulty_and_verdict():
  correct = [[1, 0], [1, 1], [0, 0]]
  lengths, cut = [[9, 20], [5, 7], [20, 99]], [[0, 1], [0, 0], [1, 0]]
  valid = [[1, 1], [1, 1], [1, 0]]
  got = measure(correct, lengths, [3, 2, 3], valid=valid, truncated=cut, shortest=[8, 4, 8])
  assert got["n"] == 5
  assert got["accuracy"] == 0.6
  assert got["tokens"] == 12.2
  assert got["tokens_right"] == 7.0  # 9, 5, 7
  assert got["tokens_wrong"] == 20.0  # the invalid 99 counts nowhere
  assert got["truncated"] == 0.4
  assert got["excess_tokens"] == pytest.approx(5 / 3)  # 1, 1, 3 above the shortest
  assert got["by_difficulty"]["2"]["accuracy"] == 1.0
  assert got["by_difficulty"]["2"]["tokens_wrong"] is None
  assert got["by_difficulty"]["3"]["n"] == 3


def test_measure_names_bad_shapes():
  with pytest.raises(ValueError, match=r"\(2, 1\)"):
    measure([[1], [0]], [[3], [4]], [1, 2, 3])
  with pytest.raises(ValueError, match="no valid sample"):
    measure([[1], [0]], [[3], [4]], [1, 2], valid=[[0], [0]])


def test_pass_at_k_equals_counting():
  # 5 answers, 2 right: of 10 pairs 3 hold no right one.
  np.testing.assert_allclose(pass_at_k(5, 2, k=2), 0.7, rtol=1e-12)
  with pytest.raises(ValueError, match="6 of 5"):
    pass_at_k(5, 2, k=6)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=8))
def test_front_and_hypervolume_by_counting(points):
  accuracy, length = np.array([a / 5 for a, _ in points]), np.array([n for _, n in points])
  beaten = [
    any(b >= a and m <= n and (b > a or m < n) for b, m in zip(accuracy, length, strict=True))
    for a, n in zip(accuracy, length, strict=True)
  ]
  np.testing.assert_array_equal(on_front(accuracy, length), np.logical_not(beaten))
  area = sum(max([a for a, n in zip(accuracy, length, strict=True) if n <= cell], default=0.0)
             for cell in range(1, 6))  # fmt: skip
  got = hypervolume(accuracy, length, ref_accuracy=0.0, ref_length=6)
  assert got == pytest.approx(area)


def test_summary_has_exactly_the_agreed_keys(tmp_path):
  write_json(tmp_path / "summary.json", example())
  found = read_summary(tmp_path / "summary.json")
  assert set(found) == KEYS
  assert set(found["start"]) == {"accuracy", "accuracy_ci", "tokens", "tokens_ci"}
  assert found == example()
  assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
  path = tmp_path / "summary.json"
  write_json(path, {"accuracy": 1})
  with pytest.raises(ValueError, match="JSON compliant"):
    write_json(path, {"accuracy": math.nan})
  assert json.loads(path.read_text()) == {"accuracy": 1}
  assert list(tmp_path.iterdir()) == [path]


def test_pool_takes_the_mean_over_seeds():
  runs = [example(seed, shift) for seed, shift in ((0, 0), (1, 2), (2, 1))]
  got = pool(runs)
  tokens = [run["tokens"] for run in runs]
  half = 4.302652729749462 * np.std(tokens, ddof=1) / math.sqrt(3)
  assert set(got) == KEYS
  assert got["tokens"] == pytest.approx(np.mean(tokens))
  np.testing.assert_allclose(np.diff(got["tokens_ci"]), 2 * half)
  assert got["seed"] == [0, 1, 2]
  assert got["wall_s"] == 7.5
  level = [run["by_difficulty"]["2"] for run in runs]
  assert got["by_difficulty"]["2"]["n"] == sum(p["n"] for p in level)
  assert got["by_difficulty"]["2"]["tokens"] == pytest.approx(np.mean([p["tokens"] for p in level]))
  assert pool(runs[:1]) == runs[0]


def test_pool_refuses_what_is_not_seeds():
  with pytest.raises(ValueError, match="seeds must differ"):
    pool([example(1), example(1)])
  with pytest.raises(ValueError, match="one reward"):
    pool([example(1), example(2, reward="correctness")])


@pytest.mark.parametrize(
  ("text", "message"),
  [("{", "not valid JSON"), ("[]", "got list"), ('{"accuracy": 1}', "lacks accuracy_ci, tokens,")],
)
def test_a_bad_summary_is_named(tmp_path, text, message):
  path = tmp_path / "summary.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=message) as error:
    read_summary(path)
  assert str(path) in str(error.value)
