"""Public files in their publishers' layouts become files that tasks and data sources read."""

import csv
import gzip
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import pyarrow
import pyarrow.parquet
import pytest

from configs import common
from lcrl import tasks
from lcrl.commands import data as command
from lcrl.data import sources
from lcrl.data.public import chats, files, problems, writing
from lcrl.data.public.conversion import Conversion, Skipped, excluded_keys, prompt_key
from lcrl.data.public.sets import SETS
from lcrl.data.tokenizers import utf8
from lcrl.registry import build, resolve
from lcrl.tasks import scorers
from lcrl.tasks.references import References

ROOT = pathlib.Path(__file__).parent.parent
BEFORE = (
  "Solve the following math problem step by step. The last line of your response should be of the "
  "form Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
)
AFTER = '\n\nRemember to put your answer on its own line after "Answer:".'


def verl(problem="1 + 2?", truth="3", before=BEFORE, after=AFTER, **more):
  prompt = [{"role": "user", "content": f"{before}{problem}{after}"}]
  reward = {"ground_truth": truth, "style": "rule"}
  more = {"extra_info": {"index": "a"}, **more}
  return {"data_source": "own", "prompt": prompt, "ability": "MATH", "reward_model": reward, **more}


def lines(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  text = "".join(json.dumps(row) + "\n" for row in rows).encode()
  path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
  return path


def parquet(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  return path


def read(path):
  if path.suffix == ".parquet":
    return pyarrow.parquet.read_table(path).to_pylist()
  return [json.loads(line) for line in path.read_text().splitlines()]


def converted(name, folder, out, split=None, **options):
  """The counts, and the rows of the new file."""
  paths = files.find(SETS[name], str(folder), SETS[name].split if split is None else split)
  counts = command.counts(command.convert(name, paths, out, **options))
  return counts, read(out)


# Problems


@pytest.mark.parametrize(
  "row, new, changes",
  [
    (verl(), {"problem": "1 + 2?", "answer": "3"}, ["instruction_cut"]),
    (verl(before="", after="\n$a$"), {"problem": "1 + 2?\n$a$", "answer": "3"}, []),
    (verl(truth='["\\\\frac12"]'), {"answer": "\\frac12"}, ["instruction_cut"]),
    (verl(truth=["3"], before="", after=""), {"answer": "3"}, []),
    (
      verl(before="", after=' Let\'s think step by step and output the final answer after "####".'),
      {"problem": "1 + 2?"},
      ["instruction_cut"],
    ),
    (
      {**verl(), "prompt": [{"role": "system", "content": "Think."}, *verl(before="")["prompt"]]},
      {"problem": "1 + 2?"},
      ["instruction_cut", "system_message_cut"],
    ),
    ({**verl(), "prompt": "1 + 2?", "solution": "3"}, {"problem": "1 + 2?", "answer": "3"}, []),
    (
      {"problem": "1 + 2?", "level": "Level 4", "type": "Algebra", "solution": "So \\boxed{3}."},
      {"answer": "3", "level": 4, "type": "Algebra"},
      [],
    ),
    (
      {"problem": "?", "level": "Level ?", "solution": "\\boxed{3}"},
      {"level": 0},
      ["level_unknown"],
    ),
    ({"problem": "?", "level": 5, "answer": "3", "solution": "..."}, {"level": 5}, []),
    ({"Problem": "1 + 2?", "Answer": 3, "ID": "I-1"}, {"problem": "1 + 2?", "answer": "3"}, []),
    ({"question": "1 + 2?", "answer": "3"}, {"problem": "1 + 2?", "answer": "3"}, []),
    (
      {"problem": "?", "answer": "", "solution": "\\boxed{3}"},
      {"answer": "3"},
      ["answer_from_solution"],
    ),
    (
      {"Body": "Ann has 3 pens.", "Question": "How many?", "Answer": 3.0},
      {"problem": "Ann has 3 pens.\n\nHow many?", "answer": "3.0"},
      ["context_joined"],
    ),
  ],
)
def test_layouts_of_problems(row, new, changes):
  one = problems.problems(row)
  assert new.items() <= one.row.items()
  assert one.answer == one.row["answer"]
  assert one.prompts == (one.row["problem"],)
  assert list(one.changes) == changes
  assert all(isinstance(value, str | int | float) for value in one.row.values())


@pytest.mark.parametrize(
  "row, reason",
  [
    ({"problem": "?", "answer": None}, "no_answer"),
    ({"problem": "?", "solution": "It is 3."}, "no_answer"),
    ({"problem": "?", "answer": ["1", "2"]}, "several_answers"),
    ({"problem": "?", "answer": {"value": 1}}, "answer_no_text"),
    ({"problem": "?", "answer": float("nan")}, "no_answer"),
    ({"problem": " ", "answer": "1"}, "empty_problem"),
    (verl(problem="", truth="1"), "empty_prompt"),
    (verl(truth=None), "no_answer"),
    ({**verl(), "prompt": [*verl()["prompt"], {"role": "assistant", "content": "3"}]}, "several_t"),
  ],
)
def test_problems_that_no_run_can_use(row, reason):
  with pytest.raises(Skipped, match=reason):
    problems.problems(row)


CHOICES = {"Correct Answer": "red", **{f"Incorrect Answer {i}": f"blue {i}" for i in (1, 2, 3)}}


def test_choices_are_shuffled_by_the_question():
  rows = [{"Question": f"Colour {n}?", "Record ID": str(n), **CHOICES} for n in range(40)]
  ones = [problems.gpqa(row) for row in rows]
  for one in ones:
    right = one.row["problem"].split(f"\n{one.answer}) ")[1].split("\n")[0]
    assert right == "red"
    assert one.row["problem"].startswith(one.row["question"] + "\n\nA) ")
  places = [sum(one.answer == letter for one in ones) for letter in "ABCD"]
  assert min(places) >= 3  # all at one place, were the choices not shuffled
  swapped = rows[0] | {"Incorrect Answer 1": "blue 3", "Incorrect Answer 3": "blue 1"}
  assert problems.gpqa(swapped).row == ones[0].row
  with pytest.raises(Skipped, match="repeated_choice"):
    problems.gpqa(rows[0] | {"Incorrect Answer 2": "red "})


# Chats

ASK = [{"role": "user", "content": "1 + 2?"}]
GOOD, BAD = [{"role": "assistant", "content": "3"}], [{"role": "assistant", "content": "4"}]


def rated(text, *ratings):
  names = ("helpfulness", "honesty", "truthfulness", "instruction_following")
  marks = {n: {"Rating": r, "Rationale": "."} for n, r in zip(names, ratings, strict=True)}
  return {"model": "m", "response": text, "annotations": marks, "overall_score": 10.0}


SCORED = {"score_chosen": 4.0, "score_rejected": 2.0}
PAIRS: dict[str, tuple[dict, dict]] = {
  "binarized": (
    {"prompt": "1 + 2?", "chosen": [*ASK, *GOOD], "rejected": [*ASK, *BAD], **SCORED},
    SCORED,
  ),
  "hh": (
    {
      "chosen": "\n\nHuman: 1 + 2?\n\nAssistant: 3",
      "rejected": "\n\nHuman: 1 + 2?\n\nAssistant: 4",
    },
    {},
  ),
  "argilla": (
    {
      "source": "own",
      "instruction": "1 + 2?",
      "chosen_response": "3",
      "rejected_response": "4",
      "chosen_avg_rating": 4.0,
      "rejected_avg_rating": 2.0,
      "chosen_model": "m",
    },
    SCORED,
  ),
  "argilla cleaned": (
    {
      "prompt": "1 + 2?",
      "chosen": [*ASK, *GOOD],
      "chosen-rating": 4.0,
      "chosen-model": "m",
      "rejected": [*ASK, *BAD],
      "rejected-rating": 2.0,
      "rejected-model": "m",
    },
    SCORED,
  ),
  "raw": (
    {
      "source": "own",
      "instruction": "1 + 2?",
      "completions": [
        rated("4", "2", "2", "N/A", "2"),
        rated("3", "5", "4", "4", "3"),
        rated("5", "N/A", "N/A", "N/A", "N/A"),
      ],
    },
    SCORED,
  ),
  "sharegpt": (
    {
      "conversations": [{"from": "human", "value": "1 + 2?"}],
      "chosen": {"from": "gpt", "value": "3"},
      "rejected": {"from": "gpt", "value": "4"},
    },
    {},
  ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_layouts_of_pairs_agree(name):
  row, scores = PAIRS[name]
  one = chats.pairs(row)
  assert one.row == {"prompt": ASK, "chosen": GOOD, "rejected": BAD, **scores}
  assert one.prompts == ("1 + 2?",)
  assert chats.pairs(one.row).row == one.row
  short = chats.pairs(one.row | {"reference_prompt": "1 + 2"}).row["reference_prompt"]
  assert short == [{"role": "user", "content": "1 + 2"}]


def test_a_lower_rated_completion_is_picked_by_its_text():
  texts = [f"answer {n}" for n in range(3)]
  lower = [rated(text, "1", "1", "1", "1") for text in texts]
  rejected = set()
  for n in range(20):
    row = {"instruction": f"Ask {n}", "completions": [*lower, rated("best", *"5555")]}
    one, other = chats.pairs(row), chats.pairs(row | {"completions": row["completions"][::-1]})
    assert one == other
    assert one.row["chosen"][0]["content"] == "best"
    rejected.add(one.row["rejected"][0]["content"])
  assert rejected == {*texts}


@pytest.mark.parametrize(
  "row, reason",
  [
    (PAIRS["raw"][0] | {"source": "truthful_qa"}, "truthful_qa"),
    ({"instruction": "?", "completions": [rated("a", *"2222")] * 2}, "no_lower_rating"),
    ({"instruction": "?", "completions": [rated("a", *["N/A"] * 4)]}, "no_rating"),
    (PAIRS["argilla"][0] | {"rejected_avg_rating": 4.0}, "equal_ratings"),
    (PAIRS["argilla cleaned"][0] | {"rejected-rating": 4.0}, "equal_ratings"),
    (dict(prompt="?", chosen="a", rejected=" "), "empty_side"),
    (dict(prompt="?", chosen="a", rejected="a"), "identical_sides"),
    (dict(chosen="\n\nHuman: a\n\nAssistant: b", rejected="\n\nHuman: c\n\nAssistant: d"), "unpai"),
    (PAIRS["sharegpt"][0] | {"images": ["x"]}, "has_images"),
  ],
)
def test_pairs_that_no_run_can_use(row, reason):
  with pytest.raises(Skipped, match=reason):
    chats.pairs(row)


def turns(text, **more):
  names = {"h": "human", "g": "gpt", "s": "system", "t": "tool"}
  said = [{"from": names[x], "value": f"{x}{i}"} for i, x in enumerate(text)]
  return {"id": "a", "conversations": said, **more}


@pytest.mark.parametrize(
  "row, said, changes",
  [
    (turns("hg"), "h0 g1", []),
    (turns("shghg"), "s0 h1 g2 h3 g4", []),
    (turns("ghgh"), "h1 g2", ["leading_answer_cut", "unanswered_question_cut"]),
    (turns("hg", system="s"), "s h0 g1", []),
    (turns("hg", system="", tools="[]"), "h0 g1", []),
    ({"messages": [*ASK, *GOOD]}, "1 + 2? 3", []),
  ],
)
def test_conversations(row, said, changes):
  one = chats.conversations(row)
  assert " ".join(m["content"] for m in one.row["messages"]) == said
  assert one.row["messages"][-1]["role"] == "assistant"
  assert list(one.changes) == changes


@pytest.mark.parametrize(
  "row, reason",
  [
    (turns("g"), "no_answer"),
    (turns("h"), "no_answer"),
    (turns(""), "no_answer"),
    (turns("hhg"), "turns_do_not_alternate"),
    (turns("htg"), "other_roles"),
    ({"conversations": [{"from": "human", "value": " "}, *turns("g")["conversations"]]}, "empty"),
    (turns("hg", tools='[{"name": "add"}]'), "has_tools"),
  ],
)
def test_conversations_that_no_run_can_use(row, reason):
  with pytest.raises(Skipped, match=reason):
    chats.conversations(row)


@pytest.mark.parametrize(
  "convert, row, message",
  [
    (problems.problems, {"text": "?"}, "no field problem or .*; it has text"),
    (problems.problems, {"problem": ["?"], "answer": "1"}, "problem must be a text, got"),
    (problems.problems, verl() | {"prompt": None}, "must be messages and an object, got None"),
    (problems.gsm8k, {"question": "?"}, "no field answer; it has question"),
    (problems.gpqa, {"Question": "?"}, "no field Correct Answer; it has Question"),
    (SETS["math"].convert, {"problem": "?", "solution": "\\boxed{1}"}, "no field level"),
    (chats.pairs, {"prompt": "?", "chosen": "a"}, "no column rejected"),
    (chats.pairs, {"instruction": "?", "completions": [{"response": "a"}]}, "needs a response, "),
    (chats.pairs, PAIRS["argilla"][0] | {"instruction": None}, "prompt needs messages"),
    (chats.pairs, PAIRS["argilla"][0] | {"rejected_response": None}, "rejected needs messages"),
    (chats.conversations, {"text": "?"}, "no list of turns in conversations or .* it has text"),
    (chats.conversations, {"messages": [{"role": "user"}]}, "a turn needs from and value"),
  ],
)
def test_a_row_of_another_layout_is_an_error(convert, row, message):
  with pytest.raises(ValueError, match=message):
    convert(row)


# Counts


def problem_rows(*pairs):
  return [(f"a.jsonl, line {i}", {"problem": p, "answer": a}) for i, (p, a) in enumerate(pairs, 1)]


def test_each_row_is_kept_or_skipped_for_one_reason():
  rows = problem_rows(
    ("Is $\\frac12$ half?", "no mathematics \\frac{"),
    ("Is $\\frac12$ half?", "yes"),
    ("is  \\(\\dfrac 12\\) half?", "yes"),
    ("Is $\\frac13$ half?", "no"),
    ("Is $\\frac12$ half?", "maybe"),
    ("Excluded?", "1"),
    ("2 + 3?", ""),
    ("2 - 3?", "-1"),
  )
  with References(scorers.math, 1.0) as references:
    conversion = Conversion(problems.problems, references, {prompt_key("excluded?")})
    kept = list(conversion.run(rows))
  assert [row["answer"] for row in kept] == ["yes", "no", "-1"]
  counts = command.counts(conversion)
  assert counts == {
    "read": 8,
    "kept": 3,
    "skipped_uncomparable_answer": 1,
    "skipped_duplicate": 1,
    "skipped_duplicate_with_other_answer": 1,
    "skipped_in_without": 1,
    "skipped_no_answer": 1,
  }
  assert counts["read"] == counts["kept"] + conversion.skipped.total()
  report = command.report(conversion)
  assert "skipped_duplicate         1  first: a.jsonl, line 3\n" in report
  assert "first: a.jsonl, line 1: " in report  # and why the verifier cannot compare it


def test_signs_and_digits_tell_problems_apart():
  texts = ["2 + 3?", "2 - 3?", "2.3?", "23?", "2,3?", "2^3?"]
  assert len({prompt_key(text) for text in texts}) == len(texts)
  assert prompt_key(f"{BEFORE}2 + 3?{AFTER}") == prompt_key("2 + 3?")


def test_pairs_of_one_prompt_are_no_duplicates():
  row = PAIRS["hh"][0]
  other = row | {"rejected": row["rejected"] + "2"}
  conversion = Conversion(chats.pairs)
  assert len(list(conversion.run([("a", row), ("b", other), ("c", row)]))) == 2
  assert conversion.skipped == {"duplicate": 1}


def test_rows_stream():
  many = (("a", {"problem": f"{n}?", "answer": "1"}) for n in range(20_000))
  conversion = Conversion(problems.problems)
  assert len(list(itertools.islice(conversion.run(many), 8000))) == 8000
  assert conversion.read < 13_000


def test_a_sample_depends_on_the_prompts_alone():
  rows = problem_rows(*((f"{n}?", "1") for n in range(100)))
  rows = [(where, row | {"level": "Level ?"}) for where, row in rows]
  conversion = Conversion(problems.problems)
  chosen = [row["problem"] for row in conversion.run(rows, sample=10)]
  counts = command.counts(conversion)
  assert counts == {
    "read": 100,
    "kept": 10,
    "skipped_not_in_sample": 90,
    "changed_level_unknown": 10,
  }
  assert chosen == sorted(chosen, key=lambda text: int(text[:-1]))
  assert chosen != [f"{n}?" for n in range(10)]
  again = Conversion(problems.problems).run(rows[::-1] + rows, sample=10)
  assert {row["problem"] for row in again} == {*chosen}


# Files


def test_gsm8k_as_its_config_reads_it(tmp_path):
  rows = [{"question": f"{n} pens and 1?", "answer": f"Sum.\n#### {n + 1}"} for n in range(4)]
  parquet(tmp_path / "hub/main/train-00000-of-00002.parquet", rows[:2])
  parquet(tmp_path / "hub/main/train-00001-of-00002.parquet", rows[2:3])
  parquet(tmp_path / "hub/socratic/train-00000-of-00001.parquet", rows[3:])
  lines(tmp_path / "github/test.jsonl", [*rows[3:], {"question": "Why?", "answer": "No hashes."}])
  counts, new = converted("gsm8k", tmp_path / "hub", tmp_path / "data/train.jsonl")
  assert new == rows[:3]
  assert counts == {"read": 3, "kept": 3}
  counts, new = converted("gsm8k", tmp_path / "github", tmp_path / "test.jsonl", "test")
  assert (new, counts["skipped_no_answer"]) == (rows[3:], 1)
  spec = common.gsm8k() | {"path": str(tmp_path / "data/train.jsonl")}
  assert [p.reference for p in build(tasks, spec, field="task").prompts] == ["1", "2", "3"]


def test_math_as_its_config_reads_it(tmp_path):
  row = {"problem": "Half of 1?", "level": "Level 2", "type": "A", "solution": "\\boxed{\\frac12}"}
  for n, name in enumerate(("algebra", "geometry")):
    path = tmp_path / f"MATH/train/{name}/{n}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(row | {"problem": f"{name}?"}, indent=4))
    parquet(tmp_path / f"hub/{name}/test-00000-of-00001.parquet", [row | {"problem": f"{n}?"}])
    parquet(tmp_path / f"hub/{name}/train-00000-of-00001.parquet", [row | {"problem": f"{name}?"}])
  _, new = converted("math", tmp_path / "MATH", tmp_path / "math.jsonl")
  assert [row["problem"] for row in new] == ["algebra?", "geometry?"]
  assert converted("math", tmp_path / "hub", tmp_path / "b.jsonl")[1] == new
  spec = common.math() | {"path": str(tmp_path / "math.jsonl")}
  task = build(tasks, spec, field="task")
  assert [(p.reference, p.difficulty) for p in task.prompts] == [("\\frac12", 2)] * 2


def test_deepscaler_dapo_and_aime_without_each_other(tmp_path):
  (tmp_path / "deepscaler.json").write_text(
    json.dumps([{"problem": f"{n} + 0?", "answer": str(n), "solution": ""} for n in range(3)])
  )
  parquet(tmp_path / "dapo/data/dapo-math-17k.parquet", [verl("1 + 0?", "1"), verl("9?", "9")] * 50)
  lines(tmp_path / "aime25/test.jsonl", [{"problem": "2 + 0?", "answer": "2", "id": "0"}])
  aime, dapo = tmp_path / "aime25.jsonl", tmp_path / "dapo.jsonl"
  converted("aime25", tmp_path / "aime25", aime)
  counts, new = converted("dapo_math", tmp_path / "dapo", dapo, without=[str(aime)])
  assert counts == {
    "read": 100,
    "kept": 2,
    "skipped_duplicate": 98,
    "changed_instruction_cut": 2,
  }
  assert new[0] == {"problem": "1 + 0?", "answer": "1", "data_source": "own", "ability": "MATH"}
  without = [str(aime), str(tmp_path / "dapo/data/dapo-math-17k.parquet")]
  counts, new = converted("deepscaler", tmp_path, tmp_path / "new.jsonl", without=without)
  assert [row["answer"] for row in new] == ["0"]
  assert counts["skipped_in_without"] == 2
  for section, path in ((common.dapo_math(), dapo), (common.deepscaler(), tmp_path / "new.jsonl")):
    assert len(build(tasks, section | {"path": str(path)}, field="task").prompts) == len(read(path))


def test_gpqa_as_a_task_reads_it(tmp_path):
  with open(tmp_path / "gpqa_diamond.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.DictWriter(file, ["Question", *CHOICES, "High-level domain"])
    writer.writeheader()
    for n in range(3):
      writer.writerow({"Question": f'Two\n"lines" {n}?', **CHOICES, "High-level domain": "Optics"})
  out = tmp_path / "gpqa.jsonl"
  _, new = converted("gpqa", tmp_path, out)
  assert [row["category"] for row in new] == ["Optics"] * 3
  spec = dict(fn="jsonl", path=str(out), question="problem", extract="boxed")
  task = build(tasks, spec, field="task")
  letter = task.prompts[0].reference
  other = "A" if letter != "A" else "B"
  assert [task.score(f"\\boxed{{{x}}}", letter) for x in (letter, f"({letter})", other)] == [
    1,
    1,
    0,
  ]
  assert excluded_keys([str(out)]) >= {prompt_key(row["question"]) for row in new}


def source(path, fn="pairs"):
  rows = dict(fn=path.suffix[1:], path=str(path))
  return resolve(sources, dict(fn=fn, rows=rows, window=64), field="data")(utf8())


def test_chats_as_data_sources_read_them(tmp_path):
  row = PAIRS["binarized"][0] | {"prompt_id": "a", "messages": [*ASK, *GOOD]}
  parquet(tmp_path / "uf/data/train_prefs-00000-of-00001.parquet", [row])
  parquet(tmp_path / "uf/data/train_sft-00000-of-00001.parquet", [{"other": 1}])
  lines(tmp_path / "hh/helpful-base/train.jsonl.gz", [PAIRS["hh"][0]])
  lines(tmp_path / "hh/harmless-base/train.jsonl.gz", [PAIRS["hh"][0]])
  lines(tmp_path / "hh/red-team-attempts/red_team_attempts.jsonl.gz", [{"other": 1}])
  (tmp_path / "mine.json").write_text(json.dumps([turns("hghg")]))
  outs = [tmp_path / "uf.parquet", tmp_path / "hh.jsonl", tmp_path / "chats.parquet"]
  assert converted("ultrafeedback_binarized", tmp_path / "uf", outs[0])[0]["kept"] == 1
  assert converted("hh", tmp_path / "hh", outs[1])[0] == {
    "read": 2,
    "kept": 1,
    "skipped_duplicate": 1,
  }
  converted("conversations", tmp_path / "mine.json", outs[2])
  scored, plain = source(outs[0]).train[0], source(outs[1]).train[0]
  assert (scored.scores, plain.scores) == ((4.0, 2.0), ())
  assert [side.tolist() for side in scored.sides] == [[*b"3", 256], [*b"4", 256]]
  assert scored.prompt.tolist() == plain.prompt.tolist()
  assert [side.tolist() for side in source(outs[2], "responses").train[0].sides] == [[*b"g3", 256]]


def test_bad_input_leaves_the_old_file(tmp_path):
  rows = [{"problem": "1?", "answer": "1"}, {"text": "of another set"}]
  path, out = lines(tmp_path / "a.jsonl", rows), tmp_path / "out/new.jsonl"
  out.parent.mkdir()
  out.write_text("old")
  with pytest.raises(ValueError, match=r"a\.jsonl, line 2: no field problem .* it has text"):
    command.convert("problems", [str(path)], out)
  path = lines(tmp_path / "b.jsonl", [{"problem": "1?", "answer": ""}])
  with pytest.raises(ValueError, match=r"no row is left.\n.*read +1\n"):
    command.convert("problems", [str(path)], out)
  with pytest.raises(ValueError, match=r"b\.jsonl, line 1: no prompt in any of problem, "):
    command.convert("problems", [], out, without=[str(lines(path, [{"text": "?"}]))])
  assert [file.name for file in out.parent.iterdir()] == ["new.jsonl"]
  assert out.read_text() == "old"


@pytest.mark.parametrize(
  "name, rows, message",
  [
    ("a.csv", [], r"must end in \.jsonl or \.parquet"),
    ("a.parquet", [{"problem": "?", "answer": "1"}], "Parquet is for chats, but problem is"),
    ("a.parquet", [{"messages": ASK}, {"messages": ASK, "score": 1.0}], "rows differ in columns"),
    ("a.parquet", [{"messages": [ASK[0] | {"name": "x"}]}], "more than role and content"),
  ],
)
def test_what_a_file_cannot_hold_is_an_error(tmp_path, name, rows, message):
  with pytest.raises(ValueError, match=message):
    writing.write(tmp_path / name, rows)
  assert not any(tmp_path.iterdir())


def test_files_of_a_folder(tmp_path):
  lines(tmp_path / "data/train.jsonl", [{}])
  (tmp_path / "README.md").write_text("x")
  one = SETS["problems"]
  assert files.find(one, str(tmp_path), "") == [str(tmp_path / "data/train.jsonl")]
  with pytest.raises(ValueError, match=r"no file like test\.jsonl or \*/test.*, but data/train"):
    files.find(SETS["math500"], str(tmp_path), "test")
  lines(tmp_path / "data/test.jsonl", [{}])
  assert files.find(SETS["math500"], str(tmp_path), "test") == [str(tmp_path / "data/test.jsonl")]
  lines(tmp_path / "test.jsonl", [{}])  # the first pattern finds it
  assert files.find(SETS["math500"], str(tmp_path), "test") == [str(tmp_path / "test.jsonl")]
  (tmp_path / "data/test.jsonl").unlink()
  lines(tmp_path / "data/more.jsonl", [{}])
  found = files.find(one, str(tmp_path), "train", ["*/{split}.*", "*more*", "data/*"])
  assert [pathlib.Path(path).name for path in found] == ["train.jsonl", "more.jsonl"]
  with pytest.raises(ValueError, match=r"there is no file or folder \./none\."):
    files.find(one, "./none", "")


def test_the_hub(tmp_path, monkeypatch):
  downloads = []

  def download(hub_id, name, *, repo_type, revision):
    downloads.append((hub_id, name, repo_type, revision))
    return str(tmp_path / name)

  names = ["README.md", "main/train-0.parquet", "main/test-0.parquet", "socratic/train-0.parquet"]
  api = types.SimpleNamespace(list_repo_files=lambda hub_id, **_: names)
  hub = types.SimpleNamespace(HfApi=lambda: api, hf_hub_download=download)
  monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
  one = SETS["gsm8k"]
  assert files.find(one, one.hub, "test") == [str(tmp_path / "main/test-0.parquet")]
  assert downloads == [("openai/gsm8k", "main/test-0.parquet", "dataset", "main")]

  def refuse(*_, **__):
    raise RuntimeError("no such repository")

  api.list_repo_files = refuse
  with pytest.raises(ValueError, match="a/b is no file or folder here, and the hub says: no such"):
    files.find(one, "a/b", "test")
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(ValueError, match="downloads need huggingface_hub: pip install it, or give"):
    files.find(one, one.hub, "test")


# The command


@pytest.mark.parametrize(
  "arguments, found",
  [
    (("gsm8k", "", "", "", []), ("openai/gsm8k", "train", "data/gsm8k.jsonl")),
    (("gsm8k", "", "test", "", []), ("openai/gsm8k", "test", "data/gsm8k_test.jsonl")),
    (("gpqa", "down", "main", "", []), ("down", "main", "data/gpqa_main.jsonl")),
    (("problems", "a.json", "x", "b.jsonl", ["{split}*"]), ("a.json", "x", "b.jsonl")),
    (("aime24", "", "test", "", []), "aime24 has no splits, got --split=test"),
    (("problems", "", "", "", []), "problems needs --from=FILE_OR_FOLDER"),
    (("problems", "a.json", "", "", []), "problems needs --out=FILE"),
    (
      ("problems", "a.json", "", str(ROOT / "setup.py"), []),
      r"setup\.py is there .*; --force repl",
    ),
    (("gsm8", "", "", "", []), r"no set 'gsm8'; did you mean gsm8k\? There are gsm8k, math"),
  ],
)
def test_flags(arguments, found):
  if isinstance(found, str):
    with pytest.raises(ValueError, match=found):
      command.checked(*arguments)
  else:
    assert tuple(map(str, command.checked(*arguments, force=True))) == found


def test_the_command(tmp_path):
  rows = [{"question": "1 pen and 1?", "answer": "#### 2"}]
  lines(tmp_path / "down/test.jsonl", rows)
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  program = [sys.executable, "-m", "lcrl.commands.data", "gsm8k", "--from=down", "--split=test"]
  options = dict(cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
  done = subprocess.run(program, **options)
  assert done.returncode == 0, done.stderr
  assert "kept         1\ndata/gsm8k_test.jsonl\nLicence: MIT." in done.stdout
  assert read(tmp_path / "data/gsm8k_test.jsonl") == rows
  report = json.loads((tmp_path / "data/gsm8k_test.counts.json").read_text())
  assert (report["files"], report["kept"]) == (["down/test.jsonl"], 1)


def test_the_list_names_every_set_and_its_file():
  text = command.listing()
  for name, one in SETS.items():
    assert f"\n{name}: {one.about}\n" in text
    assert (
      not one.hub or f"{one.hub}{', split ' * bool(one.split)}{one.split} -> data/{name}." in text
    )
  outs = {str(command.default_out(name, one.split)) for name, one in SETS.items()}
  outs.add(str(command.default_out("gsm8k", "test")))
  assert outs >= {*re.findall(r'"(data/.*?)"', (ROOT / "configs/common.py").read_text())}


@pytest.mark.parametrize(
  "row, name",
  [
    (turns("hg"), "conversations"),
    (PAIRS["argilla"][0], "pairs"),
    (PAIRS["raw"][0], "pairs"),
    (PAIRS["sharegpt"][0], "pairs"),
    (verl(), "problems"),
  ],
)
def test_errors_of_data_sources_name_the_command(tmp_path, row, name):
  path = lines(tmp_path / "a.jsonl", [row])
  with pytest.raises(ValueError, match=rf"line 1: .*`lcrl-data {name} --from="):
    source(path)
  if name == "problems":
    with pytest.raises(ValueError, match=r"line 1: no field .*lcrl-data problems --from="):
      tasks.jsonl(str(path))
