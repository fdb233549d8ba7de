"""Accuracy and tokens of a model at several budgets, with intervals and pass@k.

  lcrl-evaluate --workdir=runs/laser --budgets=64,256
  lcrl-evaluate --config=configs/laser.py --model=exported --samples=4
  lcrl-evaluate --workdir=runs/l1 --targets=512,1024,2048
  lcrl-evaluate --workdir=runs/e1 --efforts=0.25,0.5,1 --front=runs/laser,runs/kimi
  lcrl-evaluate --config=configs/laser.py --along=A:B --strengths=0,0.5,1 --out=o
  lcrl-evaluate --workdir=runs/laser --recipe='best_of(n=8, budget=512)'
  lcrl-evaluate --workdir=runs/simpo --task=data/chats.jsonl

A run folder supplies its config and newest valid checkpoint; a config supplies the task and, unless
--model names a Hugging Face folder, the model. All sets of the config are answered (eval_task and
eval_tasks; --sets chooses), at each cap of --budgets, and for each budget that prompts ask for
(--targets, --levels and --efforts, of methods whose prompts show one). Writes evaluation.json, .md
and .png to --out, and every answer with its verdict to answers.jsonl (in a run's folder:
evaluation_answers.jsonl).
Over --efforts it also draws accuracy against tokens (evaluation_efforts.png), and compares that
curve with the results in the folders of --front.
--task takes the place of all sets: another task (`lcrl.tasks`), as --task='jsonl(path="a/b.jsonl",
reference=after_hashes)', or a file of prompts. Nothing verifies answers to these: they have a
length and no accuracy. --measures applies measures by name to all answers
(`lcrl-measures`). --recipe spends more tokens on each answer (`lcrl.evaluation.test_time`):
tokens are then all that it sampled.
--along evaluates A + strength * (B - A) at each strength, in a folder of its own, and plots all as
one curve: path.json, .md and .png.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from lcrl import evaluation, tasks
from lcrl.commands import command, recipes
from lcrl.commands.evaluation_request import Request, at_strength, read_flags, read_strengths
from lcrl.commands.front import comparable_front, single_methods
from lcrl.commands.measures import measured
from lcrl.data import sources as data_sources
from lcrl.data.choosing import split
from lcrl.evaluation import measures, plots, sets_report, setup, tables
from lcrl.evaluation.answers.report import check_specs
from lcrl.evaluation.progress import to_stderr
from lcrl.evaluation.report import setups
from lcrl.mesh import param_shardings
from lcrl.policies import sources
from lcrl.registry import build, resolve
from lcrl.tasks.task import Task
from lcrl.training import evaluator, kinds
from lcrl.training.build import build_tokenizer, rollout_worker
from lcrl.training.remote import opened, origin, publish
from lcrl.training.saved_policy import restore
from lcrl.training.sections import eval_set, task_of
from lcrl.training.workdir import read_start

FLAGS = flags.FLAGS
KEPT = ("budgets", "asked", "following", "curve", "evaluation")  # of the main set's record


def spread(parts: Sequence[Mapping[str, Any]], cap: int, ks: Sequence[int]) -> dict[str, Any]:
  """pass@k with intervals over prompts, and quantiles of length, of the arrays of `answer_all` for
  each asked budget: k answers to a prompt ask for the same budget."""
  numbers: dict[str, Any] = {}
  lengths = np.concatenate([part["lengths"][part["valid"]] for part in parts])
  for k in ks if parts[0]["correct"] is not None else ():
    chances = [
      evaluation.pass_at_k(p["valid"].sum(1), (p["correct"] & p["valid"]).sum(1), k=k)
      for p in parts
    ]
    p, *ends = evaluation.accuracy_estimate(np.stack(chances, 1))
    numbers[f"pass@{k}"] = p
    numbers[f"pass@{k}_ci"] = [None if np.isnan(end) else end for end in ends]
  return numbers | {"lengths": measures.length_summary(lengths, cap=cap)}


def points_of(
  one: evaluator.Prepared,
  params: Any,
  request: Request,
  keep: Callable | None,
  answer: Callable | None = None,
) -> dict[str, dict[str, Any]]:
  """The numbers of a set at each cap; `answer` as `Prepared.answers` takes it."""
  points, key = {}, jax.random.key(request.seed)
  for cap in request.budgets or [one.max_tokens]:
    # One key for all: a larger budget continues the same answers.
    answers = one.answers(params, key=key, cap=cap, keep=keep, answer=answer)
    parts = [part.arrays for part in answers]
    ks = request.ks or [parts[0]["valid"].shape[1]]
    points[str(cap)] = one.record(answers) | spread(parts, cap, ks) | recipes.spent(parts)
  return points


def evaluate(
  settings: Any, request: Request, *, keep: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
  """The contents of evaluation.json. `keep` gets every answer."""
  started, workdir, step = time.perf_counter(), request.workdir, request.step
  name = str(origin(workdir) if workdir else setup.model_of(settings.built["policy"]))
  to_stderr(f"Loading {name}.")
  model = kinds.RUNS[settings.run].model(settings)
  started_at = None if workdir is None else read_start(workdir)
  tokenizer = build_tokenizer(settings, model.policy, started_at)
  if workdir is None:
    params = initial_params(settings, model)
  else:
    step, params = restore(workdir, model, step)
  answer = recipes.answering(request.recipe, request.reward, model, tokenizer)
  records = {}
  with contextlib.ExitStack() as stack:
    for one in sets_of(settings, model, tokenizer, request, stack):
      one.setup["model"] = name if step is None else f"{name}, step {step}"
      setup.tell(one.setup)
      points = points_of(one, params, request, keep, answer)
      records[one.name] = {"budgets": points, "evaluation": one.setup}
  record, *_ = records.values()
  main, further = record | largest(record), list(records.items())[1:]
  return {
    "model": str(origin(workdir) if workdir else settings.built["policy"].get("path", "")),
    "step": step,
    "task": record["evaluation"]["data"],
    "samples": record["evaluation"]["samples"],
    "temperature": settings.sampling.temperature,
    **({"control": dict(s)} if (s := settings.sampling.control) else {}),
    **({"recipe": dict(request.recipe)} if request.recipe else {}),
    **{key: main[key] for key in KEPT if key in main},
    **({"tasks": {name: largest(one) | one for name, one in further}} if further else {}),
    "seed": request.seed,
    "wall_s": time.perf_counter() - started,
    "device": evaluation.device(),
    "commit": evaluation.commit(),
  }


def largest(record: Mapping[str, Any]) -> dict[str, Any]:
  """The point of a set at its largest budget."""
  return record["budgets"][max(record["budgets"], key=int)]


def initial_params(settings: Any, model: Any) -> Any:
  """The parameters that the config's policy starts with."""
  source = build(sources, settings.built["policy"], field="policy")
  shapes = jax.eval_shape(model.policy.init, jax.random.key(0))
  key = jax.random.key(settings.seed)
  return source.params(key, param_shardings(model.mesh, model.policy.axes, shapes))


def sets_of(
  settings: Any, model: Any, tokenizer: Any, request: Request, stack: contextlib.ExitStack
) -> list[evaluator.Prepared]:
  """The sets of a config: the main one, and those of `eval_tasks`. Unlike a run, the command takes
  training prompts, too, and warns of them."""
  spec = settings.eval_task if task_of(settings.eval_task or {}) else settings.built.get("task")
  if spec is None:
    raise ValueError("the config has no section task to evaluate on: name one, --task='...'.")
  every = [evaluator.MAIN, *sorted(settings.eval_tasks)]
  if unknown := set(request.sets or ()) - {*every}:
    raise ValueError(f"there is no set {sorted(unknown)[0]!r}; there are {', '.join(every)}.")
  task, worker = stack.enter_context(rollout_worker(model, tokenizer, spec, "task"))
  put = evaluator.Preparing(model, tokenizer, worker, training_data(settings, tokenizer, task))
  found = []
  for name in (name for name in every if request.sets is None or name in request.sets):
    if name == evaluator.MAIN:
      options = evaluator.main_options(settings, settings.eval_task or spec)
      options = dataclasses.replace(options, **request.everywhere, **request.asked)
      found.append(put.of_task(name, spec, task, task.held_out or task.prompts, options))
    else:
      section, field = settings.eval_tasks[name], f"eval_tasks.{name}"
      options = dataclasses.replace(eval_set(section, field), **request.everywhere)
      found.append(put.read(name, field, section, options))
  least = min(one.samples for one in found)
  if request.ks and not 1 <= min(request.ks) <= max(request.ks) <= least:
    raise ValueError(f"pass_at must lie between 1 and {least} answers, got {request.ks}.")
  return found


def training_data(settings: Any, tokenizer: Any, task: Task) -> setup.Training | setup.Unread:
  """What the model of the config learned from, if it can be read; `task` is evaluated."""
  try:
    if (spec := settings.built.get("data")) is not None:
      train = resolve(data_sources, spec, field="data")(tokenizer).train
      return setup.of_tokens([one.prompt for one in train], tokenizer)
    if not task_of(settings.eval_task or {}):
      return setup.of_task(task)
    spec = settings.built["task"]
    whole = build(tasks, task_of(spec), field="task")
    train, _ = split(whole.prompts, spec.get("test_share", 0.0), most=1, field="task")
    return setup.of_task(dataclasses.replace(whole, prompts=train))
  except (OSError, ValueError) as why:
    to_stderr(f"The training data cannot be read: {why}")
    return setup.Unread()


def write(out: Path, record: Mapping[str, Any]) -> str:
  """evaluation.json, evaluation.md and pictures; returns the tables but that by difficulty."""
  out.mkdir(parents=True, exist_ok=True)
  evaluation.write_json(out / "evaluation.json", record)
  named = {f"{cap} tokens": point for cap, point in record["budgets"].items()}
  judged = any(point["accuracy"] is not None for point in named.values())
  picture = "![accuracy against tokens at each budget](evaluation.png)"
  if judged:
    plots.pareto(out / "evaluation.png", named)
  table = tables.to_markdown(tables.budgets(record["budgets"]))
  further = sets_report.sections(
    out, {record.get("method") or "model": record}, prefix="evaluation_"
  )
  text = [
    f"# {record['model'] or 'A fresh model'} on {record['task']['fn']}",
    table,
    f"{record['samples']} answers to each prompt at temperature {record['temperature']}; brackets "
    "hold 95 % intervals over prompts.",
    *recipes.lines(record),
    *setups({"": record}),
    picture if judged else "Nothing verified these answers: they have no accuracy.",
    *further,
    "## By difficulty",
    tables.to_markdown(tables.by_difficulty(named)),
    f"Seed {record['seed']}; {record['device']}; commit {record['commit']}; "
    f"{record['wall_s']:.0f} s.",
  ]
  (out / "evaluation.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
  return "\n\n".join([table, *(part for part in further if part.startswith("|"))])


def answers_file(out: Path) -> Path:
  """The file for the answers; in a run's own folder the usual name may hold the run's answers."""
  is_run = (out / "metrics.jsonl").exists()
  return out / ("evaluation_answers.jsonl" if is_run else "answers.jsonl")


@contextlib.contextmanager
def kept(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
  """Gives a function that writes an answer as a line. The file gets its name once it is complete;
  after an error the lines stay in a .partial file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  unfinished = path.with_suffix(".partial")
  try:
    with unfinished.open("w", encoding="utf-8") as file:
      yield lambda row: print(json.dumps(row, default=str), file=file)
    unfinished.replace(path)
  finally:
    if unfinished.exists() and not unfinished.stat().st_size:
      unfinished.unlink()


def write_path(out: Path, along: str, points: Mapping[float, Mapping[str, Any]]) -> str:
  """path.json, path.md and path.png from the evaluation at each strength; returns the table."""
  evaluation.write_json(out / "path.json", {"along": along, "strengths": points})
  caps = list(next(iter(points.values()))["budgets"])
  names = {cap: f"{cap} tokens" for cap in caps}
  at = lambda cap: [(f"{s:g}", point["budgets"][cap]) for s, point in points.items()]
  plots.line(out / "path.png", {names[cap]: at(cap) for cap in caps})
  rows = [[cap, label, *tables.point_cells(p)] for cap in caps for label, p in at(cap)]
  table = tables.to_markdown((["budget", "strength", "accuracy, %", "tokens"], rows))
  text = f"# From {along.replace(':', ' to ')}\n\n{table}\n\n![accuracy against tokens](path.png)\n"
  (out / "path.md").write_text(text, encoding="utf-8")
  return table


def evaluate_path(
  settings: Any, along: str, strengths: Sequence[float], out: Path, request: Request
) -> str:
  """Evaluates each strength in a folder of its own and plots all; returns the table. The main set
  alone is answered, unless --sets names another."""
  if request.sets is None:
    request = request._replace(sets=[evaluator.MAIN])
  elif len(request.sets) != 1:
    raise ValueError(f"--along draws one set, got {', '.join(request.sets)}.")
  points = {}
  for strength in strengths:
    folder = out / f"strength_{strength:g}"
    with kept(answers_file(folder)) as keep:
      record = evaluate(at_strength(settings, along, strength), request, keep=keep)
    points[strength] = {**record, "method": f"{out.name} {strength:g}"}
    if jax.process_index() == 0:
      write(folder, points[strength])
  return write_path(out, along, points) if jax.process_index() == 0 else ""


def main(_) -> None:
  settings, request = read_flags(FLAGS)
  if FLAGS.measures is not None:
    if FLAGS.along is not None:
      raise ValueError("--measures needs one model: apply lcrl-measures to each strength.")
    check_specs(command.read_calls(FLAGS.measures, "measures"))
  out = request.workdir if FLAGS.out is None else opened(FLAGS.out)
  assert out is not None  # `read_flags`
  if FLAGS.along is not None:
    if FLAGS.front is not None:
      raise ValueError("--front is compared with a curve over --efforts, not with --along.")
    print(evaluate_path(settings, FLAGS.along, read_strengths(FLAGS), out, request))
    publish(out)
    return
  front = {} if FLAGS.front is None else single_methods(FLAGS.front)
  if front and not {**(settings.eval_task or {}), **request.asked}.get("efforts"):
    raise ValueError("--front is compared with a curve: name its --efforts.")
  with kept(answers_file(out)) as keep:
    record = evaluate(settings, request, keep=keep)
  apart: ValueError | None = None
  if front:
    try:
      record["front"] = comparable_front(front, record)
    except ValueError as why:  # what was measured is kept
      apart = why
  if FLAGS.workdir is None:
    record["method"] = Path(FLAGS.model).name if FLAGS.model else out.name
  else:
    record["method"] = Path(FLAGS.workdir).name
  if jax.process_index() == 0:
    print(write(out, record))
    if FLAGS.measures is not None:
      print(f"\n{measured([answers_file(out)], FLAGS.measures, out)}")
    publish(out)
    place = origin(out)
    print(f"\n{place / 'evaluation.md'}; the answers are in {place / answers_file(out).name}")
  if apart is not None:
    raise ValueError(f"{apart} The evaluation is written, without a front.")


if __name__ == "__main__":
  command.define_config()
  flags.DEFINE_string("workdir", None, "Run folder, instead of a config.")
  flags.DEFINE_integer("step", None, "The step of the checkpoint; the newest if not given.")
  flags.DEFINE_string("model", None, "Hugging Face folder, instead of the config's model.")
  flags.DEFINE_string("task", None, "A file of prompts, or a task as name(field=value, ...).")
  flags.DEFINE_string("measures", None, "Measures of the answers: name, name(field=value), ...")
  flags.DEFINE_string("recipe", None, "A recipe for test time, as name(field=value, ...).")
  flags.DEFINE_string("reward", None, "Run folder of a reward model that a recipe reads.")
  flags.DEFINE_string("along", None, "A:B, two folders: models on the line through them.")
  flags.DEFINE_list("strengths", ["0", "0.25", "0.5", "0.75", "1"], "0: A, 1: B.")
  flags.DEFINE_list("sets", None, "Evaluation sets: eval_task, and names of eval_tasks; all.")
  flags.DEFINE_list("budgets", None, "Caps in tokens; those of each set.")
  flags.DEFINE_list("targets", None, "Tokens that prompts of eval_task ask for; the config's.")
  flags.DEFINE_list("levels", None, "Levels that they show; the config's.")
  flags.DEFINE_list("efforts", None, "Efforts that they ask for; the config's.")
  flags.DEFINE_list("front", None, "Folders of results to compare the efforts with.")
  flags.DEFINE_multi_string(
    "control",
    None,
    'What else shapes sampling, such as "budget_forcing(min_thinking_tokens=64, '
    "max_thinking_tokens=256, wait_tokens='Wait')\"; several are chained.",
  )
  flags.DEFINE_integer("samples", None, "Answers to each prompt; those of each set.")
  flags.DEFINE_list("pass_at", None, "The k of pass@k; the answers to each prompt.")
  flags.DEFINE_integer("prompts", None, "Number of prompts, from the first on; those of each set.")
  flags.DEFINE_integer("batch", 32, "Prompts sampled at a time.")
  flags.DEFINE_float(
    "temperature", None, "Sampling temperature, 0 for the most likely token; the config's."
  )
  flags.DEFINE_integer("seed", 0, "Seed of sampling.")
  flags.DEFINE_string("out", None, "Folder; the run's if there is one.")
  command.run(main, "evaluate")
