"""Prompts and verifiers, on the host. A config names a task by `fn`; `task.render.fn` shows budgets
to the policy, and `task.signals.fn` reads signals of responses."""

from lcrl.tasks.arithmetic import arithmetic
from lcrl.tasks.jsonl import json, jsonl, parquet
from lcrl.tasks.prompts import prompts
from lcrl.tasks.reasoning_gym import reasoning_gym
from lcrl.tasks.render import prefix, reference_words, suffix, system
from lcrl.tasks.signals import (
  answer_chunk,
  answer_span,
  distinct_paragraphs,
  distinct_words,
  opening_tag,
  overlap,
  patterns,
  row_numbers,
  several,
  think_tags,
  words,
)

__all__ = [
  "answer_chunk",
  "answer_span",
  "arithmetic",
  "distinct_paragraphs",
  "distinct_words",
  "json",
  "jsonl",
  "opening_tag",
  "overlap",
  "parquet",
  "patterns",
  "prefix",
  "prompts",
  "reasoning_gym",
  "reference_words",
  "row_numbers",
  "several",
  "suffix",
  "system",
  "think_tags",
  "words",
]
