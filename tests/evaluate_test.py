"""lcrl.commands.evaluate: what it measures at a budget, what it writes, and whole commands."""

import json

import numpy as np
import pytest

from lcrl.commands import evaluate as command
from lcrl.commands.evaluate import evaluate, read_flags, spread, training_data, write
from lcrl.commands.export import export
from lcrl.evaluation import measure
from lcrl.training import evaluator
from lcrl.training.evaluator import pooled
from tests.helpers.evaluate_flags import flags
from tests.helpers.saved_runs import CONFIG, save_run

pytestmark = pytest.mark.usefixtures("one_device")


def answers(right, lengths, cap):
  correct, lengths = np.array(right, bool), np.array(lengths)
  return {
    "correct": correct & (lengths < cap),
    "lengths": np.minimum(lengths, cap),
    "truncated": lengths >= cap,
    "valid": np.ones(correct.shape, bool),
    "difficulty": np.arange(len(correct)) % 2,
  }


def at_budget(arrays, cap, ks):
  return measure(**pooled([arrays])) | spread([arrays], cap, ks)


def test_pass_at_k_and_spread_of_length():
  found = at_budget(answers([[1, 0], [0, 0], [1, 1], [1, 0]], [[4, 6]] * 4, 9), 9, [1, 2])
  assert found["pass@1"] == found["accuracy"] == 0.5
  assert found["pass@2"] == 0.75  # three of four prompts have a right answer
  low, high = found["pass@2_ci"]
  assert 0 < low < 0.75 < high < 1
  assert found["lengths"]["max"] == 6
  assert not found["lengths"]["hit_cap"]


def test_k_answers_of_pass_at_k_ask_for_the_same_budget():
  """One of two prompts is right at either budget: no pass@2 from one answer to each of two."""
  parts = [answers([[1], [0]], [[4]] * 2, 9), answers([[0], [1]], [[4]] * 2, 9)]
  assert spread(parts, 9, [1])["pass@1"] == 0.5
  with pytest.raises(ValueError, match="k must lie between 1 and"):
    spread(parts, 9, [2])


def test_a_set_stands_for_its_largest_budget():
  points = {"9": {"accuracy": 0.1}, "128": {"accuracy": 0.7}, "16": {"accuracy": 0.4}}
  assert command.largest({"budgets": points}) == {"accuracy": 0.7}


def test_what_is_written(tmp_path):
  right, lengths = np.ones((8, 2)), 4 + np.arange(16).reshape(8, 2)
  found = {
    "model": "runs/laser",
    "step": 7,
    "task": {"fn": "arithmetic"},
    "samples": 2,
    "temperature": 1.0,
    "budgets": {str(cap): at_budget(answers(right, lengths, cap), cap, [2]) for cap in (8, 32)},
    "seed": 0,
    "wall_s": 1.0,
    "device": "CPU, 2 cores",
    "commit": "0123456789ab",
  }
  table = write(tmp_path / "out", found)
  assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == found
  rows = [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
  assert [row[:2] for row in rows] == [["8", "16"], ["32", "16"]]
  assert rows[0][4] == "75.0"  # 12 of 16 are at least 8 long
  assert rows[1][2].startswith("100.0 [")
  text = (tmp_path / "out" / "evaluation.md").read_text()
  assert "| 8 tokens | 1 | 8 |" in text
  assert (tmp_path / "out" / "evaluation.png").stat().st_size > 10_000


def test_the_answers_of_a_run_are_not_written_over(tmp_path):
  assert command.answers_file(tmp_path).name == "answers.jsonl"
  (tmp_path / "metrics.jsonl").touch()
  assert command.answers_file(tmp_path).name == "evaluation_answers.jsonl"
  with command.kept(tmp_path / "answers.jsonl") as keep:
    keep({"text": "\ud800"})  # half a surrogate pair
    assert not (tmp_path / "answers.jsonl").exists()
  assert json.loads((tmp_path / "answers.jsonl").read_text()) == {"text": "\ud800"}


def test_prompts_are_compared_with_the_data_that_trained(tmp_path):
  """Another task to evaluate on; pairs to learn from; data that are gone."""

  def seen(**sections):
    settings, _ = read_flags(flags(config={**CONFIG, **sections}))
    task = command.build(command.tasks, CONFIG["task"], field="task")
    tokenizer = command.build_tokenizer(settings)
    training = training_data(settings, tokenizer, task)
    return training.overlap([task.prompts[0], task.prompts[1]])

  assert seen()["training_prompts"] == 2
  apart = {"fn": "arithmetic", "size": 64, "seed": 0, "held_out": True}
  assert seen(task=apart, eval_task=CONFIG["task"])["training_prompts"] == 0
  gone = {"fn": "jsonl", "path": str(tmp_path / "gone.jsonl")}
  assert seen(task=gone, eval_task=CONFIG["task"])["training_prompts"] is None


def test_an_exported_model_answers_like_its_checkpoint(tmp_path, monkeypatch, capsys):
  """And a larger budget continues the answers of a smaller one. The command keeps them."""
  played, answer_all = [], evaluator.answer_all

  def spy(*arguments, **how):
    played.append(answer_all(*arguments, **how))
    return played[-1]

  monkeypatch.setattr(evaluator, "answer_all", spy)
  save_run(tmp_path / "run")
  export(tmp_path / "run", tmp_path / "model")
  budgets = ["5", "16"]
  run = evaluate(*read_flags(flags(workdir=str(tmp_path / "run"), budgets=budgets)))
  short, long = (answers["lengths"] for answers in played)
  assert long.max() > 5
  np.testing.assert_array_equal(short, np.minimum(long, 5))
  assert run["step"] == 1
  assert run["budgets"]["5"]["n"] == 12
  given = {"model": str(tmp_path / "model"), "budgets": budgets, "out": str(tmp_path / "out")}
  monkeypatch.setattr(command, "FLAGS", flags(config=CONFIG, **given))
  command.main(None)
  found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
  assert found["budgets"] == run["budgets"]
  assert found["evaluation"]["training_prompts"] == 6
  check_answers(tmp_path / "out" / "answers.jsonl", found["budgets"])
  said = capsys.readouterr().err
  assert said.startswith("Loading ")
  assert "at most 16 tokens: 6 of 6 prompts, " in said
  for text in (said, (tmp_path / "out" / "evaluation.md").read_text()):
    assert "THESE ARE THE TRAINING PROMPTS" in text
    assert f"Model: {tmp_path / 'model'}." in text
    assert "Temperature 1, at most 16 tokens" in text


def check_answers(path, budgets):
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  assert [row["budget"] for row in rows] == [5] * 12 + [16] * 12
  for cap, point in budgets.items():
    mine = [row for row in rows if row["budget"] == int(cap)]
    assert np.mean([row["correct"] for row in mine]) == point["accuracy"]
    assert np.mean([row["tokens"] for row in mine]) == pytest.approx(point["tokens"])
    assert np.mean([row["truncated"] for row in mine]) == point["truncated"]
    for row in mine:
      assert row["prompt"][0]["content"].endswith("?")
      assert len(row["raw_text"]) == row["tokens"]  # a character each, the end token among them
      assert row["text"] == row["raw_text"][: row["tokens"] - (not row["truncated"])]
      assert row["outcome"] in ("ok", "wrong", "bad_format")
      assert isinstance(row["reference"], int)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({}, "either --workdir or --config"),
    ({"config": CONFIG, "workdir": "run"}, "either --workdir or --config"),
    ({"config": CONFIG, "out": None}, "name --out"),
    ({"workdir": "/no/such/run"}, "/no/such/run is not a run folder"),
    ({"config": CONFIG, "budgets": ["16", "0"]}, "at least 1, got 0"),
    ({"config": CONFIG, "pass_at": ["3"]}, r"between 1 and 2 answers, got \[3\]"),
    ({"config": CONFIG, "control": ["top_p(0.9)"]}, "top_p.* has to be a name, or a call such as"),
    ({"config": CONFIG, "control": ["topp(p=1)"]}, "control.fn='topp' is not one of top_p"),
    ({"config": CONFIG, "sets": ["a"], "levels": ["1"]}, "are of eval_task, which --sets leaves"),
    ({"config": CONFIG, "sets": ["evaltask"]}, "there is no set 'evaltask'; there are eval_task"),
    ({"config": {**CONFIG, "speed": 1}}, "speed"),
    ({"config": CONFIG, "budgets": ["8", "many"]}, "budgets must be whole numbers, got 8,many"),
    ({"config": CONFIG, "temperature": -0.5}, "temperature must be .* at least 0, got -0.5"),
    ({"config": CONFIG, "temperature": float("nan")}, "temperature must be .* got nan"),
  ],
)
def test_bad_flags_are_named(given, message):
  with pytest.raises(ValueError, match=message):
    evaluate(*read_flags(flags(**given)))


@pytest.mark.slow
def test_a_path_between_two_models_starts_and_ends_at_them(tmp_path, monkeypatch):
  for seed, name in enumerate("ab"):
    save_run(tmp_path / f"run_{name}", {**CONFIG, "seed": seed})
    export(tmp_path / f"run_{name}", tmp_path / name)
  along, out = f"{tmp_path / 'a'}:{tmp_path / 'b'}", tmp_path / "out"
  given = {"along": along, "strengths": ["0.5", "0", "1"], "out": str(out)}
  monkeypatch.setattr(command, "FLAGS", flags(config=CONFIG, **given))
  command.main(None)
  found = json.loads((out / "path.json").read_text())["strengths"]
  assert list(found) == ["0.0", "0.5", "1.0"]
  for name, strength in (("a", "0.0"), ("b", "1.0")):
    alone = evaluate(*read_flags(flags(config=CONFIG, model=str(tmp_path / name))))["budgets"]
    assert found[strength]["budgets"] == json.loads(json.dumps(alone))
  assert (out / "strength_0.5" / "answers.jsonl").read_text().count("\n") == 12
  assert (out / "path.png").stat().st_size > 1000
  assert "| 16 | 0.5 |" in (out / "path.md").read_text()
  for wrong, message in (
    ({"along": "a"}, "along must name two folders, as A:B, got 'a'"),
    ({"strengths": ["x"]}, "strengths must be numbers, got x"),
    ({"strengths": ["nan"]}, "strengths must be finite numbers"),
    ({"model": "a"}, "--along needs --config, and neither"),
  ):
    monkeypatch.setattr(command, "FLAGS", flags(config=CONFIG, **{**given, **wrong}))
    with pytest.raises(ValueError, match=message):
      command.main(None)


@pytest.mark.slow
def test_further_sets_and_budgets_that_prompts_ask_for(tmp_path, monkeypatch):
  """Each set with its own samples and cap; flags take the place of the config's budgets."""
  suffix = {"fn": "suffix", "templates": "{target}?"}
  config = {
    **CONFIG,
    "eval": {"prompts": 3, "targets": (5, 9)},
    "eval_task": {**CONFIG["task"], "render": suffix},
    "eval_tasks": {"held_out": {**CONFIG["task"], "held_out": True, "max_tokens": 4}},
    "train": {**CONFIG["train"], "max_prompt_tokens": 14},
  }
  given = {"prompts": None, "samples": None, "out": str(tmp_path / "out"), "targets": ["3", "6"]}
  monkeypatch.setattr(command, "FLAGS", flags(config=config, **given))
  command.main(None)
  found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
  assert list(found["budgets"]) == ["16"]
  assert [point["label"] for point in found["asked"]] == ["3 tokens", "6 tokens"]
  assert found["asked"][1]["error"] == pytest.approx(found["asked"][1]["tokens"] - 6)
  assert list(found["tasks"]["held_out"]["budgets"]) == ["4"]
  assert found["tasks"]["held_out"]["tokens"] <= 4
  rows = [
    json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().split("\n")[:-1]
  ]
  asked = [(row["set"], row["budget"], row["target"]) for row in rows]
  assert (
    asked == [("eval_task", 16, 3)] * 3 + [("eval_task", 16, 6)] * 3 + [("held_out", 4, None)] * 3
  )
  assert all(row["prompt"][-1]["content"].endswith("?") for row in rows)
  text = (tmp_path / "out" / "evaluation.md").read_text()
  assert "## Further sets" in text
  assert "| 6 tokens |" in text
  forced = "budget_forcing(end_of_thinking='#', max_thinking_tokens=1, final_tokens='.')"
  given |= {"sets": ["held_out"], "targets": None, "control": ["top_k(k=1)", forced]}
  one = evaluate(*read_flags(flags(config=config, **given)))
  assert "tasks" not in one
  assert one["control"]["controls"][1]["final_tokens"] == "."
  assert one["budgets"]["4"]["tokens"] <= 3  # one of thinking, "#", "."
  assert one["task"]["held_out"]
