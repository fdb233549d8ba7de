"""What a task is: prompts, how to show them, and how to score a response. Imports no jax.

A scorer runs in a worker process that imports its module and nothing else of the package, so a
scorer lives in a module whose imports are light (no jax; `BadFormat` from here is all it needs).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

Messages = tuple[dict[str, str], ...]  # each {"role": ..., "content": ...}


class BadFormat(Exception):
  """Raised by a scorer when no answer can be read from the response."""


@dataclasses.dataclass(frozen=True)
class Prompt:
  """One problem. `reference` is plain picklable data: whatever the scorer compares with."""

  id: int  # row of the data set
  messages: Messages
  reference: Any
  difficulty: int = 0  # as the task counts it


@dataclasses.dataclass(frozen=True)
class Rendered:
  """A prompt as one rollout sees it."""

  messages: Messages  # to sample from
  prefix: str = ""  # forced start of the response
  train_messages: Messages | None = None  # to train on; None: the same


class Prompts(Protocol):
  """A sequence as far as `grain.MapDataset.source` needs one; rows may be made when asked for."""

  def __len__(self) -> int: ...
  def __getitem__(self, index: int, /) -> Prompt: ...


Render = Callable[[Prompt, int, int], Rendered]  # prompt, budget target, budget level


def plain(prompt: Prompt, target: int, level: int) -> Rendered:
  """The prompt as it is, whatever the budget."""
  del target, level
  return Rendered(prompt.messages)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
  """Prompts and their verdicts.

  `score(response, prompt.reference) -> float` gets the response's text without the end token, may
  raise `BadFormat`, and is importable by name (or a `functools.partial` of such a function):
  it is pickled into a worker. A response is correct when its score is at least `threshold`.
  """

  name: str
  prompts: Prompts
  score: Callable[[str, Any], float]
  threshold: float = 1.0
  render: Render = plain
