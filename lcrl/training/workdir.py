"""What a run leaves in its folder: config, metrics, samples, evaluations, summary, report."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from lcrl import evaluation, rewards
from lcrl.evaluation.report import write_report
from lcrl.named import resolve
from lcrl.training.metrics import Metrics, Writer, drop_after, values
from lcrl.training.samples import Samples
from lcrl.training.settings import Settings
from lcrl.training.watch import CollapseAlarm, Facts, preflight, step_metrics
from lcrl.types import Batch

CURVES = ("step", "accuracy", "tokens")


class Workdir:
  """Made before anything is compiled, so that a folder of another run is refused at once.

  Only the first process writes, but for checkpoints.
  """

  def __init__(self, path: pathlib.Path, config: Mapping[str, Any]):
    self.path = path
    self._writes = jax.process_index() == 0
    self._config = json.loads(json.dumps(config))
    place = path / "config.json"
    if place.exists():
      found = json.loads(place.read_text())["config"]
      changed = sorted(differing(found, self._config) - {"train.steps"})
      if changed:
        raise ValueError(f"{path} holds a run of another config: {', '.join(changed)} differ.")
    if self._writes:
      path.mkdir(parents=True, exist_ok=True)
      reward = resolve(rewards, config["reward"], field="reward")
      formula = inspect.getdoc(reward.func)  # type: ignore[attr-defined]
      evaluation.write_json(place, {"config": self._config, "reward": formula})

  @contextlib.contextmanager
  def open(self, first: int, last: int, tokenizer: Any, settings: Settings) -> Iterator[None]:
    """For the steps after `first`; what was written past it is dropped."""
    self._settings, self._alarm, self._fresh = settings, CollapseAlarm(), True
    self._evaluations = self.path / "evaluations.jsonl"
    with contextlib.ExitStack() as stack:
      if self._writes:
        drop_after(self._evaluations, first)
        self._metrics = stack.enter_context(contextlib.closing(Writer(self.path, step=first)))
        self._samples = Samples(
          self.path,
          tokenizer,
          step=first,
          every=settings.checkpoint.every,
          count=settings.log.samples,
        )
        self._bar = stack.enter_context(Progress(first, last))
      yield

  def shaped(self, step: int, batch: Batch, seen: Facts, *, rounds: int, seconds: float) -> None:
    """Before an update: a few samples, and before the first one the check of the run."""
    if not self._writes:
      return
    self._numbers = values(step_metrics(seen))
    self._samples.write(step, batch)
    if self._fresh:
      block, warnings = preflight(seen, rounds=rounds, sampling_s=seconds)
      self._bar.write(block)
      for warning in warnings:
        logging.warning("%s", warning)
      self._fresh = False
    if self._alarm(self._numbers["accuracy"], self._numbers["length/mean"]):
      logging.warning("step %d: accuracy and length are collapsing together.", step)

  def learned(self, step: int, metrics: Metrics) -> None:
    """After an update: one line of metrics."""
    if not self._writes:
      return
    numbers = {**self._numbers, **values(metrics), "alarm/collapse": float(self._alarm.rung)}
    self._metrics.write(step, numbers)
    self._bar.step(
      step,
      f"right {numbers['accuracy']:6.1%}  tokens {numbers['length/mean']:7.1f}  "
      f"reward {numbers['reward']:7.3f}  {numbers['time/step']:.2f} s",
    )

  def evaluated(self, step: int, found: dict[str, Any]) -> None:
    if not self._writes:
      return
    with self._evaluations.open("a") as file:
      file.write(json.dumps({"step": step, **found}) + "\n")
    numbers = {f"eval/{name}": found[name] for name in ("accuracy", "tokens", "truncated")}
    self._metrics.write(step, numbers)
    self._bar.write(
      f"evaluation at step {step}: right {found['accuracy']:.1%}, {found['tokens']:.1f} tokens"
    )

  def finish(self) -> dict[str, Any]:
    """summary.json and report.md from what the folder holds. Returns the summary, or nothing on
    a process that does not write."""
    if not self._writes:
      return {}
    lines = _json_lines(self._evaluations)
    steps = [line for line in _json_lines(self.path / "metrics.jsonl") if "time/step" in line]
    summary = evaluation.summary(
      lines[-1],
      lines[0],
      reward=self._config["reward"]["fn"],
      seed=self._settings.seed,
      wall_s=sum(line["time/step"] for line in steps),
      device=evaluation.device(),
      commit=evaluation.commit(),
    )
    evaluation.write_json(self.path / "summary.json", summary)
    name = summary["reward"]
    write_report(
      self.path,
      {name: summary},
      title=f"{name}, {len(steps)} steps",
      command=f"python -m experiments.train {' '.join(sys.argv[1:])}",
      curves={name: {key: [line[key] for line in lines] for key in CURVES}},
    )
    return summary


def _json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def differing(a: Any, b: Any, at: str = "") -> set[str]:
  """Dotted names of the fields in which two nested mappings differ."""
  if isinstance(a, Mapping) and isinstance(b, Mapping):
    names = a.keys() | b.keys()
    missing = object()
    pairs = [(a.get(n, missing), b.get(n, missing), f"{at}.{n}" if at else n) for n in names]
    return set().union(*(differing(*pair) for pair in pairs))
  return set() if a == b else {at}


class Progress(contextlib.AbstractContextManager):
  """A bar on a terminal, plain lines otherwise."""

  def __init__(self, first: int, last: int):
    self._bar = None
    if sys.stderr.isatty():
      from tqdm import tqdm

      self._bar = tqdm(initial=first, total=last, unit="step", dynamic_ncols=True)

  def step(self, step: int, text: str) -> None:
    if self._bar is None:
      print(f"step {step:5d}  {text}", file=sys.stderr, flush=True)
    else:
      self._bar.set_postfix_str(text)
      self._bar.update()

  def write(self, text: str) -> None:
    if self._bar is None:
      print(text, file=sys.stderr, flush=True)
    else:
      self._bar.write(text, file=sys.stderr)

  def __exit__(self, *_):
    if self._bar is not None:
      self._bar.close()
