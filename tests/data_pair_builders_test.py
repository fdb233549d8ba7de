"""Which samples of a prompt are contrasted, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.data import pair_builders
from lcrl.data.pair_builders import Samples, best_vs_worst, win_rates
from lcrl.losses.preference import cdr_reward
from lcrl.registry import resolve


def samples(correct=(), lengths=(), scores=(), texts=(), prompt_id=0, **signals) -> Samples:
  count = max(map(len, (correct, lengths, scores)))
  full = lambda x, fill, dtype: np.array(x if len(x) else [fill] * count, dtype)
  return Samples(
    full(lengths, 1, int), full(correct, 1, bool), full(scores, 0, float), texts, prompt_id, signals
  )


def build(name, given: Samples, **options):
  return resolve(pair_builders, dict(fn=name, **options), field="pairing")(given)


FIVE = samples(correct=[1, 0, 1, 0, 1], lengths=[300, 900, 200, 100, 320])

CASES = {
  # the shortest right one (2: 200 tokens) against longer wrong ones and right ones of 300 and more
  "long2short": (FIVE, {}, [(2, 0), (2, 1), (2, 4)]),
  "long2short ratio": (FIVE, dict(ratio=1.55), [(2, 1), (2, 4)]),
  "shortest_vs_longest": (FIVE, {}, [(2, 4)]),
  "shortest_vs_longest ratio": (FIVE, dict(ratio=1.6), []),
  "shortest_vs_longest none": (samples(correct=[0, 0], lengths=[1, 2]), {}, []),
  "shortest_vs_longest equal": (samples(correct=[1, 1], lengths=[5, 5]), {}, []),
  # the longest wrong one first, then the wrong one that gave up before 200 tokens
  "tops": (FIVE, {}, [(2, 1), (2, 3)]),
  # right ones take turns
  "right_vs_wrong": (samples(correct=[0, 1, 0, 1, 0]), {}, [(1, 0), (3, 2), (1, 4)]),
  "right_vs_wrong none": (samples(correct=[0, 0]), {}, []),
  # own right answers (0) are not imitated and the teacher's wrong one (3) is not blamed
  "right_vs_wrong teacher": (
    samples(correct=[1, 0, 1, 0], teacher=[False, False, True, True]),
    {},
    [(2, 1)],
  ),
  "best_vs_worst": (samples(scores=[2, 5, -1, 5, -1]), {}, [(1, 2)]),
  "best_vs_worst nan": (samples(scores=[2, np.nan, -1, 5, np.nan]), {}, [(3, 2)]),
  "best_vs_worst all nan": (samples(scores=[np.nan, np.nan]), {}, []),
  "best_vs_worst flat": (samples(scores=[2, 2]), {}, []),
  "best_vs_worst gap": (samples(scores=[2, 3]), dict(min_gap=1.0), []),
  # the worst (2) is 60 shorter than the best, so 0 is taken; with a margin of 60 it may be 2
  "best_vs_worst margin": (
    samples(scores=[2, 5, -1], lengths=[95, 100, 40]),
    dict(length_margin=59),
    [(1, 0)],
  ),
  "best_vs_worst margin 60": (
    samples(scores=[2, 5, -1], lengths=[95, 100, 40]),
    dict(length_margin=60),
    [(1, 2)],
  ),
  # a margin below 0 wants the chosen answer shorter
  "best_vs_worst shorter": (
    samples(scores=[2, 5, -1], lengths=[99, 100, 150]),
    dict(length_margin=-10),
    [(1, 2)],
  ),
  "reference_scored": (
    samples(
      lengths=[3, 3, 3], texts=["a dog ran", "The cat sat down.", "cat"], reference="the cat sat"
    ),
    {},
    [(1, 0)],
  ),
  "short_vs_long_context": (
    samples(lengths=[1] * 5, long_context=[True, False, True, False, False]),
    {},
    [(1, 0), (3, 2)],
  ),
  # 2 betters 0, 3 betters 2, 4 does not better 1; first answers better nothing
  "refined_vs_first": (
    samples(scores=[1, 4, 2, 5, 3], refines=[-1, -1, 0, 2, 1]),
    {},
    [(2, 0), (3, 2)],
  ),
  "refined_vs_first gap": (
    samples(scores=[1, 4, 2, 5, 3], refines=[-1, -1, 0, 2, 1]),
    dict(min_gap=1.0),
    [(3, 2)],
  ),
}


@pytest.mark.parametrize("case", CASES)
def test_builders(case):
  given, options, want = CASES[case]
  assert build(case.split()[0], given, **options) == want


def test_all_builders_have_a_case():
  tried = {case.split()[0] for case in CASES} | {"best_vs_random", "density_ratio", "tournament"}
  assert tried == set(pair_builders.__all__)


def test_best_against_one_of_the_others_at_random():
  picks = set()
  for prompt_id in range(40):
    given = samples(scores=[1, 3, 3, 2], prompt_id=prompt_id)
    [(best, other)] = build("best_vs_random", given, seed=1)
    assert build("best_vs_random", given, seed=1) == [(best, other)]
    assert best == 1
    picks.add(other)
  assert picks == {0, 3}, "never the other best"
  assert build("best_vs_random", samples(scores=[3, 3])) == []


def test_density_ratio_takes_sums_or_means():
  strong = np.array([[-1.0, -1.0, -1.0, -9.0], [-1.0, -9.0, -9.0, -9.0], [-3.0, -2.0, 9.0, 9.0]])
  weak = np.array([[-2.0, -2.0, -2.0, 0.0], [-3.0, 5.0, 5.0, 5.0], [-2.0, -2.0, 9.0, 9.0]])
  mask = np.arange(4) < np.array([[3], [1], [2]])
  given = samples(lengths=[3, 1, 2], strong_log_probs=strong, weak_log_probs=weak, mask=mask)
  # sums of the ratios: 3, 2, -1; means: 1, 2, -1/2
  assert build("density_ratio", given) == [(0, 2)]
  assert build("density_ratio", given, per_token=True) == [(1, 2)]
  ratios = cdr_reward(*map(jnp.asarray, (strong, weak, mask)))
  np.testing.assert_allclose(ratios, [3.0, 2.0, -1.0])
  assert build("density_ratio", given, length_margin=0) == []  # 2 is a token shorter, 1 two


def test_reference_score_may_be_any_function():
  given = samples(lengths=[1, 1], texts=["aa", "b"], reference="bb")
  shorter = lambda text, reference: -abs(len(text) - len(reference))
  assert pair_builders.reference_scored(given, score=shorter) == [(0, 1)]


def test_counts_that_differ_are_named():
  with pytest.raises(ValueError, match=r"equally many, got \[2, 1, 2, 2\]"):
    Samples(np.ones(2), np.ones(1), np.ones(2))


def test_a_missing_signal_is_named():
  with pytest.raises(ValueError, match=r"no signal 'refines'; there are \['teacher'\]"):
    build("refined_vs_first", samples(scores=[1, 2], teacher=[0, 1]))


def test_win_rates_and_best_vs_worst_are_sppo():
  # p_i = mean_j sigmoid(s_i - s_j): (0.5 + 0.2689) / 2 and (0.7311 + 0.5) / 2
  np.testing.assert_allclose(win_rates([0.0, 1.0]), [0.384471, 0.615529], atol=1e-6)
  np.testing.assert_allclose(win_rates([0.0, 2000.0]), [0.25, 0.75])  # no overflow
  assert best_vs_worst(samples(scores=[0.0, 1.0])) == [(1, 0)]
