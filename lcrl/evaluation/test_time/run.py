"""Recipes on the rollout worker: `answer_with` stands in for `lcrl.evaluation.run.answer_all`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from lcrl.evaluation.run import shown_reference
from lcrl.evaluation.test_time.parts import Answer, Query, Recipe, Sample, Solved
from lcrl.mesh import to_local
from lcrl.rollouts.worker import RolloutWorker
from lcrl.tasks.task import Prompt, Rendered
from lcrl.types import Budget

Reward = Callable[[Any, Any], Any]  # params, rollouts -> [B, G]


@dataclasses.dataclass(frozen=True)
class Continued(Prompt):
  """A prompt whose answer has begun."""

  prefix: str = ""


def answer_with(
  worker: RolloutWorker,
  params: Any,
  prompts: Sequence[Prompt],
  *,
  recipe: Recipe,
  reward: Reward | None = None,
  samples: int,
  cap: int,
  target: int | None = None,
  level: int = 0,
  batch: int,
  key: jax.Array,
  progress: Callable[[int], None] = lambda done: None,
  keep: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
  """What a recipe makes of each prompt, `samples` times. One process.

  Args: as `answer_all`; cap is that of one call, and
    recipe: of `lcrl.evaluation.test_time`.
    reward: a learned one, for recipes that choose by it.
  Returns: the fields of `answer_all` but outcome, where lengths are total tokens, and sequential
    [N, samples] tokens.
  """
  if jax.process_count() > 1:
    raise ValueError("a recipe runs in one process.")
  solved: list[Solved] = []
  for start in range(0, len(prompts), batch):
    part = [prompt for prompt in prompts[start : start + batch] for _ in range(samples)]
    shown = cap if target is None else target, level
    sample = make_sample(worker, params, part, reward, shown, batch, jax.random.fold_in(key, start))
    solved += recipe(sample, [prompt.messages for prompt in part], cap)
    progress(min(start + batch, len(prompts)))
  judged = worker.task.judged
  if keep is not None:
    for i, prompt in enumerate(prompts):
      rows = [row for one in solved[i * samples :][:samples] for row in _written(prompt, one)]
      for number, row in enumerate(rows):
        keep({"budget": cap, "target": target, "level": level, **row, "sample": number})
  shape = len(prompts), samples
  grid = lambda read: np.array([read(one) for one in solved]).reshape(shape)
  return {
    "correct": grid(lambda s: bool(s.answer.correct)) if judged else None,
    "lengths": grid(lambda s: s.total),
    "truncated": grid(lambda s: s.answer.truncated),
    "valid": np.ones(shape, bool),
    "difficulty": np.array([prompt.difficulty for prompt in prompts]),
    "sequential": grid(lambda s: s.sequential),
  }


def make_sample(
  worker: RolloutWorker,
  params: Any,
  prompts: Sequence[Prompt],
  reward: Reward | None,
  shown: tuple[int, int],
  batch: int,
  key: jax.Array,
) -> Sample:
  """`sample` of recipes on a worker: `batch` queries at a time, problem i being prompts[i]; all
  prompts show one target and level."""
  continuing = dataclasses.replace(worker.task, render=_with_prefix(worker.task.render))
  calls = 0

  def sample(queries: Sequence[Query], caps: Sequence[int], n: int) -> list[list[Answer]]:
    nonlocal calls
    task = continuing if any(query.prefix for query in queries) else worker.task
    found: list[list[Answer]] = []
    for start in range(0, len(queries), batch):
      at = [i % len(queries) for i in range(start, start + batch)]
      chosen = [_prompt(prompts[queries[i].problem], queries[i]) for i in at]
      cap: Any = np.repeat(np.array([[caps[i]] for i in at], np.int32), n, 1)
      target, level = (np.full_like(cap, value) for value in shown)
      longest = max(_tokens(worker, task.render(p, *shown)) for p in chosen)
      limit = worker.prompt_limit
      if longest > limit:  # notes and prefixes come on top of the prompts that the run allows
        limit = 1 << (longest - 1).bit_length()
      wide = dataclasses.replace(worker, task=task, prompt_limit=limit)
      index = np.arange(batch, dtype=np.int32)
      local = wide.render(chosen, index, Budget(target, cap, level))
      calls += 1
      rollouts, grader = wide.start(params, local, jax.random.fold_in(key, calls)).result()
      values = None if reward is None else to_local(reward(params, rollouts))
      r = jax.tree.map(to_local, rollouts)
      for b, group in enumerate(grader.responses(r)[: len(queries) - start]):
        found.append(
          [
            Answer(
              response.text,
              int(r.lengths[b, g]),
              bool(r.truncated[b, g]),
              bool(r.correct[b, g]) if task.judged else None,
              None if values is None else float(values[b, g]),
            )
            for g, response in enumerate(group)
          ]
        )
    return found

  return sample


def _prompt(prompt: Prompt, query: Query) -> Continued:
  fields = {f.name: getattr(prompt, f.name) for f in dataclasses.fields(Prompt)}
  return Continued(**fields | {"messages": query.messages}, prefix=query.prefix)


def _with_prefix(render: Callable[..., Rendered]) -> Callable[[Prompt, int, int], Rendered]:
  def rendered(prompt: Prompt, target: int, level: int) -> Rendered:
    view, prefix = render(prompt, target, level), getattr(prompt, "prefix", "")
    if not prefix:
      return view
    if view.prefix_counts:
      raise ValueError("an answer whose forced prefix counts as sampled cannot be continued.")
    # The answer's text, which is the prefix now, begins with the prefix that the task forces.
    return dataclasses.replace(view, prefix=prefix)

  return rendered


def _tokens(worker: RolloutWorker, view: Rendered) -> int:
  text = worker.tokenizer.render(view.messages, **worker.task.variables)
  prefix = worker.tokenizer.encode(view.prefix) if view.prefix else []
  return len(worker.tokenizer.encode(text)) + len(prefix)


def _written(prompt: Prompt, solved: Solved) -> list[dict[str, Any]]:
  """Rows of the answers file: the chosen answer, or all draws where these are the result."""
  return [
    {
      "prompt_id": prompt.id,
      "difficulty": prompt.difficulty,
      "prompt": list(prompt.messages),
      "reference": shown_reference(prompt),
      "text": answer.text,
      "raw_text": answer.text,
      "correct": answer.correct,
      "score": None,
      "outcome": None,
      "tokens": answer.tokens,
      "truncated": answer.truncated,
      "sequential_tokens": solved.sequential,
      "total_tokens": solved.total,
      **({} if prompt.row is None else {"row": dict(prompt.row)}),
    }
    for answer in solved.draws or [solved.answer]
  ]
