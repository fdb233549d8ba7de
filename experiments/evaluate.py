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
from absl import app, flags
from ml_collections import config_flags

from experiments.export import anywhere, read_config, restore
from lcrl import evaluation
from lcrl.evaluation import measures, plots, tables
from lcrl.evaluation.run import play_all
from lcrl.named import build
from lcrl.policies import sources
from lcrl.training.loop import build_tokenizer, playing
from lcrl.training.model import build_model
from lcrl.training.settings import Settings, read

CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, a file in configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Run folder, instead of a config.")
STEP = flags.DEFINE_integer("step", None, "Which of its checkpoints; the newest if not given.")
MODEL = flags.DEFINE_string("model", None, "Hugging Face folder, instead of the config's model.")
BUDGETS = flags.DEFINE_list("budgets", None, "Caps in tokens; the config's max_tokens.")
SAMPLES = flags.DEFINE_integer("samples", 1, "Answers to each prompt.")
PASS_AT = flags.DEFINE_list("pass_at", None, "The k of pass@k; 1 and --samples.")
PROMPTS = flags.DEFINE_integer("prompts", 128, "How many, from the first on.")
BATCH = flags.DEFINE_integer("batch", 32, "Prompts that are sampled at a time.")
TEMPERATURE = flags.DEFINE_float("temperature", None, "Of sampling; the config's.")
SEED = flags.DEFINE_integer("seed", 0, "Of sampling.")
OUT = flags.DEFINE_string("out", None, "Folder; the run's if there is one.")


def at_budget(answers: Mapping[str, np.ndarray], cap: int, ks: Sequence[int]) -> dict[str, Any]:
  """`measure`, pass@k with intervals over prompts, and the spread of length, of `play_all`."""
  fields = ("correct", "lengths", "difficulty", "valid", "truncated")
  found = evaluation.measure(**{name: answers[name] for name in fields})
  samples, right = answers["valid"].sum(1), (answers["correct"] & answers["valid"]).sum(1)
  for k in ks:
    chance = evaluation.mean_estimate(evaluation.pass_at_k(samples, right, k=k)[:, None])
    found[f"pass@{k}"] = chance.value
    ends = np.clip(chance[1:], 0, 1)
    found[f"pass@{k}_ci"] = [None if np.isnan(end) else float(end) for end in ends]
  found["lengths"] = measures.length_summary(answers["lengths"][answers["valid"]], cap=cap)
  return found


def evaluate(
  settings: Settings,
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
  model, tokenizer = build_model(settings), build_tokenizer(settings)
  if workdir is None:
    source = build(sources, settings.built["policy"], field="policy")
    params = source.params(jax.random.key(settings.seed), model.shardings.params)
  else:
    step, params = restore(workdir, model, step)
  spec = settings.eval_task or settings.built["task"]
  with playing(model, tokenizer, spec, "task") as (task, player):
    chosen = [task.prompts[i] for i in range(min(prompts, len(task.prompts)))]
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


def read_flags() -> tuple[Settings, dict[str, Any]]:
  """The settings that the flags ask for, and the other arguments of `evaluate`."""
  if (WORKDIR.value is None) == (CONFIG.value is None):
    raise ValueError("name either --workdir or --config.")
  workdir = None if WORKDIR.value is None else Path(WORKDIR.value)
  settings = read(CONFIG.value.to_dict() if workdir is None else read_config(workdir))
  if MODEL.value is not None:
    if workdir is not None:
      raise ValueError("--model needs --config; --workdir brings its own model.")
    settings = with_model(settings, MODEL.value)
  budgets = [int(b) for b in BUDGETS.value or [settings.train.max_tokens]]
  wrong = [v for v in (*budgets, SAMPLES.value, PROMPTS.value, BATCH.value) if v < 1]
  if wrong:
    raise ValueError(f"budgets, samples, prompts and batch must be at least 1, got {wrong[0]}.")
  devices = jax.device_count()
  settings = anywhere(settings, prompts=-(-BATCH.value // devices) * devices)
  settings = dataclasses.replace(
    settings, train=dataclasses.replace(settings.train, max_tokens=max(budgets))
  )
  if TEMPERATURE.value is not None:
    sampling = dataclasses.replace(settings.sampling, temperature=TEMPERATURE.value)
    settings = dataclasses.replace(settings, sampling=sampling)
  ks = [int(k) for k in PASS_AT.value or sorted({1, SAMPLES.value})]
  if max(ks) > SAMPLES.value or min(ks) < 1:
    raise ValueError(f"pass_at must lie between 1 and samples={SAMPLES.value}, got {ks}.")
  return settings, {
    "workdir": workdir,
    "step": STEP.value,
    "budgets": budgets,
    "samples": SAMPLES.value,
    "ks": ks,
    "prompts": PROMPTS.value,
    "seed": SEED.value,
  }


def with_model(settings: Settings, folder: str) -> Settings:
  """The same config with the model and the tokenizer of a Hugging Face folder."""
  old = settings.built["policy"]
  kept = old if old["fn"] == "pretrained" else {}
  built = {**settings.built, "policy": {**kept, "fn": "pretrained", "path": folder}}
  built.pop("tokenizer", None)
  return dataclasses.replace(settings, built=built)


def main(_) -> None:
  try:
    settings, how = read_flags()
    found = evaluate(settings, **how)
  except ValueError as error:
    raise SystemExit(f"evaluate: {error}") from None
  out = Path(OUT.value or WORKDIR.value or ".")
  if jax.process_index() == 0:
    print(write(out, found))
    print(f"\n{out / 'evaluation.md'}")


if __name__ == "__main__":
  app.run(main)
