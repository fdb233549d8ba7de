"""Accuracy and tokens of a model at several budgets, with intervals and pass@k.

  python -m experiments.evaluate --workdir=runs/laser --budgets=64,256
  python -m experiments.evaluate --config=configs/laser.py --model=exported --samples=4
  python -m experiments.evaluate --config=configs/laser.py --along=A:B --strengths=0,0.5,1 --out=o

A run folder supplies its config and newest valid checkpoint; a config supplies the task and, unless
--model names a Hugging Face folder, the model. Writes evaluation.json, .md and .png to --out, and
every answer with its verdict to answers.jsonl (in a run's folder: evaluation_answers.jsonl).
--along evaluates A + strength * (B - A) at each strength, in a folder of its own, and plots all as
one curve: path.json, .md and .png.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import command
from experiments.export import anywhere, restore
from lcrl import evaluation, tasks
from lcrl.data import sources as data_sources
from lcrl.data.lengths import first
from lcrl.evaluation import measures, plots, setup, tables
from lcrl.evaluation.progress import Progress, to_stderr
from lcrl.evaluation.report import setups
from lcrl.evaluation.run import answer_all
from lcrl.mesh import param_shardings
from lcrl.policies import sources
from lcrl.registry import build, resolve
from lcrl.tasks.task import Prompt, Task
from lcrl.training import kinds
from lcrl.training.build import build_tokenizer, eval_temperature, rollout_worker
from lcrl.training.remote import opened, origin, publish
from lcrl.training.workdir import read_config, read_start

FLAGS = flags.FLAGS


def at_budget(answers: Mapping[str, np.ndarray], cap: int, ks: Sequence[int]) -> dict[str, Any]:
  """`measure`, pass@k with intervals over prompts, and quantiles of length, of `answer_all`."""
  fields = ("correct", "lengths", "difficulty", "valid", "truncated")
  numbers = evaluation.measure(**{name: answers[name] for name in fields})
  samples, right = answers["valid"].sum(1), (answers["correct"] & answers["valid"]).sum(1)
  for k in ks:
    p, *ends = evaluation.accuracy_estimate(evaluation.pass_at_k(samples, right, k=k)[:, None])
    numbers[f"pass@{k}"] = p
    numbers[f"pass@{k}_ci"] = [None if np.isnan(end) else end for end in ends]
  numbers["lengths"] = measures.length_summary(answers["lengths"][answers["valid"]], cap=cap)
  return numbers


def evaluate(
  settings: Any,
  *,
  workdir: Path | None,
  step: int | None,
  budgets: Sequence[int],
  samples: int,
  ks: Sequence[int],
  prompts: int,
  seed: int,
  keep: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
  """The contents of evaluation.json. `settings.train` sets batch and largest budget; `keep` gets
  every answer."""
  started = time.perf_counter()
  spec = settings.eval_task or settings.built.get("task")
  if spec is None:
    raise ValueError("the config has no section task to evaluate on.")
  name = str(origin(workdir) if workdir else setup.model_of(settings.built["policy"]))
  to_stderr(f"Loading {name}.")
  model = kinds.RUNS[settings.run].model(settings)
  started_at = None if workdir is None else read_start(workdir)
  tokenizer = build_tokenizer(settings, model.policy, started_at)
  if workdir is None:
    source = build(sources, settings.built["policy"], field="policy")
    key, shapes = (
      jax.random.key(settings.seed),
      jax.eval_shape(model.policy.init, jax.random.key(0)),
    )
    params = source.params(key, param_shardings(model.mesh, model.policy.axes, shapes))
  else:
    step, params = restore(workdir, model, step)
  with rollout_worker(model, tokenizer, spec, "task") as (task, worker):
    chosen = first(task.prompts, prompts)
    made_on = {
      "data": dict(spec),
      "model": name if step is None else f"{name}, step {step}",
      "prompts": len(chosen),
      "samples": samples,
      "max_tokens": max(budgets),
      "temperature": settings.sampling.temperature,
      **training_overlap(settings, tokenizer, task, chosen),
    }
    setup.tell(made_on)
    points = {}
    for cap in budgets:  # one key for all: a larger budget continues the same answers
      answers = answer_all(
        worker,
        params,
        chosen,
        samples=samples,
        cap=cap,
        batch=settings.train.prompts,
        key=jax.random.key(seed),
        progress=Progress(f"at most {cap} tokens", len(chosen)),
        keep=keep and partial(_at_cap, keep, cap),
      )
      points[str(cap)] = at_budget(answers, cap, ks)
  return {
    "model": str(origin(workdir) if workdir else settings.built["policy"].get("path", "")),
    "step": step,
    "task": dict(spec),
    "samples": samples,
    "temperature": settings.sampling.temperature,
    "budgets": points,
    "evaluation": made_on,
    "seed": seed,
    "wall_s": time.perf_counter() - started,
    "device": evaluation.device(),
    "commit": evaluation.commit(),
  }


def _at_cap(keep: Callable[[dict[str, Any]], None], cap: int, row: dict[str, Any]) -> None:
  keep({"budget": cap, **row})


def training_overlap(
  settings: Any, tokenizer: Any, task: Task, prompts: Sequence[Prompt]
) -> dict[str, Any]:
  """The overlap of the prompts with the training prompts (`setup.compared`), None if the training
  data cannot be read."""
  try:
    if (spec := settings.built.get("data")) is not None:
      train = resolve(data_sources, spec, field="data")(tokenizer).train
      training = setup.of_tokens([one.prompt for one in train], tokenizer)
    elif settings.eval_task is None:
      training = setup.of_task(task)
    else:
      spec = {name: value for name, value in settings.built["task"].items() if name != "long"}
      training = setup.of_task(build(tasks, spec, field="task"))
  except (OSError, ValueError) as why:
    to_stderr(f"The training data cannot be read: {why}")
    return {"training_prompts": None}
  return training.overlap(prompts)


def write(out: Path, record: Mapping[str, Any]) -> str:
  """evaluation.json, evaluation.md and evaluation.png; returns the table."""
  out.mkdir(parents=True, exist_ok=True)
  evaluation.write_json(out / "evaluation.json", record)
  named = {f"{cap} tokens": point for cap, point in record["budgets"].items()}
  plots.pareto(out / "evaluation.png", named)
  table = tables.to_markdown(tables.budgets(record["budgets"]))
  text = [
    f"# {record['model'] or 'A fresh model'} on {record['task']['fn']}",
    table,
    f"{record['samples']} answers to each prompt at temperature {record['temperature']}; brackets "
    "hold 95 % intervals over prompts.",
    *setups({"": record}),
    "![accuracy against tokens at each budget](evaluation.png)",
    "## By difficulty",
    tables.to_markdown(tables.by_difficulty(named)),
    f"Seed {record['seed']}; {record['device']}; commit {record['commit']}; "
    f"{record['wall_s']:.0f} s.",
  ]
  (out / "evaluation.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
  return table


def read_flags(given: Any) -> tuple[Any, dict[str, Any]]:
  """The settings of the flags, and the other arguments of `evaluate`."""
  if (given.workdir is None) == (given.config is None):
    raise ValueError("name either --workdir or --config.")
  if given.workdir is None and given.out is None:
    raise ValueError("name --out: without --workdir there is no folder to write to.")
  workdir = None if given.workdir is None else opened(given.workdir)
  config = given.config.to_dict() if workdir is None else read_config(workdir)
  settings = kinds.acting(config).settings(config)
  if given.model is not None:
    if workdir is not None:
      raise ValueError("--model needs --config; --workdir brings its own model.")
    settings = with_model(settings, given.model)
  budgets = _whole(given.budgets or [settings.train.max_tokens], "budgets")
  wrong = [v for v in (*budgets, given.samples, given.prompts, given.batch) if v < 1]
  if wrong:
    raise ValueError(f"budgets, samples, prompts and batch must be at least 1, got {wrong[0]}.")
  devices = len(jax.devices())
  settings = anywhere(settings, prompts=-(-given.batch // devices) * devices)
  settings = dataclasses.replace(
    settings, train=dataclasses.replace(settings.train, max_tokens=max(budgets))
  )
  temperature = eval_temperature(settings) if given.temperature is None else given.temperature
  if not 0 <= temperature < math.inf:
    raise ValueError(f"temperature must be a number of at least 0, got {temperature}.")
  sampling = dataclasses.replace(settings.sampling, temperature=temperature)
  settings = dataclasses.replace(settings, sampling=sampling)
  ks = _whole(given.pass_at or [given.samples], "pass_at")
  if max(ks) > given.samples or min(ks) < 1:
    raise ValueError(f"pass_at must lie between 1 and samples={given.samples}, got {ks}.")
  return settings, {
    "workdir": workdir,
    "step": given.step,
    "budgets": budgets,
    "samples": given.samples,
    "ks": ks,
    "prompts": given.prompts,
    "seed": given.seed,
  }


def _whole(values: Sequence[Any], flag: str) -> list[int]:
  try:
    return [int(value) for value in values]
  except ValueError:
    raise ValueError(f"{flag} must be whole numbers, got {','.join(map(str, values))}.") from None


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


def with_model(settings: Any, folder: str) -> Any:
  """The settings with the model of a Hugging Face folder, and with its tokenizer unless the config
  names one that needs no files."""
  old = settings.built["policy"]
  kept = old if old["fn"] == "pretrained" else {}
  built = {**settings.built, "policy": {**kept, "fn": "pretrained", "path": folder}}
  if built.get("tokenizer", {}).get("fn") == "pretrained":
    del built["tokenizer"]
  return dataclasses.replace(settings, built=built)


def at_strength(settings: Any, along: str, strength: float) -> Any:
  """The settings with a model on the line "A:B" through two Hugging Face folders."""
  first, _, second = along.partition(":")
  if not (first and second):
    raise ValueError(f"along must name two folders, as A:B, got {along!r}.")
  settings = with_model(settings, first)
  policy = settings.built["policy"] | {"fn": "between", "toward": second, "strength": strength}
  return dataclasses.replace(settings, built={**settings.built, "policy": policy})


def read_strengths(given: Any) -> list[float]:
  if given.workdir is not None or given.model is not None:
    raise ValueError("--along needs --config, and neither --workdir nor --model.")
  try:
    strengths = [float(strength) for strength in given.strengths]
  except ValueError:
    raise ValueError(f"strengths must be numbers, got {','.join(given.strengths)}.") from None
  if not strengths or not all(map(math.isfinite, strengths)):
    raise ValueError(f"strengths must be finite numbers, got {strengths}.")
  return sorted(set(strengths))


def write_path(out: Path, along: str, points: Mapping[float, Mapping[str, Any]]) -> str:
  """path.json, path.md and path.png from the evaluation at each strength; returns the table."""
  evaluation.write_json(out / "path.json", {"along": along, "strengths": points})
  caps = list(next(iter(points.values()))["budgets"])
  names = {cap: f"{cap} tokens" for cap in caps}
  at = lambda cap: [(f"{s:g}", point["budgets"][cap]) for s, point in points.items()]
  plots.line(out / "path.png", {names[cap]: at(cap) for cap in caps})
  rows = [
    (cap, label, f"{100 * p['accuracy']:.1f}", f"{p['tokens']:.1f}")
    for cap in caps
    for label, p in at(cap)
  ]
  table = tables.to_markdown(
    (["budget", "strength", "accuracy, %", "tokens"], list(map(list, rows)))
  )
  text = f"# From {along.replace(':', ' to ')}\n\n{table}\n\n![accuracy against tokens](path.png)\n"
  (out / "path.md").write_text(text, encoding="utf-8")
  return table


def evaluate_path(
  settings: Any, along: str, strengths: Sequence[float], out: Path, **options: Any
) -> str:
  """Evaluates each strength in a folder of its own and plots all; returns the table."""
  points = {}
  for strength in strengths:
    folder = out / f"strength_{strength:g}"
    with kept(answers_file(folder)) as keep:
      record = evaluate(at_strength(settings, along, strength), **options, keep=keep)
    points[strength] = {**record, "method": f"{out.name} {strength:g}"}
    if jax.process_index() == 0:
      write(folder, points[strength])
  return write_path(out, along, points) if jax.process_index() == 0 else ""


def main(_) -> None:
  settings, options = read_flags(FLAGS)
  out = options["workdir"] if FLAGS.out is None else opened(FLAGS.out)
  if FLAGS.along is not None:
    print(evaluate_path(settings, FLAGS.along, read_strengths(FLAGS), out, **options))
    publish(out)
    return
  with kept(answers_file(out)) as keep:
    record = evaluate(settings, **options, keep=keep)
  if FLAGS.workdir is None:
    record["method"] = Path(FLAGS.model).name if FLAGS.model else out.name
  else:
    record["method"] = Path(FLAGS.workdir).name
  if jax.process_index() == 0:
    print(write(out, record))
    publish(out)
    place = origin(out)
    print(f"\n{place / 'evaluation.md'}; the answers are in {place / answers_file(out).name}")


if __name__ == "__main__":
  command.define_config()
  flags.DEFINE_string("workdir", None, "Run folder, instead of a config.")
  flags.DEFINE_integer("step", None, "The step of the checkpoint; the newest if not given.")
  flags.DEFINE_string("model", None, "Hugging Face folder, instead of the config's model.")
  flags.DEFINE_string("along", None, "A:B, two folders: models on the line through them.")
  flags.DEFINE_list("strengths", ["0", "0.25", "0.5", "0.75", "1"], "0: A, 1: B.")
  flags.DEFINE_list("budgets", None, "Caps in tokens; the config's max_tokens.")
  flags.DEFINE_integer("samples", 1, "Answers to each prompt.")
  flags.DEFINE_list("pass_at", None, "The k of pass@k; --samples.")
  flags.DEFINE_integer("prompts", 128, "Number of prompts, from the first on.")
  flags.DEFINE_integer("batch", 32, "Prompts sampled at a time.")
  flags.DEFINE_float(
    "temperature", None, "Sampling temperature, 0 for the most likely token; the config's."
  )
  flags.DEFINE_integer("seed", 0, "Seed of sampling.")
  flags.DEFINE_string("out", None, "Folder; the run's if there is one.")
  command.run(main, "evaluate")
