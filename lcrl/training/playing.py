"""From config sections to who plays prompts: tokenizer, task, engine, verifier, evaluation."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jax.sharding import Mesh

from lcrl import tasks
from lcrl.data import tokenizers
from lcrl.evaluation import setup
from lcrl.evaluation.progress import Progress
from lcrl.evaluation.run import evaluate
from lcrl.mesh import beside
from lcrl.named import build
from lcrl.sampling import choices
from lcrl.sampling.controls import Control
from lcrl.sampling.engine import Engine, make_engine
from lcrl.sampling.verified import Player
from lcrl.tasks.task import Task
from lcrl.tasks.verify import Verifier
from lcrl.training.collect import step_key
from lcrl.training.phases import APART


def build_tokenizer(s: Any) -> Any:
  """The one that the section tokenizer names, else that of the policy's folder."""
  spec = s.built.get("tokenizer")
  if spec is None:
    if "path" not in s.built["policy"]:
      raise ValueError(
        "the config needs a section tokenizer: its policy has no path to take it of."
      )
    spec = {"fn": "pretrained", "path": s.built["policy"]["path"]}
  return build(tokenizers, spec, field="tokenizer")


def build_control(spec: Mapping[str, Any] | None) -> Control | None:
  """What `sampling.control` names."""
  return None if spec is None else build(choices, spec, field="sampling.control")


def build_engine(
  model: Any,
  mesh: Mesh,
  *,
  end_ids: tuple[int, ...],
  pad_id: int,
  temperature: float | None = None,
) -> Engine:
  """What samples on this mesh as the model's settings say, or at another temperature."""
  how = model.settings.sampling
  return make_engine(
    model.policy,
    max_tokens=model.settings.train.max_tokens,
    end_ids=end_ids,
    pad_id=pad_id,
    temperature=how.temperature if temperature is None else temperature,
    control=build_control(how.control),
    slots=how.slots,
    dtype=how.dtype,
    cache_dtype=how.cache_dtype,
    decoding=how.decoding,
    mesh=mesh,
    source=None if mesh is model.mesh else model.mesh,
  )


@contextlib.contextmanager
def playing(
  model: Any, tokenizer: Any, spec: Mapping[str, Any], field: str
) -> Iterator[tuple[Task, Player]]:
  """The task that a config section names and a player of it, while its verifier runs."""
  s = model.settings
  task = build(tasks, spec, field=field)
  mesh = beside(model.mesh, s.sampling.devices)
  engine = build_engine(model, mesh, end_ids=tokenizer.end_ids, pad_id=tokenizer.pad_id)
  verify = s.verify
  with Verifier(
    task, workers=verify.workers, deadline=verify.deadline, memory=verify.memory
  ) as verifier:
    yield (
      task,
      Player(task, tokenizer, engine, verifier, mesh, s.train.max_prompt_tokens),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Judging:
  """Evaluates params, always on the same data and with the same keys, and says on what."""

  setup: dict[str, Any]  # `lcrl.evaluation.setup`
  evaluate: Callable[[Any], Any]

  def __call__(self, params: Any) -> Any:
    return self.evaluate(params)


@contextlib.contextmanager
def judging(
  model: Any,
  tokenizer: Any,
  task: Task,
  player: Player,
  *,
  say: Callable[[str], None] | None = None,
  training: setup.Training | None = None,
) -> Iterator[Judging]:
  """What evaluates on the prompts of `eval_task`, else on the task's own.

  Args:
    model: of the run.
    tokenizer: of its policy.
    task: of the config's section task.
    player: of that task.
    say: gets lines about data and progress; None: standard error.
    training: what the policy learns from; None: the prompts of `task`.
  """
  s = model.settings
  training = training or setup.of_task(task)
  with contextlib.ExitStack() as stack:
    if s.eval_task is not None:
      task, player = stack.enter_context(playing(model, tokenizer, s.eval_task, "eval_task"))
    prompts = [task.prompts[i] for i in range(min(s.eval.prompts, len(task.prompts)))]
    temperature = eval_temperature(s)
    if temperature != s.sampling.temperature:
      engine = build_engine(
        model,
        player.mesh,
        end_ids=tokenizer.end_ids,
        pad_id=tokenizer.pad_id,
        temperature=temperature,
      )
      player = dataclasses.replace(player, engine=engine)
    made_on = {
      "data": dict(s.eval_task or s.built["task"]),
      "model": setup.model_of(s.built["policy"]),
      "prompts": len(prompts),
      "samples": s.eval.samples,
      "max_tokens": s.train.max_tokens,
      "temperature": temperature,
      **training.overlap(prompts),
    }
    setup.tell(made_on, say)
    yield Judging(
      made_on,
      lambda params: evaluate(
        player,
        params,
        prompts,
        samples=s.eval.samples,
        cap=s.train.max_tokens,
        batch=s.train.prompts,
        key=step_key(s.seed, APART),
        progress=Progress("evaluation", len(prompts), say=say),
      ),
    )


def eval_temperature(s: Any) -> float:
  """Of sampling in evaluations: eval.temperature, else sampling.temperature."""
  own = s.eval.temperature
  return s.sampling.temperature if own is None else own
