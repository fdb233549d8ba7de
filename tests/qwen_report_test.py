"""The report of the study on mathematics: its pages are current, and say what records say."""

import json

import numpy as np
import pytest

from experiments.studies.qwen_math import records, report
from experiments.studies.qwen_math.methods import METHODS, named


def test_the_pages_say_what_the_results_say():
  for path, text in report.pages().items():
    assert path.read_text(encoding="utf-8") == text, f"{report.COMMAND} brings it up to date"


def test_the_prose_says_what_the_results_say():
  study, later = records.studies(records.read(report.FOLDER / "results"))
  by = {g.method: g for g in study.groups}
  page = (report.FOLDER / "README.md").read_text(encoding="utf-8")
  saved = {name: report.against(study.grpo, by[name])[0].split()[0] for name in ("dler", "laser")}
  assert f"spend {saved['dler']} to {saved['laser']} % fewer tokens" in page
  sampled = {
    name: np.mean([r["sampled_tokens"] for r in by[name].runs]) for name in ("dler", "grpo")
  }
  assert f"samples\n  {100 * (1 - sampled['dler'] / sampled['grpo']):.0f} % fewer" in page
  kept = by["laser"].mean("math500", "tokens").value / study.grpo.mean("math500", "tokens").value
  assert "a\n  third fewer tokens on MATH-500" in page
  assert 0.6 < kept < 0.7
  assert {label.split(",")[0] for label in report.collapsed(study)} == {
    "naive price",
    "Kimi",
    "ALP",
  }
  tell_of_the_later_start({(g.method, g.value): g for g in later.groups}, later, page)


def tell_of_the_later_start(by, study, page):
  def earned(target, steps):
    """The share of answers that earned LASER's bonus."""
    metrics = by["laser", target].runs[0]["metrics"]
    return np.mean(np.subtract(metrics["reward"], metrics["accuracy"])[steps]) / 0.5

  answers = 60 * 64 * 8
  assert f"{round(answers * earned(96, slice(None)))} of {answers:,} answers was right" in page
  first, last = (100 * earned(160, steps) for steps in (slice(20), slice(-20, None)))
  assert f"160, {first:.0f} % of the answers earned it in\n  the first twenty steps" in page
  assert f"steps and {last:.0f} % in the last." in page
  right = lambda name, task: 100 * by[name].mean(task, "accuracy").value
  lost = right(("grpo", None), "svamp") - right(("laser", 96), "svamp")
  one, two = (100 * p["accuracy"] for p in study.grpo.points("svamp"))
  assert f"SVAMP {lost:.0f} points less often right; the two seeds of GRPO differ" in page
  assert f"GRPO differ by {abs(one - two):.0f} points." in page
  found = report.compared(study.grpo, by["r_dpo", 0.005])
  saved, lost = 100 * found.saved, -100 * found.accuracy.value
  assert f"R-DPO spends {saved:.0f} % fewer tokens and loses {lost:.0f} points" in page
  told = by["told", None]
  tokens = [told.mean(name, "tokens").value for name in told.asked("gsm8k").values()]
  assert f"give {min(tokens):.0f} to {max(tokens):.0f} tokens" in page
  tell_of_dials(by, study, " ".join(page.split()))


def tell_of_dials(by, study, page):
  def spent(key, task="gsm8k"):
    return [round(by[key].mean(name, "tokens").value) for name in by[key].asked(task).values()]

  said = "{} tokens where 160, 256 and 512 are asked for"
  listed = lambda numbers: "{}, {} and {}".format(*numbers)
  distilled = ("distill", 1e-5)
  assert said.format(listed(spent(distilled))) in page
  assert f"on, they give {listed(spent(distilled, 'math500'))}." in page
  teachers = [
    next(r for r in by[named(name)].runs if r["seed"] == 0)["evaluations"]["gsm8k"]
    for name in METHODS["distill"].teachers
  ]
  assert f"GRPO, give {listed(round(t['tokens']) for t in teachers)}." in page
  asked = by[distilled].asked("gsm8k").values()
  lost = [
    100 * (t["accuracy"] - by[distilled].mean(name, "accuracy").value)
    for t, name in zip(teachers, asked, strict=True)
  ]
  assert f"are {min(lost):.1f} to {max(lost):.1f} points less right" in page
  divergence = by[distilled].runs[0]["metrics"]["teacher_kl"]
  first, last = np.mean(divergence[:20]), np.mean(divergence[-20:])
  assert f"{first:.2f} nats a token in the first twenty, {last:.2f} in the last" in page
  for key, words in {
    ("distill", 2e-6): "budgets are {} to {} tokens.",
    ("dial", 0.5): "gives {} to {} tokens whatever is asked.",
    ("dial_exact", 1e-3): "budget gives {} to {}, a length between",
  }.items():
    assert words.format(min(spent(key)), max(spent(key))) in page
  lengths = lambda steps: [
    round(np.mean(by["dial_exact", 1e-3].runs[0]["metrics"][f"length/level_{k}"][steps]))
    for k in range(3)
  ]
  first, last = lengths(slice(20)), lengths(slice(-20, None))
  assert f"have {min(first)} to {max(first)} tokens at each of the three budgets" in page
  assert f"In its last twenty steps they have {min(last)} to {max(last)}." in page
  dial = by["dial", 0.5]
  gaps = {row["name"]: row for row in study.curve(dial)[1]["points"]}
  gap = [100 * x for x in (gaps["LASER, 160"]["gap"], *gaps["LASER, 160"]["gap_ci"])]
  best = 100 * dial.mean("gsm8k@160", "accuracy").value
  assert "{:.1f} % at 162 tokens, {:.1f} points ({:.1f} to {:.1f})".format(best, *gap) in page
  assert all(row["gap"] >= 0 for row in gaps.values() if row["gap"] is not None)
  there = study.curve(dial, "math500")[1]
  assert f"on MATH-500 it is on or above {there['reached']} of {len(there['points'])}." in page
  sampled = lambda key: 1e-6 * np.mean([r["sampled_tokens"] for r in by[key].runs])
  singles = sum(sampled(named(name)) for name in METHODS["distill"].teachers)
  assert f"sampled {sampled(('dial', 0.5)):.1f} M tokens in its 180 steps" in page
  assert f"one budget {singles:.1f} M together" in page


def point(accuracy, tokens, n=40):
  right = "".join("01"[i < round(accuracy * n)] for i in range(n))
  spread = [accuracy - 0.1, accuracy + 0.1], [tokens - 5.0, tokens + 5.0]
  about = dict(accuracy=accuracy, accuracy_ci=spread[0], tokens=tokens, tokens_ci=spread[1])
  return about | dict(n=n, samples=1, right=right, lengths=[tokens] * n)


def run(method, seed, accuracy, tokens, value=None, kind="rl", asked=(), **more):
  shown = dict(task="gsm8k", problem=0, question="1+1?", answer="2", text=f"{method} | 2")
  names = [f"gsm8k@{budget}" for budget in asked] or ["gsm8k", "math500"]
  points = {name: point(accuracy, tokens * (i + 1)) for i, name in enumerate(names)}
  facts = dict(device="a chip", commit="abc", start="s", train_s=60.0, sampled_tokens=2e6)
  if kind in ("free", "merge"):
    del facts["train_s"], facts["sampled_tokens"]
  sample = shown | dict(tokens=tokens, correct=accuracy > 0.3)
  row = dict(method=method, value=value, seed=seed, kind=kind, evaluations=points, samples=[sample])
  return row | facts | more


@pytest.fixture
def folder(tmp_path):
  """A study of six methods, three seeds, from one start, and of GRPO alone from another."""
  rows = [run("warmup", 0, 0.4, 300, value=50), run("grpo", 0, 0.5, 200, start="t")]
  for seed, off in enumerate((-0.025, 0.0, 0.025)):
    rows += [
      run("grpo", seed, 0.5 + off, 200),
      run("laser", seed, 0.6 + off, 80 + seed, value=96),
      run("naive", seed, 0.0, 1, value=0.1),
      run("dial", seed, 0.5 + off, 50, asked=(96, 160)),
      run("l1_max", seed, 0.5 + off, 70, asked=(96, 160)),
      run("brevity", seed, 0.25, 100, kind="free"),
    ]
  write = lambda name, rows: (tmp_path / "results" / name).write_text(
    "".join(json.dumps(row) + "\n" for row in rows)
  )
  (tmp_path / "results").mkdir()
  write("a.jsonl", rows)
  validation = lambda accuracy, tokens: {"validation": point(accuracy, tokens)}
  swept = [("grpo", None, 0.5, 200), ("laser", 96, 0.5, 90), ("laser", 64, 0.2, 60)]
  write(
    "choice.jsonl",
    [dict(method=m, value=v, evaluations=validation(a, t)) for m, v, a, t in swept],
  )
  return tmp_path


def test_a_table_of_several_starts(folder):
  first, second = records.studies(records.read(folder / "results"))
  assert (first.fingerprint, second.fingerprint) == ("s", "t")
  rows = {r[0]: r for r in (report.row(first, g) for g in first.groups)}
  saved, points, score, *spent = rows["LASER, 96"][5:]
  assert (saved, spent) == ("60 %", ["60", "2.0 M"])  # 81 tokens of 200
  assert points.startswith("+10.0 (+")
  assert float(score) == pytest.approx(119 / 200 + 3 * 0.1 / 0.5, abs=0.006)
  assert rows["asked for brevity"][-2:] == ["-", "-"]
  assert rows["dial (asked for 160)"][2].endswith("at 100")
  assert report.collapsed(first) == ["naive price, 0.1"]
  text = "\n\n".join(report.sections(folder))
  assert "18 runs, 3 seeds each; intervals of 95 %." in text.replace("\n", " ")
  assert "Below 5 % and not drawn: naive price, 0.1." in text.replace("\n", " ")
  assert "Coefficients were chosen on validation problems." in text.replace("\n", " ")
  assert "| laser | 96 |" in text
  told = text.replace("\n", " ")
  assert "**dial** lies on or above 2 of 3 single methods." in told
  assert "has 2.00 times the tokens of its shortest" in told
  assert "for each token asked it spends 0.52, 0.62." in told
  assert "| LASER, 96 | 81.0 | 60.0 | 50.0 | " in text


def test_claims_need_three_seeds_and_whole_intervals(folder):
  study, _ = records.studies(records.read(folder / "results"))
  found = {v.paper.split(",")[0]: v for v in report.claims.verdicts(study)}
  assert [found[name].verdict for name in ("LASER", "naive price")] == ["held", "held"]
  assert found["L1-Max"].numbers == "70 tokens of 96, 140 tokens of 160"
  assert found["L1-Max"].verdict == "held"
  assert found["dial"].verdict == "undecided"  # of 40 problems
  gaps = found["dial"].numbers.split("; ")
  assert [gap.split(": ")[0] for gap in gaps] == ["GRPO", "LASER, 96", "asked for brevity"]
  assert gaps[0].startswith("GRPO: +0.0 points (")
  short = records.Group("gr3", 1.0, "rl", [run("gr3", s, 0.2, 20, value=1.0) for s in range(3)])
  more = study._replace(groups=[*study.groups, short])
  dial = next(v for v in report.claims.verdicts(more) if v.paper.startswith("dial"))
  assert dial.verdict == "not held"
  assert dial.numbers.endswith("; GR3, 1 is shorter than all of it")
  two = study._replace(groups=[g._replace(runs=g.runs[:2]) for g in study.groups])
  assert {v.verdict for v in report.claims.verdicts(two)} == {"undecided"}


def test_samples_side_by_side(folder):
  study, _ = records.studies(records.read(folder / "results"))
  shorter, broken = report.samples(study)
  assert "| 1+1? | grpo \\| 2 | dial \\| 2 |" in shorter
  assert "GRPO, 200 tokens" in shorter
  assert "| naive price, 0.1, 1 tokens |" in broken


def test_pictures_are_drawn(folder):
  report.draw(folder)
  assert {p.name for p in folder.glob("*.png")} == {"paretos.png", "paretot.png", "budgetss.png"}
  study, _ = records.studies(records.read(folder / "results"))
  assert [g.method for g in study.standing("gsm8k")] == ["grpo", "laser", "brevity"]


def test_intervals_over_seeds_and_problems():
  one, other = point(0.5, 100), point(0.75, 100)
  mean, _, high = records.mean([one, one, one], "accuracy")
  assert mean == 0.5
  # 40 answers of variance 0.25 * 40 / 39; t of 39 degrees of freedom at 97.5 % is 2.0227
  assert high - mean == pytest.approx(2.0227 * np.sqrt(0.25 / 39), abs=1e-4)
  change, _, high = records.change([other] * 3, [one] * 3, "accuracy")
  # a quarter of the problems gains 1: variance 0.1875 * 40 / 39
  assert (change, high - change) == pytest.approx((0.25, 2.0227 * np.sqrt(0.1875 / 39)), abs=1e-4)


def test_a_run_that_is_there_twice_is_refused(folder):
  again = json.dumps(run("laser", 0, 0.6, 80, value=96)) + "\n"
  (folder / "results" / "b.jsonl").write_text(again)
  with pytest.raises(ValueError, match=r"two records of \('laser', 96, 0, 's'\)"):
    records.read(folder / "results")
