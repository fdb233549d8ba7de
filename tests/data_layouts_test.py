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


SYSTEM = {"role": "system", "content": "Be brief."}
CHATS = dict(chosen=[*ASK, SAID[0]], rejected=[*ASK, SAID[1]])
PLAIN = ROWS["plain"]


@pytest.mark.parametrize(
  "row, prompt",
  [
    (CHATS | dict(system="Be brief."), (SYSTEM, *ASK)),
    (CHATS | dict(system_prompt="Be brief.", prompt="1 + 2?"), (SYSTEM, *ASK)),
    (CHATS | dict(prompt=None, context=None, history=[], tools="[]"), ASK),
    (
      dict(chosen=[SYSTEM, *ASK, SAID[0]], rejected=[SYSTEM, *ASK, SAID[1]], system="Be brief."),
      (SYSTEM, *ASK),
    ),
    (PLAIN | dict(prompt="Sure?", history=[["1 + 2?", "3"]]), LONGER),
    (PLAIN | dict(prompt="Sure?", history=[*LONGER[:2]]), LONGER),
    (PLAIN | dict(prompt=[{"role": "user", "content": [{"type": "text", "text": "1 + 2?"}]}]), ASK),
    (PLAIN | dict(messages=[*ASK, SAID[0]]), ASK),
    (PLAIN | dict(context="1 + 2"), ASK),  # the prompt holds it
    (
      dict(question="1 + 2?", context="Add.", chosen="3", rejected="4"),
      ({"role": "user", "content": "1 + 2?\n\nAdd."},),
    ),
  ],
)
def test_context_is_kept(row, prompt):
  pair = read_pair(row)
  assert (pair.messages, pair.sides) == (prompt, ("3", "4"))


CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "add"}}]}


def test_messages_keep_what_templates_read():
  thought = {"role": "assistant", "content": "3", "reasoning_content": "1 + 2"}
  told = {"role": "tool", "content": "3", "tool_call_id": "1", "name": "add"}
  before = [*ASK, CALL, told, thought, {"role": "user", "content": "Sure?", "images": None}]
  pair = read_pair(dict(prompt=before, chosen="yes", rejected="no"))
  assert pair.messages == (*ASK, CALL, told, thought, {"role": "user", "content": "Sure?"})


@pytest.mark.parametrize(
  "row, message",
  [
    (CHATS | dict(system=["Be brief."]), "system must be a text, got"),
    (
      dict(chosen=[SYSTEM, *ASK, SAID[0]], rejected=[SYSTEM, *ASK, SAID[1]], system="Rhyme."),
      "system is another system message",
    ),
    (CHATS | dict(prompt="Add 1 and 2."), "prompt holds 'Add 1 and 2.', which the prompt does not"),
    (CHATS | dict(context="Numbers are octal."), "context holds 'Numbers are octal.'"),
    (PLAIN | dict(context="Numbers are octal."), "context holds 'Numbers are octal.'"),
    (PLAIN | dict(input="octal"), "input holds 'octal'"),
    (PLAIN | dict(context=["octal"]), r"context needs messages .* got 'octal'"),
    (PLAIN | dict(history="Earlier."), "history must be a list of turns, got 'Earlier.'"),
    (PLAIN | dict(history=[["a", None]]), "history needs messages"),
    (PLAIN | dict(messages=[*LONGER]), r"messages holds 'Sure\?', which the prompt does not"),
    (PLAIN | dict(documents=["octal"]), "column documents may carry context"),
    (PLAIN | dict(tools=[{"name": "add"}]), "column tools may carry context"),
    (PLAIN | dict(chat_history=[["2?", "2"]]), "column chat_history may carry context"),
    (PLAIN | dict(initial_reason_steps="1 is"), "column initial_reason_steps may carry"),
    (PLAIN | dict(chat_template_kwargs={"custom_instructions": "Rhyme."}), "chat_template_kwargs"),
    (CHATS | dict(chosen=[*ASK, SAID[0] | {"weight": 0}]), "message with weight=0"),
    (
      dict(instruction="1 + 2?", prompt="### 1 + 2?\n### Answer: 3", output="3", rejected="4"),
      "prompt ends with the answer in output",
    ),
    (PLAIN | dict(conversations=[{"from": "human", "value": "Hi"}]), "conversations may carry"),
    (PLAIN | dict(prompt=None), "prompt is null"),
    (PLAIN | dict(prompt=["1 + 2?"]), "prompt needs messages with role and content, got '1"),
    (PLAIN | dict(prompt=[{"role": "user", "content": None}]), "prompt needs messages with role"),
    (PLAIN | dict(prompt=[{"role": "user", "content": "?", "images": ["x"]}]), "images="),
    (PLAIN | dict(chosen=[SAID[0] | {"reasoning_content": "1 + 2"}]), "reasoning_content='1"),
    (PLAIN | dict(chosen=[CALL]), "an answer has tool_calls="),
    (PLAIN | dict(score_chosen=[1], score_rejected=0), "score_chosen must be a number"),
    (dict(instruction="Add.", input=[1, 2], chosen="3", rejected="4"), "input must be a text"),
  ],
)
def test_what_would_be_lost_is_refused(row, message):
  with pytest.raises(ValueError, match=message):
    read_pair(row)


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
