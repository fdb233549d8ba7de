"""Prompts without a verifier: their files, and evaluations of runs whose config has no task."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from lcrl import tasks
from lcrl.commands import evaluate as command
from lcrl.commands.command import read_call, read_calls
from lcrl.evaluation import measure
from lcrl.registry import build
from lcrl.training import loop
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.pairs.learner import build_learner
from lcrl.training.pairs.settings import read
from tests.helpers.evaluate_flags import flags
from tests.helpers.pair_runs import changed
from tests.helpers.saved_runs import CONFIG as RL

ROWS: list[dict] = [
  {"prompt": "Say hello.", "category": "chat", "words": 5},
  {"messages": [{"role": "user", "content": "Name a bird."}], "words": 10, "answer": "A gull."},
]


def write(path, rows) -> str:
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return str(path)


def make(path, **spec):
  return build(tasks, {"fn": "prompts", "path": str(path), **spec}, field="task")


def test_every_layout_keeps_the_fields_of_its_rows(tmp_path):
  write(tmp_path / "rows.jsonl", ROWS)
  (tmp_path / "rows.json").write_text(json.dumps(ROWS))
  columns = {"instruction": ["Say hello."], "category": ["chat"]}
  pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
  for name in ("rows.jsonl", "rows.json"):
    task = make(tmp_path / name)
    assert [p.messages[0]["content"] for p in task.prompts] == ["Say hello.", "Name a bird."]
    assert task.prompts[0].row == {"category": "chat", "words": 5}
    assert not task.judged
  (prompt,) = make(tmp_path / "rows.parquet").prompts
  assert prompt.row == {"instruction": "Say hello.", "category": "chat"}


def test_words_are_asked_for_by_field_and_by_reference(tmp_path):
  path = write(tmp_path / "rows.jsonl", ROWS)
  task = make(path, template="{prompt} Use {words} words.", system_prompt="Be kind.")
  assert [m["content"] for m in task.prompts[1].messages] == [
    "Be kind.",
    "Name a bird. Use 10 words.",
  ]
  with_context = [{"prompt": "Sum up.", "document": "Text."}]
  task = make(write(tmp_path / "long.jsonl", with_context), template="{prompt}\n{document}")
  assert task.prompts[0].messages[0]["content"] == "Sum up.\nText."
  path = write(tmp_path / "answers.jsonl", ROWS[1:])
  task = make(path, reference="answer", render={"fn": "reference_words"})
  shown = task.render(task.prompts[0], 64, 0).messages[-1]["content"]
  assert shown == "Name a bird.\nAnswer in 2 words."  # "A gull." has two


@pytest.mark.parametrize(
  ("row", "spec", "message"),
  [
    ({"text": "Hi"}, {}, "rows.jsonl, line 1: no column prompt or instruction or question"),
    ({"prompt": " "}, {}, "line 1: the prompt is empty"),
    ({"prompt": "Hi"}, {"template": "{topic}"}, "line 1: no field 'topic'; it has prompt"),
    ({"prompt": "Hi"}, {"reference": "answer"}, "line 1: no field 'answer'"),
    ({"prompt": "Hi", "passage": "P"}, {}, "line 1: passage may belong to the prompt"),
  ],
)
def test_bad_rows_are_named(tmp_path, row, spec, message):
  with pytest.raises(ValueError, match=message):
    make(write(tmp_path / "rows.jsonl", [row]), **spec)


def test_bad_files_and_references_are_named(tmp_path):
  with pytest.raises(ValueError, match=r"must end in \.jsonl, \.json, \.parquet"):
    make("prompts.csv")
  task = make(write(tmp_path / "rows.jsonl", ROWS), render={"fn": "reference_words"})
  with pytest.raises(ValueError, match="prompt 0 has no reference answer"):
    task.render(task.prompts[0], 64, 0)


def test_a_run_is_not_judged_by_prompts(tmp_path, one_device):
  path = write(tmp_path / "rows.jsonl", [{"prompt": "a3b5?"}])
  config = {**RL, "eval_task": {"fn": "prompts", "path": path}}
  with pytest.raises(ValueError, match="eval_task has no verifier to evaluate a run by"):
    loop.train(config, tmp_path / "run")


def test_nothing_is_right_or_wrong_without_a_verifier():
  found = measure(None, [[3, 5], [4, 4]], [0, 0])
  assert found["tokens"] == 4.0
  for name in ("accuracy", "tokens_right", "tokens_wrong"):
    assert found[name] is None
    assert found["by_difficulty"]["0"][name] is None
  assert found["accuracy_ci"] == [None, None]


@pytest.mark.parametrize("text", ["", "a b", "ruler(5)", "ruler(target=words", "x.y"])
def test_bad_calls_are_named(text):
  with pytest.raises(ValueError, match="--measures"):
    read_calls(text, "measures")


def test_calls_hold_paths_texts_and_calls():
  text = 'prompts(path=data/a.jsonl, render=suffix(templates=" Be brief."))'
  assert read_call(text, "task") == {
    "fn": "prompts",
    "path": "data/a.jsonl",
    "render": {"fn": "suffix", "templates": " Be brief."},
  }
  with pytest.raises(ValueError, match="--task names one thing"):
    read_call("a, b", "task")


def test_a_run_on_pairs_is_evaluated_on_prompts(tmp_path, rows, one_device, monkeypatch):
  """Its answers have lengths and no accuracy, in every file."""
  config, run = changed(rows), tmp_path / "run"
  run.mkdir()
  (run / "config.json").write_text(json.dumps({"config": config}))
  checkpoints = Checkpoints(run / "checkpoints")
  checkpoints.save(1, build_learner(read(config)).initial())
  checkpoints.close()
  path = write(tmp_path / "chats.jsonl", [{"prompt": "say a", "category": "x"}])
  task = f'prompts(path="{path}", render=suffix(templates=" {{target}}"))'
  given = flags(workdir=str(run), out=str(tmp_path / "out"), task=task, targets=["4", "8"])
  given.measures = "castillo"
  monkeypatch.setattr(command, "FLAGS", given)
  command.main(None)
  found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
  point = found["budgets"]["16"]
  assert point["accuracy"] is None
  assert point["tokens"] > 0
  assert not any(name.startswith("pass@") for name in point)
  measures = json.loads((tmp_path / "out" / "measures.json").read_text())["points"]
  means = [measures[f"budget 16, target {n}"]["castillo"]["tokens"] for n in (4, 8)]
  assert means == [asked["tokens"] for asked in found["asked"]]
  assert (tmp_path / "out" / "evaluation_asked.png").exists()
  assert "no accuracy" in (tmp_path / "out" / "evaluation.md").read_text()
  answers = [json.loads(x) for x in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
  assert len(answers) == 4  # two to each target
  for row in answers:
    assert row["correct"] is row["score"] is row["outcome"] is None
    assert row["row"] == {"category": "x"}
  settings, _ = command.read_flags(flags(workdir=str(run), task="chats.jsonl"))
  assert settings.eval_task == {"fn": "prompts", "path": "chats.jsonl"}
  for task, message in ((None, "name one, --task="), ("prompts", "task.path is missing")):
    given = flags(workdir=str(run), out=str(tmp_path / "out"), task=task)
    monkeypatch.setattr(command, "FLAGS", given)
    with pytest.raises(ValueError, match=message):
      command.main(None)
