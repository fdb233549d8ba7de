"""Every public layout of pairs gives the same prompt and answers."""

import math

import pytest

from lcrl.data.layouts import UnpairedTurns, read_answer, read_pair

ASK = ({"role": "user", "content": "1 + 2?"},)
SAID = ({"role": "assistant", "content": "3"}, {"role": "assistant", "content": "4"})
LONGER = (*ASK, {"role": "assistant", "content": "3"}, {"role": "user", "content": "Sure?"})

ROWS = {
  "plain": dict(prompt="1 + 2?", chosen="3", rejected="4"),
  "question": dict(question="1 + 2?", chosen="3", rejected="4"),
  "alpaca": dict(instruction="1 + 2?", input="", output="0", chosen="3", rejected="4"),
  "alpaca output": dict(instruction="1 + 2?", input=None, output="3", rejected="4"),
  "ultrafeedback": dict(
    prompt="1 + 2?", prompt_id="x", chosen=[*ASK, SAID[0]], rejected=[*ASK, SAID[1]], messages=[]
  ),
  "messages apart": dict(prompt=[*ASK], chosen=[SAID[0]], rejected=[SAID[1]]),
  "messages and texts": dict(prompt=[*ASK], chosen="3", rejected="4"),
  "hh": dict(
    chosen="\n\nHuman: 1 + 2?\n\nAssistant: 3", rejected="\n\nHuman: 1 + 2?\n\nAssistant: 4"
  ),
  "hh prompt": dict(prompt="\n\nHuman: 1 + 2?\n\nAssistant:", chosen="3", rejected="4"),
}


@pytest.mark.parametrize("name", ROWS)
def test_layouts_agree(name):
  pair = read_pair(ROWS[name])
  assert (pair.messages, pair.sides) == (ASK, ("3", "4"))
  assert pair.scores == ()


def test_several_turns():
  before = "\n\nHuman: 1 + 2?\n\nAssistant: 3\n\nHuman: Sure?\n\nAssistant:"
  pair = read_pair(dict(chosen=f"{before} Yes.\n\nIt is.", rejected=f"{before} No."))
  assert pair.messages == LONGER
  assert pair.sides == ("Yes.\n\nIt is.", "No.")
  with pytest.raises(UnpairedTurns):  # they part before the last answer
    read_pair(dict(chosen=f"{before} Yes.", rejected="\n\nHuman: 1 + 2?\n\nAssistant: 4"))
  with pytest.raises(UnpairedTurns):  # the person has the last word
    read_pair(dict(chosen=[*LONGER], rejected=[*LONGER]))


def test_equal_sides_are_still_a_pair():
  assert read_pair(dict(chosen=[*ASK, SAID[0]], rejected=[*ASK, SAID[0]])).sides == ("3", "3")


def test_a_text_that_quotes_a_transcript_is_one_message():
  text, said = "They wrote:\n\nHuman: hi\n\nAssistant: ho", "Assistant: 3\n\nHuman: why?"
  pair = read_pair(dict(prompt=text, chosen=said, rejected="4"))
  assert pair.messages[0]["content"] == text
  assert pair.sides[0] == said


def test_scores_system_and_reference():
  row = ROWS["plain"] | dict(score_chosen=8, score_rejected=None, system="Be brief.")
  pair = read_pair(row | dict(reference_prompt="short"))
  assert pair.scores[0] == 8.0
  assert math.isnan(pair.scores[1])
  assert pair.messages == ({"role": "system", "content": "Be brief."}, *ASK)
  assert pair.reference == ({"role": "user", "content": "short"},)


@pytest.mark.parametrize(
  "row",
  [
    dict(prompt="1 + 2?", completion="3"),
    dict(instruction="1 + 2?", output="3", chosen="0"),
    dict(messages=[*ASK, SAID[0]]),
    ROWS["ultrafeedback"] | dict(messages=[*ASK, SAID[0]]),
    dict(chosen="\n\nHuman: 1 + 2?\n\nAssistant: 3", rejected="4"),
  ],
)
def test_answers(row):
  pair = read_answer(row)
  assert (pair.messages, pair.sides) == (ASK, ("3",))


@pytest.mark.parametrize(
  "row, message",
  [
    (dict(prompt="?", best="3"), r"no column chosen or output, nor rejected; .* prompt, best\."),
    (dict(prompt="?", chosen="3"), r"no column rejected; there are prompt, chosen\."),
    (dict(ask="?", chosen="3", rejected="4"), r"no column prompt or instruction or question; "),
    (dict(prompt="?", chosen=3, rejected="4"), "chosen must be a text or a list .* got 3"),
    (dict(chosen=["3"], rejected=["4"]), "chosen needs messages with role and content, got '3'"),
    (dict(chosen=[{"role": "user"}], rejected="4"), "got {'role': 'user'}"),
  ],
)
def test_what_is_missing_is_named(row, message):
  with pytest.raises(ValueError, match=message):
    read_pair(row)
