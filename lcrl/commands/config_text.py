"""A config as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ORDER = (
  "run",
  "seed",
  "head",
  "budget",
  "reward",
  "filter",
  "advantage",
  "loss",
  "weights",
  "then",
  "revise",
  "monitor",
  "learned",
  "teachers",
  "pairing",
  "teacher",
  "reference",
  "lora",
  "policy",
  "tokenizer",
  "task",
  "eval_task",
  "eval_tasks",
  "data",
  "batches",
  "sampling",
  "optimizer",
  "mesh",
  "round",
  "train",
)


def page(config: Mapping[str, Any]) -> list[str]:
  """Lines `section.field = value` for all fields, in the order of a config file."""
  rank = {name: position for position, name in enumerate(ORDER)}
  sections = sorted(config, key=lambda name: (rank.get(name, len(rank)), name))
  return [
    f"{field} = {value!r}" for name in sections for field, value in _fields(name, config[name])
  ]


def _fields(name: str, value: Any) -> Iterator[tuple[str, Any]]:
  if isinstance(value, Mapping) and value:
    for key in sorted(value, key=lambda key: (key != "fn", key)):
      yield from _fields(f"{name}.{key}", value[key])
  elif isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
    for i, part in enumerate(value):
      yield from _fields(f"{name}[{i}]", part)
  else:
    yield name, value
