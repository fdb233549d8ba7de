"""The loop: restore or start; then collect, shape, update, one line, checkpoint, evaluate."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from lcrl import tasks
from lcrl.data import tokenizers
from lcrl.evaluation.run import evaluate
from lcrl.named import build
from lcrl.sampling.engine import make_engine
from lcrl.sampling.verified import Player
from lcrl.tasks.task import Task
from lcrl.tasks.verify import Verifier
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.collect import step_key
from lcrl.training.model import Model, build_model
from lcrl.training.phases import APART, learn, make_monitor, make_roll, make_rounds
from lcrl.training.settings import Settings, read
from lcrl.training.workdir import Workdir


def train(config: Mapping[str, Any], workdir: str | os.PathLike) -> dict[str, Any]:
  """Starts or resumes the run that `config` describes in `workdir`; returns its summary.

  Raises:
    ValueError: the config is not one, or the workdir holds a run of another config.
  """
  settings = read(config)
  out = Workdir(pathlib.Path(workdir), config)
  model, tokenizer = build_model(settings), build_tokenizer(settings)
  with contextlib.ExitStack() as stack:
    task, player = stack.enter_context(playing(model, tokenizer, settings.built["task"], "task"))
    rounds = make_rounds(model, player)
    judge = stack.enter_context(judging(model, tokenizer, task, player))
    checkpoints = stack.enter_context(
      contextlib.closing(Checkpoints(out.path / "checkpoints", keep=settings.checkpoint.keep))
    )
    restored = checkpoints.restore(model.abstract)
    state = restored[1] if restored else model.initial()
    first, last = int(state.step), settings.train.steps
    stack.enter_context(out.open(first, last, tokenizer, settings))
    if first == 0:
      out.evaluated(0, judge(state.params))

    stopped = stack.enter_context(watching_for_sigterm())
    roll, monitor = make_roll(model, task, rounds), make_monitor(model, task, rounds)
    for step in range(first + 1, last + 1):
      state = monitor(state)
      shaped = roll(state)
      rounds_played = shaped.collected.rounds
      out.shaped(step, shaped.batch, shaped.seen, rounds=rounds_played, seconds=shaped.seconds)
      state, metrics = learn(model, state, shaped)
      out.learned(step, metrics)
      if step == last or (settings.eval.every and step % settings.eval.every == 0):
        out.evaluated(step, judge(state.params))
      stop = stopped()
      if step == last or step % settings.checkpoint.every == 0 or stop:
        checkpoints.save(step, state)
      if stop:
        logging.warning("stopped after step %d; the same command goes on from there.", step)
        break
    checkpoints.wait()
    return out.finish()


def build_tokenizer(s: Settings) -> Any:
  """The one that the section tokenizer names, else that of the policy's folder."""
  spec = s.built.get("tokenizer")
  if spec is None:
    if "path" not in s.built["policy"]:
      raise ValueError(
        "the config needs a section tokenizer: its policy has no path to take it of."
      )
    spec = {"fn": "pretrained", "path": s.built["policy"]["path"]}
  return build(tokenizers, spec, field="tokenizer")


@contextlib.contextmanager
def playing(
  model: Model, tokenizer: Any, spec: Mapping[str, Any], field: str
) -> Iterator[tuple[Task, Player]]:
  """The task that a config section names and a player of it, while its verifier runs."""
  s = model.settings
  task = build(tasks, spec, field=field)
  engine = make_engine(
    model.policy,
    max_tokens=s.train.max_tokens,
    end_ids=tokenizer.end_ids,
    pad_id=tokenizer.pad_id,
    temperature=s.sampling.temperature,
    slots=s.sampling.slots,
    dtype=s.sampling.dtype,
    mesh=model.mesh,
  )
  verify = s.verify
  with Verifier(
    task, workers=verify.workers, deadline=verify.deadline, memory=verify.memory
  ) as verifier:
    yield (
      task,
      Player(task, tokenizer, engine, verifier, model.mesh, s.train.max_prompt_tokens),
    )


@contextlib.contextmanager
def judging(
  model: Model, tokenizer: Any, task: Task, player: Player
) -> Iterator[Callable[[Any], dict[str, Any]]]:
  """params -> `evaluate` of them on the evaluation prompts: `eval_task`'s, else the task's own."""
  s = model.settings
  with contextlib.ExitStack() as stack:
    if s.eval_task is not None:
      task, player = stack.enter_context(playing(model, tokenizer, s.eval_task, "eval_task"))
    prompts = [task.prompts[i] for i in range(min(s.eval.prompts, len(task.prompts)))]
    yield lambda params: evaluate(
      player,
      params,
      prompts,
      samples=s.eval.samples,
      cap=s.train.max_tokens,
      batch=s.train.prompts,
      key=step_key(s.seed, APART),
    )


@contextlib.contextmanager
def watching_for_sigterm() -> Iterator[Callable[[], bool]]:
  """Inside, SIGTERM only sets a flag; the callable tells whether any process got one."""
  asked = False

  def ask(*_):
    nonlocal asked
    asked = True

  def anyone() -> bool:
    if jax.process_count() == 1:
      return asked
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array(asked)).any())

  before = signal.signal(signal.SIGTERM, ask)
  try:
    yield anyone
  finally:
    signal.signal(signal.SIGTERM, before)
