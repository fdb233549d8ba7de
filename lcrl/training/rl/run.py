"""run="rl": a step collects rollouts, shapes them, updates the policy, and logs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from lcrl import recipes, rewards
from lcrl.data.lengths import counted_prefix
from lcrl.registry import build, explained
from lcrl.rollouts.worker import RolloutWorker
from lcrl.tasks.task import Prompt, Task
from lcrl.training.build import build_tokenizer, ends_of, rollout_worker
from lcrl.training.clock import Clock
from lcrl.training.distill import provider as teachers
from lcrl.training.evaluator import make_evaluator, plain_numbers
from lcrl.training.metrics import Mean, Metrics, Sum, merge, values
from lcrl.training.progress import introduce, say
from lcrl.training.resume import fingerprint
from lcrl.training.reward_model.learned import providers
from lcrl.training.rl import revise
from lcrl.training.rl.budgets import check_budgets, check_levels
from lcrl.training.rl.collect import Collected
from lcrl.training.rl.learner import Learner, build_learner
from lcrl.training.rl.monitor import make_monitor, monitor_interval
from lcrl.training.rl.phases import Shaped, make_shape, update
from lcrl.training.rl.pipeline import (
  Provider,
  RolloutPipeline,
  reference_log_probs,
  scorer_signals,
)
from lcrl.training.rl.queue import RolloutQueue
from lcrl.training.rl.settings import Settings
from lcrl.training.rl.step_log import StepLogger, line
from lcrl.training.rl.step_metrics import ends_section, state_section, truncation_section
from lcrl.training.run import Evaluation, Run, Step
from lcrl.training.skipped import Skips
from lcrl.training.summary import summary_of
from lcrl.training.workdir import Workdir
from lcrl.types import Batch, TrainState


class RlStep:
  """state -> (state, metrics, batch): one step of training.

  `log(step, shaped)` runs on the host while the devices are at the update; `preflight(shaped,
  collected)` runs before it.
  """

  def __init__(
    self,
    learner: Learner,
    task: Task,
    pipeline: RolloutPipeline,
    *,
    preflight: Callable[[Shaped, Collected], None] = lambda shaped, collected: None,
    log: Callable[[int, Shaped], None] = lambda step, shaped: None,
  ):
    self.queue = RolloutQueue(learner, task, pipeline)
    self.shape, self._update = make_shape(learner, pipeline), partial(update, learner)
    self._preflight, self._log = preflight, log
    # Steps after which the devices have other work first: an evaluation, or the monitor.
    self._breaks = [n for n in (monitor_interval(learner), learner.settings.eval.every) if n]

  def __call__(self, state: TrainState) -> tuple[TrainState, Metrics, Batch]:
    step, queue = int(state.step) + 1, self.queue
    collected = queue.take(state)  # sample, verify, revise, until enough groups train
    shaped = self.shape(state, collected)  # rewards, filter, advantages; states of stages advance
    self._preflight(shaped, collected)
    queue.advance(collected, shaped.states)
    queue.sample_ahead(state.params)  # train.steps_ahead=1: the next step's rollouts, from now on
    start = time.perf_counter()
    state, metrics = self._update(state, shaped, collected)  # gradients and optimizer, not awaited
    if all(step % every for every in self._breaks):
      queue.prefetch(state.params)  # the next step's rollouts, queued behind the update
    self._log(step, shaped)
    waiting = time.perf_counter()
    state, ahead_times = queue.store(state)
    waited = time.perf_counter() - waiting
    metrics = jax.tree.map(np.asarray, metrics)  # waits for the update
    updating = time.perf_counter() - start - waited
    return state, metrics | _reported(collected, shaped, updating, ahead_times), shaped.batch


def _reported(collected: Collected, shaped: Shaped, updating: float, ahead: Metrics) -> Metrics:
  """Metrics of a step that the host measures; its times add up to the step's."""
  none: Metrics = {"time/sample": Sum(0.0), "time/verify": Sum(0.0)}
  return (
    collected.metrics
    | merge(merge(none, collected.times), ahead)
    | {
      "rounds": Sum(collected.rounds),
      "time/update": Sum(updating),
      "sampled_tokens_per_s": Mean(shaped.tokens, collected.seconds),
    }
  )


def make_pipeline(
  learner: Learner, worker: RolloutWorker, learned: Sequence[Provider] = ()
) -> RolloutPipeline:
  """The worker with the config's revision, the scorer's signals and learned rewards.

  Raises:
    ValueError: a stage needs a signal that nothing supplies; or groups are chosen a step ahead by a
      signal that only the later policy gives; or a budget exceeds train.max_tokens.
  """
  s, recipe = learner.settings, learner.recipe
  revision = (
    None if s.revise is None else build(revise, s.revise, field="revise", gives=revise.Revision)
  )
  reference = reference_log_probs(learner) if learner.needs_reference else None
  signals = (*scorer_signals(learner, reference), *learned)
  pipeline = RolloutPipeline(worker, revision, signals, reference)
  pipeline.check(recipe)
  late = pipeline.provided_to((recipe.reward, recipe.filter))
  if s.train.steps_ahead and late and (s.train.max_rounds > 1 or s.train.window):
    raise ValueError(
      f"reward or filter needs {sorted(late)}, which with train.steps_ahead=1 is known when a "
      "batch trains; with train.max_rounds or train.window groups are chosen before that."
    )
  check_levels(worker.task, recipe.budget)
  check_budgets(
    recipe.budget,
    steps=s.train.steps,
    prompts=s.train.prompts,
    group_size=s.train.group_size,
    most=s.train.max_tokens,
    seed=s.seed,
    forced=partial(counted_prefix, worker.task, worker.tokenizer),
  )
  return pipeline


@contextlib.contextmanager
def begin(settings: Settings, out: Workdir) -> Iterator[Run]:
  """The run that `settings` describe, writing to `out`."""
  s = settings
  reward = "distill" if out.config.get("run") == "distill" else s.slots["reward"]["fn"]
  out.describe(**_method(s))
  learner = build_learner(s)
  introduce(learner, out)
  tokenizer = build_tokenizer(s, learner.policy, out.started)
  out.describe(ends=ends_of(tokenizer, s))
  with contextlib.ExitStack() as stack:
    task, worker = stack.enter_context(rollout_worker(learner, tokenizer, s.built["task"], "task"))
    learned = providers(s.learned, learner, tokenizer, recipes.signals(learner.recipe))
    learned += teachers.provider(learner, tokenizer, task.prompts)
    pipeline = make_pipeline(learner, worker, learned)
    evaluator = make_evaluator(learner, tokenizer, worker, say=out.note)

    def steps_from(first: int) -> Callable[[TrainState], Step]:
      logger = StepLogger(out, tokenizer, s, first, task)
      monitor = make_monitor(learner, task, worker)
      step = RlStep(learner, task, pipeline, preflight=logger.preflight, log=logger.log)
      skips = Skips(out, steps=s.train.steps, updates=s.train.updates)

      def train_step(state: TrainState) -> Step:
        clock = Clock()
        state, metrics, batch = step(monitor(state))
        numbers = logger.numbers | values(metrics) | clock()
        text = line(numbers) if logger.numbers else ""
        skips(int(state.step), numbers, text, batch)
        return Step(state, numbers, text)

      return train_step

    say("compiling what samples and learns: with a large policy that takes minutes")
    yield Run(
      steps=s.train.steps,
      checkpoint=s.checkpoint,
      evaluate_every=s.eval.every,
      abstract=learner.abstract,
      initial=learner.initial,
      evaluate=lambda trained: evaluation(evaluator(learner.acting(trained))),
      steps_from=steps_from,
      finish=lambda: finish(
        out,
        reward,
        s.seed,
        steps=s.train.steps,
        setup=evaluator.setup,
        stop_texts=s.sampling.stop_texts,
      ),
      data=fingerprint(task.prompts, prompt_content),
    )


def _method(s: Settings) -> dict[str, Any]:
  """Docstrings of the rewards, and the loss where it was corrected, for config.json."""
  later = [phase.get("reward") for phase in s.slots.get("then") or ()]
  notes: dict[str, Any] = {"reward": explained(rewards, [s.slots["reward"], *later])}
  if s.train.steps_ahead:
    notes["loss"] = {name: s.slots[name] for name in ("loss", "then") if name in s.slots}
  return notes


def prompt_content(prompt: Prompt) -> tuple[Any, ...]:
  """The parts of a prompt that differ in another data file."""
  return prompt.id, prompt.messages, prompt.reference, prompt.difficulty


def evaluation(measured: dict[str, Any]) -> Evaluation:
  """The record of an evaluation on prompts, as the loop writes it."""
  text = f"right {measured['accuracy']:.1%}, {measured['tokens']:.1f} tokens"
  for task, record in measured.get("tasks", {}).items():
    text += f"; {task}: {record['accuracy']:.1%}, {record['tokens']:.1f}"
  return Evaluation(measured, plain_numbers(measured), text)


def finish(
  out: Workdir,
  reward: str,
  seed: int,
  *,
  steps: int,
  setup: Mapping[str, Any],
  stop_texts: Sequence[str] = (),
) -> dict[str, Any]:
  """Writes summary.json and report.md from the files of the folder."""
  summary = summary_of(out, reward=reward, seed=seed, steps=steps, setup=setup)
  rows = out.steps()
  ends = ends_section(rows, stop_texts)
  out.report(summary, sections=[*truncation_section(rows), *ends, *state_section(rows)])
  return summary
