"""Answers scored by a model that is asked for a number: data for a reward model of conciseness.

Source: CRM of Efficient Reasoning via Reward Model, arXiv:2511.09158, from secondary sources: a 72B
model scores answers from 0.1 to 1.0, and a 3B model learns the scores; the wording is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from lcrl.tasks.task import Messages

__all__ = ["CONCISENESS", "number_of", "scores"]

Write = Callable[[Sequence[Messages]], list[str]]
CONCISENESS = """Here is a request and the reasoning of an assistant.

[Request]
{prompt}

[Reasoning]
{answer}

How concise is the reasoning? 1.0: every sentence is needed for the result. 0.1: most of it \
repeats itself, checks what is clear, or leads nowhere. Length alone is no fault. Reply with one \
number from 0.1 to 1.0 and nothing else."""


def scores(
  answers: Sequence[tuple[Messages, str]],
  write: Callable[[Sequence[Messages]], list[str]],
  *,
  question: str = CONCISENESS,
  low: float = 0.1,
  high: float = 1.0,
) -> list[float | None]:
  """A number from `low` to `high` for each prompt and answer; None where the reply holds none.

  Args:
    answers: prompts with an answer each.
    write: the model.
    question: the request, with {prompt} and {answer}.
    low, high: limits; a number beyond them is none.

  >>> answers = [([{"role": "user", "content": "1 + 1?"}], "It is 2.")]
  >>> scores(answers, lambda requests: ["The score is 0.8"])
  [0.8]
  """
  if "{prompt}" not in question or "{answer}" not in question:
    raise ValueError("the question must hold {prompt} and {answer}.")
  requests: list[Messages] = []
  for messages, answer in answers:
    prompt = "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)
    text = question.replace("{prompt}", prompt).replace("{answer}", answer)
    requests.append(({"role": "user", "content": text},))
  found = (number_of(reply) for reply in write(requests))
  return [x if x is not None and low <= x <= high else None for x in found]


def number_of(reply: str) -> float | None:
  """The last number of a reply: reasoning before it may hold others.

  >>> number_of("Steps 1 and 2 repeat. Score: 0.4."), number_of("none")
  (0.4, None)
  """
  numbers = re.findall(r"-?\d+(?:\.\d+)?", reply)
  return float(numbers[-1]) if numbers else None
