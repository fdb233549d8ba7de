"""The report of the study on mathematics: its pages are current, and say what records say."""

import json

import numpy as np
import pytest

from experiments.studies.qwen_math import records, report


def test_the_pages_say_what_the_results_say():
  for path, text in report.pages().items():
    assert path.read_text(encoding="utf-8") == text, f"{report.COMMAND} brings it up to date"


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
  rows = [run("warmup", 0, 0.4, 300, value=50), run("grpo", 0, 0.5, 200, start="t", parameters=9)]
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
  assert (first.model, second.model) == (records.MODELS[494_032_768], "a policy of 9 parameters")
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
