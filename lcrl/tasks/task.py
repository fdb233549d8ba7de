"""A task: prompts, their rendering, and a scorer of responses. Imports no jax.

A scorer runs in a worker process that imports its module and nothing else of the package, so a
scorer lives in a module whose imports are light (no jax; `BadFormat` from here is all it needs).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Messages = tuple[
  dict[str, Any], ...
]  # each {"role": ..., "content": ...}, and other fields of chats


def prompt_key(prompt: Prompt) -> str:
  """The text that tells problems apart, whatever the template: the question where it is known."""
  if prompt.question is None:
    return question_text(prompt.messages)
  return " ".join(prompt.question.split())


def question_text(messages: Messages) -> str:
  """The text that tells prompts apart: all but system messages, whatever the white space.

  >>> system = {"role": "system", "content": "Be brief."}
  >>> question_text((system, {"role": "user", "content": " 1 +\\n2?"}))
  '1 + 2?'
  """
  said = (m["content"] for m in messages if m["role"] != "system")
  return " ".join(" ".join(str(text) for text in said).split())


class BadFormat(Exception):
  """Raised by a scorer when no answer can be read from the response."""


@dataclasses.dataclass(frozen=True)
class Prompt:
  """One problem. `reference` is plain picklable data: whatever the scorer compares with."""

  id: int  # row of the data set
  messages: Messages
  reference: Any
  difficulty: int = 0  # as the task counts it
  question: str | None = None  # before a template shows it; None: the messages tell
  row: Mapping[str, Any] | None = None  # more fields of the data set, for measures of answers


@dataclasses.dataclass(frozen=True)
class Rendered:
  """A prompt as rendered for one rollout."""

  messages: Messages  # to sample from
  prefix: str = ""  # forced start of the response
  prefix_counts: bool = False  # it trains, and its tokens count in lengths and caps
  train_messages: Messages | None = None  # to train on; None: the same


class Prompts(Protocol):
  """A sequence as far as `grain.MapDataset.source` needs one; rows may be made on demand."""

  def __len__(self) -> int: ...
  def __getitem__(self, index: int, /) -> Prompt: ...


Render = Callable[[Prompt, int, int], Rendered]  # prompt, budget target, budget level


def plain(prompt: Prompt, target: int, level: int) -> Rendered:
  """The prompt as it is, whatever the budget."""
  del target, level
  return Rendered(prompt.messages)


@dataclasses.dataclass(frozen=True)
class Response:
  """The input of signals: one response. A token counts if the policy sampled it or a forced prefix
  that trains holds it: `Rollouts.mask`."""

  tokens: Sequence[int]  # forced ones and the end token included
  counts: Sequence[bool]  # which of them count
  ended: bool  # the last one is an end token
  decode: Callable[[Sequence[int]], str]
  row: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the prompt's data set

  @functools.cached_property
  def text(self) -> str:
    """The text for the verifier: with forced tokens, without the end token."""
    return self.decode(self.tokens[:-1] if self.ended else self.tokens)

  def counted(self, tokens: int) -> int:
    """How many of the first `tokens` count."""
    return int(sum(self.counts[:tokens]))

  def tokens_to(self, characters: int) -> int:
    """The fewest tokens whose text has so many characters; all of them if none has.

    Every guess decodes a prefix, which is slow. Guesses alternate between interpolation, which
    needs few, and bisection, which bounds their number.
    """
    low, high, below, above = 0, len(self.tokens), 0, len(self.text)
    if not 0 < characters <= above:
      return 0 if characters <= 0 else high
    share = 0.5
    while high - low > 1:
      share = (characters - below) / (above - below) if share == 0.5 else 0.5
      guess = min(max(low + round(share * (high - low)), low + 1), high - 1)
      written = len(self.decode(self.tokens[:guess]))
      if written < characters:
        low, below = guess, written
      else:
        high, above = guess, written
    return high


@dataclasses.dataclass(frozen=True)
class Signals:
  """Values besides the verdict that some methods need, read from a response's text and tokens."""

  dtypes: Mapping[str, type]  # name of each signal -> int, bool or float
  read: Callable[[Response], Mapping[str, float]]  # one value for each of the names


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
  """Prompts and their verdicts.

  `score(response, prompt.reference) -> float` gets the response's text without the end token, may
  raise `BadFormat`, and is importable by name (or a `functools.partial` of such a function):
  it is pickled into a worker. A response is correct when it has a score of at least `threshold`.
  `evaluates`: the scorer may run responses as code, so each gets a process of its own.
  `variables` are those of the chat template, such as enable_thinking=False.
  `judged`: False if nothing can be right or wrong, so that scores and verdicts mean nothing.
  """

  name: str
  prompts: Prompts
  score: Callable[[str, Any], float]
  threshold: float = 1.0
  render: Render = plain
  signals: Signals | None = None
  evaluates: bool = False
  variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  held_out: Sequence[Prompt] = ()  # prompts that no step trains on, of `test_share` in a config
  judged: bool = True
