"""Builds the parts of a run from its config: tokenizer, task, engine, rollout worker, evaluator."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jax.sharding import Mesh

from lcrl import policies, tasks
from lcrl.data import tokenizers
from lcrl.data.lengths import counted_prefix, first, fitting
from lcrl.evaluation import setup
from lcrl.evaluation.progress import Progress
from lcrl.evaluation.run import evaluate
from lcrl.mesh import round_up_rows, same_devices
from lcrl.policies import Policy, Tokenizer
from lcrl.registry import build
from lcrl.rollouts.worker import RolloutWorker
from lcrl.sampling import choices
from lcrl.sampling.controls import Control
from lcrl.sampling.engine import Engine, make_engine, page_gib
from lcrl.sampling.jobs import PAGE, pages_of
from lcrl.tasks.task import Task
from lcrl.tasks.verify import Verifier
from lcrl.training.keys import EVAL_STREAM, step_key
from lcrl.training.progress import say
from lcrl.training.sections import AUTO


def build_tokenizer(
  s: Any, policy: Policy | None = None, started: datetime.datetime | None = None
) -> Any:
  """The tokenizer of the section `tokenizer`, else that of the policy's folder.

  Args:
    s: settings of the run.
    policy: the model that reads its tokens.
    started: the start of the run; the chat template writes this time, also in a resumed run.
  Raises:
    ValueError: the policy has fewer tokens than the tokenizer.
  """
  spec = s.built.get("tokenizer")
  if spec is None:
    if "path" not in s.built["policy"]:
      raise ValueError(
        "the config needs a section tokenizer: its policy has no path to take it of."
      )
    spec = {"fn": "pretrained", "path": s.built["policy"]["path"]}
  tokenizer = build(tokenizers, spec, field="tokenizer")
  size = getattr(tokenizer, "vocab_size", None)
  if policy is not None and size is not None and size > policy.config.vocab_size:
    raise ValueError(
      f"tokenizer.fn={spec['fn']!r} has {size} tokens; the policy reads {policy.config.vocab_size}."
    )
  if isinstance(tokenizer, Tokenizer) and started is not None:
    return dataclasses.replace(tokenizer, now=started)
  return tokenizer


def ends_of(tokenizer: Any) -> dict[str, str]:
  """Every token that ends an answer -> the file or setting that says so."""
  if isinstance(tokenizer, Tokenizer):
    return dict(tokenizer.ends)
  return {tokenizer.decode([i]) or str(i): "tokenizer" for i in tokenizer.end_ids}


def build_control(spec: Mapping[str, Any] | None) -> Control | None:
  """The control that `sampling.control` names, if any."""
  return None if spec is None else build(choices, spec, field="sampling.control", gives=Control)


def build_engine(
  model: Any,
  mesh: Mesh,
  *,
  end_ids: tuple[int, ...],
  pad_id: int,
  temperature: float | None = None,
) -> Engine:
  """The engine on this mesh with the sampling settings of the run, or at another temperature."""
  sampling, train = model.settings.sampling, model.settings.train
  engine = make_engine(
    sampling_policy(model),
    max_tokens=train.max_tokens,
    end_ids=end_ids,
    pad_id=pad_id,
    temperature=sampling.temperature if temperature is None else temperature,
    control=build_control(sampling.control),
    slots=sampling.slots,
    cache_gib=sampling.cache_gib,
    dtype=sampling.dtype,
    cache_dtype=sampling.cache_dtype,
    decoding=sampling.decoding,
    mesh=mesh,
    source=None if mesh is model.mesh or same_devices(mesh, model.mesh) else model.mesh,
  )
  needed = pages_of(train.max_prompt_tokens + train.max_tokens, PAGE)
  if engine.pages is not None and engine.pages < needed:
    raise ValueError(
      f"sampling.cache_gib={sampling.cache_gib} holds {engine.pages} pages of {PAGE} tokens, and a "
      f"row of train.max_prompt_tokens={train.max_prompt_tokens} and "
      f"train.max_tokens={train.max_tokens} needs {needed}: at least "
      f"{math.ceil(1e4 * needed * page_gib(engine.policy, sampling.cache_dtype, mesh)) / 1e4} GiB."
    )
  return engine


def sampling_policy(model: Any) -> Policy:
  """The policy of a learner with the attention that its config names: the kernel that was chosen to
  train packed rows is not the fastest for prompts, and an engine chooses by itself."""
  attention = model.settings.built["policy"].get("attention", AUTO)
  return policies.make(dataclasses.replace(model.policy.config, attention=attention))


@contextlib.contextmanager
def rollout_worker(
  model: Any, tokenizer: Any, spec: Mapping[str, Any], field: str
) -> Iterator[tuple[Task, RolloutWorker]]:
  """The task of a config section and its rollout worker. The verifier runs inside the context."""
  s = model.settings
  task_spec = {name: value for name, value in spec.items() if name != "long"}
  limit, most = s.train.max_prompt_tokens, s.train.max_tokens
  task = build(tasks, task_spec, field=field, gives=Task)
  if task.variables and not isinstance(tokenizer, Tokenizer):
    raise ValueError(f"{field}.variables are of a chat template, and the tokenizer has none.")
  task = fitting(
    task,
    tokenizer,
    limit=limit,
    most=most,
    field=field,
    long=spec.get("long", "error"),
  )
  say(f"{field}: {task.name}, {len(task.prompts):,} prompts")
  if (prefix := counted_prefix(task, tokenizer, most, 0)) >= most:
    raise ValueError(
      f"train.max_tokens={most} leaves no token to sample: {field}.render forces a response to "
      f"begin with {prefix} that count."
    )
  mesh = model.sampler_mesh
  engine = build_engine(model, mesh, end_ids=tokenizer.end_ids, pad_id=tokenizer.pad_id)
  verify = s.verify
  with Verifier(
    task, workers=verify.workers, deadline=verify.deadline, memory=verify.memory
  ) as verifier:
    yield (
      task,
      RolloutWorker(task, tokenizer, engine, verifier, mesh, limit),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluator:
  """Evaluates params, always on the same data with the same keys; `setup` describes both."""

  setup: dict[str, Any]  # `lcrl.evaluation.setup`
  evaluate: Callable[[Any], Any]

  def __call__(self, params: Any) -> Any:
    return self.evaluate(params)


@contextlib.contextmanager
def make_evaluator(
  model: Any,
  tokenizer: Any,
  task: Task,
  worker: RolloutWorker,
  *,
  say: Callable[[str], None] | None = None,
  training: setup.Training | None = None,
) -> Iterator[Evaluator]:
  """An evaluator on the prompts of `eval_task`, else on those of `task`.

  Args:
    model: the learner of the run.
    tokenizer: the tokenizer of its policy.
    task: the task of the config's section task.
    worker: the rollout worker of that task.
    say: receives lines about data and progress; None: standard error.
    training: the data that the policy learns from; None: the prompts of `task`.
  """
  s = model.settings
  training = training or setup.of_task(task)
  with contextlib.ExitStack() as stack:
    if s.eval_task is not None:
      task, worker = stack.enter_context(rollout_worker(model, tokenizer, s.eval_task, "eval_task"))
    if not task.judged:
      raise ValueError(
        f"{task.name} has no verifier to evaluate a run by: name a task with one as eval_task, and "
        "measure the answers to these prompts by experiments.evaluate --task."
      )
    prompts = first(task.prompts, s.eval.prompts)
    temperature = eval_temperature(s)
    if temperature != s.sampling.temperature:
      engine = build_engine(
        model,
        worker.mesh,
        end_ids=tokenizer.end_ids,
        pad_id=tokenizer.pad_id,
        temperature=temperature,
      )
      worker = dataclasses.replace(worker, engine=engine)
    description = {
      "data": dict(s.eval_task or s.built["task"]),
      "model": setup.model_of(s.built["policy"]),
      "prompts": len(prompts),
      "samples": s.eval.samples,
      "max_tokens": s.train.max_tokens,
      "temperature": temperature,
      **training.overlap(prompts),
    }
    setup.tell(description, say)
    yield Evaluator(
      description,
      lambda params: evaluate(
        worker,
        params,
        prompts,
        samples=s.eval.samples,
        cap=s.train.max_tokens,
        batch=round_up_rows(worker.mesh, s.train.prompts),
        key=step_key(s.seed, EVAL_STREAM),
        progress=Progress("evaluation", len(prompts), say=say),
      ),
    )


def eval_temperature(s: Any) -> float:
  """The sampling temperature of evaluations: eval.temperature, else sampling.temperature."""
  temperature = s.eval.temperature
  return s.sampling.temperature if temperature is None else temperature
