"""A run is evaluated on prompts that no step trains on, at the budgets that they ask for."""

import json

import numpy as np
import pytest

from lcrl import tasks
from lcrl.data.choosing import is_held_out, rows, split, unit_hash
from lcrl.evaluation import obedience, setup
from lcrl.evaluation.summaries import pool
from lcrl.tasks.task import Prompt, question_text
from lcrl.training import build, evaluator, loop
from lcrl.training.fields import check_functions
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.rl_runs import CONFIG, changed

pytestmark = pytest.mark.usefixtures("one_device")
RENDER = {"fn": "prefix", "templates": ["=", "+"]}  # tokens of the sums that show a level


def prompts(*texts):
  return [Prompt(i, ({"role": "user", "content": text},), "1") for i, text in enumerate(texts)]


def prepared(config, *, params=None):
  """The sets of a config, or what they find about `params`."""
  settings = read(config)
  model, tokenizer = build_learner(settings), build.build_tokenizer(settings)
  with build.rollout_worker(model, tokenizer, config["task"], "task") as (_, worker):
    if params is None:
      return [one for one, _ in evaluator.prepare(model, tokenizer, worker)]
    judge = evaluator.make_evaluator(model, tokenizer, worker, say=lambda text: None)
    return judge(model.initial().params), judge.setup


def test_a_prompt_is_held_out_by_its_question_alone():
  assert unit_hash("2 + 2?") == pytest.approx(0.4402557475, abs=1e-9)  # of sha256, first 8 bytes
  spaced = {"role": "user", "content": "2  +\n2? "}
  system = {"role": "system", "content": "Be brief."}
  assert is_held_out(Prompt(0, (system, spaced), "4"), 0.45)
  assert not is_held_out(Prompt(0, (spaced,), "4"), 0.44)
  template = {"role": "user", "content": "2 + 2? Put the answer into a box."}
  assert is_held_out(Prompt(0, (template,), "4", question=" 2 + 2?"), 0.45)


def test_another_template_hides_no_training_prompt(tmp_path):
  rows = [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(4)]
  path = tmp_path / "a.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  task, other = (tasks.jsonl(str(path), template=t) for t in ("{question}", "Q: {question}\nA:"))
  found = setup.of_task(task).overlap(list(other.prompts))
  assert found == {"training_prompts": 4, "compared_with": 4, "of": 4}


def test_a_batch_has_no_more_rows_than_a_step():
  """A step samples 4 prompts with 4 answers of 16 tokens."""
  far = {"fn": "arithmetic", "size": 30, "seed": 0, "held_out": True}
  sets = prepared(
    changed(
      eval_tasks={"a": far | {"samples": 8}, "b": far | {"samples": 8, "max_tokens": 32}, "c": far}
    )
  )
  assert [one.batch for one in sets] == [6, 2, 1, 6]


@pytest.mark.parametrize("on_demand", [False, True])
def test_a_split_is_disjoint_stable_and_nearly_of_its_share(on_demand):
  texts = [f"{i % 900} + 1?" for i in range(1000)]  # a hundred stand there twice

  data = prompts(*texts)
  methods = {"__len__": lambda self: len(data), "__getitem__": lambda self, i: data[i]}
  source = type("Made", (), methods)() if on_demand else data
  train, test = split(source, 0.2, most=10_000, field="task")
  trained = {question_text(train[i].messages) for i in range(len(train))}
  held_out = [question_text(prompt.messages) for prompt in test]
  assert len(held_out) == len(set(held_out))
  assert trained.isdisjoint(held_out)
  assert trained | set(held_out) == set(texts)
  assert 0.15 < len(held_out) / 900 < 0.25
  assert rows(train) == 1000  # ids are still below it
  backwards = split(data[::-1], 0.2, most=10_000, field="task")[1]
  assert {question_text(p.messages) for p in backwards} == set(held_out)
  with pytest.raises(ValueError, match="1e-09 leaves none of 1000 prompts to evaluate"):
    split(source, 1e-9, most=5, field="task")


@pytest.mark.slow
def test_training_prompts_are_no_evaluation(tmp_path):
  with pytest.raises(ValueError, match="names no prompts to evaluate on that no step trains on"):
    prepared(changed(eval_task=None))
  with pytest.raises(ValueError, match="6 of the 6 prompts of eval_task stand in the training"):
    prepared(changed(eval_task=CONFIG["task"]), params=True)
  with pytest.raises(ValueError, match=r"eval_tasks\.again\.same=True evaluates on them"):
    prepared(changed(eval_tasks={"again": CONFIG["task"]}), params=True)
  other = {"fn": "arithmetic", "size": 9, "seed": 0, "held_out": True}
  with pytest.raises(ValueError, match="holds prompts out, and eval_task"):
    prepared(changed(task__test_share=0.2))
  with pytest.raises(ValueError, match="test_share holds prompts out that nothing evaluates"):
    prepared(changed(task__test_share=0.2, eval_task=other))
  summary = loop.train(
    changed(task__test_share=0.2, eval_task=None, train__steps=1, eval__samples=2), tmp_path
  )
  assert summary["evaluation"]["training_prompts"] == 0
  answers = json.loads((tmp_path / "evaluations.jsonl").read_text().splitlines()[0])
  assert answers["n"] == 2 * summary["evaluation"]["prompts"] == 12
  config = json.loads((tmp_path / "config.json").read_text())["config"]
  assert config["task"]["test_share"] == 0.2


@pytest.mark.slow
def test_sets_and_budgets_reach_the_summary(tmp_path):
  """A main set whose prompts ask for two levels, and a further one with a cap of its own."""
  further = {"fn": "arithmetic", "size": 8, "seed": 5, "same": True, "max_tokens": 5, "samples": 3}
  config = changed(
    task__render=RENDER,
    train__max_prompt_tokens=10,
    budget={"fn": "subgroups", "targets": [12, 14], "cap": 16},
    eval_task={"same": True, "levels": [0, 1], "prompts": 4},
    eval_tasks={"short": further},
    train__steps=1,
  )
  summary = loop.train(config, tmp_path)
  assert [point["label"] for point in summary["asked"]] == ["level 0", "level 1"]
  assert summary["tokens"] == pytest.approx(np.mean([p["tokens"] for p in summary["asked"]]))
  assert summary["following"].keys() == {"correlation", "slope"}
  short = summary["tasks"]["short"]
  assert short["n"] == 6 * 3
  assert 0 < short["tokens"] <= 5
  assert 0 < short["start"]["tokens"] <= 5
  assert short["evaluation"]["max_tokens"] == 5
  assert summary["evaluation"]["asked"] == ["level 0", "level 1"]
  names = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
  assert {"eval/accuracy", "eval/short/tokens", "eval/asked/level_1/tokens"} <= names.keys()
  report = (tmp_path / "report.md").read_text()
  assert "## Further sets" in report
  assert "## Tokens that were asked for" in report
  pooled = pool([summary, {**summary, "seed": 9}])
  assert pooled["tasks"]["short"]["tokens"] == pytest.approx(short["tokens"])
  assert pooled["asked"][1]["label"] == "level 1"


def test_a_set_has_an_engine_only_where_it_needs_one():
  far = {"fn": "arithmetic", "size": 8, "seed": 0, "held_out": True}
  sets = prepared(
    changed(eval_tasks={"a": far, "b": {**far, "max_tokens": 64}, "c": {**far, "max_tokens": 64}})
  )
  engines = []
  for one in sets:
    with one.opened() as worker:
      engines.append(worker.engine)
  assert engines[0] is engines[1]
  assert engines[2] is engines[3]
  assert (engines[0].max_tokens, engines[2].max_tokens) == (16, 64)
  for temperature in (0.0, 0.7):
    (main,) = prepared(changed(eval__temperature=temperature))
    with main.opened() as worker:
      assert worker.engine.temperature == temperature


@pytest.mark.parametrize(
  ("fields", "error"),
  [
    ({"eval__targets": (8, 4)}, r"eval_task\.targets must ascend and be at least 1, got 8, 4"),
    ({"eval__levels": (1, 0)}, r"eval_task\.levels must ascend and be at least 0, got 1, 0"),
    ({"eval__targets": (4, 8), "eval__levels": (0,)}, "2 targets and 1 levels"),
    ({"eval__targets": (4, 99)}, r"eval_task\.targets has 99; an answer has at most 16 tokens"),
    ({"eval__targets": (4, 8)}, "the same for 4 tokens and 8 tokens; task.render has to show"),
    (
      {"task__render": RENDER, "train__max_prompt_tokens": 10, "eval__levels": (0, 2)},
      "level is 2; there are 2 templates",
    ),
    ({"eval_tasks": {"a/b": CONFIG["task"]}}, r"eval_tasks\.a/b: a name has letters"),
  ],
)
def test_budgets_that_no_prompt_can_ask_for_are_refused(fields, error):
  with pytest.raises(ValueError, match=error):
    prepared(changed(**fields))


def test_fields_of_an_evaluation_are_checked():
  check_functions(changed(eval_tasks={"a": {**CONFIG["task"], "targets": [4]}}))
  check_functions(changed(eval_task={"same": True}))
  for section, name in (
    (CONFIG["task"] | {"same": 1}, "same"),
    ({"fn": "jsonl", "path": "x", "tragets": [3]}, "tragets"),
  ):
    with pytest.raises(ValueError, match=rf"eval_tasks\.a\.{name}"):
      check_functions(changed(eval_tasks={"a": section}))
  assert tasks.arithmetic(size=2, seed=0).held_out == ()
  for value in (3, {"same": 3}, [CONFIG["task"]]):
    with pytest.raises(ValueError, match="eval_task"):
      check_functions(changed(eval_task=value))
    with pytest.raises(ValueError, match="eval_tasks"):
      check_functions(changed(eval_tasks=value))


def test_obedience_by_hand():
  """Targets 100 and 200; answers 90, 120 and 210, 190."""
  arrays = {
    "correct": np.array([[True], [False]]),
    "lengths": np.array([[90], [120]]),
    "valid": np.ones((2, 1), bool),
    "truncated": np.zeros((2, 1), bool),
    "difficulty": np.zeros(2, int),
  }
  point = obedience.asked_point(arrays, obedience.Asked(100))
  assert point["accuracy"] == 0.5
  assert (point["error"], point["within_10"], point["absolute_error"]) == (5.0, 0.5, 15.0)
  found = obedience.following([[90, 120], [210, 190]], [100, 200])
  assert found["slope"] == pytest.approx(0.95)  # (200 - 105) / (200 - 100)
  # x = -+50, y - mean = -62.5, -32.5, 57.5, 37.5: 50 * 190 / sqrt(4 * 2500 * 9675)
  assert found["correlation"] == pytest.approx(9500 / np.sqrt(10_000 * 9675))
  assert obedience.obedience([89, 109, 111], 100)["within_10"] == pytest.approx(1 / 3)
  flat = obedience.following([[7, 7], [7]], [1, 2])
  assert flat == {"correlation": None, "slope": 0.0}
  with pytest.raises(ValueError, match="there are no answers"):
    obedience.obedience([], 5)
