"""What the study on mathematics says by hand is what its records say."""

import numpy as np
import pytest

from experiments.studies.qwen_math import records, report
from experiments.studies.qwen_math.methods import METHODS, named

GRPO, LASER, LONG, DLER = map(named, ("grpo", "laser:160", "laser_long:160", "dler:256"))
DIAL, EXACT, DISTILLED, SLOW = map(named, ("dial", "dial_exact", "distill:1e-5", "distill:2e-6"))
TEACHERS = [*map(named, METHODS["distill"].teachers)]
FIRST, LAST = slice(20), slice(-20, None)  # steps


@pytest.fixture(scope="module")
def page():
  return " ".join((report.FOLDER / "README.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def studies():
  return records.studies(records.read(report.FOLDER / "results"))


@pytest.fixture
def study(studies):
  return next(s for s in studies if s.fingerprint)


@pytest.fixture
def by(study):
  return {(g.method, g.value): g for g in study.groups}


def right(group, task="gsm8k"):
  return 100 * group.mean(task, "accuracy").value


def tokens(group, task="gsm8k"):
  return group.mean(task, "tokens").value


def spent(group, task="gsm8k"):
  """Tokens at each budget that is asked for."""
  return [tokens(group, name) for name in group.asked(task).values()]


def listed(numbers):
  return "{:.0f}, {:.0f} and {:.0f}".format(*numbers)


def extent(numbers, form=".0f"):
  return f"{min(numbers):{form}} to {max(numbers):{form}}"


def sampled(group):
  return 1e-6 * np.mean([run["sampled_tokens"] for run in group.runs])


def earned(group, steps):
  """The share of the first seed's answers that earned LASER's bonus."""
  metrics = group.runs[0]["metrics"]
  return np.mean(np.subtract(metrics["reward"], metrics["accuracy"])[steps]) / 0.5


def test_the_first_start(page, studies):
  study = next(s for s in studies if not s.fingerprint)
  by = {g.method: g for g in study.groups}
  saved = {name: report.against(study.grpo, by[name])[0].split()[0] for name in ("dler", "laser")}
  assert f"spend {saved['dler']} to {saved['laser']} % fewer tokens" in page
  assert f"samples {100 * (1 - sampled(by['dler']) / sampled(by['grpo'])):.0f} % fewer" in page
  kept = tokens(by["laser"], "math500") / tokens(study.grpo, "math500")
  assert "a third fewer tokens on MATH-500" in page
  assert 0.6 < kept < 0.7
  fell = {label.split(",")[0] for label in report.collapsed(study)}
  assert fell == {"naive price", "Kimi", "ALP"}


def test_the_bonus_of_laser(page, by):
  answers = 60 * 64 * 8
  few = round(answers * earned(by[named("laser:96")], slice(None)))
  assert f"{few} of {answers:,} answers was right" in page
  first, last = (100 * earned(by[LASER], steps) for steps in (FIRST, LAST))
  assert f"160, {first:.0f} % of the answers earned it in the first twenty steps" in page
  assert f"steps and {last:.0f} % in the last." in page
  shares = [100 * earned(by[LONG], steps) for steps in (FIRST, slice(40, 60), LAST)]
  grew = (
    "{:.0f} % of the answers earn its bonus in the first twenty steps, {:.0f} % in steps 41 to 60"
  )
  assert (grew + " and {:.0f} % in the last twenty").format(*shares) in page


def test_seeds_and_shorter_methods(page, study, by):
  svamp = [[100 * p["accuracy"] for p in by[key].points("svamp")] for key in (DLER, GRPO)]
  said = "the three seeds of DLER answer {} % of SVAMP, those of GRPO {} %."
  assert said.format(*map(extent, svamp)) in page
  found = report.compared(study.grpo, by[DLER])
  lost = [-100 * x for x in (found.accuracy.value, found.accuracy.high, found.accuracy.low)]
  said = "saves {:.0f} % of the tokens, not half, and loses {:.1f} points ({:.1f} to {:.1f})."
  assert said.format(100 * found.saved, *lost) in page
  assert (
    next(v for v in report.claims.verdicts(study) if v.paper[:4] == "DLER").verdict == "not held"
  )
  found = report.compared(study.grpo, by["r_dpo", 0.005])
  saved, lost = 100 * found.saved, -100 * found.accuracy.value
  assert f"R-DPO spends {saved:.0f} % fewer tokens and loses {lost:.0f} points" in page


def test_what_is_asked_of_the_start(page, study, by):
  asked = tokens(by[named("brevity")]), tokens(study.start)
  assert "start answers with {:.0f} tokens instead of {:.0f}.".format(*asked) in page
  cut = right(by[named("budget_forcing:160")]), right(study.start)
  assert "is right in {:.1f} % instead of {:.1f} % on GSM8K".format(*cut) in page
  longer = np.mean([length > 160 for length in study.start.points("gsm8k")[0]["lengths"]])
  assert f"Left alone, {100 * longer:.0f} % of its answers are longer" in page
  assert f"give {extent(spent(by[named('told')]))} tokens" in page


def test_distilled_specialists(page, by):
  own = by[DISTILLED]
  assert len(own.runs) == len(by[GRPO].runs) == 3
  assert f"{listed(spent(own))} tokens where 160, 256 and 512 are asked for" in page
  assert f"GRPO, give {listed(tokens(by[key]) for key in TEACHERS)}." in page
  assert f"on, they give {listed(spent(own, 'math500'))}." in page
  lost = [
    right(by[key]) - right(own, name)
    for key, name in zip(TEACHERS, own.asked("gsm8k").values(), strict=True)
  ]
  assert f"are {extent(lost, '.1f')} points less right" in page
  first, last = (
    np.mean([np.mean(run["metrics"]["teacher_kl"][steps]) for run in own.runs])
    for steps in (FIRST, LAST)
  )
  assert f"{first:.2f} nats a token in the first twenty, {last:.2f} in the last" in page
  assert f"budgets are {extent(spent(by[SLOW]))} tokens." in page


def test_dials_by_reward(page, by):
  assert f"gives {extent(spent(by[DIAL]))} tokens whatever is asked." in page
  assert f"budget gives {extent(spent(by[EXACT]))}, a length between" in page
  metrics = by[EXACT].runs[0]["metrics"]
  first, last = (
    extent([np.mean(metrics[f"length/level_{k}"][steps]) for k in range(3)])
    for steps in (FIRST, LAST)
  )
  assert f"have {first} tokens at each of the three budgets" in page
  assert f"In its last twenty steps they have {last}." in page


def test_the_dial_of_one_length(page, study, by):
  dial = by[DIAL]
  gaps = {row["name"]: row for row in study.curve(dial)[1]["points"]}
  gap = [100 * x for x in (gaps["LASER, 160"]["gap"], *gaps["LASER, 160"]["gap_ci"])]
  best = right(dial, "gsm8k@256"), tokens(dial, "gsm8k@256")
  assert "{:.1f} % at {:.0f} tokens, {:.1f} points ({:.1f} to {:.1f})".format(*best, *gap) in page
  assert f"180 steps has {right(by[LONG]):.1f} % at {tokens(by[LONG]):.0f}," in page
  for name in dial.asked("gsm8k").values():  # not above it beyond chance
    own, long = dial.points(name), by[LONG].points("gsm8k")
    assert records.change(own, long, "accuracy").low < 0
  singles = sum(sampled(by[key]) for key in TEACHERS)
  assert f"The dial sampled {sampled(dial):.1f} M tokens" in page
  assert f"one budget {singles:.1f} M together" in page
