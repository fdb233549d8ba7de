"""Where answers stand, and how budgets show in prompts."""

import pytest

from lcrl import tasks
from lcrl.named import build
from lcrl.tasks import extract
from lcrl.tasks.task import Prompt, plain
from lcrl.tasks.verify import Verifier

PROMPT = Prompt(0, ({"role": "system", "content": "s"}, {"role": "user", "content": "q"}), "1")


@pytest.mark.parametrize(
  "name, text, answer",
  [
    ("last_number", "7-3", "3"),
    ("last_number", "7 - -3", "-3"),
    ("last_number", "x = -1,234.50.", "-1,234.50"),
    ("last_number", "one of 1,2,3", "3"),
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
  ],
)
def test_extraction(name, text, answer):
  assert name in extract.__all__
  assert getattr(extract, name)(text) == answer


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
