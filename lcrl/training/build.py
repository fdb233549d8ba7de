"""Builds the parts of a run from its config: tokenizer, task, engine, rollout worker."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from jax.sharding import Mesh

from lcrl import policies, tasks
from lcrl.data import tokenizers
from lcrl.data.choosing import first, split
from lcrl.data.lengths import counted_prefix, fitting
from lcrl.mesh import same_devices
from lcrl.policies import Policy, Tokenizer
from lcrl.registry import build, placed
from lcrl.rollouts.worker import RolloutWorker
from lcrl.sampling import choices, thinking
from lcrl.sampling.controls import Control, chain
from lcrl.sampling.engine import Engine, make_engine, page_gib
from lcrl.sampling.jobs import PAGE, pages_of
from lcrl.tasks.task import Task
from lcrl.tasks.verify import Verifier
from lcrl.training.progress import say
from lcrl.training.sections import AUTO, task_of


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


def ends_of(tokenizer: Any, settings: Any) -> dict[str, str]:
  """Every token that ends an answer -> the file or setting that says so."""
  if isinstance(tokenizer, Tokenizer):
    ends = dict(tokenizer.ends)
  else:
    ends = {tokenizer.decode([i]) or str(i): "tokenizer" for i in tokenizer.end_ids}
  stops = settings.sampling.stop_tokens if hasattr(settings, "sampling") else ()  # a reward model
  return ends | {str(token): "sampling.stop_tokens" for token in stops}


def vocabulary_of(model: Any, tokenizer: Any) -> choices.Vocabulary:
  """The tokens of a run, with those of `sampling.stop_tokens` among its ends."""
  vocabulary = choices.Vocabulary(tokenizer, model.policy.config.vocab_size)
  names = model.settings.sampling.stop_tokens
  return vocabulary._replace(stops=[vocabulary.one(x, "stop_tokens", "sampling") for x in names])


def build_control(
  spec: Mapping[str, Any] | None, vocabulary: choices.Vocabulary, stop_texts: Sequence[str] = ()
) -> Control | None:
  """The control that `sampling.control` names, if any, with the tokens of the policy; then the one
  that ends responses at `sampling.stop_texts`, if there are any.

  Raises:
    ValueError: a field is wrong, or a text that is forced would end the response.
  """
  controls = []
  if spec is not None:
    choice = build(choices, spec, field=choices.CONTROL)
    with placed(choices.CONTROL):
      controls.append(choices.finished(choice, vocabulary))
  if stop_texts:
    texts = vocabulary.find(stop_texts, "sampling.stop_texts")
    for tape in (tape for control in controls for tape in control.forces):
      if stop := texts.read(tape):
        raise ValueError(
          f"sampling.stop_texts has {stop_texts[stop - 1]!r}, which stands in what "
          f"{choices.CONTROL} forces: {vocabulary.tokenizer.decode(tape)!r} would end the response."
        )
    controls.append(thinking.stop_texts(texts))
  return chain(*controls) if len(controls) > 1 else next(iter(controls), None)


def build_engine(
  model: Any,
  mesh: Mesh,
  tokenizer: Any,
  *,
  temperature: float | None = None,
  max_tokens: int | None = None,
) -> Engine:
  """The engine on this mesh with the sampling settings of the run, or at another temperature, or
  for longer responses."""
  sampling, train = model.settings.sampling, model.settings.train
  max_tokens = max_tokens or train.max_tokens
  vocabulary = vocabulary_of(model, tokenizer)
  control = build_control(sampling.control, vocabulary, sampling.stop_texts)
  if control is not None and control.room > max_tokens:
    raise ValueError(
      f"sampling.control needs responses of {control.room} tokens, for a budget of thinking, the "
      f"text that ends it and an answer: train.max_tokens={max_tokens} allows less."
    )
  engine = make_engine(
    sampling_policy(model),
    max_tokens=max_tokens,
    end_ids=vocabulary.end_ids,
    pad_id=tokenizer.pad_id,
    temperature=sampling.temperature if temperature is None else temperature,
    control=control,
    slots=sampling.slots,
    cache_gib=sampling.cache_gib,
    dtype=sampling.dtype,
    cache_dtype=sampling.cache_dtype,
    decoding=sampling.decoding,
    mesh=mesh,
    source=None if mesh is model.mesh or same_devices(mesh, model.mesh) else model.mesh,
    count_forced=sampling.count_forced,
    keeps_experts=getattr(sampling, "replay", False) and temperature is None,
  )
  needed = pages_of(train.max_prompt_tokens + max_tokens, PAGE)
  if engine.pages is not None and engine.pages < needed:
    raise ValueError(
      f"sampling.cache_gib={sampling.cache_gib} holds {engine.pages} pages of {PAGE} tokens, and a "
      f"row of train.max_prompt_tokens={train.max_prompt_tokens} and "
      f"train.max_tokens={max_tokens} needs {needed}: at least "
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
  task = build_task(model.settings, tokenizer, spec, field)
  engine = build_engine(model, model.sampler_mesh, tokenizer)
  with verifier(model.settings, task) as checks:
    limit = model.settings.train.max_prompt_tokens
    yield task, RolloutWorker(task, tokenizer, engine, checks, model.sampler_mesh, limit)


def build_task(
  s: Any, tokenizer: Any, spec: Mapping[str, Any], field: str, *, max_tokens: int | None = None
) -> Task:
  """The task of a config section: prompts that fit, without those that `test_share` holds out.

  Args:
    s: settings of the run.
    tokenizer: of its policy.
    spec: the section.
    field: its name.
    max_tokens: of a response; None: train.max_tokens.
  Raises:
    ValueError: a prompt is too long, or no token is left to sample, or no prompt is left.
  """
  limit, most = s.train.max_prompt_tokens, max_tokens or s.train.max_tokens
  task = build(tasks, task_of(spec), field=field, gives=Task)
  if task.variables and not isinstance(tokenizer, Tokenizer):
    raise ValueError(f"{field}.variables are of a chat template, and the tokenizer has none.")
  share, long = spec.get("test_share", 0.0), spec.get("long", "error")
  fit = partial(fitting, tokenizer=tokenizer, limit=limit, most=most, field=field, long=long)
  wanted = max(s.eval.prompts, (s.eval_task or {}).get("prompts") or 0)
  prompts, test = split(task.prompts, share, most=wanted, field=field)
  held_out = first(fit(dataclasses.replace(task, prompts=test)).prompts, len(test)) if test else []
  task = dataclasses.replace(fit(dataclasses.replace(task, prompts=prompts)), held_out=held_out)
  say(f"{field}: {task.name}, {len(task.prompts):,} prompts")
  if (prefix := counted_prefix(task, tokenizer, most, 0)) >= most:
    raise ValueError(
      f"train.max_tokens={most} leaves no token to sample: {field}.render forces a response to "
      f"begin with {prefix} that count."
    )
  return task


def verifier(s: Any, task: Task) -> Verifier:
  """The processes that verify answers to a task."""
  verify = s.verify
  return Verifier(task, workers=verify.workers, deadline=verify.deadline, memory=verify.memory)


def eval_temperature(s: Any) -> float:
  """The sampling temperature of evaluations: eval.temperature, else sampling.temperature."""
  temperature = s.eval.temperature
  return s.sampling.temperature if temperature is None else temperature
