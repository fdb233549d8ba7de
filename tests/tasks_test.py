"""Where answers stand, and how budgets show in prompts."""

import time

import pytest

from lcrl import tasks
from lcrl.registry import build
from lcrl.tasks import extract, scorers
from lcrl.tasks.task import BadFormat, Prompt, plain
from lcrl.tasks.verify import Verifier

PROMPT = Prompt(0, ({"role": "system", "content": "s"}, {"role": "user", "content": "q"}), "1")


@pytest.mark.parametrize(
  "name, text, answer",
  [
    ("last_number", "7-3", "3"),
    ("last_number", "7 - -3", "-3"),
    ("last_number", "x = -1,234.50.", "-1,234.50"),
    ("last_number", "one of 1,2,3", "3"),
    ("last_number", "so 3 or \\frac12.", "1/2"),
    ("last_number", "no7", None),
    ("last_number", "", None),
    ("after_hashes", "#### 1\n#### 2 \nmore", "2"),
    ("after_hashes", "####", None),
    ("after_hashes", "2", None),
    ("answer_tag", "<answer>1</answer><answer>\n2</answer>", "2"),
    ("answer_tag", "<answer>1", None),
    ("answer_tag", "1</answer>", None),
    ("boxed", r"\boxed{1}, no: \boxed{\sqrt{2}}", r"\sqrt{2}"),
    ("boxed", r"\boxed{\sqrt{2}", None),
    ("boxed", "1", None),
    ("whole", " \n", None),
    ("after_hashes", "#### 42\n####", "42"),
    ("answer_tag", "<answer>5</answer>, within <answer></answer>", "5"),
    ("boxed", r"\boxed {5}", "5"),
    ("boxed", r"\fbox{5}", "5"),
    ("boxed", r"$\boxed 42$.", "42"),
    ("boxed", r"\(\boxed\frac12\)", r"\frac12"),
    ("boxed", r"\boxed 42.", "42"),
    ("boxed", r"\boxed{5}. It goes into \boxed{}.", "5"),
    ("boxed", r"\boxed{5}, as \boxed asks.", "5"),
    ("boxed", r"\boxed{5} and then \boxed{6", "5"),
    ("boxed", r"\boxed{\boxed{3}}", "3"),
    ("boxed", r"\boxed{\left\{ 1,2 \right.} is it", r"\left\{ 1,2 \right."),
    ("boxed", r"\boxed{\{1,2\}}", r"\{1,2\}"),
    ("last_number", "It is \u22125.", "-5"),
    ("last_number", "It is -$5.", "-5"),
    ("last_number", "It is $-5.", "-5"),
    ("last_number", "$1{,}234$", "1,234"),
    ("last_number", r"1\,234", "1,234"),
    ("last_number", "1\u2009234\u00a0567", "1,234,567"),
    ("last_number", "1.5e-3", "1.5e-3"),
    ("last_number", r"1.5 \times 10^{-3} m^2", "1.5e-3"),
    ("last_number", "10^6", "10^6"),
    ("last_number", "10⁶", "10^6"),
    ("last_number", "x_1 is 5 cm^2", "5"),
    ("last_number", "1/2", "1/2"),
    ("last_number", r"\frac{1}{2}", "1/2"),
    ("last_number", "1_000", None),
    ("last_number", "3 - 5", "5"),
  ],
)
def test_extraction(name, text, answer):
  assert name in extract.__all__
  assert getattr(extract, name)(text) == answer


@pytest.mark.parametrize(
  "answer, reference, score",
  [
    *(("-$1,234.50", "-1234.5", 1), ("\u22125", "-5", 1), ("\u22125", "5", 0), ("1e3", "1,000", 1)),
    *(("10^6", "10", 0), ("2^3", "8", 1), ("1/2", "0.5", 1), ("12", "12.0", 1), ("12.", "12", 1)),
    *(("3,4", "34", 0), ("1_2", "12", 0), ("nan", "1", None), ("1/0", "1", None)),
    *(("1e999999999", "1", 0), ("2^999999999999", "1", None), ("five", "5", None)),
    *(("2^" + "9" * 5000, "1", None), ("1/" + "9" * 5000, "1", None)),
  ],
)
def test_numbers_in_digits(answer, reference, score):
  if score is None:
    with pytest.raises(BadFormat, match="is no number"):
      scorers.number(answer, reference)
  else:
    assert scorers.number(answer, reference) == score
  with pytest.raises(ValueError, match="'five' is no number"):
    scorers.number(answer, "five")


@pytest.mark.parametrize("name", extract.__all__)
@pytest.mark.parametrize(
  "part",
  [r"\boxed{", r"\boxed x ", "{", "<answer>", "####", "1,", "1 ", r"\frac{1}", "1/", "\u2070"],
)
def test_extraction_takes_time_in_proportion(name, part):
  begun = time.process_time()
  getattr(extract, name)(part * (60_000 // len(part)))
  assert time.process_time() - begun < 3


def suffix(templates, **spec):
  return build(tasks, {"fn": "suffix", "templates": templates, **spec}, field="task.render")


def test_plain_ignores_the_budget():
  assert plain(PROMPT, 5, 1) == plain(PROMPT, 9, 0)
  assert plain(PROMPT, 5, 1).messages == PROMPT.messages


def test_suffix_says_the_target_in_the_last_message():
  got = suffix(" Think for {target} tokens.")(PROMPT, 64, 3)
  assert [m["content"] for m in got.messages] == ["s", "q Think for 64 tokens."]
  assert got.train_messages is None
  assert suffix(" {target}", train_plain=True)(PROMPT, 64, 0).train_messages == PROMPT.messages


def test_suffix_by_level():
  render = suffix((" Short.", " Long."))
  assert [render(PROMPT, 1, v).messages[-1]["content"] for v in (0, 1)] == ["q Short.", "q Long."]
  with pytest.raises(ValueError, match="level is 2; there are 2 templates"):
    render(PROMPT, 1, 2)


def test_the_testbed_is_verified_in_workers():
  task = build(tasks, {"fn": "arithmetic", "size": 8}, field="task")
  with Verifier(task, workers=1) as verifier:
    verdicts = verifier.verify([(text, Prompt(0, (), 7)) for text in ("a0+7=7#7", "#7", "#8", "#")])
  assert [v.outcome.name for v in verdicts] == ["OK", "OK", "WRONG", "BAD_FORMAT"]
