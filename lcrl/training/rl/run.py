"""run="rl": a step plays prompts, shapes their rollouts and learns from them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lcrl import recipes, rewards
from lcrl.registry import explained
from lcrl.tasks.task import Prompt, Task
from lcrl.training.build import build_tokenizer, ends_of, judging, playing
from lcrl.training.metrics import values
from lcrl.training.progress import introduce, say
from lcrl.training.resume import fingerprint
from lcrl.training.reward_model.learned import providers
from lcrl.training.rl.learner import build_model
from lcrl.training.rl.phases import Roll, Shaped, learn, make_monitor, make_rounds, monitored
from lcrl.training.rl.samples import Samples
from lcrl.training.rl.step_metrics import CollapseAlarm, learned, preflight, step_metrics
from lcrl.training.run import Judged, Run, Step
from lcrl.training.settings import Settings
from lcrl.training.skipped import Skips
from lcrl.training.summary import summary_of
from lcrl.training.workdir import Workdir
from lcrl.types import TrainState


@contextlib.contextmanager
def begin(settings: Settings, out: Workdir) -> Iterator[Run]:
  """The run that `settings` describe, writing to `out`."""
  s = settings
  later = [phase.get("reward") for phase in s.slots.get("then") or ()]
  words = {"reward": explained(rewards, [s.slots["reward"], *later])}
  if s.train.steps_ahead:
    words["loss"] = {name: s.slots[name] for name in ("loss", "then") if name in s.slots}
  out.describe(**words)
  model = build_model(s)
  introduce(model)
  tokenizer = build_tokenizer(s, model.policy, out.started)
  out.describe(ends=ends_of(tokenizer))
  with contextlib.ExitStack() as stack:
    task, player = stack.enter_context(playing(model, tokenizer, s.built["task"], "task"))
    own = providers(s.learned, model, tokenizer, recipes.signals(model.recipe))
    rounds = make_rounds(model, player, own)
    evaluate = stack.enter_context(judging(model, tokenizer, task, player, say=out.note))

    def steps_from(first: int) -> Callable[[TrainState], Step]:
      roll, monitor = Roll(model, task, rounds), make_monitor(model, task, rounds)
      watch = Watch(out, tokenizer, s, first, task)
      skips = Skips(out, steps=s.train.steps, updates=s.train.updates)
      others = [every for every in (monitored(model), s.eval.every) if every]

      def take(state: TrainState) -> Step:
        start, step = time.perf_counter(), int(state.step) + 1
        state = monitor(state)
        shaped = roll(state)
        watch.begins(shaped)

        def meanwhile(params):
          if all(step % every for every in others):  # else the devices have something else to do
            roll.begin(params)
          watch.shaped(step, shaped)

        state, metrics = learn(model, state, shaped, meanwhile)
        numbers = watch.numbers | values(metrics)
        numbers["time/step"] = time.perf_counter() - start
        text = line(numbers) if watch.numbers else ""
        skips(step, numbers, text, shaped.batch)
        return Step(state, numbers, text)

      return take

    say("compiling what samples and learns: with a large policy that takes minutes")
    yield Run(
      steps=s.train.steps,
      checkpoint=s.checkpoint,
      evaluate_every=s.eval.every,
      abstract=model.abstract,
      initial=model.initial,
      judge=lambda params: judged(evaluate(params)),
      steps_from=steps_from,
      finish=lambda: finish(
        out, s.slots["reward"]["fn"], s.seed, steps=s.train.steps, setup=evaluate.setup
      ),
      data=fingerprint(task.prompts, asked),
    )


def asked(prompt: Prompt) -> tuple[Any, ...]:
  """What of a prompt another file would not have."""
  return prompt.id, prompt.messages, prompt.reference, prompt.difficulty


class Watch:
  """What is said of rollouts: numbers, samples, alarms, a check of the run before it learns."""

  def __init__(self, out: Workdir, tokenizer: Any, s: Settings, first: int, task: Task):
    self.numbers: dict[str, float] = {}
    self._out, self._alarm, self._fresh = out, CollapseAlarm(), True
    if out.writes:
      every, count = s.checkpoint.every, s.log.samples
      self._samples = Samples(out.path, tokenizer, step=first, every=every, count=count, task=task)

  def begins(self, shaped: Shaped) -> None:
    """Once, before the first update."""
    if self._fresh and self._out.writes:
      c, seen = shaped.collected, jax.tree.map(np.asarray, shaped.seen)
      block, warnings = preflight(seen, rounds=c.rounds, sampling_s=c.seconds)
      self._out.note(block)
      for warning in warnings:
        logging.warning("%s", warning)
    self._fresh = False

  def shaped(self, step: int, shaped: Shaped) -> None:
    """In every step, while it learns."""
    if not self._out.writes:
      return
    numbers = values(step_metrics(jax.tree.map(np.asarray, shaped.seen)))
    self._samples.write(step, shaped.batch)
    if self._alarm(numbers["accuracy"], numbers["length/mean"]):
      logging.warning("step %d: accuracy and length are collapsing together.", step)
    self.numbers = numbers | {"alarm/collapse": float(self._alarm.rung)}


def line(numbers: dict[str, float]) -> str:
  return (
    f"right {numbers['accuracy']:6.1%}  tokens {numbers['length/mean']:7.1f}  "
    f"reward {numbers['reward']:7.3f}  {numbers['time/step']:.2f} s"
  )


def judged(found: dict[str, Any]) -> Judged:
  numbers = {f"eval/{name}": found[name] for name in ("accuracy", "tokens", "truncated")}
  return Judged(found, numbers, f"right {found['accuracy']:.1%}, {found['tokens']:.1f} tokens")


def finish(
  out: Workdir, reward: str, seed: int, *, steps: int, setup: Mapping[str, Any]
) -> dict[str, Any]:
  """summary.json and report.md from what the folder holds."""
  summary = summary_of(out, reward=reward, seed=seed, steps=steps, setup=setup)
  out.report(summary, sections=learned(out.steps()))
  return summary
