"""Reports say what the numbers say, and pictures get drawn for one run, many runs and seeds."""

import re

import numpy as np
import pytest
from matplotlib.image import imread

from lcrl.evaluation import measure, plots, pool, summary, tables
from lcrl.evaluation.report import collapsed, verdict, write_report

ABOUT = {"wall_s": 30.0, "device": "CPU, 2 cores", "commit": "0123456789ab"}


def run(reward, right, tokens, *, seed=0, start=(90, 30)):
  """100 prompts of difficulties 2 and 3, so many answers right and so long."""

  def point(right, tokens):
    correct, lengths = np.arange(100)[:, None] < right, np.full((100, 1), tokens)
    return measure(correct, lengths, 2 + np.arange(100) % 2)

  return summary(point(right, tokens), point(*start), reward=reward, seed=seed, **ABOUT)


RUNS = {
  "correctness": run("correctness", 97, 24),
  "laser": run("laser", 96, 12),
  "naive": run("naive", 20, 4),
}


def test_verdicts_follow_the_numbers():
  base = RUNS["correctness"]
  told = verdict("laser", RUNS["laser"], base, "correctness")
  assert "50 % fewer tokens than correctness (12.0 against 24.0)" in told
  assert "1.0 points below it (within the noise" in told
  told = verdict("naive", RUNS["naive"], base, "correctness")
  assert "collapsed: 4.0 tokens instead of correctness's 24.0, and 20.0 % right" in told
  worse = verdict("short", run("short", 70, 12), base, "correctness")
  assert "27.0 points below it (beyond the noise" in worse
  assert "collapsed" not in worse


@pytest.mark.parametrize(
  ("right", "tokens", "expected"),
  [(20, 4, True), (20, 40, False), (45, 4, False), (97, 4, False)],
)  # 45 of 100 is less than half of 97, but its interval is not
def test_collapse_is_stated_only_when_sure(right, tokens, expected):
  assert collapsed(run("x", right, tokens), RUNS["correctness"]) is expected


def test_report_holds_table_words_pictures_and_origin(tmp_path):
  curves = {"laser": {"step": [0, 5], "accuracy": [[0.9, 0.96]] * 2, "tokens": [30, 12]}}
  path = write_report(tmp_path, RUNS, title="Three", command="make demo SEED=0", curves=curves)
  text = path.read_text()
  assert "| start |  | 90.0 [" in text
  row = next(line for line in text.splitlines() if line.startswith("| laser *"))
  cells = [cell.strip().replace("\u2212", "-") for cell in row.split("|")]
  assert cells[5:9] == ["+6.0", "-60.0 %", "-1.0", "-50.0 %"]
  assert re.search(r"\| laser \| 3 \| 50 \| 96\.0 \[", text)
  for needed in ("make demo SEED=0", "Seeds 0; CPU, 2 cores; commit 0123456789ab; 90 s"):
    assert needed in text
  for name in re.findall(r"\]\((\w+\.png)\)", text):
    picture = imread(tmp_path / name)
    assert picture.shape[1] > 900
    assert picture[..., :3].std() > 0.02  # not a blank page
  assert text.count(".png") == 3


def test_report_of_one_run_speaks_of_the_start(tmp_path):
  text = write_report(tmp_path, {"laser": RUNS["laser"]}, title="One", command="x").read_text()
  assert "60 % fewer tokens than the start" in text
  assert "correctness" not in text
  with pytest.raises(ValueError, match="no runs"):
    write_report(tmp_path, {}, title="None", command="x")


def test_pictures_of_edge_cases(tmp_path):
  """Equal points, nothing right, one prompt without an interval, seeds, word difficulties."""
  lone = summary(*[measure([[1]], [[5]], ["easy"])] * 2, reward="lone", seed=0, **ABOUT)
  seeds = pool([run("laser", 96, 12, seed=s) for s in range(3)])
  cases = {"a": RUNS["laser"], "b": RUNS["laser"], "none": run("n", 0, 1), "lone": lone, "s": seeds}
  plots.pareto(tmp_path / "p.png", cases)
  plots.by_difficulty(tmp_path / "d.png", cases)
  plots.curves(tmp_path / "c.png", {"a": {"step": [0], "accuracy": [0.5], "tokens": [3]}})
  assert len(list(tmp_path.glob("*.png"))) == 3
  csv = tables.to_csv(tables.rows(cases, baseline="a")).splitlines()
  assert len(csv) == 6
  assert "nan" not in "".join(csv)
