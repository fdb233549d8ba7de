"""The interactive page of lcrl-compare: its data, and what a browser makes of it."""

import functools
import json
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest

from lcrl.commands.compare import compare
from lcrl.commands.comparison import answers, curves, data, models, page
from lcrl.commands.run_folders import averaged, find, named
from lcrl.evaluation import plots
from tests.helpers.folders import (
  HOSTILE,
  evaluation_folder,
  path_folder,
  train_folder,
  write_lines,
)


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch):
  for name in ("pareto", "line", "curves"):  # tests/compare_test.py has them
    monkeypatch.setattr(plots, name, lambda *_: None)


def models_in(*folders):
  return models.models_of(named(averaged(find([str(folder) for folder in folders])[0])))


def compared(folders, out):
  """The page of a comparison, and its data."""
  compare([str(folder) for folder in folders], out)
  text = (out / "comparison.html").read_text(encoding="utf-8")
  (found,) = re.findall(
    r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL
  )
  return text, json.loads(found)


def test_curves_are_means_of_neighbouring_steps_and_of_seeds(tmp_path):
  homes = [tmp_path / "0", tmp_path / "1"]
  for home, more in zip(homes, (0.0, 0.2), strict=True):
    rows = [{"step": i, "time/step": 1.0, "accuracy": i / 10 + more} for i in range(1, 5)]
    rows[3]["accuracy"] = None  # not finite
    rows += [{"step": 4, "eval/accuracy": 1.0}]
    write_lines(home / "metrics.jsonl", rows)
  found = curves.curves(homes, points=2, seeds=True)
  assert found["step"] == [1.5, 3.5]
  # Steps 1 and 2: 15 % and 35 %; step 3 alone: 30 % and 50 %.
  assert found["mean"] == {"accuracy": [25, 40], "time/step": [1, 1]}
  assert found["seeds"] == {"accuracy": [[15, 30], [35, 50]]}
  assert curves.curves(homes, points=99, seeds=True)["step"] == [1, 2, 3, 4]
  assert curves.curves([tmp_path], points=2, seeds=True) == {}


def test_histograms_share_bins_and_tell_right_from_wrong(tmp_path):
  rows = [
    {"prompt": "p", "correct": c, "tokens": n} for c, n in ((True, 0), (True, 3), (False, 47))
  ]
  write_lines(tmp_path / "a" / "answers.jsonl", rows)
  write_lines(tmp_path / "b" / "answers.jsonl", [{"prompt": "p", "tokens": 4}, {"prompt": "q"}])
  made = [models.Model(name, (tmp_path / name,), []) for name in "abc"]
  found = answers.histograms(made)
  assert found["edges"] == [2 * i for i in range(25)]  # 24 bins up to 47 tokens
  a, b, c = found["models"]
  assert (a["right"][0], a["right"][1], sum(a["right"])) == (1, 1, 2)
  assert (a["wrong"][23], sum(a["wrong"])) == (1, 1)
  assert a["means"] == [1.5, 47]
  assert (b["judged"], b["wrong"][2]) == (False, 1)
  assert c is None
  assert answers.histograms(made[2:]) == {}


def test_only_the_last_answers_of_the_largest_cap_count(tmp_path):
  evaluation = evaluation_folder(tmp_path / "e", caps=(16, 64))
  source = answers.source_of(evaluation)
  assert source.words == "evaluation at the cap 64"
  assert {one.text[-2:] for one in answers.answers(source)} == {"64"}
  sets = (
    ("eval_task", 16),
    ("eval_task", 64),
    ("aime", 128),
  )  # of one evaluation: the first counts
  rows = [{"set": name, "budget": cap, "prompt": "p", "text": f"{name}{cap}"} for name, cap in sets]
  write_lines(tmp_path / "sets" / "answers.jsonl", rows)
  assert [x.text for x in answers.answers(answers.source_of(tmp_path / "sets"))] == ["eval_task64"]
  rows = [{"step": step, "prompt": "p", "response": str(step)} for step in (0, 10, 10)]
  write_lines(tmp_path / "p" / "answers.jsonl", rows)  # of a run on pairs
  assert [x.text for x in answers.answers(answers.source_of(tmp_path / "p"))] == ["10", "10"]
  rows = [{"step": step, "prompt": "p", "response": str(step)} for step in range(1, 41)]
  write_lines(tmp_path / "s" / "samples" / "1.jsonl", rows)
  source = answers.source_of(tmp_path / "s")
  assert source.words == "training, steps 37 to 40"  # the last tenth
  assert [x.text for x in answers.answers(source)] == ["37", "38", "39", "40"]
  assert answers.source_of(tmp_path) is None


def test_samples_are_matched_by_prompt_and_disagreement_comes_first(tmp_path):
  for name, right in (("a", (True, True)), ("b", (True, False))):
    rows = [
      {
        "prompt": [{"role": "user", "content": f" q{i} "}],
        "text": "x" * 40,
        "correct": c,
        "tokens": 3,
      }
      for i, c in enumerate(right)
    ]
    write_lines(tmp_path / name / "answers.jsonl", [*rows, {"prompt": f"alone {name}"}, "torn"])
  made = [models.Model(name, (tmp_path / name,), []) for name in "ab"]
  found = answers.side_by_side(made, prompts=3, letters=8)
  assert [row["prompt"] for row in found] == ["q1", "q0", "alone a"]
  assert found[0]["answers"] == {
    0: [["xxxxxx [... 32 characters ...] xx", True, 3, False]],
    1: [["xxxxxx [... 32 characters ...] xx", False, 3, False]],
  }


def test_evaluations_belong_to_the_run_in_their_folder(tmp_path):
  for seed in range(2):
    home = train_folder(tmp_path / "runs" / f"laser{seed}", "laser", seed=seed)
    evaluation_folder(home, caps=(16, 64), right=80 + 10 * seed)
  evaluation_folder(tmp_path / "plain", caps=(64,), asked=True)
  laser, plain = models_in(
    tmp_path / "runs" / "laser0", tmp_path / "runs" / "laser1", tmp_path / "plain"
  )
  assert (laser.name, plain.name) == ("laser", "plain")
  assert len(laser.results) == 5  # the mean of both seeds, and two caps of each
  (small, _) = models.budgets(laser)
  # 80 and 90 % less 12 points at a cap of 16; the interval holds both seeds, and no share above 1.
  assert small["cap"] == 16
  assert small["accuracy"][0] == pytest.approx(0.73)
  assert small["accuracy"][1] < 0.68 < 0.78 < small["accuracy"][2] <= 1
  assert models.budgets(plain)[0]["accuracy"][1] is not None  # over prompts
  assert [p["target"] for p in models.asked(plain)] == [10, 20, 40]


def without_verdicts(folder):
  record = json.loads((folder / "evaluation.json").read_text())
  for cap in record["budgets"].values():
    cap.update(accuracy=None, accuracy_ci=[None, None])
  (folder / "evaluation.json").write_text(json.dumps(record))
  return folder


def test_what_was_not_judged_has_no_point_and_its_lengths(tmp_path):
  folder = without_verdicts(evaluation_folder(tmp_path / "chat"))
  _, found = compared([folder], tmp_path / "out")
  assert found["groups"] == []
  assert found["models"][0]["budgets"][0]["accuracy"] == [None, None, None]
  assert found["models"][0]["budgets"][0]["tokens"][0] == 6


def test_a_torn_evaluation_beside_a_summary_is_skipped(tmp_path):
  folder = train_folder(tmp_path / "laser", "laser")
  (folder / "evaluation.json").write_text('{"budgets": 3}')
  text, found = compared([folder], tmp_path / "out")
  assert "evaluation.json is not what lcrl-evaluate writes" in text
  assert [model["name"] for model in found["models"]] == ["laser"]


def test_no_text_breaks_out_of_the_page(tmp_path):
  folder = train_folder(tmp_path / HOSTILE.replace("/", "_")[:40], "laser", text=HOSTILE)
  text, found = compared([folder], tmp_path / "out")
  assert text.count("</script") == 2
  assert "<img" not in text
  shown = next(iter(found["samples"][0]["answers"].values()))[0][0]
  assert HOSTILE.replace("\ud800", "?") in shown
  assert page.embedded("</SCRIPT><!--") == '"\\u003c/SCRIPT>\\u003c!--"'


def test_parts_that_are_missing_are_left_out_with_a_sentence(tmp_path):
  (tmp_path / "bare").mkdir()
  full = train_folder(tmp_path / "full", "laser")
  shutil.copy(full / "summary.json", tmp_path / "bare" / "summary.json")
  (tmp_path / "bare" / "path.json").write_text('{"strengths": {}}')
  text, found = compared([tmp_path / "bare"], tmp_path / "out")
  assert "path.json is not a path that lcrl-evaluate writes." in text
  for missing in ("budget curves: no eval", "learning curves: no folder", "samples: no folder"):
    assert f"There are no {missing}" in text
  (model,) = found["models"]
  assert model["curves"] == model["evaluations"] == found["histograms"] == {}
  assert model["budgets"] == model["asked"] == found["samples"] == found["paths"] == []
  assert len(found["groups"][0]["points"]) == 1


def test_many_runs_are_thinned_until_the_page_fits(tmp_path):
  for i in range(40):
    train_folder(
      tmp_path / "runs" / f"r{i}",
      f"method{i}",
      prompts=20,
      steps=120,
      text="long answer \u4e2d " * 400,
    )
  text, found = compared([tmp_path / "runs"], tmp_path / "out")
  assert len(text.encode()) < page.LIMIT
  assert len(found["models"]) == 40
  assert len(found["models"][39]["curves"]["step"]) >= 12
  assert len(found["models"][0]["curves"]["step"]) < 120
  assert all(len(row["answers"]) == 40 for row in found["samples"])
  assert "Curves have at most" in text


def test_what_does_not_fit_is_dropped_from_later_runs(tmp_path, monkeypatch):
  for i in range(8):
    train_folder(tmp_path / "runs" / f"r{i}", f"method{i}", prompts=8, text="words " * 900)
  full = len(compared([tmp_path / "runs"], tmp_path / "out")[0].encode())
  monkeypatch.setattr(page, "LIMIT", full - 20_000)
  text, found = compared([tmp_path / "runs"], tmp_path / "out")
  assert len(text.encode()) <= full - 20_000
  assert len(found["groups"][0]["points"]) == 8
  monkeypatch.setattr(page, "LIMIT", 10_000)
  with pytest.raises(ValueError, match="8 models are too many for one page"):
    compared([tmp_path / "runs"], tmp_path / "out")


def test_numbers_are_short():
  assert curves.rounded({"a": [1 / 3, 2.0, float("nan")], "b": (7, None, "x")}) == {
    "a": [0.3333, 2, None],
    "b": [7, None, "x"],
  }
  assert data._detail(1, 1.0).points == 200
  assert data._detail(40, 1.0).models == 40


CHROMIUM = next(
  filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
HELPERS = pathlib.Path(__file__).parent / "helpers"
PROBE = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
</script>
"""
QUESTIONS = f"<script>{{\n{(HELPERS / 'page_questions.js').read_text()}}}</script>"


@functools.cache
def starts():
  """Whether Chromium can draw here."""
  return CHROMIUM is not None and "<title>works" in dump("data:text/html,<title>works</title>")


def dump(url, *options):
  command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", *options, url]
  done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
  return done.stdout


def ask(html, folder, width=1400):
  """What the page in a browser answers to QUESTIONS."""
  if not starts():
    pytest.skip("no Chromium that starts is installed: apt-get install chromium")
  probe = folder / "probe.html"
  head, rest = html.split("<style>", 1)
  probe.write_text(f"{head}{PROBE}<style>{rest}{QUESTIONS}", encoding="utf-8", errors="replace")
  shown = dump(probe.as_uri(), f"--window-size={width},1000", "--virtual-time-budget=8000")
  (found,) = re.findall(r'<pre id="answer">(.*?)</pre>', shown, re.DOTALL)
  return json.loads(found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.mark.parametrize("width", [1400, 420])
def test_a_browser_shows_everything_of_many_runs(tmp_path, width):
  rng = np.random.default_rng(1)
  for i in range(12):
    method = f"a_method_with_a_long_name_{i}"
    right, tokens = int(rng.integers(60, 99)), int(rng.integers(8, 60))
    for seed in range(2):
      folder = tmp_path / "runs" / f"{method}-{seed}"
      train_folder(folder, method, right=right + seed, tokens=tokens, seed=seed, text=HOSTILE)
    if i < 3:
      evaluation_folder(folder, right=right, asked=True)
  path_folder(tmp_path / "path")
  html, _ = compared([tmp_path / "runs", tmp_path / "path"], tmp_path / "out")
  found = ask(html, tmp_path, width)
  assert found["errors"] == []
  assert found["title"].startswith("Comparison of ")  # no sample ran
  assert found["overlaps"] == found["all"] == []
  charts = {name: count for name, count, _ in found["sections"]}
  assert charts["front"] == 1
  assert all(charts[name] for name in ("budgets", "asked", "paths", "learning", "terms", "lengths"))
  assert found["selected"] == found["checked"] == 7  # of 15
  assert abs(found["clicked"] - 7) == 1
  assert found["entered"] == 7
  assert found["focused"]
  assert re.search(r"accuracy .* % \[.*tokens", found["hover"])
  assert "training step 40" in found["cursor"]
  assert found["zoomed"] == [0, 10]
  assert found["none"] == 12


def test_a_browser_shows_one_run(tmp_path):
  html, _ = compared([train_folder(tmp_path / "laser", "laser", right=100)], tmp_path / "out")
  found = ask(html, tmp_path)
  assert found["errors"] == found["overlaps"] == []
  assert found["selected"] == 1
  assert found["none"] == 1


def test_a_browser_shows_what_was_not_judged(tmp_path):
  html, _ = compared([without_verdicts(evaluation_folder(tmp_path / "chat"))], tmp_path / "out")
  found = ask(html, tmp_path)
  assert found["errors"] == found["overlaps"] == []
  assert {name: count for name, count, _ in found["sections"]}["budgets"] == 2
