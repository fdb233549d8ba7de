"""Chooses among the prompts of a task: some are held out, some may not be used."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator

from lcrl.tasks.task import Prompt, Prompts, prompt_key

SCANNED = 50_000  # rows of a data set that makes its prompts on demand


def unit_hash(text: str) -> float:
  """A number in [0, 1) that depends on the text alone: on no seed, machine or order of a file."""
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def is_held_out(prompt: Prompt, share: float) -> bool:
  """Whether a prompt belongs to the held-out share: the same question always does, or never."""
  return unit_hash(prompt_key(prompt)) < share


class Kept(list[Prompt]):
  """The prompts of a data set that are used, and its number of rows."""

  def __init__(self, prompts: Iterable[Prompt], rows: int):
    super().__init__(prompts)
    self.rows = rows


class Replacing:
  """A data set that gives the next prompt that may be used in place of one that may not. A prompt
  depends on nothing but its index, so processes and restarts agree."""

  def __init__(self, prompts: Prompts, usable: Callable[[Prompt], bool], none_left: str):
    self._prompts, self._usable, self._none_left = prompts, usable, none_left

  def __len__(self) -> int:
    return len(self._prompts)

  def __getitem__(self, index: int) -> Prompt:
    for step in range(len(self)):
      prompt = self._prompts[(int(index) + step) % len(self)]
      if self._usable(prompt):
        return prompt
    raise ValueError(self._none_left)


def split(prompts: Prompts, share: float, *, most: int, field: str) -> tuple[Prompts, list[Prompt]]:
  """The prompts to train on, and at most `most` different ones to evaluate on.

  Prompts with the same question, whatever the white space, template and system message, fall on one
  side, whatever the order and the rest of the file. Where prompts are made on demand, the next one
  that may train takes the place of a held-out prompt, and at most SCANNED rows are looked at.

  Raises:
    ValueError: one side is empty.
  """
  if not share:
    return prompts, []
  trains = lambda prompt: not is_held_out(prompt, share)
  looked = len(prompts) if isinstance(prompts, list | tuple) else min(len(prompts), SCANNED)
  every = (prompts[i] for i in range(looked))
  test = list(itertools.islice(_different(p for p in every if not trains(p)), most))
  none = f"{field}.test_share={share} leaves none of {len(prompts)} prompts to"
  train: Prompts = Replacing(prompts, trains, f"{none} train on.")
  if isinstance(prompts, list | tuple):
    train = Kept(filter(trains, prompts), rows(prompts))
  if not test or not len(train):
    raise ValueError(f"{none} {'train' if test else 'evaluate'} on.")
  return train, test


def _different(prompts: Iterable[Prompt]) -> Iterator[Prompt]:
  """Each text once."""
  seen: set[str] = set()
  for prompt in prompts:
    if (text := prompt_key(prompt)) not in seen:
      seen.add(text)
      yield prompt


def rows(prompts: Prompts) -> int:
  """Number of rows of the data set, unused ones included: ids are below it."""
  return getattr(prompts, "rows", len(prompts))


def first(prompts: Prompts, count: int) -> list[Prompt]:
  """The first `count` distinct prompts, or all; one that replaces another does not count."""
  chosen = (prompts[i] for i in range(len(prompts)))
  if isinstance(prompts, Replacing):
    seen: set[int] = set()
    chosen = (p for p in chosen if p.id not in seen and not seen.add(p.id))  # type: ignore
  return list(itertools.islice(chosen, count))
