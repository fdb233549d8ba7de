"""One evaluation: verdicts and lengths of answers to prompts. It never reads a shaped reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lcrl.mesh import replicated, to_local
from lcrl.policies import Tokenizer
from lcrl.rollouts.grader import RolloutGrader
from lcrl.rollouts.worker import RolloutWorker
from lcrl.tasks.task import Prompt
from lcrl.types import Budget, Outcome, Rollouts, end_name

FIELDS = ("correct", "lengths", "truncated", "valid", "outcome", "end", "thinking_cut")


def answer_all(
  worker: RolloutWorker,
  params: Any,
  prompts: Sequence[Prompt],
  *,
  samples: int,
  cap: int,
  target: int | None = None,
  level: int = 0,
  batch: int,
  key: jax.Array,
  progress: Callable[[int], None] = lambda done: None,
  keep: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
  """Verdicts and lengths of `samples` answers to each prompt, on every process.

  Args:
    worker: samples and verifies.
    params: of the policy.
    prompts: N of them, the same on every process.
    samples: answers to each.
    cap: tokens at which an answer is cut.
    target: tokens that the prompt may ask for; None: `cap`.
    level: the prompt template.
    batch: prompts that are answered at a time; the last batch is filled up with repeats.
    key: of the randomness; the same key gives the same answers.
    progress: receives the number of finished prompts after each batch.
    keep: gets every answer (`written`) that lies on this process, and its budget: the cap, and the
      target and level that its prompt showed.
  Returns: correct (None if the task judges nothing), lengths, truncated, valid, outcome,
    end and thinking_cut (as in `Rollouts`) [N, samples], and difficulty [N].
  """
  if not prompts:
    raise ValueError("there are no prompts to evaluate on.")

  def full(value: int) -> Any:
    return np.full((batch, samples), value, np.int32)

  budget = Budget(full(cap if target is None else target), full(cap), full(level))
  gather = jax.jit(lambda x: x, out_shardings=replicated(worker.mesh))
  parts: list[dict[str, np.ndarray]] = []
  for start in range(0, len(prompts), batch):
    index = np.arange(start, start + batch, dtype=np.int32)
    batch_prompts = [prompts[i % len(prompts)] for i in index.tolist()]
    local = worker.render(batch_prompts, index, budget)
    rollouts, grader = worker.start(params, local, key).result()
    whole = gather({name: getattr(rollouts, name) for name in FIELDS})
    parts.append(jax.tree.map(np.asarray, whole))
    if keep is not None:
      shown = {"budget": cap, "target": target, "level": level}
      for row in written(grader, rollouts, count=len(prompts)):
        keep(shown | row)
    progress(min(start + batch, len(prompts)))
  whole = lambda *x: np.concatenate(x)[: len(prompts)]
  answers: dict[str, Any] = jax.tree.map(whole, *parts)
  if not worker.task.judged:
    answers["correct"] = None
  return {**answers, "difficulty": np.array([p.difficulty for p in prompts])}


def written(grader: RolloutGrader, rollouts: Rollouts, *, count: int) -> list[dict[str, Any]]:
  """The answers of this process to the first `count` prompts, with what they were compared with.
  Without a verifier, correct, score and outcome are None.

  text is what the verifier read, raw_text all that was sampled, special tokens included.
  """
  r, decode, rows = jax.tree.map(to_local, rollouts), grader.worker.tokenizer.decode, []
  judged = grader.worker.task.judged
  whole = {"skip_special_tokens": False} if isinstance(grader.worker.tokenizer, Tokenizer) else {}
  reasons, cut = r.end_reasons, r.thinking_cut
  forced = None if r.forced is None else r.forced.sum(-1)
  for b, answers in enumerate(grader.responses(r)):
    prompt, at = grader.prompts[b], int(grader.rows.index[b])
    for g, answer in enumerate(answers if at < count else []):
      rows.append(
        {
          "prompt_id": prompt.id,
          "sample": g,
          "difficulty": prompt.difficulty,
          "prompt": list(prompt.messages),
          "reference": shown_reference(prompt),
          "text": answer.text,
          "raw_text": decode(answer.tokens, **whole),
          "correct": bool(r.correct[b, g]) if judged else None,
          "score": float(r.scores[b, g]) if judged else None,
          "outcome": Outcome(int(r.outcome[b, g])).name.lower() if judged else None,
          "tokens": int(r.lengths[b, g]),
          "truncated": bool(r.truncated[b, g]),
          "end_reason": end_name(reasons[b, g]),
          **({} if cut is None else {"thinking_cut": bool(cut[b, g])}),
          **({} if forced is None else {"forced": int(forced[b, g])}),
          **({} if prompt.row is None else {"row": dict(prompt.row)}),
        }
      )
  return rows


def shown_reference(prompt: Prompt) -> Any:
  """What answers were compared with; of a generator's whole entry, which also has the question, the
  answer."""
  reference = prompt.reference
  return reference.get("answer", reference) if isinstance(reference, Mapping) else reference
