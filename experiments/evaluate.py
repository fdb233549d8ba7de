"""Accuracy and tokens of a model at several budgets, with intervals and pass@k.

  python -m experiments.evaluate --workdir=runs/laser --budgets=64,256
  python -m experiments.evaluate --config=configs/laser.py --model=exported --samples=4

A run folder gives its config and its newest valid checkpoint; a config gives the task and, unless
--model names a Hugging Face folder, the model. Writes evaluation.json, .md and .png to --out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments import command
from experiments.export import anywhere, restore
from lcrl import evaluation
from lcrl.data.lengths import first
from lcrl.evaluation import measures, plots, tables
from lcrl.evaluation.run import play_all
from lcrl.mesh import param_shardings
from lcrl.named import build
from lcrl.policies import sources
from lcrl.training import runs
from lcrl.training.playing import build_tokenizer, playing
from lcrl.training.workdir import read_config, read_start

FLAGS = flags.FLAGS


def at_budget(answers: Mapping[str, np.ndarray], cap: int, ks: Sequence[int]) -> dict[str, Any]:
  """`measure`, pass@k with intervals over prompts, and the spread of length, of `play_all`."""
  fields = ("correct", "lengths", "difficulty", "valid", "truncated")
  found = evaluation.measure(**{name: answers[name] for name in fields})
  samples, right = answers["valid"].sum(1), (answers["correct"] & answers["valid"]).sum(1)
  for k in ks:
    p, *ends = evaluation.accuracy_estimate(evaluation.pass_at_k(samples, right, k=k)[:, None])
    found[f"pass@{k}"] = p
    found[f"pass@{k}_ci"] = [None if np.isnan(end) else end for end in ends]
  found["lengths"] = measures.length_summary(answers["lengths"][answers["valid"]], cap=cap)
  return found


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
) -> dict[str, Any]:
  """Everything that evaluation.json holds. `settings.train` says batch and largest budget."""
  started = time.perf_counter()
  spec = settings.eval_task or settings.built.get("task")
  if spec is None:
    raise ValueError("the config has no section task to evaluate on.")
  model = runs.RUNS[settings.run].model(settings)
  first = None if workdir is None else read_start(workdir)
  tokenizer = build_tokenizer(settings, model.policy, first)
  if workdir is None:
    source = build(sources, settings.built["policy"], field="policy")
    key, shapes = (
      jax.random.key(settings.seed),
      jax.eval_shape(model.policy.init, jax.random.key(0)),
    )
    params = source.params(key, param_shardings(model.mesh, model.policy.axes, shapes))
  else:
    step, params = restore(workdir, model, step)
  with playing(model, tokenizer, spec, "task") as (task, player):
    chosen = first(task.prompts, prompts)
    found = {}
    for cap in budgets:  # one key for all: a larger budget continues the same answers
      answers = play_all(
        player,
        params,
        chosen,
        samples=samples,
        cap=cap,
        batch=settings.train.prompts,
        key=jax.random.key(seed),
      )
      found[str(cap)] = at_budget(answers, cap, ks)
  return {
    "model": str(workdir or settings.built["policy"].get("path", "")),
    "step": step,
    "task": dict(spec),
    "samples": samples,
    "temperature": settings.sampling.temperature,
    "budgets": found,
    "seed": seed,
    "wall_s": time.perf_counter() - started,
    "device": evaluation.device(),
    "commit": evaluation.commit(),
  }


def write(out: Path, found: Mapping[str, Any]) -> str:
  """evaluation.json, evaluation.md and evaluation.png; returns the table."""
  out.mkdir(parents=True, exist_ok=True)
  evaluation.write_json(out / "evaluation.json", found)
  named = {f"{cap} tokens": point for cap, point in found["budgets"].items()}
  plots.pareto(out / "evaluation.png", named)
  table = tables.to_markdown(tables.budgets(found["budgets"]))
  text = [
    f"# {found['model'] or 'A fresh model'} on {found['task']['fn']}",
    table,
    f"{found['samples']} answers to each prompt at temperature {found['temperature']}; brackets "
    "hold 95 % intervals over prompts.",
    "![accuracy against tokens at each budget](evaluation.png)",
    "## By difficulty",
    tables.to_markdown(tables.by_difficulty(named)),
    f"Seed {found['seed']}; {found['device']}; commit {found['commit']}; {found['wall_s']:.0f} s.",
  ]
  (out / "evaluation.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
  return table


def read_flags(given: Any) -> tuple[Any, dict[str, Any]]:
  """The settings that the flags ask for, and the other arguments of `evaluate`."""
  if (given.workdir is None) == (given.config is None):
    raise ValueError("name either --workdir or --config.")
  if given.workdir is None and given.out is None:
    raise ValueError("name --out: without --workdir there is no folder to write to.")
  workdir = None if given.workdir is None else Path(given.workdir)
  config = given.config.to_dict() if workdir is None else read_config(workdir)
  settings = runs.acting(config).settings(config)
  if given.model is not None:
    if workdir is not None:
      raise ValueError("--model needs --config; --workdir brings its own model.")
    settings = with_model(settings, given.model)
  budgets = [int(b) for b in given.budgets or [settings.train.max_tokens]]
  wrong = [v for v in (*budgets, given.samples, given.prompts, given.batch) if v < 1]
  if wrong:
    raise ValueError(f"budgets, samples, prompts and batch must be at least 1, got {wrong[0]}.")
  devices = len(jax.devices())
  settings = anywhere(settings, prompts=-(-given.batch // devices) * devices)
  settings = dataclasses.replace(
    settings, train=dataclasses.replace(settings.train, max_tokens=max(budgets))
  )
  if given.temperature is not None:
    sampling = dataclasses.replace(settings.sampling, temperature=given.temperature)
    settings = dataclasses.replace(settings, sampling=sampling)
  ks = [int(k) for k in given.pass_at or [given.samples]]
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


def with_model(settings: Any, folder: str) -> Any:
  """The same config with the model of a Hugging Face folder, and with its tokenizer unless the
  config's own needs no files."""
  old = settings.built["policy"]
  kept = old if old["fn"] == "pretrained" else {}
  built = {**settings.built, "policy": {**kept, "fn": "pretrained", "path": folder}}
  if built.get("tokenizer", {}).get("fn") == "pretrained":
    del built["tokenizer"]
  return dataclasses.replace(settings, built=built)


def main(_) -> None:
  settings, how = read_flags(FLAGS)
  found = evaluate(settings, **how)
  out = Path(FLAGS.out or FLAGS.workdir)
  if jax.process_index() == 0:
    print(write(out, found))
    print(f"\n{out / 'evaluation.md'}")


if __name__ == "__main__":
  command.define_config()
  flags.DEFINE_string("workdir", None, "Run folder, instead of a config.")
  flags.DEFINE_integer("step", None, "Which of its checkpoints; the newest if not given.")
  flags.DEFINE_string("model", None, "Hugging Face folder, instead of the config's model.")
  flags.DEFINE_list("budgets", None, "Caps in tokens; the config's max_tokens.")
  flags.DEFINE_integer("samples", 1, "Answers to each prompt.")
  flags.DEFINE_list("pass_at", None, "The k of pass@k; --samples.")
  flags.DEFINE_integer("prompts", 128, "How many, from the first on.")
  flags.DEFINE_integer("batch", 32, "Prompts that are sampled at a time.")
  flags.DEFINE_float("temperature", None, "Of sampling; the config's.")
  flags.DEFINE_integer("seed", 0, "Of sampling.")
  flags.DEFINE_string("out", None, "Folder; the run's if there is one.")
  command.run(main, "evaluate")
