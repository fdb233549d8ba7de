"""Rules and scores that a model gives: the steps with a scripted model, and with a tiny one."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.commands import refine, score
from lcrl.commands import rules as command
from lcrl.data import judged, rules, tokenizers
from lcrl.data.layouts import Pair, read_pair
from lcrl.mesh import make_mesh
from lcrl.rollouts.writer import open_writer
from lcrl.training.reward_model import judge

CHAT = Path(__file__).parent / "fixtures" / "chats" / "chatml"
ASKED = ({"role": "user", "content": "1 + 1?"},)
PAIRS = [Pair(ASKED, (f"good {i}", f"bad {i}")) for i in range(6)]

pytestmark = pytest.mark.usefixtures("one_device")


def asked(conversation):
  [message] = conversation
  assert message["role"] == "user"
  return message["content"]


class Scripted:
  """Answers each kind of request as a model should."""

  def __init__(self):
    self.calls = []

  def __call__(self, conversations):
    texts = [*map(asked, conversations)]
    self.calls.append(texts)
    return [self.reply(text) for text in texts]

  def reply(self, text):
    if "was judged to be better" in text:
      first = text.index("[Answer A]\ngood") if "[Answer A]\ngood" in text else None
      better = "A" if first is not None else "B"
      assert f"Answer {better} was judged" in text
      return f"{better} is better since it is good."
    if "[Analysis]" in text:
      return 'Rules: ["Be good.", "be  Good.", "Be brief."]' if text.count("A is") else "none"
    return '["Be good and brief."]'


def test_the_three_steps_of_a_scripted_model(tmp_path):
  write = Scripted()
  found = command.run(tmp_path, lambda: PAIRS, write)
  assert found == json.loads((tmp_path / "rules.json").read_text()) == ["Be good and brief."]
  explained, _, merged = write.calls
  assert [text.count("1 + 1?") for text in explained] == [1] * 6
  first = ["[Answer A]\ngood" in text for text in explained]
  assert 0 < sum(first) < 6, "the chosen answer always stands at the same place"
  assert [len(json.loads(x)) for x in (tmp_path / "extracted.jsonl").read_text().splitlines()] == [
    2 * here for here in first
  ]
  assert merged[0].splitlines()[2:4] == ["1. Be good.", "2. Be brief."]
  command.run(tmp_path, lambda: pytest.fail("explained again"), write)
  assert len(write.calls) == 4


def test_many_rules_are_merged_by_parts():
  many, calls = [f"Rule {i}." for i in range(9)], []

  def write(conversations):
    calls.append(len(conversations))
    return ['["One.", "Two.", "Three."]' if i % 2 else "no list" for i in range(len(conversations))]

  # Of 4, 4 and 1 rules the first and last part stay, cut to 2; then of 2 + 2 + 1 again parts.
  assert rules.merge(many, write, most=2, at_once=4) == ["Rule 0.", "Rule 1."]
  assert calls == [3, 2, 1]
  with pytest.raises(ValueError, match="no rules to merge"):
    rules.merge([], write)
  with pytest.raises(ValueError, match="most must be between 1 and at_once - 1, got 4 and 4"):
    rules.merge(many, write, most=4, at_once=4)


def test_scores_of_a_scripted_model(tmp_path):
  replies = iter(["0.4", "I find 2 steps. Score: 0.9", "none", "7"])
  write = lambda conversations: [next(replies) for _ in conversations]
  rows = [{"prompt": "1 + 1?", "response": f"{i} is it"} for i in range(4)]
  rows[1] = {"prompt": list(ASKED), "text": "1 is it", "correct": True}  # of an evaluation
  (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  answers = score.read_answers(str(tmp_path / "answers.jsonl"))
  out = tmp_path / "out" / "scores.jsonl"
  assert score.score(answers, write, out, question=judged.CONCISENESS) == (2, 2)
  written = [json.loads(line) for line in out.read_text().splitlines()]
  assert [(row["response"], row["score"]) for row in written] == [
    ("0 is it", 0.4),
    ("1 is it", 0.9),
  ]
  with pytest.raises(ValueError, match=r"must hold \{prompt\} and \{answer\}"):
    judged.scores(answers, write, question="{prompt}")
  with pytest.raises(ValueError, match="no reply of the model holds a number"):
    score.score(answers, lambda asked: ["" for _ in asked], out, question=judged.CONCISENESS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A random model with a tokenizer."""
  path = tmp_path_factory.mktemp("model")
  size = policies.tokenizer(CHAT).vocab_size
  policy = policies.make(policies.tiny(size, hidden_size=16, layers=1))
  policies.save(path, policy, policy.init(jax.random.key(0)))
  for file in CHAT.glob("*"):
    (path / file.name).write_bytes(file.read_bytes())
  return path


def test_a_model_folder_writes(folder, tmp_path):
  write = open_writer(folder, max_tokens=5, max_prompt_tokens=400, batch=2)
  conversations = [({"role": "user", "content": x},) for x in ("one", "two", "three")]
  texts = write(conversations)
  assert len(texts) == 3
  assert write(conversations[1:]) == texts[1:]
  policy, params = policies.load(folder)
  tokenizer = policies.tokenizer(folder)
  for conversation, text in zip(conversations, texts, strict=True):
    ids = tokenizer.encode(tokenizer.render(conversation))
    logits = policy.apply(params, jnp.array(ids))[-1]
    first = int(jnp.argmax(logits))
    assert first in tokenizer.end_ids or text.startswith(tokenizer.decode([first]))
  with pytest.raises(ValueError, match=r"conversation 0 has .* tokens; the limit is 4"):
    open_writer(folder, max_tokens=5, max_prompt_tokens=4)(conversations)
  with pytest.raises(ValueError, match="no rules to merge"):  # a random model lists nothing
    command.run(
      tmp_path, lambda: PAIRS[:2], open_writer(folder, max_tokens=2, max_prompt_tokens=900)
    )
  assert len((tmp_path / "explanations.jsonl").read_text().splitlines()) == 2


def test_an_answer_keeps_a_rule_if_the_judge_would_rather_say_yes():
  """Against the judge's logits behind each request; a long conversation loses its beginning."""
  words = tokenizers.utf8()
  policy = policies.make(policies.tiny(258, hidden_size=16, layers=1))
  params, mesh = (
    policy.init(jax.random.key(1)),
    make_mesh(data=1, fsdp=1, devices=jax.devices()[:1]),
  )
  frame = judge.Frame(words, "It is short.")
  limit = frame.length + 12
  texts = [["a", "What is it? It is x."], ["yes", "a much longer text than may stand there"]]
  rows = frame.rows([[words.encode(x) for x in group] for group in texts], limit, words.pad_id)
  assert rows.lengths.max() == limit
  yes, no = judge.first_tokens(words)
  got = np.asarray(judge.make_yes(policy, mesh, (yes, no), 2)(params, rows))
  seen = []
  for b, g in np.ndindex(2, 2):
    text = texts[b][g][-12:]
    whole = words.render(
      ({"role": "user", "content": judge.REQUEST.format(text=text, rule="It is short.")},)
    )
    logits = policy.apply(params, jnp.array(words.encode(whole)))[-1]
    seen.append(float(logits[yes] > logits[no]))
    assert got[b, g] == seen[-1]
  same = lambda tokenizer: judge.first_tokens(tokenizer)
  with pytest.raises(ValueError, match="begin with the same token"):
    same(type("T", (), {"encode": lambda self, text: [3]})())


def test_said_is_conversation_and_answer_without_the_end():
  words = tokenizers.utf8()
  row = words.encode("1+1?") + words.encode("2") + [words.end_ids[0], words.pad_id]
  mask = np.array([[[False] * 4 + [True, True, False]] * 2])
  mask[0, 1] = False
  said = lambda ends: judge.said(np.array([[row, row]]), mask, words, ends)[0][0]
  assert said(words.end_ids) == "1+1?2"
  row[-2:-1] = words.encode(";")
  assert said(words.end_ids) == "1+1?2;"
  assert said((*words.end_ids, *words.encode(";"))) == "1+1?2"


def test_errors_name_the_field(tmp_path):
  (tmp_path / "rules.json").write_text("{}")
  for spec, message in (
    ([], r"learned\.x\.rules must be a list of sentences, got \[\]"),
    (str(tmp_path / "none.json"), r"learned\.x\.rules=.*none\.json' cannot be read"),
    (str(tmp_path / "rules.json"), r"learned\.x\.rules must be a list of sentences, got \{\}"),
  ):
    with pytest.raises(ValueError, match=message):
      judge.read_rules(spec, "learned.x")
  with pytest.raises(ValueError, match=r"--rows=x\.txt must end in \.jsonl"):
    command.read_pairs("x.txt", 1, 0)


def test_what_a_second_turn_makes_better_becomes_pairs(tmp_path):
  """Of a wrong, a right and an unreadable answer the first and last get better."""
  rows = [
    {"prompt": list(ASKED), "text": text, "reference": "2"}
    for text in (r"\boxed{3}", r"\boxed{2}", "two")
  ]
  asked, out = [], tmp_path / "pairs.jsonl"

  def write(conversations):
    asked.extend(conversations)
    return [r"It is \boxed{2}"] * len(conversations)

  score = refine.scorer("math", "boxed")
  assert refine.run(rows, write, score, out, instruction="Again.") == 4
  assert [m["role"] for m in asked[0]] == ["user", "assistant", "user"]
  assert [m["content"] for m in asked[2][1:]] == ["two", "Again."]
  pairs = [read_pair(json.loads(line)) for line in out.read_text().splitlines()]
  assert [len(pair.messages) for pair in pairs] == [1, 3, 1, 3]
  assert [pair.sides[1] for pair in pairs] == [r"\boxed{3}"] * 2 + ["two"] * 2
  assert {pair.sides[0] for pair in pairs} == {r"It is \boxed{2}"}
  with pytest.raises(ValueError, match="none of 1 answers got better"):
    refine.run(rows[1:2], write, score, out)
  with pytest.raises(ValueError, match="answer 1 has no 'reference'"):
    refine.run([{"prompt": [], "text": ""}], write, score, out)
