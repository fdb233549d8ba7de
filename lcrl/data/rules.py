"""AutoRule: rules that a model finds in preference pairs: it explains, extracts and merges them.

Each step turns conversations into texts by `write` (`lcrl.rollouts.writer`), so any model serves,
and the texts of a step can be read, kept and continued from. Source: AutoRule, arXiv:2506.15651,
from its abstract and README; the wording of the requests is ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

import numpy as np

from lcrl.data.layouts import Pair
from lcrl.tasks.task import Messages

__all__ = ["explain", "extract", "listed", "merge"]

Write = Callable[[Sequence[Messages]], list[str]]
EXPLAIN = """Two assistants answered the same request.

[Request]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

Answer {better} was judged to be better. Think step by step about what makes it better than the \
other one, and name each reason."""
EXTRACT = """Here is an analysis of why one answer to a request is better than another.

[Analysis]
{text}

Which general rules for a good answer does the analysis rely on? State each rule as one sentence \
that can be checked on any single answer, without the request. Reply with a JSON list of strings \
and nothing else."""
MERGE = """Here are rules for good answers. Some say the same thing.

{rules}

Merge rules that mean the same, drop those that contradict many others, and keep at most {most} \
rules. Reply with a JSON list of strings and nothing else."""


def explain(pairs: Sequence[Pair], write: Write, *, seed: int = 0) -> list[str]:
  """Why the chosen answer of each pair is better. Which of the two stands first is drawn by the
  seed, since judges favour a side.

  >>> pair = Pair([{"role": "user", "content": "1 + 1?"}], ("2", "It is 2."))
  >>> explain([pair], lambda requests: ["It is shorter."] * len(requests))
  ['It is shorter.']
  """
  swapped = np.random.default_rng(seed).random(len(pairs)) < 0.5
  requests = []
  for pair, swap in zip(pairs, swapped.tolist(), strict=True):
    chosen, rejected = pair.sides
    first, second = (rejected, chosen) if swap else (chosen, rejected)
    prompt = "\n\n".join(f"{m['role']}: {m['content']}" for m in pair.messages)
    text = EXPLAIN.format(prompt=prompt, first=first, second=second, better="B" if swap else "A")
    requests.append(_asked(text))
  return write(requests)


def extract(explanations: Sequence[str], write: Write) -> list[list[str]]:
  """The rules that each explanation relies on; none where the reply holds no list.

  >>> extract(["it is short"], lambda requests: ['["Be brief."]'])
  [['Be brief.']]
  """
  return [listed(reply) for reply in write([_asked(EXTRACT.format(text=x)) for x in explanations])]


def merge(rules: Sequence[str], write: Write, *, most: int = 20, at_once: int = 100) -> list[str]:
  """At most `most` rules that say what all of them do.

  Up to `at_once` rules fit into a request: more are merged by parts, and the parts merged again. A
  reply without a list leaves its part as it is, without rules that are spelled alike.

  Raises:
    ValueError: there are no rules, or no progress is possible.

  >>> merge(["Be brief.", "be brief"], lambda requests: ['["Be brief."]'])
  ['Be brief.']
  """
  if not 1 <= most < at_once:
    raise ValueError(f"most must be between 1 and at_once - 1, got {most} and {at_once}.")
  if not (rules := _distinct(rules)):
    raise ValueError("there are no rules to merge: no reply held a list.")
  while True:
    parts = [rules[i : i + at_once] for i in range(0, len(rules), at_once)]
    numbered = ("\n".join(f"{i}. {rule}" for i, rule in enumerate(part, 1)) for part in parts)
    replies = write([_asked(MERGE.format(rules=text, most=most)) for text in numbered])
    merged = [listed(reply) or part for reply, part in zip(replies, parts, strict=True)]
    found = _distinct([rule for part in merged for rule in part[:most]])
    if len(parts) == 1:
      return found
    rules = found


def listed(reply: str) -> list[str]:
  """The rules of a reply: its last JSON list of strings, else its numbered or dashed lines.

  >>> listed('Rules: ["Be brief.", "Show steps."]'), listed("1. Be brief.\\n- Show steps.")
  (['Be brief.', 'Show steps.'], ['Be brief.', 'Show steps.'])
  """
  for start in reversed([match.start() for match in re.finditer(r"\[", reply)]):
    try:
      found, _ = json.JSONDecoder().raw_decode(reply[start:])
    except (ValueError, RecursionError):
      continue
    if found and all(isinstance(rule, str) for rule in found):
      return _distinct(found)
  return _distinct(re.findall(r"^\s*(?:\d+[.)]|[-*])\s+(.+?)\s*$", reply, re.MULTILINE))


def _distinct(rules: Sequence[str]) -> list[str]:
  """The rules in their order, without empty ones and those that differ in case and space alone."""
  first: dict[str, str] = {}
  for rule in rules:
    first.setdefault(" ".join(rule.lower().split()), " ".join(rule.split()))
  return [rule for key, rule in first.items() if key]


def _asked(text: str) -> Messages:
  return ({"role": "user", "content": text},)
