"""lcrl.commands.compare: seeds are averaged, rewards are told apart, bad folders are named."""

import csv
import re

import pytest

from lcrl.commands import compare as program
from lcrl.commands.compare import compare, gather
from lcrl.evaluation import plots, write_json
from tests.helpers.folders import evaluation_folder, train_folder
from tests.helpers.summaries import run


def save(folder, reward, right, tokens, seed=0, config=None, **more):
  folder.mkdir(parents=True)
  write_json(folder / "summary.json", run(reward, right, tokens, seed=seed) | more)
  if config is not None:
    write_json(folder / "config.json", {"config": {**config, "seed": seed}})
  return str(folder)


CONFIG = {
  "reward": {"fn": "step_bonus", "alpha": 0.5},
  "task": {"fn": "jsonl", "path": "train.jsonl"},
  "policy": {"fn": "pretrained", "path": "some/model"},
  "sampling": {"temperature": 1.0},
  "train": {"steps": 10, "max_tokens": 64},
}


def having(**sections):
  return {name: {**CONFIG[name], **sections.get(name, {})} for name in CONFIG}


def test_seeds_are_averaged_and_files_written(tmp_path):
  for seed, tokens in enumerate((10, 12, 14)):
    save(tmp_path / "runs" / "laser" / f"seed{seed}", "laser", 96, tokens, seed)
  save(tmp_path / "runs" / "correctness", "correctness", 97, 24)
  folders = sorted(str(p) for p in (tmp_path / "runs").iterdir())
  out = tmp_path / "out"
  compare(folders, out, baseline="correctness")
  rows = list(csv.DictReader((out / "comparison.csv").read_text().splitlines()))
  assert [row["run"] for row in rows] == ["correctness", "laser"]
  assert float(rows[1]["tokens"]) == 12.0
  assert rows[1]["seeds"] == "3"
  assert float(rows[1]["vs_baseline_tokens_percent"]) == pytest.approx(-50)
  page = (out / "comparison.html").read_text()
  assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # self-contained
  assert "| laser * | 3 |" in (out / "comparison.md").read_text()
  assert (out / "pareto.png").stat().st_size > 10_000


def test_what_only_sums_up_is_left_out(tmp_path):
  save(tmp_path / "demo", "laser", 50, 99)
  save(tmp_path / "demo" / "laser" / "seed0", "laser", 96, 12)
  save(tmp_path / "demo" / "naive", "naive", 20, 4)
  assert {k: v["tokens"] for k, v in gather([str(tmp_path / "demo")]).items()} == {
    "laser": 12.0,
    "naive": 4.0,
  }


def test_equal_rewards_in_two_folders_stay_two_runs(tmp_path):
  a, b = (save(tmp_path / name, "laser", 96, 12) for name in "ab")
  assert list(gather([a, b])) == ["a/laser", "b/laser"]
  save(tmp_path / "sweep" / "one", "laser", 96, 12)
  save(tmp_path / "sweep" / "two", "laser", 90, 8)
  assert len(gather([str(tmp_path / "sweep")])) == 2  # one seed twice is a sweep


def test_bad_folders_are_named(tmp_path):
  with pytest.raises(ValueError, match="no run folders"):
    gather([])
  with pytest.raises(ValueError, match="missing is not a folder"):
    gather([str(tmp_path / "missing")])
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match=r"empty holds no summary\.json"):
    gather([str(tmp_path / "empty")])
  (tmp_path / "empty" / "summary.json").write_text('{"accuracy": ')
  with pytest.raises(ValueError, match=r"empty/summary\.json is not valid JSON"):
    gather([str(tmp_path / "empty")])


def test_what_has_no_result_is_skipped_and_said(tmp_path):
  """The README's `compare runs/* --out=runs/compared`, while some still run, and once more."""
  runs = tmp_path / "runs"
  save(runs / "good", "laser", 96, 12, config=CONFIG)
  save(runs / "stopped", "laser", 90, 30, config=CONFIG, stopped=3, accuracy=None)
  save(runs / "goes_on", "laser", 90, 30, seed=1, config=CONFIG)  # past its summary
  (runs / "goes_on" / "metrics.jsonl").write_text('{"step": 4}\n{"step": 5}\n{"st')
  save(runs / "broken", "laser", 90, 30)
  (runs / "broken" / "summary.json").write_text('{"accuracy": ')
  save(runs / "wrong", "laser", 90, 30, accuracy=7.0)
  save(runs / "nan", "laser", 90, 30)
  text = (runs / "nan" / "summary.json").read_text()
  (runs / "nan" / "summary.json").write_text(text.replace("30.0", "NaN", 1))
  (runs / "new").mkdir()
  (runs / "new" / "config.json").write_text('{"config": {}}')
  (runs / "running").mkdir()
  (runs / "running" / "metrics.jsonl").write_text('{"step": 1}\n')
  (runs / "notes.txt").write_text("")
  for again in (False, True):
    text = compare(sorted(map(str, runs.iterdir())), runs / "compared")
    assert "| laser * | 1 | 96.0 [" in text
    for name, why in {
      "stopped": "is unfinished: stopped after step 3, not evaluated yet",
      "goes_on": "is unfinished: it is at step 5 of 10",
      "broken": "summary.json is not valid JSON",
      "wrong": "summary.json: accuracy is 7.0",
      "nan": "tokens is nan",
      "new": "is a run without a result",
      "running": "is a run without a result",
      "notes.txt": "holds no summary.json",
      **({"compared": "is a comparison"} if again else {}),
    }.items():
      assert re.search(rf"Skipped: \S+{re.escape(name)}.*{re.escape(why)}", text)
    assert text.count("Skipped") == 8 + again
    assert "Skipped" in (runs / "compared" / "comparison.html").read_text()


def test_an_unknown_baseline_is_refused_with_the_names_there_are(tmp_path):
  folders = [save(tmp_path / name, name, 96, 12) for name in ("laser", "naive")]
  with pytest.raises(ValueError, match="--baseline=lazer is none of laser, naive"):
    compare(folders, tmp_path / "out", baseline="lazer")
  assert "points from naive" in compare(folders, tmp_path / "out", baseline="naive")
  assert "points from start" in compare(folders, tmp_path / "out")  # no correctness: fine
  folders += [save(tmp_path / "plain", "correctness", 97, 20, method="grpo")]
  assert "points from grpo" in compare(folders, tmp_path / "out")  # it has no bonus and no price


def test_seeds_are_averaged_only_where_configs_differ_in_the_seed_alone(tmp_path):
  same = [save(tmp_path / f"s{i}", "laser", 96, 10 + i, seed=i, config=CONFIG) for i in range(3)]
  other = having(reward={"alpha": 0.9})
  same += [save(tmp_path / "other", "laser", 90, 9, seed=3, config=other)]
  text = compare(same, tmp_path / "out")
  rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines()))
  assert [(row["group"], row["seeds"], row["tokens"]) for row in rows] == [
    ("1", "3", "11.0"),
    ("1", "1", "9.0"),
  ]
  assert "| reward.alpha | 0.5 | 0.9 |" in text
  again = [*same, save(tmp_path / "again", "laser", 96, 10, seed=0, config=CONFIG)]
  assert len(gather(again)) == 5  # one seed twice: which of them counts?


@pytest.mark.parametrize(
  ("config", "said"),
  [
    (having(task={"path": "other.jsonl"}), "data: jsonl, path=other.jsonl"),
    (having(policy={"path": "another/model"}), "model: another/model"),
    (having(train={"max_tokens": 32}), "max_tokens: 32"),
    (having(sampling={"temperature": 0.5}), "temperature: 0.5"),
    ({**CONFIG, "eval": {"temperature": 0}}, "temperature: 0; in the first: 1.0"),
    ({**CONFIG, "eval": {"prompts": 7}}, "prompts: 7; in the first: not known"),
  ],
)
def test_what_was_measured_differently_shares_no_front(tmp_path, config, said):
  folders = [save(tmp_path / name, name, 96, 12, config=CONFIG) for name in ("a", "b")]
  folders += [save(tmp_path / "c", "c", 20, 40, config=config)]
  text = compare(folders, tmp_path / "out", baseline="a")
  assert "Not comparable with the first group" in text
  assert said in text
  assert "| c * | 1 |" in text  # the best of its own group
  assert (tmp_path / "out" / "pareto_2.png").exists()
  assert "## Group 2" in (tmp_path / "out" / "comparison.md").read_text()


def test_the_setup_of_a_summary_goes_before_its_config(tmp_path):
  made_on = {"data": {"fn": "jsonl"}, "model": "m", "prompts": 4, "max_tokens": 64}
  made_on |= {"temperature": 0.0, "training_prompts": 4, "compared_with": 9, "of": 9}
  folders = [
    save(tmp_path / "a", "a", 96, 12, config=CONFIG, evaluation=made_on, method="idea"),
    save(tmp_path / "b", "b", 96, 12, config=CONFIG, evaluation=made_on),
  ]
  text = compare(folders, tmp_path / "out")
  assert "Group" not in text
  assert "| idea * |" in text
  assert text.count("THESE ARE THE TRAINING PROMPTS: 4 of the 4") == 1


def test_further_evaluation_sets_have_a_table(tmp_path):
  keys = ("accuracy", "accuracy_ci", "tokens", "tokens_ci")
  point = {key: x for key, x in run("x", 50, 40).items() if key in keys}
  folders = [save(tmp_path / "a", "a", 96, 12, tasks={"math500": point})]
  folders += [save(tmp_path / "b", "b", 96, 14)]
  text = compare(folders, tmp_path / "out")
  assert "| further evaluation sets | math500: accuracy, % | math500: tokens |" in text
  assert "| a | 50.0 [40.2, 59.8] | 40.0 [40.0, 40.0] |" in text
  assert "| b | - | - |" in text
  save(tmp_path / "more" / "a", "a", 96, 12, seed=0, tasks={"math500": point})
  other = point | {"accuracy": 0.7}
  save(tmp_path / "more" / "b", "a", 96, 12, seed=1, tasks={"math500": other, "aime": point})
  pooled = gather([str(tmp_path / "more")])["a"]["tasks"]
  assert pooled.keys() == {"math500"}  # all seeds have it
  assert pooled["math500"]["accuracy"] == pytest.approx(0.6)


def test_pictures_of_caps_and_steps_are_drawn(tmp_path, monkeypatch):
  drawn = {}
  for name in ("line", "curves"):
    monkeypatch.setattr(plots, name, lambda path, x: drawn.update({path.name: x}))
  for seed in range(2):
    home = train_folder(tmp_path / f"laser{seed}", "laser", seed=seed)
    evaluation_folder(home, caps=(64, 16), right=80 + 10 * seed)
  compare([str(tmp_path)], tmp_path / "out")
  assert [label for label, _ in drawn["budgets.png"]["laser"]] == ["16", "64"]
  assert drawn["budgets.png"]["laser"][0][1]["accuracy"] == pytest.approx(0.73)  # of both seeds
  assert len(drawn["curves.png"]["laser"]["tokens"]) == 40
  assert max(drawn["curves.png"]["laser"]["accuracy"]) <= 1
  assert "(budgets.png)" in (tmp_path / "out" / "comparison.md").read_text()
  monkeypatch.setattr(program, "MOST_LINES", 0)
  compare([str(tmp_path / "laser0")], tmp_path / "again")
  assert "(budgets.png)" not in (tmp_path / "again" / "comparison.md").read_text()


def test_evaluations_are_read(tmp_path):
  """Each budget is a result; budgets are told apart, models are compared."""
  folders = []
  for name, right in (("plain", 90), ("laser", 95)):
    (tmp_path / name).mkdir()
    point = {k: v for k, v in run(name, right, 12).items() if k in ("accuracy", "tokens")}
    point |= {"accuracy_ci": [0.5, 1.0], "tokens_ci": [None, None], "by_difficulty": {}}
    found = {"budgets": {"16": point, "64": point}, "temperature": 1.0, "seed": 0, "wall_s": 1.0}
    found |= {"task": {"fn": "jsonl"}, "device": "CPU, 2 cores", "commit": "0123456789ab"}
    write_json(tmp_path / name / "evaluation.json", found)
    folders.append(str(tmp_path / name))
  compare(folders, tmp_path / "out", baseline="plain, 16 tokens")
  rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines()))
  assert [(row["group"], row["run"]) for row in rows] == [
    ("1", "plain, 16 tokens"),
    ("1", "laser, 16 tokens"),
    ("2", "plain, 64 tokens"),
    ("2", "laser, 64 tokens"),
  ]
  assert float(rows[1]["vs_baseline_points"]) == pytest.approx(5)
  assert rows[0]["start_accuracy"] == rows[3]["vs_baseline_points"] == ""
  (tmp_path / "plain" / "evaluation.json").write_text('{"budgets": 3}')
  with pytest.raises(ValueError, match=r"evaluation\.json is not what lcrl-evaluate writes"):
    gather(folders[:1])
