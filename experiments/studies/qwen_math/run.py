"""Trains methods from one start and judges each on problems that nobody trained on.

Run     python -m experiments.studies.qwen_math.run --model=PATH --data=DIR --out=records.jsonl \\
          --runs=grpo,laser:128,laser:192 --seeds=0,1,2 --deadline=560
Start   --warmup=30 --start=DIR: where DIR is absent, 30 steps of correctness alone make it

One line a run goes to --out; runs that it holds already are passed over, and none begins that would
not end before --deadline (seconds after the start). A run ends when it has sampled --tokens tokens.
--smoke replaces the model by a fresh one of 100 k parameters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from experiments.studies.qwen_math.methods import CAP, sections
from lcrl import evaluation, policies
from lcrl.evaluation.run import answer_all
from lcrl.training import kinds
from lcrl.training.build import build_tokenizer, rollout_worker
from lcrl.training.workdir import Workdir

BOXED = "{question}\nPlease reason step by step, and put your final answer within \\boxed{}."
TASKS = {"gsm8k": (1, 1319), "math500": (2, 500), "svamp": (1, 1000)}  # samples, problems
LOGGED = ("accuracy", "length/mean", "truncated", "reward", "grad_norm", "entropy", "time/step")


@dataclasses.dataclass(frozen=True)
class Setting:
  """What all runs of the study share."""

  model: str
  data: Path
  steps: int = 400  # at most
  prompts: int = 32
  learning_rate: float = 2e-6
  judge_cap: int = 1024  # tokens of an answer when it is judged
  max_prompt_tokens: int = 1024
  batch: int = 256  # prompts that are judged at a time
  temperature: float = 1.0  # when it is judged
  problems: int | None = None  # of each task; None: all
  smoke: bool = False

  def task(self, name: str) -> dict[str, Any]:
    return dict(fn="jsonl", path=str(self.data / f"{name}.jsonl"), extract="boxed", template=BOXED)

  def config(self, method: str, value: float | None, seed: int) -> dict[str, Any]:
    """The whole config of a run."""
    gpu = jax.default_backend() == "gpu"
    fast = dict(attention="triton", remat="attention", unroll=True) if gpu else {}
    config = sections(method, value) | dict(
      seed=seed,
      policy=dict(fn="pretrained", path=self.model, dtype="bfloat16", **fast),
      task=self.task("train"),
      eval_task=dict(same=True),  # `judging` evaluates on other files; inside a run nothing does
      sampling=dict(temperature=1.0, dtype="bfloat16"),
      optimizer=dict(fn="adamw", learning_rate=self.learning_rate),
      mesh=dict(data=1, fsdp=1),
      train=dict(
        steps=self.steps,
        prompts=self.prompts,
        group_size=8,
        max_tokens=CAP,
        max_prompt_tokens=self.max_prompt_tokens,
        micro_batches=4,
        pack=8192 if gpu else None,
      ),
      verify=dict(workers=3),
    )
    if self.smoke:
      config |= dict(policy=dict(fn="fresh", vocab_size=258), tokenizer=dict(fn="utf8"))
      config |= dict(verify=dict(workers=1))
    return config


def learn(config: dict[str, Any], scratch: Path, *, tokens: float) -> dict[str, Any]:
  """Trains until so many tokens are sampled: parameters, metrics by step, tokens, seconds."""
  started = time.perf_counter()
  columns: dict[str, list[float]] = {name: [] for name in LOGGED}
  out = Workdir(scratch, config)
  with kinds.kind(config).read(config)(out) as run, out.open(0, run.steps):
    state, take, sampled = run.initial(), run.steps_from(0), 0.0
    for step in range(1, run.steps + 1):
      state, numbers, line = take(state)
      out.learned(step, numbers, line)
      for name in LOGGED:
        columns[name].append(round(float(numbers.get(name, np.nan)), 5))
      sampled = float(state.counters["tokens"])
      if sampled >= tokens:
        break
    return dict(
      params=state.params,
      metrics=columns,
      steps=step,
      sampled_tokens=sampled,
      train_s=time.perf_counter() - started,
    )


@contextlib.contextmanager
def judging(setting: Setting, names: Sequence[str]) -> Iterator[Callable[[Any], dict[str, Any]]]:
  """params -> what each task says of them; compiled once for all runs."""
  config = setting.config("grpo", None, 0)
  config["train"] |= dict(max_tokens=setting.judge_cap, prompts=setting.batch, pack=None)
  config["sampling"] |= dict(temperature=setting.temperature)
  kind = kinds.kind(config)
  settings = kind.settings(config)
  model, tokenizer = kind.model(settings), build_tokenizer(settings)
  with contextlib.ExitStack() as stack:
    opened = {
      name: stack.enter_context(rollout_worker(model, tokenizer, setting.task(name), "task"))
      for name in names
    }

    def judge(params: Any) -> dict[str, Any]:
      return {name: judge_task(name, *opened[name], params) for name in names}

    def judge_task(name: str, task: Any, worker: Any, params: Any) -> dict[str, Any]:
      samples, most = TASKS.get(name, (1, len(task.prompts)))
      prompts = [task.prompts[i] for i in range(min(most, setting.problems or most))]
      answers = answer_all(
        worker,
        params,
        prompts,
        samples=samples,
        cap=setting.judge_cap,
        batch=setting.batch // samples,
        key=jax.random.key(0),
      )
      fields = ("correct", "lengths", "difficulty", "valid", "truncated")
      point = evaluation.measure(**{field: answers[field] for field in fields})
      point.pop("by_difficulty")
      right = "".join("01"[int(x)] for x in answers["correct"].ravel())
      return point | {
        "samples": samples,
        "right": right,
        "lengths": answers["lengths"].ravel().tolist(),
      }

    yield judge


def parse(text: str) -> tuple[str, float | None]:
  """("laser", 128.0) of "laser:128"; the value is None where there is none."""
  name, colon, value = text.partition(":")
  number = float(value) if colon else None
  return name, int(number) if number is not None and number.is_integer() else number


def done(path: Path) -> set[tuple[str, float | None, int]]:
  """The runs whose records a file holds."""
  if not path.exists():
    return set()
  rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
  return {(row["method"], row["value"], row["seed"]) for row in rows}


def warm_up(setting: Setting, steps: int, start: Path) -> dict[str, Any]:
  """Correctness alone for a few steps; the model that comes of it stands in `start`."""
  setting = dataclasses.replace(setting, steps=steps)
  config = setting.config("grpo", None, 0)
  with tempfile.TemporaryDirectory() as scratch:
    found = learn(config, Path(scratch), tokens=float("inf"))
  settings = kinds.kind(config).settings(config)
  model, tokenizer = kinds.kind(config).model(settings), build_tokenizer(settings)
  partial = start.with_suffix(".partial")
  shutil.rmtree(partial, ignore_errors=True)
  saved = tokenizer if isinstance(tokenizer, policies.Tokenizer) else None
  policies.save(partial, model.policy, found["params"], saved)
  partial.rename(start)
  return found


def main(_) -> None:
  logging.set_verbosity(logging.WARNING)
  begun, f = time.perf_counter(), FLAGS
  setting = Setting(
    f.model, Path(f.data), learning_rate=f.learning_rate, prompts=f.prompts, batch=f.batch,
    max_prompt_tokens=f.prompt_tokens, temperature=f.temperature, problems=f.problems,
    judge_cap=f.judge_cap, smoke=f.smoke, steps=f.steps,
  )  # fmt: skip
  out, slowest = Path(f.out), 0.0
  facts = dict(device=evaluation.device(), commit=evaluation.commit(), temperature=f.temperature)

  def record(method: str, value: float | None, seed: int, found: dict[str, Any], points) -> None:
    row = dict(method=method, value=value, seed=seed, **facts, **found, evaluations=points)
    with out.open("a", encoding="utf-8") as file:
      file.write(json.dumps(row) + "\n")
    short = {name: (round(p["accuracy"], 3), round(p["tokens"], 1)) for name, p in points.items()}
    print(f"{method}:{value} seed {seed}, {found.get('steps', 0)} steps: {short}", flush=True)

  with judging(setting, f.tasks) as judge:
    if f.judge_start and ("start", None, 0) not in done(out):
      config = setting.config("grpo", None, 0)
      model = kinds.kind(config).model(kinds.kind(config).settings(config))
      record("start", None, 0, {}, judge(model.initial().params))
    if f.start and not Path(f.start).exists():
      found = warm_up(setting, f.warmup, Path(f.start))
      record("warmup", f.warmup, 0, found, judge(found.pop("params")))
    if f.start and not f.smoke:
      setting = dataclasses.replace(setting, model=f.start)
    for seed in map(int, f.seeds):
      for method, value in map(parse, f.runs):
        if (method, value, seed) in done(out):
          continue
        if time.perf_counter() - begun + slowest > f.deadline:
          print(f"deadline: {method}:{value} seed {seed} and what follows is not run", flush=True)
          return
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
          found = learn(setting.config(method, value, seed), Path(scratch), tokens=f.tokens)
        record(method, value, seed, found, judge(found.pop("params")))
        slowest = max(slowest, time.perf_counter() - started)


if __name__ == "__main__":
  FLAGS = flags.FLAGS
  flags.DEFINE_string("model", None, "GGUF file or model folder.", required=True)
  flags.DEFINE_string("data", None, "Folder that the study's `data` wrote.", required=True)
  flags.DEFINE_string("out", None, "JSON lines, one a run.", required=True)
  flags.DEFINE_list("runs", [], "Methods, with the coefficient behind a colon.")
  flags.DEFINE_list("seeds", ["0"], "Seeds.")
  flags.DEFINE_list("tasks", list(TASKS), "What to judge on: files of --data.")
  flags.DEFINE_float("tokens", 1e12, "Tokens to sample in a run.")
  flags.DEFINE_integer("steps", 400, "Steps of a run, at most.")
  flags.DEFINE_float("deadline", 1e12, "Seconds.")
  flags.DEFINE_float("learning_rate", 2e-6, "Of AdamW.")
  flags.DEFINE_integer("prompts", 32, "A step.")
  flags.DEFINE_integer("batch", 256, "Prompts that are judged at a time.")
  flags.DEFINE_integer("prompt_tokens", 1024, "Of a prompt, at most.")
  flags.DEFINE_integer("judge_cap", 1024, "Tokens of an answer that is judged, at most.")
  flags.DEFINE_integer("problems", None, "Of each task, at most.")
  flags.DEFINE_float("temperature", 1.0, "Of the answers that are judged.")
  flags.DEFINE_integer("warmup", 0, "Steps of correctness alone that give the start.")
  flags.DEFINE_string("start", None, "Folder of the start.")
  flags.DEFINE_bool("judge_start", False, "Judge the start, too.")
  flags.DEFINE_bool("smoke", False, "A fresh model of 100 k parameters.")
  app.run(main)
