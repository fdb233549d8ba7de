"""experiments.compare: seeds are averaged, rewards are told apart, bad folders are named."""

import csv
import re

import pytest

from experiments.compare import compare, gather
from lcrl.evaluation import write_json
from tests.evaluation_report_test import run


def save(folder, reward, right, tokens, seed=0):
  folder.mkdir(parents=True)
  write_json(folder / "summary.json", run(reward, right, tokens, seed=seed))
  return str(folder)


def test_seeds_are_averaged_and_files_written(tmp_path):
  for seed, tokens in enumerate((10, 12, 14)):
    save(tmp_path / "runs" / "laser" / f"seed{seed}", "laser", 96, tokens, seed)
  save(tmp_path / "runs" / "correctness", "correctness", 97, 24)
  folders = sorted(str(p) for p in (tmp_path / "runs").iterdir())
  out = tmp_path / "out"
  compare(folders, out, baseline="correctness")
  rows = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
  assert [row["run"] for row in rows] == ["correctness", "laser"]
  assert float(rows[1]["tokens"]) == 12.0
  assert rows[1]["seeds"] == "3"
  assert float(rows[1]["vs_baseline_tokens_percent"]) == pytest.approx(-50)
  page = (out / "compare.html").read_text()
  assert re.search(r'src="data:image/png;base64,iVBOR\w+', page)
  assert "http" not in page  # self-contained
  assert "| laser * | 3 |" in (out / "compare.md").read_text()
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
