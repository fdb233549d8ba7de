"""Reports say what the numbers say, and pictures get drawn for one run, many runs and seeds."""

import re

import numpy as np
import pytest
from matplotlib.image import imread

from lcrl.evaluation import (
  measure,
  plots,
  pool,
  read_summary,
  summary,
  tables,
  training_plots,
  write_json,
)
from lcrl.evaluation.report import collapsed, verdict, write_report
from tests.helpers.slow import slow
from tests.helpers.summaries import ABOUT, run

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


@pytest.fixture
def drawn(monkeypatch):
  """The figures that are made instead of files."""
  figures = []
  for module in (plots, training_plots):
    monkeypatch.setattr(module, "save", lambda figure, path: figures.append(figure))
  return figures


def test_every_picture_is_there_as_svg_with_its_text(tmp_path):
  write_report(tmp_path, RUNS, title="Three", command="x")
  for name in ("pareto", "by_difficulty"):
    svg = (tmp_path / f"{name}.svg").read_text()
    assert "laser" in svg
    assert "accuracy, %" in svg
  again = (tmp_path / "pareto.svg").read_bytes()
  plots.pareto(tmp_path / "pareto.png", RUNS)
  assert (tmp_path / "pareto.svg").read_bytes() == again


@pytest.mark.parametrize("right", [(0, 0), (100, 100), (0, 100), (99, 97)])
def test_accuracy_stays_within_0_and_100(drawn, right):
  runs = {f"run {i}": run("x", r, 10 + i) for i, r in enumerate(right)}
  plots.pareto("p.png", runs)
  plots.by_difficulty("d.png", runs)
  plots.curves(
    "c.png", {"x": {"step": [0, 1], "accuracy": [r / 100 for r in right], "tokens": [9, 9]}}
  )
  steps = [{"step": i + 1, "accuracy": r / 100} for i, r in enumerate(right)]
  training_plots.training("t.png", steps, [])
  for figure in drawn:
    low, high = figure.axes[0].get_ylim()
    assert 0 <= low < high <= 100
    assert low <= min(right) <= max(right) <= high


@pytest.mark.parametrize("count", [3, slow(6), slow(9)])
def test_names_and_the_front_do_not_cross(drawn, count):
  """As long as they have room: above so many names a list stands beside the picture."""
  random = np.random.default_rng(count)
  for _ in range(4):
    right, tokens = random.integers(40, 101, count), random.integers(5, 60, count)
    names = {
      f"method {i}": run("x", r, t) for i, (r, t) in enumerate(zip(right, tokens, strict=True))
    }
    plots.pareto("p.png", names)
  for figure in drawn:
    ax = figure.axes[0]
    (front,) = (line for line in ax.lines if line.get_linestyle() == "--")
    path = front.get_path().transformed(ax.transData)
    boxes = [text.get_window_extent() for text in ax.texts if text.get_text()]
    assert len(boxes) == count + 1
    assert not any(path.intersects_bbox(box, filled=False) for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(ax.bbox.y0 <= box.y0 and box.y1 <= ax.bbox.y1 for box in boxes)


def test_many_runs_are_listed_beside_the_picture(drawn):
  plots.pareto("p.png", {f"method {i}": run("x", 50 + i, 10 + i) for i in range(16)})
  (figure,) = drawn
  labels = [text.get_text() for text in figure.legends[0].get_texts()]
  assert labels == [*(f"method {i}" for i in range(16)), "start"]
  assert not figure.axes[0].texts
  looks = {(x.get_color(), x.get_marker()) for x in figure.legends[0].get_lines()}
  assert len(looks) == 17  # colours alone would repeat


def test_training_is_drawn_at_every_step(drawn, tmp_path):
  steps = [{"step": i, "accuracy": i / 50, "length/mean": 9.0, "loss": None} for i in range(1, 51)]
  steps[7]["accuracy"] = None  # not finite: a gap
  judged = [{"step": s, **run("x", 90, 12)} for s in (0, 50)]
  report = write_report(
    tmp_path, {"x": RUNS["laser"]}, title="x", command="x", training=(steps, judged)
  )
  assert "(training.png)" in report.read_text()
  accuracy, tokens = drawn[-1].axes[:2]
  line = accuracy.lines[0].get_ydata()
  assert len(line) == 50
  assert np.isnan(line[7])
  assert line[9] == pytest.approx(20)
  assert len(tokens.lines[0].get_xdata()) == 50
  points = [line for line in accuracy.lines if line.get_marker() == "D"]
  np.testing.assert_allclose(points[0].get_xydata(), [[0, 90], [50, 90]])
  assert "loss" not in [ax.get_title(loc="left") for ax in drawn[-1].axes]


def test_learning_dynamics_are_drawn(drawn, tmp_path):
  steps = [
    {"step": i, "length/right_p10": 3, "length/right_p50": 5.0, "length/right_p90": 9}
    | {"truncated": 0.001 * i, "approx_kl": 1e-9 * i, "clip_fraction": None}
    | {"term/correctness": 1.0, "term/price": -0.5 if i > 20 else None}
    for i in range(1, 41)
  ]
  report = write_report(
    tmp_path, {"x": RUNS["laser"]}, title="x", command="x", training=(steps, [])
  )
  assert "(dynamics.png)" in report.read_text()
  axes = {ax.get_title(loc="left"): ax for ax in drawn[-1].axes if ax.axison}
  assert list(axes) == [
    "tokens per answer: median, 10 to 90 %",
    "approximate KL, nats per token",
    "answers cut at the cap, %",
    "mean reward by term",
  ]
  assert axes["approximate KL, nats per token"].get_ylim()[1] > 1e-4  # rounding looks like 0
  (cut,) = axes["answers cut at the cap, %"].lines
  assert cut.get_ydata()[20] == pytest.approx(2.05)  # the mean of steps 20 and 21
  assert {text.get_text() for text in axes["mean reward by term"].texts} == {"correctness", "price"}
  assert np.isnan(axes["mean reward by term"].lines[1].get_ydata()[:19]).all()
  assert not training_plots.dynamics("t.png", [{"step": 1, "loss": 1.0}])


def test_pairs_are_drawn_with_what_they_measure(drawn):
  steps = [{"step": i, "pairs/accuracy": 0.5, "nll": 1.0, "loss": 0.7} for i in (1, 2)]
  judged = [{"step": 0, "tokens": 9.0, "pairs": {"accuracy": 0.6, "nll": None}}]
  training_plots.training("t.png", steps, judged)
  training_plots.training("t.png", [], [])  # nothing to draw
  (figure,) = drawn
  titles = [ax.get_title(loc="left") for ax in figure.axes]
  assert titles == [
    "mean tokens per answer",
    "pairs in the right order, %",
    "negative log-likelihood, nats per token",
    "loss",
  ]


def test_numbers_that_are_not_there_are_no_numbers(tmp_path):
  """Not finite, not measured: null in the file, a dash in the table, nothing in the picture."""
  nan = {**RUNS["laser"], "accuracy": float("nan"), "tokens_ci": [float("inf"), None]}
  lost = summary(nan, RUNS["laser"]["start"], reward="lost", seed=0, **ABOUT)
  assert lost["accuracy"] is None
  assert lost["tokens_ci"] == [None, None]
  write_json(tmp_path / "summary.json", lost)
  assert read_summary(tmp_path / "summary.json") == lost
  rows = tables.rows({"laser": RUNS["laser"], "lost": lost}, baseline="laser")
  assert [row["on_front"] for row in rows] == [True, False]
  assert "| lost | 1 | - | 12.0 |" in tables.to_markdown(tables.overview(rows, baseline="laser"))
  plots.pareto(tmp_path / "p.png", {"laser": RUNS["laser"], "lost": lost})
  plots.pareto(tmp_path / "q.png", {"lost": {**lost, "start": None}})
  with pytest.raises(ValueError, match=r"cannot be pooled: seeds \[1\]"):
    pool([RUNS["laser"], {**lost, "seed": 1, "reward": "laser"}])


def test_a_stopped_run_is_not_compared_with_itself(tmp_path):
  stopped = {**RUNS["laser"], "accuracy": None, "tokens": None, "by_difficulty": {}, "stopped": 3}
  text = write_report(tmp_path, {"laser": stopped}, title="x", command="x").read_text()
  assert "**laser: stopped after step 3, not evaluated yet.**" in text
  assert "The start of laser: 90.0 % right, 30.0 tokens." in text
  assert "|" not in text
  later = {**RUNS["laser"], "stopped": 7, "evaluated_at": 5}
  text = write_report(tmp_path, {"laser": later}, title="x", command="x").read_text()
  assert "stopped after step 7; its numbers are those of the evaluation at step 5" in text
  assert "60 % fewer tokens than the start" in text
