"""Files of problems, and mathematics compared in workers."""

import json

import pyarrow.parquet
import pytest

from lcrl import tasks
from lcrl.registry import build
from lcrl.tasks import references, scorers
from lcrl.tasks.task import BadFormat
from lcrl.tasks.verify import Verifier

GSM8K: list[dict] = [
  {"question": "A pen costs 2 and a book 5. Both?", "answer": "2 + 5 = <<2+5=7>>7\n#### 7"},
  {"question": "A thousand pairs of shoes?", "answer": "1000 * 2 = 2000\n#### 2,000"},
]
MATH: list[dict] = [
  {"problem": "Half of $\\frac{1}{2}$?", "answer": "\\frac{1}{4}", "level": 1},
  {"problem": "Solve $x^2 = 2$ for $x > 0$.", "answer": "\\sqrt{2}", "level": 3},
]


def write(path, rows) -> str:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def make(path, rows=None, **spec):
  path = path if rows is None else write(path / "rows.jsonl", rows)
  return build(tasks, {"fn": "jsonl", "path": path, **spec}, field="task")


def test_gsm8k_layout(tmp_path):
  task = make(tmp_path, GSM8K, reference="after_hashes")
  assert [p.reference for p in task.prompts] == ["7", "2,000"]
  assert task.prompts[1].messages == ({"role": "user", "content": GSM8K[1]["question"]},)
  task = make(tmp_path, GSM8K, reference="after_hashes", verifier="number", extract="last_number")
  assert task.score("2000 shoes", task.prompts[1].reference) == 1.0
  assert task.score("20,000 shoes", task.prompts[1].reference) == 0.0


def test_math_layout(tmp_path):
  template = "{question} Put it in \\boxed{}."
  task = make(tmp_path, MATH, question="problem", difficulty="level", template=template)
  assert task.prompts[0].messages[0]["content"] == MATH[0]["problem"] + " Put it in \\boxed{}."
  assert [p.difficulty for p in task.prompts] == [1, 3]
  assert [p.id for p in task.prompts] == [0, 1]


def test_fields_are_kept_for_signals_by_name(tmp_path):
  task = make(tmp_path, MATH, question="problem", keep=("level",))
  assert [p.row for p in task.prompts] == [{"level": 1}, {"level": 3}]
  assert make(tmp_path, MATH, question="problem").prompts[0].row is None
  with pytest.raises(ValueError, match=r"line 1: no field 'pass_rate'; it has problem,"):
    make(tmp_path, MATH, question="problem", keep=("pass_rate",))


@pytest.mark.parametrize(
  "answer, reference, score",
  [
    ("so it is \\boxed{0.25}.", "\\frac{1}{4}", 1.0),
    ("$\\frac{2}{8}$", "\\frac{1}{4}", 1.0),
    ("The final answer is $2^{1/2}$", "\\sqrt{2}", 1.0),
    ("about $1.41$", "\\sqrt{2}", 0.0),
    ("\\boxed{2000}", "2,000", 1.0),
  ],
)
def test_mathematics_is_compared_not_text(answer, reference, score):
  assert scorers.math(answer, reference) == score


def test_formats():
  with pytest.raises(BadFormat):
    scorers.math("I do not know.", "7")
  with pytest.raises(BadFormat):
    scorers.number("seven", "7")
  with pytest.raises(ValueError, match="reference '' is no mathematics"):
    scorers.math("7", "")
  assert scorers.text("seven", "seven") == 1.0


def test_sympy_may_hang(tmp_path):
  task = make(tmp_path, GSM8K, reference="after_hashes")
  texts = ["7", "the answer is 9**9**9**9", "$7$", "none", "8"]
  with Verifier(task, workers=2, deadline=2.0) as verifier:
    verdicts = verifier.verify([(text, task.prompts[0]) for text in texts])
  assert [v.outcome.name for v in verdicts] == ["OK", "TIMEOUT", "OK", "BAD_FORMAT", "WRONG"]


@pytest.mark.parametrize(
  "content, message",
  [
    (b'{"question": "a", "answer": "1"}\n{"question": "a"\n', r"rows\.jsonl, line 2: .*delimiter"),
    (b'\n{"question": "caf\xe9", "answer": "1"}\n', r"rows\.jsonl, line 2: 'utf-8'.*0xe9"),
    (b'["question", "answer"]\n', r"rows\.jsonl, line 1: an object was expected, got \["),
    (b'{"question": "a", "anser": "1"}\n', r"line 1: no field 'answer'; it has question, anser"),
    (b'{"question": "a", "answer": " "}\n', r"line 1: whole finds nothing in the field 'answer'"),
    (b"\n\n", r"rows\.jsonl holds no rows"),
  ],
)
def test_a_bad_file_is_named(tmp_path, content, message):
  path = tmp_path / "rows.jsonl"
  path.write_bytes(content)
  with pytest.raises(ValueError, match=message):
    make(str(path))


@pytest.mark.parametrize(
  "row, message",
  [
    ({"question": None, "answer": "2"}, "line 2: the question 'question' is None"),
    ({"question": " ", "answer": "2"}, "line 2: the question 'question' is ' '"),
    ({"question": ["1+1?"], "answer": "2"}, r"line 2: the question 'question' is \['1\+1"),
    ({"question": "\ud800?", "answer": "2"}, "line 2: 'utf-8' codec can't encode"),
    ({"question": "1+1?", "answer": None}, "line 2: the answer 'answer' is None"),
    ({"question": "1+1?", "answer": True}, "line 2: the answer 'answer' is True"),
    ({"question": "1+1?", "answer": float("nan")}, "line 2: the answer 'answer' is nan"),
    ({"question": "1+1?", "answer": ["2", "3"]}, r"line 2: the answer 'answer' is \['2', '3'\]"),
    ({"question": "1+1?", "answer": ["$2$"]}, r"line 2: the answer 'answer' is \['\$2\$'\]"),
    ({"question": "1+1?", "answer": []}, r"line 2: the answer 'answer' is \[\]"),
    ({"question": "1+1?", "answer": {"value": 2}}, "line 2: the answer 'answer' is {'value'"),
    ({"question": "1+1?", "answer": "\\frac{1}{"}, "line 2: the verifier cannot compare.*frac"),
    ({"question": "1+1?", "answer": "2", "level": True}, "line 2: the difficulty 'level' is True"),
  ],
)
def test_a_bad_row_is_named(tmp_path, row, message):
  rows = [{"question": "1+1?", "answer": "2", "level": 1}, {"level": 1} | row]
  with pytest.raises(ValueError, match=message):
    make(tmp_path, rows, difficulty="level")


def test_references_are_compared_when_the_file_is_read(tmp_path, monkeypatch):
  rows = [{"question": "?", "answer": answer} for answer in ("7", "four", "five", "four", "7.5")]
  calls, verify = [], Verifier.verify
  monkeypatch.setattr(Verifier, "verify", lambda *args: calls.append(args) or verify(*args))
  for limit in (256, 1):  # here, and in the processes of a verifier
    assert not calls
    monkeypatch.setattr(references, "_IN_PROCESS", limit)
    with pytest.raises(ValueError, match=r"line 2: .*'four' is no number\. 1 more like it"):
      make(tmp_path, rows, verifier="number")
    assert len(make(tmp_path, rows, verifier="text").prompts) == 5
    assert len(make(tmp_path, rows, verifier="math").prompts) == 5
  assert len(calls) == 3


def test_numbers_are_answers(tmp_path):
  rows = [{"question": "?", "answer": answer} for answer in (7, 7.5, "$\\sqrt{2}$", "7")]
  task = make(tmp_path, rows, extract="boxed")
  assert [p.reference for p in task.prompts] == ["7", "7.5", "$\\sqrt{2}$", "7"]
  assert task.score("\\boxed{\\sqrt{2}}", task.prompts[2].reference) == 1.0
  assert type(task.prompts[0].reference) is str  # a worker imports nothing to unpickle it


def test_arrays_and_parquet_as_lines(tmp_path):
  lines = make(tmp_path, MATH, question="problem", difficulty="level")
  (tmp_path / "rows.json").write_text(json.dumps(MATH, indent=1))
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(MATH), tmp_path / "rows.parquet")
  for name in ("json", "parquet"):
    spec = {"fn": name, "question": "problem", "difficulty": "level"}
    task = build(tasks, spec | {"path": str(tmp_path / f"rows.{name}")}, field="task")
    assert list(task.prompts) == list(lines.prompts)
    with pytest.raises(ValueError, match=r"task\.extrakt is not an argument of"):
      build(tasks, spec | {"path": "x", "extrakt": "boxed"}, field="task")
  (tmp_path / "rows.json").write_text(json.dumps([MATH[0], {"problem": None, "answer": "1"}]))
  with pytest.raises(ValueError, match=r"rows\.json, row 2: the question 'problem' is None"):
    tasks.json(str(tmp_path / "rows.json"), question="problem")


def test_context_beside_a_question_is_not_dropped(tmp_path):
  row = {"question": "How many?", "answer": "5", "context": "Ann has 5 pens."}
  with pytest.raises(ValueError, match=r"line 1: context='Ann has 5 pens.' may belong to"):
    make(tmp_path, [row])
  told = row | {"question": "Ann has 5 pens. How many?"}
  assert len(make(tmp_path, [told, row | {"context": None}, row | {"context": ""}]).prompts) == 3


def test_wrong_names_are_named(tmp_path):
  with pytest.raises(ValueError, match=r"task.verifier.fn='maths' is not one of math"):
    make(tmp_path, GSM8K, verifier="maths")
  with pytest.raises(ValueError, match=r"task.reference.fn='hashes' is not one of"):
    make(tmp_path, GSM8K, reference="hashes")
  with pytest.raises(ValueError, match=r"line 1: the difficulty 'question' is 'A pen"):
    make(tmp_path, GSM8K, difficulty="question")
  with pytest.raises(ValueError, match=r"task: .*No such file .*absent\.jsonl"):
    make(str(tmp_path / "absent.jsonl"))
