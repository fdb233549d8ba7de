"""The curve of accuracy against tokens over efforts: its measures, flags, report and bad input."""

import json
import shutil
import types

import numpy as np
import pytest

from lcrl import budgets, recipes
from lcrl.commands import evaluate as command
from lcrl.commands.front import comparable_front, single_methods
from lcrl.data import tokenizers
from lcrl.evaluation import effort_report, pool
from lcrl.evaluation.effort_curve import (
  against_front,
  attainable,
  effort_measures,
  monotonicity,
  vertices,
)
from lcrl.evaluation.obedience import asked_efforts
from lcrl.training import build, evaluator, loop
from lcrl.training.rl.budgets import check_levels
from lcrl.training.rl.settings import read
from tests.helpers.evaluate_flags import flags
from tests.helpers.rl_runs import changed

pytestmark = pytest.mark.usefixtures("one_device")

BUDGET = dict(fn="effort", efforts=(0.25, 0.5, 1.0), tokens=16, cap=16)
SHOWN = dict(fn="suffix", templates=("+", "=", "#"))


def point(tokens, accuracy, **more):
  half = more.pop("half", None)
  ends = [None, None] if half is None else [accuracy - half, accuracy + half]
  return {"tokens": tokens, "accuracy": accuracy, "accuracy_ci": ends, **more}


def test_measures_by_hand():
  # 10, 30, 20 tokens: two pairs of three rise. 30 / 10 = 3. Of 20, 20 and 40 tokens asked: a half,
  # one and a half, a half. Accuracy .2, .6, .6 rises in two pairs and ties in one: 2 / 3.
  asked = [point(10, 0.2, target=20), point(30, 0.6, target=20), point(20, 0.6, target=40)]
  found = effort_measures(asked)
  assert found["monotonicity"] == pytest.approx(2 / 3)
  assert found["accuracy_monotonicity"] == pytest.approx(2 / 3)
  assert found["range"] == 3
  assert found["calibration"] == [0.5, 1.5, 0.5]
  silent = effort_measures([point(0, None, target=20)])
  assert silent == {
    "monotonicity": None,
    "accuracy_monotonicity": None,
    "range": None,
    "calibration": [0.0],
  }
  assert monotonicity([3, 2, 1]) == 0
  assert monotonicity([1, 1]) == 0


def test_a_mixture_beats_what_lies_below_its_line():
  # From (10, .4) to (30, .8) a token brings .02; (20, .5) lies below that line, (40, .7) behind it.
  curve = [point(20, 0.5), point(10, 0.4, half=0.1), point(40, 0.7), point(30, 0.8, half=0.2)]
  assert [p["tokens"] for p in vertices(curve)] == [10, 30]
  np.testing.assert_allclose(attainable(curve, 20), (0.6, 0.45, 0.75))
  np.testing.assert_allclose(attainable(curve, 99), (0.8, 0.6, 1.0))
  assert np.isnan(attainable(curve, 9)).all()
  assert np.isnan(attainable([], 9)).all()
  alike = [point(10, 0.4), point(10, 0.6)]  # of equally long ones the better
  assert vertices(alike) == alike[1:]


def test_a_curve_against_single_methods_by_hand():
  curve = [point(10, 0.4, half=0.03), point(30, 0.8, half=0.03)]
  singles = {
    "below": point(20, 0.5, half=0.04),
    "above": point(30, 0.9, half=0.04),
    "short": point(5, 0.1),
  }
  found = against_front(curve, singles)
  below, above, short = found["points"]
  assert found["reached"] == 1
  assert below["gap"] == pytest.approx(0.1)
  np.testing.assert_allclose(below["gap_ci"], [0.05, 0.15])  # 3 and 4 add to 5
  assert above["gap"] == pytest.approx(-0.1)
  assert (short["curve"], short["gap"], short["gap_ci"]) == (None, None, [None, None])
  # From 10 to 30 tokens: the curve's mean is .6. The front's line from (5, .1) to (30, .9) passes
  # (20, .58), so that (20, .5) is off it; at 10 it is at .26, and its mean is (.26 + .9) / 2.
  assert (found["from"], found["to"]) == (10, 30)
  assert found["area"] == pytest.approx(0.6)
  assert found["front_area"] == pytest.approx(0.58)
  assert against_front(curve[:1], {"one": curve[0]})["area"] is None


@pytest.mark.parametrize(
  ("efforts", "budget", "message"),
  [
    ((0.1, 1.0), BUDGET, r"eval\.efforts has 0\.1, which lies outside 0\.25 to 1"),
    ((2.0,), BUDGET, r"eval\.efforts has 2, which lies outside 0\.25 to 1"),
    ((0.3,), BUDGET, r"has 0\.3, for which there is no template: the budget has 0\.25, 0\.5, 1\."),
    ((1.0, 0.5), BUDGET, r"eval\.efforts must ascend, got 1\.0, 0\.5"),
    ((0.5,), dict(fn="fixed", target=3), r"needs budget\.fn='effort', .* got 'fixed'"),
  ],
)
def test_efforts_that_no_prompt_can_ask_for_are_refused(efforts, budget, message):
  with pytest.raises(ValueError, match=message):
    asked_efforts(efforts, budget)


def config(**fields):
  shown = {"budget": BUDGET, "task__render": SHOWN, "train__max_prompt_tokens": 14}
  return changed(**{**shown, **fields})


def asked(**fields):
  """The budgets that the prompts of a run's main set ask for."""
  given = config(**fields)
  settings = read(given)
  task = build.build_task(settings, tokenizers.sums(), given["task"], "task")
  options = evaluator.main_options(settings, given["eval_task"])
  model = types.SimpleNamespace(settings=settings)
  found = evaluator.Preparing(model, None, None, None).asked(task, options, "eval_task")
  evaluator.check_asked(task, found, 16, "eval_task")
  return [(one.target, one.level, one.label) for one in found]


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (
      {"task__render": dict(SHOWN, templates=("+", "="))},
      r"eval_task\.efforts: The budget's level is 2; there are 2 templates",
    ),
    ({"eval__levels": (0,)}, "eval_task has efforts beside targets or levels"),
    ({"task__render": dict(SHOWN, templates="+")}, "the same for effort 0.25 and effort 1"),
    ({"eval__efforts": (0.3,)}, r"eval_task\.efforts has 0\.3, for which there is no template"),
  ],
)
def test_levels_without_a_template_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    asked(**{"eval__efforts": (0.25, 1.0), **fields})


@pytest.mark.parametrize("asked_for", [{"eval__targets": (12,)}, {"eval__levels": (1,)}])
def test_one_budget_that_prompts_do_not_show_is_refused(asked_for):
  none = {"eval__efforts": (), **asked_for}
  shown = {"eval__targets": "{target}?", "eval__levels": ("+", "=", "#")}
  (kind,) = asked_for
  assert len(asked(**none, task__render=dict(SHOWN, templates=shown[kind]))) == 1
  for templates in {*shown.values(), "?"} - {shown[kind]}:
    with pytest.raises(ValueError, match=r"its prompts do not show (12 tokens|level 1)"):
      asked(**none, task__render=dict(SHOWN, templates=templates))


def test_a_policy_is_evaluated_for_the_budget_that_it_ends_with():
  given = config(eval__efforts=(1.0,))
  later = dict(given["budget"], tokens=4)
  assert asked(eval__efforts=(1.0,), then=({"at": 1, "budget": later},))[0][0] == 4


def test_training_needs_a_template_for_each_level_and_warns_of_equal_ones(caplog):
  def check(**fields):
    given = config(**fields)
    settings = read(given)
    task = build.build_task(settings, tokenizers.sums(), given["task"], "task")
    check_levels(task, recipes.from_config(settings.slots)[0].budget)
    return [record.getMessage() for record in caplog.records]

  two = r"task\.render: The budget's level is 2; there are 2 templates\. The budget has 3 levels"
  with pytest.raises(ValueError, match=two):
    check(task__render=dict(SHOWN, templates=("+", "=")))
  with pytest.raises(
    ValueError, match=r"templates must be a text, or a text for each level, got \("
  ):
    check(task__render=dict(SHOWN, templates=()))
  assert check() == []
  assert check(task__render=dict(SHOWN, templates="{target}?")) == []
  said = check(task__render=dict(SHOWN, templates="?"))
  lapo = budgets.right_median(rows=4, fallback=8, shown_from=1)
  assert lapo.levels == 3  # the prompt hides the target, shows it, or shows the fallback
  alike = "task.render shows levels 0 and {} of the budget alike: no policy can tell them apart."
  assert said == [alike.format(1), alike.format(2)]


def test_a_run_begins_with_that_check(tmp_path):
  with pytest.raises(ValueError, match=r"task\.render: .* The budget has 3 levels"):
    loop.train(config(task__render=dict(SHOWN, templates=("+", "="))), tmp_path)


def test_an_effort_is_a_level_or_a_target():
  assert asked(eval__efforts=(0.25, 1.0)) == [(4, 0, "effort 0.25"), (16, 2, "effort 1")]
  between = dict(fn="suffix", templates="{target}?")
  found = asked(task__render=between, eval__efforts=(0.3, 0.8))
  assert found == [(5, 0, "effort 0.3"), (13, 0, "effort 0.8")]
  beyond = dict(BUDGET, efforts=(0.5, 2.0))  # the highest effort asks for more than the cap
  pair = dict(SHOWN, templates=("+", "="))
  assert asked(budget=beyond, task__render=pair, eval__efforts=(2.0,)) == [(32, 1, "effort 2")]


@pytest.mark.slow
def test_a_run_and_the_command_draw_the_curve(tmp_path, monkeypatch, capsys):
  """A run evaluates its own efforts; the command others, against the run's own result."""
  run, out = tmp_path / "run", tmp_path / "out"
  summary = loop.train(config(eval__efforts=(0.25, 0.5, 1.0), train__steps=1), run)
  assert [one["effort"] for one in summary["asked"]] == [0.25, 0.5, 1.0]
  assert summary["curve"] == effort_measures(summary["asked"])
  assert "eval/asked/effort_0.25/tokens" in (run / "metrics.jsonl").read_text()
  report = (run / "report.md").read_text()
  assert "## Efforts" in report
  assert "## Tokens that were asked for" not in report
  picture = (run / "efforts.png").read_bytes()
  assert len(picture) > 1000
  pooled = pool([summary, {**summary, "seed": 9}])
  assert pooled["curve"] == effort_measures(pooled["asked"])

  given = {"prompts": None, "samples": None, "out": str(out), "efforts": ["0.25", "1"]}
  with pytest.raises(ValueError, match="--efforts= names none"):
    command.read_flags(flags(workdir=str(run), **{**given, "efforts": [""]}))
  with pytest.raises(ValueError, match="front: length_penalty was asked for 3 budgets"):
    single_methods([str(run)])
  single = tmp_path / "single"
  shutil.copytree(run, single, ignore=shutil.ignore_patterns("checkpoints"))
  alone = json.loads((single / "summary.json").read_text())
  del alone["evaluation"]["asked"]
  (single / "summary.json").write_text(json.dumps(alone))
  none = {**given, "efforts": None, "levels": ["0", "1"]}
  monkeypatch.setattr(command, "FLAGS", flags(workdir=str(run), front=[str(single)], **none))
  with pytest.raises(ValueError, match="compared with a curve: name its --efforts"):
    command.main(None)
  assert not (out / "evaluation.json").exists()  # nothing was answered
  monkeypatch.setattr(command, "FLAGS", flags(workdir=str(run), front=[str(single)], **given))
  command.main(None)
  assert "| tokens / target |" in capsys.readouterr().out
  found = json.loads((out / "evaluation.json").read_text())
  assert [one["label"] for one in found["asked"]] == ["effort 0.25", "effort 1"]
  assert found["curve"] == effort_measures(found["asked"])
  assert found["front"]["length_penalty"]["tokens"] == summary["tokens"]
  text = (out / "evaluation.md").read_text()
  assert "| run | 0.25 |" in text
  assert f"| length_penalty | {summary['tokens']:.1f} |" in text
  assert "**run** lies on or above" in text
  assert "(evaluation_efforts.png)" in text
  assert (run / "efforts.png").read_bytes() == picture

  front = single_methods([str(single)])
  for wrong, message in (
    ({"curve": None}, r"name its --efforts"),
    ({"temperature": 0.5}, r"with another temperature than the curve: 1\.0, not 0\.5"),
    ({"prompts": 5}, "with another prompts than the curve: 6, not 5"),
    ({"data": {"fn": "jsonl"}}, "with another data than the curve: arithmetic"),
    ({"budgets": {"8": {}}}, "may write 16 tokens, the curve only 8"),
  ):
    other = {**found, **{k: x for k, x in wrong.items() if k == "budgets"}}
    other["evaluation"] = {**found["evaluation"], **wrong}
    if "curve" in wrong:
      del other["curve"]
    with pytest.raises(ValueError, match=message):
      comparable_front(front, other)
  colder = {**given, "temperature": 0.5, "out": str(tmp_path / "colder")}
  monkeypatch.setattr(command, "FLAGS", flags(workdir=str(run), front=[str(single)], **colder))
  with pytest.raises(ValueError, match=r"The evaluation is written, without a front\."):
    command.main(None)
  assert "front" not in json.loads((tmp_path / "colder" / "evaluation.json").read_text())
  for said, message in ((["x"], "got x"), (["0"], "got 0"), (["2"], "lies outside 0.25 to 1")):
    with pytest.raises(ValueError, match=message):
      command.evaluate(*command.read_flags(flags(workdir=str(run), **{**given, "efforts": said})))


def test_unverified_answers_have_lengths_and_no_picture(tmp_path):
  points = [
    point(n, None, tokens_ci=[None, None], effort=e, target=n + 1) for n, e in ((4, 0.5), (9, 1.0))
  ]
  run = {"asked": points, "curve": effort_measures(points)}
  text = "\n".join(effort_report.sections(tmp_path, {"dial": run}))
  assert "2.25 times the tokens of its shortest" in text
  assert "efforts.png" not in text
  assert not [*tmp_path.iterdir()]


def test_areas_follow_every_bend():
  bent = [point(10, 0.2), point(20, 0.8), point(30, 0.8)]  # means .5 and .8 of its halves
  flat = [point(10, 0.5), point(30, 0.5)]
  against = lambda curve, front: against_front(curve, dict(enumerate(front)))
  assert against(flat, bent)["front_area"] == pytest.approx(0.65)
  assert against(bent, flat)["area"] == pytest.approx(0.65)
  assert against(bent, bent)["reached"] == 3  # what lies on the curve is reached
