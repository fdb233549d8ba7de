"""Recipes for test time: tokens and prompts by hand on a scripted model, and on a real one."""

import json

import pytest

from lcrl.commands import evaluate as command
from lcrl.evaluation import test_time
from lcrl.evaluation.test_time.parts import Answer
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.reward_model.run import build_learner
from lcrl.training.reward_model.settings import read
from tests.helpers.evaluate_flags import flags
from tests.helpers.pair_runs import changed
from tests.helpers.saved_runs import CONFIG, save_run

PROBLEM = ({"role": "user", "content": "1 + 2?"},)


class Script:
  """Gives "text:tokens" from a list in turn, cut at the cap; "!" at the end makes it right."""

  def __init__(self, *answers, reward=None, judged=True):
    self.answers, self.asked, self.caps = list(answers), [], []
    self.reward, self.judged = reward, judged

  def __call__(self, queries, caps, n):
    self.asked += queries
    self.caps += caps
    return [[self.answer(q, cap) for _ in range(n)] for q, cap in zip(queries, caps, strict=True)]

  def answer(self, query, cap):
    text, tokens = self.answers.pop(0).split(":")
    correct = text.endswith("!") if self.judged else None
    reward = None if self.reward is None else self.reward[text]
    whole = query.prefix + text
    return Answer(whole, min(int(tokens), cap), int(tokens) > cap, correct, reward)


def test_best_of_stops_at_a_right_answer():
  script = Script("no:5", "yes!:4")
  (one,) = test_time.best_of(n=4)(script, [PROBLEM], 10)
  assert (one.answer.text, one.sequential, one.total) == ("yes!", 9, 9)
  script = Script("no:5", "yes!:4", "a:1")  # the second problem is solved at once
  both = test_time.best_of(n=2)(script, [PROBLEM] * 2, 10)
  assert [one.total for one in both] == [5 + 1, 4]
  assert [query.problem for query in script.asked] == [0, 1, 0]


def test_best_of_keeps_to_its_budget():
  # 10 tokens: 4, then 4 more, then the last draw is cut at 2.
  script = Script("a:4", "b:4", "c:9")
  (one,) = test_time.best_of(n=8, budget=10)(script, [PROBLEM], 6)
  assert script.caps == [6, 6, 2]
  assert (one.total, one.answer.text) == (10, "a")
  # In pairs: both get half of what is left, and the longer one counts as sequential.
  script = Script("a:4", "b:2", "c:9", "d:1")
  (one,) = test_time.best_of(n=8, budget=10, at_once=2)(script, [PROBLEM], 6)
  assert script.caps == [5, 2]
  assert (one.sequential, one.total) == (4 + 2, 6 + 3)


def test_the_answer_is_chosen_by_majority_or_reward():
  votes = ["7:1", "9:1", "9:2"]
  (one,) = test_time.best_of(n=3, by="majority")(Script(*votes), [PROBLEM], 5)
  assert (one.answer.text, one.answer.tokens) == ("9", 1)
  script = Script(*votes, reward={"7": 0.5, "9": 0.1}, judged=False)
  (one,) = test_time.best_of(n=3, by="reward", at_once=3)(script, [PROBLEM], 5)
  assert (one.answer.text, one.sequential, one.total) == ("7", 2, 4)


def test_draws_go_on_until_enough_pass():
  script = Script("a:1", "b!:1", "c:1", "d!:1")
  (one,) = test_time.draw_until(passes=2, most=8, at_once=2)(script, [PROBLEM], 5)
  assert [draw.correct for draw in one.draws] == [False, True, False, True]
  script = Script("a:1", "b:1")
  (one,) = test_time.draw_until(passes=1, most=2, at_once=1)(script, [PROBLEM], 5)
  assert len(one.draws) == one.total == 2


def test_deepening_interrupts_at_growing_lengths():
  # 4 tokens, then up to 8, then up to the cap of 12, where it ends after 3 more.
  script = Script("a:99", "b:99", "c:3")
  (one,) = test_time.deepen(first=4, growth=2, trigger="?")(script, [PROBLEM], 12)
  assert script.caps == [4, 4, 4]
  assert [query.prefix for query in script.asked] == ["", "a?", "a?b?"]
  assert (one.answer.text, one.sequential, one.total) == ("a?b?c", 11, 11)
  assert not one.answer.truncated


def test_deepening_reopens_an_answer_that_ended():
  script = Script("a:2", "b:3", "c:1")
  (one,) = test_time.deepen(first=4, trigger="?", reopen=True)(script, [PROBLEM], 12)
  assert script.caps == [4, 6, 7]
  assert (one.answer.text, one.total) == ("a?b?c", 6)
  (one,) = test_time.deepen(first=4, trigger="?")(Script("a:2"), [PROBLEM], 12)
  assert one.answer.text == "a"


def test_deepening_in_parallel_votes():
  script = Script("7:1", "9:3", "9:2")
  (one,) = test_time.deepen(first=8, n=3)(script, [PROBLEM], 8)
  assert (one.answer.text, one.sequential, one.total) == ("9", 3, 6)


def test_pdr_rounds():
  # Two drafts (5, 7), notes (3), one draft (2), notes (1), the answer (4).
  script = Script("x:5", "y:7", "n:3", "z:2", "m:1", "end!:4")
  recipe = test_time.pdr(drafts=(2, 1), workspace=6, attempt="|{notes}", summary="#{attempts}")
  (one,) = recipe(script, [PROBLEM], 10)
  assert (one.answer.text, one.sequential, one.total) == ("end!", 7 + 3 + 2 + 1 + 4, 22)
  asked = [query.messages[0]["content"] for query in script.asked]
  assert asked[1] == "1 + 2?#Attempt 1:\nx\n\nAttempt 2:\ny"
  assert asked[2] == "1 + 2?|n"
  assert asked[4] == "1 + 2?|m"  # notes do not accumulate
  assert script.caps == [10, 6, 10, 6, 10]


def test_pdr_keeps_the_drafts_that_fit():
  rewards = {"x": 0.1, "y": 0.9, "long": 0.5, "end": 0}
  script = Script("x:2", "long:5", "y:3", "end:1", reward=rewards)
  recipe = test_time.pdr(drafts=(3,), workspace=6, distil="reward", attempt="|{notes}")
  (one,) = recipe(script, [PROBLEM], 9)
  assert script.asked[-1].messages[0]["content"] == "1 + 2?|Attempt 1:\ny\n\nAttempt 2:\nx"
  assert (one.sequential, one.total) == (6, 11)
  script = Script("abcdef:6", "end:1")
  test_time.pdr(drafts=(1,), workspace=2, distil="random", attempt="|{notes}")(script, [PROBLEM], 9)
  assert script.asked[-1].messages[0]["content"] == "1 + 2?|ef"  # its end


@pytest.mark.parametrize(
  ("recipe", "message"),
  [
    (lambda: test_time.best_of(n=0), "n must be at least 1, got 0"),
    (lambda: test_time.best_of(n=4, at_once=3), "at_once must divide .* got 3 of 4"),
    (lambda: test_time.best_of(by="luck"), "by must be verifier, reward or majority"),
    (lambda: test_time.best_of(extract="box"), "extract one of .*'box'"),
    (
      lambda: test_time.best_of(n=4, at_once=4, budget=3)(Script(), [PROBLEM], 5),
      "does not give 4",
    ),
    (lambda: test_time.best_of()(Script("a:1", judged=False), [PROBLEM], 5), "with a verifier"),
    (lambda: test_time.best_of(n=1, by="reward")(Script("a:1"), [PROBLEM], 5), "learned reward"),
    (lambda: test_time.deepen(growth=1), "growth must be above 1"),
    (lambda: test_time.pdr(drafts=()), "rounds must be at least 1"),
    (lambda: test_time.pdr(drafts=(2, 0)), "drafts must be at least 1"),
    (lambda: test_time.pdr(distil="best"), "distil must be summary, reward or random"),
  ],
)
def test_bad_input_is_named(recipe, message):
  with pytest.raises(ValueError, match=message):
    recipe()


@pytest.fixture(scope="module")
def run(tmp_path_factory, one_device):
  folder = tmp_path_factory.mktemp("run") / "run"
  save_run(folder)
  return str(folder)


def evaluated(monkeypatch, out, **given):
  monkeypatch.setattr(command, "FLAGS", flags(out=str(out), **given))
  command.main(None)
  answers = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
  return json.loads((out / "evaluation.json").read_text()), answers


@pytest.mark.slow
def test_draws_of_a_run_are_kept_for_pass_until(run, tmp_path, monkeypatch):
  given = {"workdir": run, "prompts": 3, "samples": 1, "measures": "pass_until(passes=1)"}
  recipe = "draw_until(passes=1, most=2, at_once=1)"
  record, answers = evaluated(monkeypatch, tmp_path / "out", recipe=recipe, **given)
  point = record["budgets"]["16"]
  assert point["tokens"] == point["total_tokens"] == point["sequential_tokens"]
  assert 3 * point["total_tokens"] == pytest.approx(sum(row["tokens"] for row in answers))
  for prompt in range(3):
    mine = [row for row in answers if row["prompt_id"] == prompt]
    assert [row["sample"] for row in mine] == list(range(len(mine)))
    assert len(mine) == 2 or mine[0]["correct"]
  assert len({row["text"] for row in answers}) > 3  # other draws of a prompt are other answers
  assert (tmp_path / "out" / "measures.json").exists()
  assert "sequential tokens" in (tmp_path / "out" / "evaluation.md").read_text()


def test_deepening_of_a_run_forces_the_trigger(run, tmp_path, monkeypatch):
  """It is in the text that is verified, and not among the tokens."""
  recipe = "deepen(first=4, growth=4, trigger=a)"
  given = {"workdir": run, "prompts": 4, "samples": 1, "recipe": recipe}
  _, answers = evaluated(monkeypatch, tmp_path / "out", **given)
  long = [row for row in answers if row["tokens"] > 4]
  assert long
  for row in long:
    assert row["text"][4] == "a"
    assert len(row["text"]) + (not row["truncated"]) == row["tokens"] + 1


@pytest.mark.slow
def test_pdr_by_a_learned_reward_on_prompts_that_nothing_verifies(
  tmp_path, rows, one_device, monkeypatch
):
  """Notes make prompts longer than the run allows; the sampler's limit grows with them."""
  prompts = tmp_path / "p.jsonl"
  prompts.write_text('{"prompt": "say a"}\n{"prompt": "say b"}\n')
  config, reward = changed(rows), tmp_path / "reward"
  shared = {name: config[name] for name in ("seed", "lora", "data", "batches", "policy")}
  shared |= {name: config[name] for name in ("tokenizer", "optimizer", "mesh", "checkpoint")}
  scores = {"run": "reward_model", "loss": {"fn": "pairwise"}, "train": {"steps": 4, "pack": 64}}
  reward.mkdir()
  (reward / "config.json").write_text(json.dumps({"config": shared | scores}))
  checkpoints = Checkpoints(reward / "checkpoints")
  checkpoints.save(1, build_learner(read(shared | scores)).initial())
  checkpoints.close()
  given = {"config": config, "task": f'prompts(path="{prompts}")', "prompts": 2, "samples": 1}
  recipe = "pdr(drafts=(2,), workspace=32, distil=reward)"
  given |= {"recipe": recipe, "reward": str(reward), "batch": 2}
  record, answers = evaluated(monkeypatch, tmp_path / "out", **given)
  point = record["budgets"]["16"]
  assert point["accuracy"] is None
  assert point["total_tokens"] > point["sequential_tokens"] > 2
  assert all(row["correct"] is None for row in answers)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"recipe": "best(n=2)"}, "best_of"),
    ({"recipe": "best_of(m=2)"}, "recipe.m is not an argument"),
    ({"recipe": "best_of, pdr"}, "--recipe names one thing"),
    ({"reward": "runs/crm"}, "nothing reads --reward without --recipe"),
  ],
)
def test_bad_flags_are_named(given, message):
  with pytest.raises(ValueError, match=message):
    command.read_flags(flags(config=CONFIG, **given))
