"""Trains methods from one start and judges each on problems that nobody trained on.

Run     python -m experiments.studies.qwen_math.run --model=PATH --data=DIR --start=DIR \\
          --out=records.jsonl --warmup=50 --runs=grpo,laser:128,laser:192 --seeds=0,1,2
Start   where DIR is absent, --warmup steps of correctness alone make it
Sweep   --runs=sweep --tasks=validation --out=choice.jsonl: every value of every method; then
        --runs=all --choice=choice.jsonl runs each method at the value that did best

One line a run goes to --out; runs that it holds already are passed over. None begins that would end
after --deadline (seconds) if it took as long as the slowest so far. With --part=0/2 a process takes
every second of them. --smoke replaces the model by a fresh one of 100 k parameters.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags, logging

from experiments.studies.qwen_math import own_answers
from experiments.studies.qwen_math.choose import chosen
from experiments.studies.qwen_math.judge import Judge, Verdict
from experiments.studies.qwen_math.methods import CAP, METHODS, coefficient, named, needed
from experiments.studies.qwen_math.setting import Setting, fingerprint
from lcrl import evaluation, policies
from lcrl.commands.train import keep_programs
from lcrl.training import kinds
from lcrl.training.build import build_tokenizer
from lcrl.training.workdir import Workdir

LOGGED = (
  "accuracy",
  "length/mean",
  "truncated",
  "reward",
  "loss",
  "grad_norm",
  "entropy",
  "nll",
  "pairs/accuracy",
  "pairs/margin",
  "teacher_kl",
  "time/step",
  "time/compile",
)
ON_VALIDATION = 30  # steps of a run of the sweep

Params = Any
Wanted = tuple[str, float | None, int]  # method, value, seed


def recorded(metric: str) -> bool:
  """Does a record keep it? It does those of a dial's levels.

  >>> recorded("length/level_3"), recorded("length/max")
  (True, False)
  """
  return metric in LOGGED or "/level_" in metric


def learn(config: dict[str, Any], scratch: Path, *, tokens: float = float("inf")) -> dict[str, Any]:
  """Trains until so many tokens are sampled: parameters, metrics by step, tokens, seconds."""
  started = time.perf_counter()
  lines: list[dict[str, float]] = []
  out = Workdir(scratch, config)
  with kinds.kind(config).read(config)(out) as run, out.open(None, run.steps):
    state, take = run.initial(), run.steps_from(0)
    for step in range(1, run.steps + 1):
      state, numbers, text = take(state)
      out.learned(step, numbers, text)
      lines.append({name: round(float(numbers[name]), 5) for name in numbers if recorded(name)})
      sampled = float(state.counters["tokens"])
      if sampled >= tokens:
        break
    names = dict.fromkeys(name for line in lines for name in line)  # a level may miss a step
    return dict(
      params=state.params,
      metrics={name: [line.get(name) for line in lines] for name in names},
      steps=step,
      sampled_tokens=sampled,
      train_s=time.perf_counter() - started,
    )


def initial(config: dict[str, Any]) -> Params:
  """The parameters that a run begins with."""
  kind = kinds.kind(config)
  return kind.model(kind.settings(config)).initial().params


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[Path]:
  """A path whose content becomes `folder`, unless another process has made it by then."""
  with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
    partial = Path(scratch) / folder.name
    yield partial
    with contextlib.suppress(OSError):  # it is there
      partial.rename(folder)


def save(config: dict[str, Any], params: Params, folder: Path) -> None:
  """The model folder of a policy."""
  kind = kinds.kind(config)
  settings = kind.settings(config)
  tokenizer = build_tokenizer(settings)
  saved = tokenizer if isinstance(tokenizer, policies.Tokenizer) else None
  with whole(folder) as partial:
    policies.save(partial, kind.model(settings).policy, params, saved)


def done(path: Path, start: str) -> set[Wanted]:
  """The runs from the start of this fingerprint whose records a file holds."""
  if not path.exists():
    return set()
  rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
  return {(r["method"], r["value"], r["seed"]) for r in rows if r.get("start", "") == start}


@dataclasses.dataclass(frozen=True)
class Study:
  """Makes records, and keeps the policies that other runs begin from beside the start."""

  setting: Setting  # whose model is the start
  judge: Judge
  out: Path
  tokens: float  # to sample in a run

  def done(self) -> set[Wanted]:
    return done(self.out, fingerprint(self.setting.model))

  def record(self, wanted: Wanted, found: dict[str, Any], verdict: Verdict) -> None:
    method, value, seed = wanted
    row = dict(
      method=method,
      value=value,
      seed=seed,
      kind=METHODS[method].kind if method in METHODS else "rl",
      device=evaluation.device(),
      commit=evaluation.commit(),
      temperature=self.setting.temperature,
      start=fingerprint(self.setting.model),
      parameters=verdict.parameters,
      **found,
      evaluations=verdict.evaluations,
      samples=verdict.samples,
    )
    with self.out.open("a", encoding="utf-8") as file:
      file.write(json.dumps(row) + "\n")
    points = verdict.evaluations.items()
    short = {name: (round(p["accuracy"], 3), round(p["tokens"], 1)) for name, p in points}
    print(f"{method}:{value} seed {seed}, {found.get('steps', 0)} steps: {short}", flush=True)

  def run(self, wanted: Wanted) -> None:
    """One record. What it needs (own answers, another method's policy) is made before."""
    name, value, seed = wanted
    kind = METHODS[name].kind
    if kind in ("free", "merge"):
      params = self.start() if kind == "free" else self.merged(name, value, seed)
      self.record(wanted, {}, self.judge(params, name, value))
      return
    found = self.train(name, value, seed)
    self.record(wanted, found, self.judge(found.pop("params"), name, value))

  def start(self) -> Params:
    return initial(self.setting.config("grpo", None, 0))

  def train(self, name: str, value: float | None, seed: int) -> dict[str, Any]:
    method = METHODS[name]
    sampled = self.own()["sampled_tokens"] if method.kind in ("preference", "sft") else None
    setting = self.setting
    if method.begins:
      setting = dataclasses.replace(setting, model=str(self.policy_of(method.begins, seed)))
    for teacher in method.teachers:
      self.policy_of(teacher, seed)
    config = setting.config(name, value, seed)
    with tempfile.TemporaryDirectory() as scratch:
      found = learn(config, Path(scratch), tokens=self.tokens * method.length)
    if sampled is not None:
      found["sampled_tokens"] = sampled
    if (name, value) in needed():
      save(config, found["params"], self.setting.policy(name, value, seed))
    return found

  def policy_of(self, text: str, seed: int) -> Path:
    """The folder of the policy of a run, which is trained if it is absent."""
    wanted = *named(text), seed
    folder = self.setting.policy(*wanted)
    if not folder.exists():
      found = self.train(*wanted)
      if wanted not in self.done():
        self.record(wanted, found, self.judge(found.pop("params"), *wanted[:2]))
    return folder

  def merged(self, name: str, share: float | None, seed: int) -> Params:
    """start + share * (policy - start)"""
    trained = dataclasses.replace(
      self.setting, model=str(self.policy_of(METHODS[name].begins, seed))
    )
    ends = self.start(), initial(trained.config("grpo", None, 0))
    return jax.jit(lambda a, b: jax.tree.map(lambda x, y: x + share * (y - x), a, b))(*ends)

  def own(self) -> dict[str, int]:
    """What the start's own answers are; they are sampled where there are none."""
    folder = self.setting.own
    if not folder.exists():
      with whole(folder) as partial:
        facts = own_answers.write(partial, self.judge.own_answers(self.start()))
      print(facts, flush=True)
    return json.loads((folder / "facts.json").read_text(encoding="utf-8"))


def warm_up(setting: Setting, steps: int, start: Path) -> dict[str, Any]:
  """Correctness alone for a few steps; the model that comes of it stands in `start`.

  It is kept in bfloat16, in which runs compute: nothing is lost, and it is half as large.
  """
  config = dataclasses.replace(setting, steps=steps).config("grpo", None, 0)
  with tempfile.TemporaryDirectory() as scratch:
    found = learn(config, Path(scratch))
  save(config, jax.tree.map(lambda x: x.astype(jnp.bfloat16), found["params"]), start)
  return found


def wanted_runs(texts: Sequence[str], choice: str | None) -> list[tuple[str, float | None]]:
  """What --runs asks for: names with values, `sweep` or `all`."""
  if texts == ["sweep"]:
    return [
      (name, value) for name, m in METHODS.items() for value in m.values or (coefficient(name),)
    ]
  if texts != ["all"]:
    return [*map(named, texts)]
  rows = Path(choice).read_text(encoding="utf-8").splitlines() if choice else []
  values = chosen(map(json.loads, rows)) if rows else {}
  return [(name, values.get(name, coefficient(name))) for name in METHODS]


def part_of(runs: Sequence[Wanted], part: str) -> list[Wanted]:
  """Every n-th of the runs, from the i-th on, for part "i/n"."""
  first, _, count = part.partition("/")
  return [*runs[int(first) :: int(count)]]


def main(_) -> None:
  keep_programs()
  logging.set_verbosity(logging.WARNING)
  begun, slowest, f = time.perf_counter(), 0.0, FLAGS
  out, start = Path(f.out), Path(f.start or "")
  sweeps = f.runs == ["sweep"]
  setting = Setting(
    "" if f.smoke else f.model, Path(f.data), Path(f"{f.start or f.out}.own"),
    steps=ON_VALIDATION if sweeps else f.steps, learning_rate=f.learning_rate, prompts=f.prompts,
    batch=f.batch, max_prompt_tokens=f.prompt_tokens, temperature=f.temperature,
    problems=f.problems, judge_cap=f.judge_cap, utf8=f.smoke,
    cap=32 if f.smoke else CAP,
  )  # fmt: skip
  runs = [(*run, seed) for seed in map(int, f.seeds) for run in wanted_runs(f.runs, f.choice)]
  with contextlib.ExitStack() as stack:
    judge = Judge(setting, f.tasks, stack)
    before = Study(setting, judge, out, f.tokens)
    found: dict[str, Any] = {}
    if f.judge_start and ("start", None, 0) not in before.done():
      before.record(("start", None, 0), {}, judge(before.start()))
    if f.start and not start.exists():
      found = warm_up(setting, f.warmup, start)
    model = f.start or setting.model
    study = dataclasses.replace(before, setting=dataclasses.replace(setting, model=model))
    if found:
      study.record(("warmup", f.warmup, 0), found, judge(found.pop("params")))
    for wanted in part_of(runs, f.part):
      if wanted in study.done():
        continue
      length = METHODS[wanted[0]].length
      if time.perf_counter() - begun + slowest * length > f.deadline:
        print(f"deadline: {wanted} is not run", flush=True)
        continue
      started = time.perf_counter()
      study.run(wanted)
      slowest = max(slowest, (time.perf_counter() - started) / length)


if __name__ == "__main__":
  FLAGS = flags.FLAGS
  flags.DEFINE_string("model", None, "GGUF file or model folder.", required=True)
  flags.DEFINE_string("data", None, "Folder that the study's `data` wrote.", required=True)
  flags.DEFINE_string("out", None, "JSON lines, one a run.", required=True)
  flags.DEFINE_list("runs", [], "Methods, with the coefficient behind a colon; or sweep, or all.")
  flags.DEFINE_list("seeds", ["0"], "Seeds.")
  flags.DEFINE_list("tasks", ["gsm8k", "math500", "svamp"], "What to judge on: files of --data.")
  flags.DEFINE_string("choice", None, "Records of a sweep, by which `all` takes values.")
  flags.DEFINE_string("part", "0/1", "i/n: every n-th run from the i-th on.")
  flags.DEFINE_float("tokens", 1e12, "Tokens to sample in a run.")
  flags.DEFINE_integer("steps", 60, "Steps of a run, at most.")
  flags.DEFINE_float("deadline", 1e12, "Seconds.")
  flags.DEFINE_float("learning_rate", 2e-6, "Of AdamW.")
  flags.DEFINE_integer("prompts", 64, "A step.")
  flags.DEFINE_integer("batch", 256, "Prompts that are judged at a time.")
  flags.DEFINE_integer("prompt_tokens", 1024, "Of a prompt, at most.")
  flags.DEFINE_integer("judge_cap", 1024, "Tokens of an answer that is judged, at most.")
  flags.DEFINE_integer("problems", None, "Of each task, at most.")
  flags.DEFINE_float("temperature", 1.0, "Of the answers that are judged.")
  flags.DEFINE_integer("warmup", 0, "Steps of correctness alone that give the start.")
  flags.DEFINE_string("start", None, "Folder of the start.")
  flags.DEFINE_bool("judge_start", False, "Judge the model before that, too.")
  flags.DEFINE_bool("smoke", False, "A fresh model of 100 k parameters.")
  app.run(main)
