"""Data of the stages before RL, by hand."""

import json

import pytest

from lcrl.commands.cold_start import build
from lcrl.data import cold_start
from lcrl.data.layouts import read_answer


def answers(path, **prompts):
  """A file of answers: to each prompt (tokens, right) of its samples."""
  rows = [
    {
      "prompt": [{"role": "user", "content": f"{prompt}?"}],
      "reference": prompt.upper(),
      "text": f"{prompt} in {tokens}",
      "tokens": tokens,
      "correct": right,
    }
    for prompt, samples in prompts.items()
    for tokens, right in samples
  ]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


@pytest.fixture
def weak(tmp_path):
  """a: 3 of 4 right; b: 1 of 4; c: none; d: all."""
  return answers(
    tmp_path / "weak.jsonl",
    a=[(5, True), (3, True), (2, False), (9, True)],
    b=[(4, True), (1, False), (1, False), (1, False)],
    c=[(1, False)] * 4,
    d=[(7, True)] * 4,
  )


@pytest.fixture
def teacher(tmp_path):
  """b is right half the time, c always, d never; a was not asked."""
  return answers(
    tmp_path / "teacher.jsonl",
    b=[(50, True), (60, False)],
    c=[(70, True), (70, True)],
    d=[(80, False)],
  )


def said(rows):
  return [row["response"] for row in rows]


def test_pass_rates_choose_what_is_learned(weak, teacher):
  make = lambda kind, answers, other=None, **options: build(kind, answers, other, options)
  [one] = make("problems", weak)
  assert one == {"problem": "b?", "answer": "B", "pass_rate": 0.25}
  assert [p["answer"] for p in make("problems", weak, low=0.75, high=1.0)] == ["A", "D"]
  # The small model passes b and c less than half the time; both have a right answer of the teacher.
  assert said(make("light_r1_first", weak, teacher)) == ["b in 50", "c in 70"]
  assert said(make("light_r1_first", weak, teacher, below=0.25)) == ["c in 70"]
  assert said(make("light_r1_second", teacher)) == ["b in 50"]
  # a and d are easy: their shortest right answers; b and c are hard: the long mode's.
  tagged = ["[Easy]a in 3", "[Easy]d in 7", "[Hard]b in 50", "[Hard]c in 70"]
  assert said(make("adactrl", weak, teacher)) == tagged
  # Only b was answered rightly in both modes.
  modes = make("two_modes", weak, teacher, openings=["<fast>", "<slow>"])
  assert said(modes) == ["<fast>b in 4", "<slow>b in 50"]
  for row in (*modes, *make("adactrl", weak, teacher)):
    assert read_answer(row).messages[0]["role"] == "user"


def test_the_choice_among_right_answers_is_drawn(tmp_path):
  path = answers(tmp_path / "many.jsonl", a=[(n, n > 0) for n in range(9)])
  drawn = {said(build("light_r1_second", path, None, {"seed": s}))[0] for s in range(9)}
  assert len(drawn) > 2
  assert "a in 0" not in drawn


def test_a_chain_has_right_answers_of_falling_length(tmp_path):
  """Of a at every level; b is wrong at one, and c does not fall."""
  levels = [
    answers(tmp_path / f"{i}.jsonl", a=[(20, True), (tokens, True)], b=b, c=[(5, True)])
    for i, (tokens, b) in enumerate([(30, [(9, True)]), (9, [(8, False)]), (4, [(2, True)])])
  ]
  rows = build("mixchain", levels, None, {})
  assert [(row["response"], row["score"]) for row in rows] == [
    ("a in 20", 0),
    ("a in 9", 1),
    ("a in 4", 2),
  ]
  assert read_answer(rows[2]).scores == (2.0,)
  rows = build("cot_valve", levels, None, {})
  strengths = [row["score"] for row in rows]  # 20, 9 and 4 tokens
  assert strengths == pytest.approx([0, 1 - 5 / 16, 1])
  assert said(rows) == ["a in 20", "a in 9", "a in 4"]
  with pytest.raises(ValueError, match="mixchain needs the answers of two levels or more, got 1"):
    build("mixchain", levels[0], None, {})
  with pytest.raises(ValueError, match="cot_valve needs the answers of two levels or more, got 1"):
    build("cot_valve", levels[:1], None, {})
  with pytest.raises(ValueError, match="--kind=problems reads one file of --answers, got 3"):
    build("problems", levels, None, {})


@pytest.mark.parametrize(
  ("kind", "other", "options", "message"),
  [
    ("x", False, {}, "--kind=x is not one of adactrl, budget_modes"),
    ("problems", True, {}, "--kind=problems reads the answers of --answers alone"),
    ("adactrl", False, {}, "reads the answers of --answers and of --other"),
    ("problems", False, {"below": 0.1}, "--below is nothing that --kind=problems takes"),
    ("problems", False, {"low": 0.9, "high": 0.5}, "0 <= low <= high <= 1 must hold"),
    ("problems", False, {"low": 0.3, "high": 0.31}, "leaves no row of these answers"),
  ],
)
def test_errors_name_the_argument(weak, teacher, kind, other, options, message):
  with pytest.raises(ValueError, match=message):
    build(kind, weak, teacher if other else None, options)


def test_answers_without_a_field_are_refused():
  with pytest.raises(ValueError, match="answer 1 has no 'correct'"):
    cold_start.by_prompt([{"prompt": [], "text": "", "tokens": 1, "reference": ""}])
  with pytest.raises(ValueError, match="there are no answers"):
    cold_start.by_prompt([])


def test_budget_modes_cut_the_thinking_and_keep_the_answer():
  thinking = "".join(f"line {i}\n" for i in range(8))
  text = f"{thinking}</think>\n42"
  ask = [{"role": "system", "content": "Sums."}, {"role": "user", "content": "6 * 7?"}]
  right = dict(prompt=ask, text=text, correct=True, tokens=9, reference="42")
  open_ended = right | dict(text=thinking)
  wrong = right | dict(prompt=ask[1:], correct=False)
  high, medium, low = cold_start.budget_modes(cold_start.by_prompt([open_ended, right, wrong]))
  assert high["response"] == text
  assert medium["response"].startswith("line 0\nline 1\nline 2\nline 3\nThat")
  assert low["response"].startswith("line 0\nline 1\nTime")
  assert medium["response"].endswith("</think>\n42")
  assert low["prompt"][0]["content"].startswith("Sums.There is hardly any time.")
  assert [row["prompt"][1] for row in (high, medium, low)] == [ask[1]] * 3
