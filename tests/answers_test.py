"""Measures of answers files: numbers worked by hand, bad input by name, and the command."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcrl.commands.measures import measured
from lcrl.evaluation import answers, voting
from lcrl.evaluation.answers import report


def rows(*groups, **fields):
  """A list of answers for each prompt: (text, tokens), or (text, tokens, correct); cap 100."""
  found = []
  for prompt, group in enumerate(groups):
    for sample, (text, tokens, *verdict) in enumerate(group):
      row = {"prompt_id": prompt, "sample": sample, "text": text, "tokens": tokens, "budget": 100}
      own = {name: values[prompt] for name, values in fields.items()}
      verdict = bool(verdict[0]) if verdict else None
      found.append({**row, "truncated": tokens >= 100, "correct": verdict, "row": own})
  return found


def test_yap_score():
  # Characters beyond the minimal answer: 8 - 3 = 5 and 2 - 3 < 0 -> 0, in the mean 2.5; 9 - 4 = 5.
  # Medians 2.5 (facts) and 5 (code): the index is 3.75.
  given_rows = rows(
    [("x" * 8, 1), ("x" * 2, 1)], [("x" * 9, 1)], sufficient=["yes", 4], category=["facts", "code"]
  )
  numbers = answers.yap_score(given_rows).numbers
  assert numbers["YapIndex"] == 3.75
  assert numbers["by category"]["facts"] == {"median YapScore": 2.5, "prompts": 1}
  assert answers.yap_score(given_rows, category=None).numbers["YapIndex"] == 3.75  # of 2.5 and 5


def test_cap_saturation():
  found = answers.cap_saturation(rows([("a", 10), ("b", 100)], [("c", 50)]), at=(20, 60))
  assert found.numbers["CSR@20"] == pytest.approx(2 / 3)
  assert found.numbers["CSR@60"] == found.numbers["CSR@100"] == pytest.approx(1 / 3)
  assert found.numbers["variance within a prompt"] == 45**2 * 2  # of 10 and 100, by n - 1
  shares = [row["share"] for row in found.details]
  np.testing.assert_allclose(shares, [1 / 3, 2 / 3, 1])


def test_castillo():
  loop, fine = "go on " * 20, "one two three"
  found = answers.castillo(rows([(fine, 4), (loop, 40), ("cut", 100)]), ngram=2, repeated=0.5)
  (row,) = found.details
  assert (row["shortest"], row["longest"]) == (fine, "cut")
  assert (row["degenerate"], row["mean"], row["p50"]) == (2, 48, 40)
  assert found.numbers["tokens sanitised"] == 4
  assert found.numbers["degenerate share"] == pytest.approx(2 / 3)
  capped = answers.castillo(rows([(fine, 4), (loop, 40), ("cut", 100)]))
  assert capped.numbers["tokens degenerate"] == 100  # only the cap counts


def test_ruler():
  # 10: 12 words match; 150: 175 match in the flexible range alone; >800: 3 words do not.
  words = lambda n: " ".join(["w"] * n)
  given_rows = rows(*([(words(n), 1)] for n in (12, 175, 3)), target_words=[10, "150", ">800"])
  numbers = answers.ruler(given_rows).numbers
  assert (numbers["PM"], numbers["FM"]) == (pytest.approx(100 / 3), pytest.approx(200 / 3))
  assert numbers["by level"]["1"] == {"PM": 0.0, "FM": 100.0}
  assert numbers["by target"]["150"]["mean words"] == 175
  assert numbers["RMSE of words"] == pytest.approx(math.sqrt((2**2 + 25**2) / 2))


def test_longbench_write():
  # 100 at 4 of 4 words; 2 of 4: 100 * (1 - (4 / 2 - 1) / 2) = 50; 600 words asked for, 0 written.
  numbers = answers.longbench_write(
    rows([("a b c d", 1), ("\u4f60\u597d", 1)], [("", 1)], length=[4, 600])
  ).numbers
  assert numbers["S_l"] == 50.0
  assert numbers["by words asked for"] == {
    "0 to 500": {"S_l": 75.0, "answers": 2},
    "500 to 2000": {"S_l": 0.0, "answers": 1},
  }


def test_lcfo():
  source = "ten words " * 5  # 10 words; answers of 2 and 1: ratios 0.2 and 0.1
  numbers = answers.lcfo(
    rows([("a b", 1)], [("a", 1)], source=[source] * 2, ratio=[0.1, 0.1])
  ).numbers
  assert numbers["length ratio"] == pytest.approx(0.15)
  assert numbers["by ratio asked for"]["0.1"]["error"] == pytest.approx(0.05)


def test_pass_at_k_and_majority():
  group = [("#### 7", 1, 1), ("#### 7.0", 1, 1), ("#### 9", 1, 0), ("none", 1, 0)]
  numbers = answers.pass_at_k(rows(group, group), k=(1, 3)).numbers
  assert (numbers["pass@1"], numbers["pass@3"]) == (0.5, 1.0)
  numbers = answers.maj_at_k(rows(group), k=(2, 4), extract="after_hashes").numbers
  assert numbers["maj@4"] == 1.0  # 7 and 7.0 are one number; "none" has no vote
  # Of the six pairs 7 7, 7 -, 7 - are right, 9 - wrong, and 7 9 twice a tie: (3 + 2 / 2) / 6.
  assert numbers["maj@2"] == pytest.approx(4 / 6)
  assert numbers["ties@2"] == pytest.approx(2 / 6)


def test_pass_until():
  # Passes at draws 2 and 4: 2 / 4, unbiased 1 / 3. The other ends before a second pass: 1 / 3.
  first = [("", 1, right) for right in (0, 1, 0, 1, 1)]
  second = [("", 1, right) for right in (0, 1, 0)]
  numbers = answers.pass_until(rows(first, second), passes=2).numbers
  assert numbers["PassUntil"] == pytest.approx((1 / 2 + 1 / 3) / 2)
  assert numbers["unbiased"] == pytest.approx(1 / 3)
  assert (numbers["draws"], numbers["prompts that ended early"]) == (7, 1)


@given(rate=st.sampled_from([0.2, 0.5, 0.8]), draws=st.integers(2, 6), passes=st.integers(2, 3))
def test_pass_until_is_unbiased_whether_or_not_the_answers_suffice(rate, draws, passes):
  total = 0.0
  for verdicts in itertools.product([False, True], repeat=draws):
    chance = rate ** sum(verdicts) * (1 - rate) ** (draws - sum(verdicts))
    found = answers.pass_until(rows([("", 1, v) for v in verdicts]), passes=passes)
    total += chance * found.numbers["unbiased"]
  assert total == pytest.approx(rate)


def test_best_of_a_budget():
  # 4 tokens right, 3 wrong: within 6 only the order right first succeeds; within 7 both do.
  numbers = answers.best_of(rows([("", 4, 1), ("", 3, 0)]), budgets=(3, 6, 7)).numbers
  points = numbers["by budget"]
  assert [points[f"{b} tokens"]["accuracy"] for b in (3, 6, 7)] == [0.0, 0.5, 1.0]
  assert points["7 tokens"]["tokens spent"] == (4 + 7) / 2
  assert points["3 tokens"]["pool exhausted"] == 0.0  # wrong, then cut off
  (point,) = answers.best_of(rows([("", 3, 0)]), budgets=(9,)).numbers["by budget"].values()
  assert point["pool exhausted"] == 1.0


def test_drawn_orders_agree_with_all():
  """Seven answers are drawn in part, six in all orders; a seventh that never fits changes a rate
  that is known: right iff one of two right ones comes before the large one."""
  correct, lengths = [True, True] + [False] * 5, [1] * 6 + [100]
  found = voting.best_of_tokens(correct, lengths, budget=50)
  assert found.right == pytest.approx(2 / 3, abs=0.03)


@pytest.mark.parametrize(
  ("measure", "message"),
  [
    (lambda: answers.castillo([]), "there are no answers"),
    (lambda: answers.yap_score(rows([("a", 1)])), "no field 'sufficient'; its file has none"),
    (lambda: answers.cap_saturation(rows([("a", 1)]), at=(5, 5)), r"increase, got \[5, 5\]"),
    (lambda: answers.best_of(rows([("a", 1, 1)]), budgets=(9, 3)), r"increase, got \[9, 3\]"),
    (lambda: answers.pass_at_k(rows([("a", 1)])), "nothing verified the answers to prompt 0"),
    (lambda: answers.pass_at_k(rows([("a", 1, 1)]), k=(2,)), "got 2 of 1"),
    (lambda: answers.maj_at_k(rows([("a", 1, 1)]), k=(2,)), "got 2 of 1"),
    (lambda: answers.ruler(rows([("a", 1)], target_words=[60])), "one of 10, 30.* got '60'"),
    (lambda: answers.longbench_write(rows([("a", 1)], length=["x"])), "positive number, got 'x'"),
    (lambda: answers.lcfo(rows([("a", 1)], source=[" "], ratio=[1])), "source has no words"),
    (lambda: answers.lcfo(rows([("a", 1)], source=["a"], ratio=[math.nan])), "got nan"),
    (lambda: answers.castillo(rows([("a", 1)]), ngram=0, repeated=0.5), "ngram must be at least 1"),
  ],
)
def test_bad_input_is_named(measure, message):
  with pytest.raises(ValueError, match=message):
    measure()


def save(path, answered):
  path.parent.mkdir(exist_ok=True)
  path.write_text("".join(json.dumps(row) + "\n" for row in answered))
  return str(path)


def test_command(tmp_path):
  """Points are kept apart; tables, details and pictures are written."""
  one = rows([("a \ud800", 3, 1), ("a b", 100, 0)])
  one = [{**row, "set": "eval_task", "level": 0} for row in one]  # which all answers share
  file = save(tmp_path / "run" / "answers.jsonl", [*one, *({**row, "budget": 200} for row in one)])
  text = "castillo, cap_saturation(at=(50,)), pass_until(passes=1)"
  shown = measured([file], text, tmp_path / "out")
  assert "| budget 100 | 0.5 | 0.5 | 51.5 | 4704 |" in shown
  found = json.loads((tmp_path / "out" / "measures.json").read_text())["points"]
  assert found["budget 200"]["castillo"]["tokens"] == 51.5
  details = (tmp_path / "out" / "castillo.csv").read_text().splitlines()
  assert details[0].startswith("answers,prompt_id,")
  assert len(details) == 3
  assert (tmp_path / "out" / "cap_saturation_budget_100.png").stat().st_size > 5000
  assert "](cap_saturation_budget_200.png)" in (tmp_path / "out" / "measures.md").read_text()


def test_law_over_models(tmp_path):
  # PassUntil 1 / 4 and 1 / 2: alpha = log(log 4 / log 2) / log 10 = log10(2).
  files = [
    save(tmp_path / name / "answers.jsonl", rows([("", 1, i == n) for i in range(1, n + 1)]))
    for name, n in (("small", 4), ("large", 2))
  ]
  measured(files, "pass_until(passes=1)", tmp_path / "out", sizes=["10", "100"])
  law = json.loads((tmp_path / "out" / "measures.json").read_text())["law"]
  assert law["alpha"] == pytest.approx(math.log10(2))
  for sizes, message in ((["10"], "one for each of 2"), (["a", "b"], "sizes must be numbers")):
    with pytest.raises(ValueError, match=message):
      measured(files, "pass_until(passes=1)", tmp_path / "out", sizes=sizes)
  with pytest.raises(ValueError, match="needs the measure pass_until"):
    measured(files, "castillo", tmp_path / "out", sizes=["10", "100"])


@pytest.mark.parametrize(
  ("text", "line", "message"),
  [
    ("castilo", "", "castillo"),
    ("castillo, castillo(ngram=2)", "", "measures has castillo twice"),
    ("castillo(n=2)", "", "measures.n is not an argument of castillo"),
    ("castillo", "{}", "line 1 is no answer of an evaluation: it lacks"),
    ("castillo", "[", "line 1: "),
    ("castillo", "", "holds no answers"),
  ],
)
def test_bad_names_and_files(tmp_path, text, line, message):
  (tmp_path / "answers.jsonl").write_text(line)
  with pytest.raises(ValueError, match=message):
    measured([tmp_path / "answers.jsonl"], text, tmp_path)


def test_every_measure_is_offered():
  assert all(callable(getattr(answers, name)) for name in answers.__all__)
  report.check_specs([{"fn": name} for name in answers.__all__])
