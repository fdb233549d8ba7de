"""Drafts, notes on them, and an answer that begins from the notes."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from lcrl.evaluation.test_time.parts import (
  Answer,
  Query,
  Recipe,
  Sample,
  Solved,
  check_counts,
  chosen,
)
from lcrl.tasks.task import Messages

ATTEMPT = (
  "\n\nNotes from earlier attempts, which may hold mistakes:\n{notes}\n\nUse what is right in them "
  "and answer the question."
)
SUMMARY = (
  "\n\nBelow are attempts to answer this.\n{attempts}\n\nDo not answer yet. Write notes for "
  "another attempt: what the attempts agree on, where they differ, and which steps are wrong."
)


def pdr(
  *,
  drafts: tuple[int, ...] = (4,),
  workspace: int = 512,
  distil: str = "summary",
  attempt: str = ATTEMPT,
  summary: str = SUMMARY,
  seed: int = 0,
) -> Recipe:
  """Parallel-Distill-Refine: rounds of drafts, each distilled to notes from which the next begins.

    sequential = sum over rounds (longest draft + summary) + last answer

  Source: arXiv:2510.01123. One draft a round is sequential refinement. Notes do not accumulate.

  Args:
    drafts: of each round, before the last round's one answer.
    workspace: most tokens of the notes.
    distil: "summary" by the model itself, "reward" (drafts with the highest learned reward) or
      "random" (drafts in a random order); of drafts, as many as fit.
    attempt: added to the last message, with {notes}.
    summary: added to it for the summary, with {attempts}.
    seed: of the random order.
  """
  check_counts(workspace=workspace, rounds=len(drafts), drafts=min(drafts, default=1))
  if distil not in ("summary", "reward", "random"):
    raise ValueError(f"distil must be summary, reward or random, got {distil!r}.")
  rng = random.Random(seed)

  def recipe(sample: Sample, problems: Sequence[Messages], cap: int) -> list[Solved]:
    everyone, spent = range(len(problems)), [(0, 0)] * len(problems)
    prompts = list(problems)

    def call(messages: Sequence[Messages], cap: int, n: int) -> list[list[Answer]]:
      found = sample([Query(i, messages[i]) for i in everyone], [cap] * len(problems), n)
      for i, answers in enumerate(found):
        tokens = [answer.tokens for answer in answers]
        spent[i] = spent[i][0] + max(tokens), spent[i][1] + sum(tokens)
      return found

    for count in drafts:
      found = call(prompts, cap, count)
      if distil == "summary":
        asked = [
          _added(m, summary, "{attempts}", _listed(a)) for m, a in zip(problems, found, strict=True)
        ]
        notes = [answer.text for (answer,) in call(asked, workspace, 1)]
      else:
        notes = [_subset(answers, distil, workspace, rng) for answers in found]
      prompts = [_added(m, attempt, "{notes}", x) for m, x in zip(problems, notes, strict=True)]
    last = call(prompts, cap, 1)
    return [Solved(answer, *spent[i]) for i, (answer,) in enumerate(last)]

  return recipe


def _added(messages: Messages, template: str, field: str, text: str) -> Messages:
  *before, last = messages
  return (*before, {**last, "content": last["content"] + template.replace(field, text.strip())})


def _listed(answers: Sequence[Answer]) -> str:
  return "\n\n".join(f"Attempt {i}:\n{answer.text.strip()}" for i, answer in enumerate(answers, 1))


def _subset(answers: Sequence[Answer], distil: str, most: int, rng: random.Random) -> str:
  """Whole drafts within `most` tokens; of a first one that is longer its end, cut in proportion."""
  if distil == "reward":
    chosen(answers, "reward", "whole")  # raises without one
    ordered = sorted(answers, key=lambda answer: -(answer.reward or 0.0))
  else:
    ordered = rng.sample(answers, len(answers))
  if (first := ordered[0]).tokens > most:
    return first.text[-math.floor(len(first.text) * most / first.tokens) :]
  kept, left = list[Answer](), most
  for answer in ordered:
    if answer.tokens <= left:
      kept.append(answer)
      left -= answer.tokens
  return _listed(kept)
