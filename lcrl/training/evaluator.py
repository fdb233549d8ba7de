"""Evaluations of a run: on prompts that no step trains on, at the budgets that they ask for."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lcrl.data.choosing import first
from lcrl.evaluation import setup
from lcrl.evaluation.effort_curve import effort_measures
from lcrl.evaluation.measures import measure
from lcrl.evaluation.obedience import (
  Asked,
  asked_budgets,
  asked_efforts,
  asked_point,
  following,
)
from lcrl.evaluation.progress import Progress
from lcrl.evaluation.run import answer_all
from lcrl.mesh import round_up_rows
from lcrl.protocols import Sampler
from lcrl.rollouts.worker import RolloutWorker
from lcrl.tasks.task import Prompt, Task
from lcrl.training import build
from lcrl.training.keys import EVAL_STREAM, step_key
from lcrl.training.sections import EvalSet, eval_set, task_of

ASKED = ("targets", "levels", "efforts")  # fields of an evaluation set
MAIN = "eval_task"  # the set whose numbers are the run's


class Answers(NamedTuple):
  """The answers to the prompts of a set that asked for one budget."""

  asked: Asked
  arrays: dict[str, Any]  # of `answer_all`


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
  """A set of prompts, ready to be answered."""

  name: str
  opened: Callable[[], contextlib.AbstractContextManager[RolloutWorker]]
  prompts: Sequence[Prompt]
  asked: tuple[Asked, ...]  # (): prompts ask for the cap, if they ask for anything
  samples: int
  max_tokens: int
  batch: int
  setup: dict[str, Any]  # `lcrl.evaluation.setup`
  judged: bool = True  # `Task.judged`

  def answers(
    self,
    params: Any,
    *,
    key: jax.Array,
    cap: int | None = None,
    say: Callable[[str], None] | None = None,
    keep: Callable[[dict[str, Any]], None] | None = None,
    answer: Callable[..., dict[str, Any]] | None = None,
  ) -> list[Answers]:
    """Answers of at most `cap` tokens for each budget that is asked; `keep` gets every answer.
    `answer` takes the place of `answer_all`, as a recipe (`lcrl.evaluation.test_time`) does."""
    cap, found = cap or self.max_tokens, []
    check_targets(self.asked, cap, self.name)
    with self.opened() as worker:
      for asked in self.asked or (Asked(None),):
        title = ["evaluation" if self.name == MAIN else self.name, f"at most {cap} tokens"]
        title += [asked.label] * bool(self.asked)
        arrays = (answer or answer_all)(
          worker,
          params,
          self.prompts,
          samples=self.samples,
          cap=cap,
          target=asked.target,
          level=asked.level,
          batch=self.batch,
          key=key,
          progress=Progress(", ".join(title), len(self.prompts), say=say),
          keep=keep and (lambda row: keep({"set": self.name, **row})),
        )
        found.append(Answers(asked, arrays))
    return found

  def record(self, answers: Sequence[Answers]) -> dict[str, Any]:
    """`measure` of all answers; if prompts ask for budgets, `asked_point` of each, and `following`
    over several; if they ask for efforts, `effort_measures`."""
    found = measure(**pooled([one.arrays for one in answers]))
    if not self.asked:
      return found
    found["asked"] = [asked_point(one.arrays, one.asked) for one in answers]
    if len(answers) > 1:
      budgets = [a.level if a.target is None else a.target for a, _ in answers]
      tokens = [arrays["lengths"][arrays["valid"]] for _, arrays in answers]
      found["following"] = following(tokens, budgets)
    if all(a.effort is not None for a, _ in answers):
      found["curve"] = effort_measures(found["asked"])
    return found


def pooled(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The arrays of several answers to the same prompts side by side, for `measure`."""
  fields = ("correct", "lengths", "valid", "truncated", "end", "thinking_cut")
  beside = {
    name: None if parts[0].get(name) is None else np.concatenate([part[name] for part in parts], 1)
    for name in fields
  }
  return beside | {"difficulty": parts[0]["difficulty"]}


def plain_numbers(record: Mapping[str, Any]) -> dict[str, float]:
  """The numbers of a record of an `Evaluator` for metrics.jsonl, by name."""
  names = ("accuracy", "tokens", "truncated")
  read = lambda record: {name: record[name] for name in (*names, "thinking_cut") if name in record}
  numbers = {f"eval/{name}": x for name, x in read(record).items()}
  for task, own in record.get("tasks", {}).items():
    numbers |= {f"eval/{task}/{name}": x for name, x in read(own).items()}
  for point in record.get("asked", ()):
    where = f"eval/asked/{point['label'].replace(' ', '_')}"
    numbers |= {f"{where}/{name}": point[name] for name in names[:2]}
  return numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
  """Evaluates params, always on the same data with the same keys. `setup` describes the main set,
  and under "tasks" the further ones."""

  setup: dict[str, Any]
  evaluate: Callable[[Any], Any]

  def __call__(self, params: Any) -> Any:
    return self.evaluate(params)


def make_evaluator(
  model: Any,
  tokenizer: Any,
  worker: RolloutWorker,
  *,
  say: Callable[[str], None] | None = None,
  training: setup.Training | None = None,
) -> Evaluator:
  """An evaluator on the prompts of `eval_task`, else on those that `task` holds out, and on the
  further sets of `eval_tasks`.

  Args:
    model: the learner of the run.
    tokenizer: the tokenizer of its policy.
    worker: the rollout worker of the config's section task.
    say: receives lines about data and progress; None: standard error.
    training: the data that the policy learns from, if that task is for evaluations alone; None:
      the prompts of the task.
  Raises:
    ValueError: there is nothing to evaluate on but training prompts, or they are among the prompts
      of a set that does not say same=True.
  """
  sets = prepare(model, tokenizer, worker, training=training)
  for one, options in sets:
    refuse_overlap(one, options)
    if not one.judged:
      raise ValueError(
        f"{one.name} has no verifier to evaluate a run by: name a task with one, and measure the "
        "answers to these prompts by lcrl-evaluate --task."
      )
    setup.tell(one.setup, say)
  key = step_key(model.settings.seed, EVAL_STREAM)

  def evaluate(params: Any) -> dict[str, Any]:
    records = {one.name: one.record(one.answers(params, key=key, say=say)) for one, _ in sets}
    main = records.pop(MAIN)
    return main | ({"tasks": records} if records else {})

  (main, _), *others = sets
  further = {one.name: one.setup for one, _ in others}
  return Evaluator(main.setup | ({"tasks": further} if further else {}), evaluate)


def prepare(
  model: Any, tokenizer: Any, worker: RolloutWorker, *, training: setup.Training | None = None
) -> list[tuple[Prepared, EvalSet]]:
  """The main set and the further ones in the order of their names; arguments as above."""
  s, task = model.settings, worker.task
  section = s.eval_task or (s.built["task"] if training is not None else {})
  options = main_options(s, section)
  trained = training or setup.of_task(task)
  put = Preparing(model, tokenizer, worker, trained)
  if task.held_out and options.same:
    raise ValueError(
      "task.test_share holds prompts out, and eval_task.same=True evaluates on the others: remove "
      "one of the two."
    )
  if s.eval_task is not None and task_of(s.eval_task):
    if task.held_out:
      raise ValueError(
        "task.test_share holds prompts out that nothing evaluates, since eval_task names others: "
        "remove one of the two."
      )
    main = put.read(MAIN, MAIN, section, options)
  else:
    prompts = task.prompts if training is not None or options.same else task.held_out
    main = put.of_task(MAIN, s.built["task"], task, prompts, options)
  others = []
  for name, spec in sorted(s.eval_tasks.items()):
    field = f"eval_tasks.{name}"
    if not re.fullmatch(r"\w+", name) or name == MAIN:
      raise ValueError(f"{field}: a name has letters, digits and _ alone, and is not {MAIN}.")
    options_of = eval_set(spec, field)
    others.append((put.read(name, field, spec, options_of), options_of))
  return [(main, options), *others]


def main_options(s: Any, section: Mapping[str, Any]) -> EvalSet:
  """The options of the main set, with the budgets of `eval` unless it has its own."""
  options = eval_set(section, MAIN)
  inherited = [name for name in ASKED if getattr(options, name) is None]
  return dataclasses.replace(options, **{name: getattr(s.eval, name) for name in inherited})


@dataclasses.dataclass(frozen=True)
class Preparing:
  """Prepares sets of prompts for one model."""

  model: Any
  tokenizer: Any
  worker: RolloutWorker  # of the section task
  training: setup.Training | setup.Unread
  engines: dict[tuple[float, int], Sampler] = dataclasses.field(default_factory=dict)

  def read(self, name: str, field: str, spec: Mapping[str, Any], options: EvalSet) -> Prepared:
    """The set of a section with a task of its own, whose verifier runs while it is evaluated."""
    s = self.model.settings
    task = build.build_task(s, self.tokenizer, spec, field, max_tokens=options.max_tokens)
    return self.of_task(name, spec, task, task.prompts, options)

  def of_task(
    self, name: str, spec: Mapping[str, Any], task: Task, prompts: Any, options: EvalSet
  ) -> Prepared:
    """The set of some prompts of a task."""
    s = self.model.settings
    if not len(prompts):
      raise ValueError(
        "the config names no prompts to evaluate on that no step trains on: name another file in "
        "eval_task, or keep a share of the prompts out of training with task.test_share=0.05. "
        "eval_task.same=True evaluates on the training prompts."
      )
    chosen = first(prompts, options.prompts or s.eval.prompts)
    samples, cap = options.samples or s.eval.samples, options.max_tokens or s.train.max_tokens
    asked = self.asked(task, options, name)
    check_asked(task, asked, cap, name)
    worker = dataclasses.replace(self.worker, task=task, engine=self.engine(cap))
    return Prepared(
      name,
      lambda: self.opened(worker),
      chosen,
      asked,
      samples,
      cap,
      self.batch(len(chosen), samples, cap),
      {
        "data": task_of(spec),
        "model": setup.model_of(s.built["policy"]),
        "prompts": len(chosen),
        "samples": samples,
        "max_tokens": cap,
        **({"asked": [one.label for one in asked]} if asked else {}),
        "temperature": build.eval_temperature(s),
        **self.training.overlap(chosen),
      },
      task.judged,
    )

  def asked(self, task: Task, options: EvalSet, name: str) -> tuple[Asked, ...]:
    """The budgets that prompts of the set ask for."""
    budgets = asked_budgets(options.targets, options.levels, field=name)
    if not options.efforts:
      return budgets
    if budgets:
      raise ValueError(f"{name} has efforts beside targets or levels: name one of them.")
    s = self.model.settings
    sections = {**s.built, **getattr(s, "slots", {})}
    # A policy is evaluated for the budget that it ends with.
    phases = [phase["budget"] for phase in sections.get("then") or () if "budget" in phase]
    budget = [sections.get("budget") or {}, *phases][-1]
    levels = range(len(budget.get("efforts", ())))
    by_level = len({_view(task, 1, level, f"{name}.efforts") for level in levels}) > 1
    return asked_efforts(options.efforts, budget, field=name, by_level=by_level)

  @contextlib.contextmanager
  def opened(self, worker: RolloutWorker) -> Iterator[RolloutWorker]:
    """The worker with a verifier that runs: that of the run if it is the run's task."""
    if worker.task is self.worker.task:
      yield worker
      return
    with build.verifier(self.model.settings, worker.task) as verifier:
      yield dataclasses.replace(worker, verifier=verifier)

  def batch(self, prompts: int, samples: int, cap: int) -> int:
    """Prompts to answer at a time: as many rows and tokens as a step samples, at most."""
    train = self.model.settings.train
    rows = train.prompts * getattr(train, "group_size", self.model.settings.eval.samples)
    rows = rows * train.max_tokens // max(cap, train.max_tokens)
    return round_up_rows(self.worker.mesh, max(1, min(prompts, rows // samples)))

  def engine(self, cap: int) -> Sampler:
    """The run's engine if it serves: at the temperature of evaluations, for so many tokens."""
    s = self.model.settings
    temperature, longest = build.eval_temperature(s), max(cap, s.train.max_tokens)
    if temperature == s.sampling.temperature and longest == s.train.max_tokens:
      return self.worker.engine
    if (temperature, longest) not in self.engines:
      self.engines[temperature, longest] = build.build_engine(
        self.model, self.worker.mesh, self.tokenizer, temperature=temperature, max_tokens=longest
      )
    return self.engines[temperature, longest]


def check_asked(task: Task, asked: Sequence[Asked], cap: int, name: str) -> None:
  """Raises ValueError if a target exceeds the cap, or prompts do not show the budgets."""
  shown: dict[str, Asked] = {}
  check_targets(asked, cap, name)
  for one in asked:
    field = f"{name}.{'levels' if one.effort is None else 'efforts'}"
    view = _view(task, one.target or cap, one.level, field)
    if len(asked) == 1 and not _differs(task, one, cap, view):
      raise ValueError(
        f"{name}: its prompts do not show {one.label}; task.render has to show the budget."
      )
    if view in shown:
      raise ValueError(
        f"{name}: its prompts are the same for {shown[view].label} and {one.label}; task.render "
        "has to show the budget."
      )
    shown[view] = one


def _view(task: Task, target: int, level: int, field: str) -> str:
  """The first prompt as it shows a budget. Raises ValueError for a level without a template."""
  try:
    return repr(task.render(task.prompts[0], target, level))
  except ValueError as why:
    raise ValueError(f"{field}: {why}") from why


def _differs(task: Task, one: Asked, cap: int, view: str) -> bool:
  """Do prompts show another budget of this kind in another way?"""
  target, others = one.target or cap, []
  if one.target is not None:
    others.append((target + 1, one.level))
  if one.target is None or one.level or one.effort is not None:
    others += [(target, one.level + 1), (target, max(0, one.level - 1))]
  for other in others:
    with contextlib.suppress(ValueError):  # a level without a template
      if _view(task, *other, "") != view:
        return True
  return False


def check_targets(asked: Sequence[Asked], cap: int, name: str) -> None:
  """Raises ValueError if a target exceeds the cap."""
  for one in asked:
    # An effort may exceed the cap: the highest one then says that nothing else limits the answer.
    if one.effort is None and one.target is not None and one.target > cap:
      raise ValueError(f"{name}.targets has {one.target}; an answer has at most {cap} tokens.")


def refuse_overlap(one: Prepared, options: EvalSet) -> None:
  """Raises ValueError if training prompts are among those of a set that does not allow it."""
  if (seen := one.setup["training_prompts"]) and not options.same:
    field = MAIN if one.name == MAIN else f"eval_tasks.{one.name}"
    raise ValueError(
      f"{seen} of the {one.setup['prompts']} prompts of {field} stand in the training data: name "
      "another file, or keep a share of the prompts out of training with task.test_share=0.05. "
      f"{field}.same=True evaluates on them all the same."
    )
