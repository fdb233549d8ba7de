"""On what an evaluation was made, and whether training saw its prompts."""

import dataclasses
import json

import pytest

from lcrl import tasks
from lcrl.evaluation import setup
from lcrl.evaluation.progress import Progress

SETUP = {
  "data": {"fn": "jsonl", "path": "test.jsonl"},
  "model": "some/model",
  "prompts": 4,
  "samples": 2,
  "max_tokens": 64,
  "temperature": 0.0,
  "training_prompts": 0,
  "compared_with": 9,
  "of": 9,
}


def file(path, questions):
  path.write_text("".join(json.dumps({"question": q, "answer": "1"}) + "\n" for q in questions))
  return str(path)


def prompts(task):
  return [task.prompts[i] for i in range(len(task.prompts))]


def test_the_prompts_are_compared_and_not_the_path(tmp_path):
  """A copy under another name, in another order, with another system message and white space."""
  train = tasks.jsonl(file(tmp_path / "train", ["one?", "two?", "three  and\nfour?"]))
  copied = file(tmp_path / "copy", [" three and four?", "five?", "one?"])
  test = tasks.jsonl(copied, system_prompt="Be brief.")
  found = setup.of_task(train).overlap(prompts(test))
  assert found == {"training_prompts": 2, "compared_with": 3, "of": 3}
  other = tasks.jsonl(file(tmp_path / "test", ["one", "six?"]))
  assert setup.of_task(train).overlap(prompts(other))["training_prompts"] == 0


def test_a_repeated_prompt_counts_as_often_as_it_is_evaluated():
  assert setup.compared(["a", "a", "b"], ["a"], of=1)["training_prompts"] == 2


def test_so_many_prompts_of_a_generator_are_looked_at(monkeypatch):
  monkeypatch.setattr(setup, "SCANNED", 5)
  task = tasks.arithmetic(size=1000, seed=0)
  found = setup.of_task(task).overlap([task.prompts[4], task.prompts[5]])
  assert found == {"training_prompts": 1, "compared_with": 5, "of": 1000}
  listed = dataclasses.replace(task, prompts=[task.prompts[i] for i in range(9)])
  assert setup.of_task(listed).overlap([task.prompts[8]])["training_prompts"] == 1


def test_the_words_name_everything():
  told = setup.described(SETUP)
  for needed in ("4 prompts", "2 answers", "test.jsonl", "some/model", "0 (greedy)", "64 tokens"):
    assert needed in told
  assert "Temperature 0.7," in setup.described(SETUP | {"temperature": 0.7})


@pytest.mark.parametrize(
  ("seen", "words"),
  [
    (0, None),
    (4, "THESE ARE THE TRAINING PROMPTS: 4 of the 4"),
    (3, "SOME ARE TRAINING PROMPTS: 3 of the 4"),
    (None, "not known"),
  ],
)
def test_training_prompts_are_said_loudly(seen, words):
  told = setup.warning(SETUP | {"training_prompts": seen})
  assert told is None if words is None else words in told
  lines = []
  setup.tell(SETUP | {"training_prompts": seen}, lines.append)
  assert len(lines) == (1 if words is None else 2)


def test_a_setup_that_lacks_something_is_described_as_far_as_it_goes():
  told = setup.described({"data": {"fn": "jsonl"}})
  assert told == "Evaluated on some prompts. Data: jsonl. Model: not known."
  assert "not known" in setup.warning({})


def test_progress_says_how_far_it_is_and_when(capsys):
  told = []
  progress = Progress("evaluation", 8, say=told.append, every=0.0)
  progress(4)
  progress(8)
  assert [line.rsplit(",")[0] for line in told] == [
    "evaluation: 4 of 8 prompts",
    "evaluation: 8 of 8 prompts",
  ]
  Progress("quick", 2, say=told.append)(2)  # whoever says the result says no more
  assert len(told) == 2
  Progress("alone", 2)(2)
  assert "alone: 2 of 2 prompts, 0 s" in capsys.readouterr().err
