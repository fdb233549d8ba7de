"""Answers the study's problems with a policy and measures the answers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from experiments.studies.qwen_math.methods import METHODS
from experiments.studies.qwen_math.own_answers import PROBLEMS, SAMPLES
from experiments.studies.qwen_math.setting import Setting
from lcrl import evaluation
from lcrl.evaluation.run import answer_all
from lcrl.training import kinds
from lcrl.training.build import build_tokenizer, rollout_worker

TASKS = {"gsm8k": (1, 1319), "math500": (2, 500), "svamp": (1, 1000), "validation": (4, 500)}
BY_BUDGET = ("gsm8k", "math500", "validation")  # what a policy with a dial is judged on
SHOWN = 12  # problems whose first answers a record keeps
FIELDS = ("correct", "lengths", "difficulty", "valid", "truncated")


class Verdict(NamedTuple):
  evaluations: dict[str, Any]  # by task, "task@budget" where one was asked for
  samples: list[dict[str, Any]]  # answers to the first problems of the first task
  parameters: int  # of the policy


class Judge:
  """Each task is opened once for each way of answering, and its programs are compiled once.

  Args:
    setting: of the study.
    names: of the tasks: files of its data.
    stack: closes what is opened.
  """

  def __init__(self, setting: Setting, names: Sequence[str], stack: contextlib.ExitStack):
    self.setting, self.names, self._stack = setting, tuple(names), stack
    self._opened: dict[str, Any] = {}

  def __call__(self, params: Any, name: str = "grpo", value: float | None = None) -> Verdict:
    """What each task says of the params of a method's policy."""
    method = METHODS[name]
    found: dict[str, Any] = {}
    kept: list[dict[str, Any]] = []
    for task in self.names:
      if not method.asked:
        found[task] = self._measure(params, task, name, value, kept)
      elif task in BY_BUDGET:
        for budget in method.asked:
          point = self._measure(params, task, name, value, kept, budget)
          found[f"{task}@{budget}"] = point
    return Verdict(found, kept, sum(x.size for x in jax.tree.leaves(params)))

  def own_answers(self, params: Any) -> list[dict[str, Any]]:
    """Answers to the first problems of the training set, as `own_answers.write` takes them."""
    task, worker = self._open("train", "grpo", None)
    prompts = [task.prompts[i] for i in range(min(PROBLEMS, len(task.prompts)))]
    rows: list[dict[str, Any]] = []
    batch = self.setting.batch // SAMPLES or 1
    options: Any = dict(samples=SAMPLES, cap=self.setting.cap, batch=batch)
    answer_all(worker, params, prompts, key=jax.random.key(1), keep=rows.append, **options)
    return rows

  def _measure(self, params, task_name, name, value, kept, budget=None) -> dict[str, Any]:
    samples, most = TASKS.get(task_name, (1, 10**9))
    task, worker = self._open(task_name, name, value)
    count = min(most, self.setting.problems or most, len(task.prompts))
    prompts = [task.prompts[i] for i in range(count)]
    shown: list[dict[str, Any]] = []
    first = {prompt.id for prompt in prompts[:SHOWN]}
    keep = lambda row: shown.append(row) if row["prompt_id"] in first else None
    answers = answer_all(
      worker,
      params,
      prompts,
      samples=samples,
      cap=self.setting.judge_cap,
      target=budget,
      batch=self.setting.batch // samples,
      key=jax.random.key(0),
      keep=None if kept else keep,
    )
    kept.extend(sample(task_name, row) for row in shown if row["sample"] == 0)
    point = evaluation.measure(**{field: answers[field] for field in FIELDS})
    point.pop("by_difficulty")
    right = "".join("01"[int(x)] for x in answers["correct"].ravel())
    more = {"samples": samples, "right": right, "lengths": answers["lengths"].ravel().tolist()}
    return point | more

  def _open(self, task: str, name: str, value: float | None) -> Any:
    """The task and its worker, for the way in which this method answers."""
    method = METHODS[name]
    config = self.setting.judging(name, value)
    spec = self.setting.task(task, method.ask)
    key = repr((spec, config["sampling"]))
    if key not in self._opened:
      kind = kinds.kind(config)
      settings = kind.settings(config)
      model, tokenizer = kind.model(settings), build_tokenizer(settings)
      opened = rollout_worker(model, tokenizer, spec, "task")
      self._opened[key] = self._stack.enter_context(opened)
    return self._opened[key]


def sample(task: str, row: dict[str, Any]) -> dict[str, Any]:
  """What a record keeps of an answer."""
  return dict(
    task=task,
    problem=row["prompt_id"],
    question=row["prompt"][-1]["content"],
    answer=row["reference"],
    **{name: row[name] for name in ("text", "tokens", "correct")},
  )
