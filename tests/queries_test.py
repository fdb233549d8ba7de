"""Queries made from users' texts, and the prompts that a run reads."""

import json

import pytest

from lcrl import tasks
from lcrl.commands import queries as command
from lcrl.data import queries
from lcrl.registry import build
from lcrl.tasks.task import Response

SAID = {
  "Cut above a bud.": 'Request: "How do I prune a rose?"',
  "Boil it for nine minutes.": "How long does an egg take?",
  "Nine minutes, mine.": "How long does an egg take?",
  "asdf": "NONE.",
}


def write(conversations):
  """Finds each text in the request that shows it."""
  asked = [messages[0]["content"] for messages in conversations]
  return [next(reply for text, reply in SAID.items() if text in one) for one in asked]


def test_a_text_becomes_the_prompt_that_it_answers(tmp_path):
  rows = tmp_path / "posts.jsonl"
  texts = [*SAID, "  ", "x" * 99]
  rows.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
  found = command.read_texts(str(rows), "body")
  out = tmp_path / "made" / "user_texts.jsonl"
  counts = command.run(found, write, out, request=queries.REQUEST, max_characters=50)
  assert counts == {"kept": 2, "empty": 1, "long": 1, "none": 1, "repeated": 1}
  signals = dict(fn="overlap", field="text")
  task = build(tasks, dict(fn="prompts", path=str(out), signals=signals), field="task")
  prompts = [task.prompts[i] for i in range(len(task.prompts))]
  asked = [prompt.messages[-1]["content"] for prompt in prompts]
  assert asked == ["How do I prune a rose?", "How long does an egg take?"]
  said = Response("above a bud", [True] * 11, False, "".join, prompts[0].row)
  assert task.signals.read(said)["overlap"] == pytest.approx(2 * 3 / (3 + 4))


def test_what_cannot_be_is_refused(tmp_path):
  rows = tmp_path / "posts.jsonl"
  rows.write_text('{"text": "a"}\n{"text": 3}\n')
  with pytest.raises(ValueError, match=r"posts\.jsonl.*2.* there is no text 'text'"):
    command.read_texts(str(rows), "text")
  with pytest.raises(ValueError, match=r"the request must hold \{text\}"):
    queries.prompts(["a"], write, request="Say.")
  with pytest.raises(ValueError, match=r"none of 1 texts got a query: .*'none': 1"):
    command.run(["asdf"], write, tmp_path / "x", request=queries.REQUEST, max_characters=9)
