"""A config may name functions of any module for every section; the library stays as it is."""

import json

import pytest

from lcrl.training import loop
from tests.helpers.devices import limit_devices
from tests.helpers.rl_runs import changed

SCORES = '''
"""Verifier workers import this: no jax."""


def exact(answer: str, reference: str) -> float:
  return float(answer == reference)


def no_answer(text: str) -> str | None:
  return "wrong" if "7" in text else "right"
'''
IDEAS = """
import dataclasses

import jax.numpy as jnp
import optax

from lcrl import budgets, filters
from lcrl.data.tokenizers import Utf8
from lcrl.policies import sources
from lcrl.tasks.jsonl import jsonl
from lcrl.tasks.task import Rendered, Signals
from lcrl.training.rl.revise import Revision
from lcrl.types import Stage


def podium(*, bonus: float, base: Stage | None = None) -> Stage:
  def apply(state, rollouts):
    assert "vowels" in rollouts.signals and "seen" in rollouts.signals
    return rollouts.correct + bonus / rollouts.lengths, state

  return Stage(init=lambda: (), apply=apply, needs=("vowels", "seen"))


def short_budget(*, target: int) -> Stage:
  return budgets.fixed(target=target)


def all_of_them() -> Stage:
  return filters.keep_all()


def tokens(mask, keep):
  return mask / mask.sum()


def rate(*, speed: float):
  return optax.sgd(speed)


def small(*, layers: int = 1):
  return sources.fresh(vocab_size=258, layers=layers, hidden_size=16, mlp_size=16)


def letters():
  return Utf8()


def ask(*, words: str):
  return lambda prompt, target, level: Rendered(prompt.messages, prefix=words)


def vowels():
  count = lambda response: sum(map(response.text.count, "aeiou"))
  return Signals({"vowels": int}, lambda response: {"vowels": count(response)})


def look():
  def apply(r, grader):
    return dataclasses.replace(r, signals=r.signals | {"seen": r.lengths})

  return Revision(apply, ("seen",))


def questions(*, render=None, signals=None, path: str):
  return jsonl(path, verifier="own_scores:exact", extract="own_scores:no_answer",
               render=render, signals=signals)
"""


@pytest.mark.slow
def test_a_run_of_nothing_but_own_functions(tmp_path, monkeypatch):
  limit_devices(monkeypatch)
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / "own_scores.py").write_text(SCORES)
  (tmp_path / "own_ideas.py").write_text(IDEAS)
  rows = [{"question": f"{i} + 1?", "answer": "right"} for i in range(8)]
  (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
  task = {"fn": "own_ideas:questions", "path": str(tmp_path / "rows.jsonl")}
  task |= {
    "render": {"fn": "own_ideas:ask", "words": "So: "},
    "signals": {"fn": "own_ideas:vowels"},
  }
  config = changed(
    budget={"fn": "own_ideas:short_budget", "target": 8},
    reward={"fn": "own_ideas:podium", "bonus": 0.5},
    filter={"fn": "own_ideas:all_of_them"},
    weights={"fn": "own_ideas:tokens"},
    optimizer={"fn": "own_ideas:rate", "speed": 0.1},
    policy={"fn": "own_ideas:small"},
    tokenizer={"fn": "own_ideas:letters"},
    task=task,
    train__steps=1,
    train__max_prompt_tokens=32,
  )
  loop.train(config | {"revise": {"fn": "own_ideas:look"}}, tmp_path / "run")
  (step,) = [
    row
    for row in map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    if "loss" in row
  ]
  assert step["outcome/crash"] == step["outcome/timeout"] == 0
  assert step["reward"] > step["accuracy"]
  with pytest.raises(ValueError, match=r"reward\.bonus must be a finite number, got 'much'"):
    loop.train(changed(reward={"fn": "own_ideas:podium", "bonus": "much"}), tmp_path / "no")
