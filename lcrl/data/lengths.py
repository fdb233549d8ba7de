"""Finds prompts that are too long for a run before its first step, and refuses or skips them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

from lcrl.data.choosing import Kept, Replacing, rows
from lcrl.protocols import Tokenizer
from lcrl.tasks.task import Prompt, Prompts, Task, plain

CHECKED = 128  # prompts checked before the first step, of a data set that makes them on demand
SHOWN = 5  # rows that an error lists
LEVELS = 64  # most levels of a budget
BYTES = 3  # most bytes of normalised text per byte of text; a token has at least one

Length = Callable[[Prompt], int]


def fitting(
  task: Task,
  tokenizer: Tokenizer,
  *,
  limit: int,
  most: int,
  field: str = "task",
  long: str = "error",
) -> Task:
  """The task with prompts of at most `limit` tokens, for every budget that they may show.

  Encoding takes most of the time: 0.4 ms for a prompt of 560 tokens on one core, 15 s for 40,000 of
  them; so prompts of at most a third of `limit` bytes are not encoded. Of a data set that makes its
  prompts on demand the first ones are checked; a long one that comes later gives way to the next.

  Args:
    task: any.
    tokenizer: the policy's.
    limit: most tokens of prompt and forced prefix.
    most: most tokens of a response: the largest target that a prompt may show.
    field: the section of the config.
    long: "error", or "skip" to leave long prompts out.

  Raises:
    ValueError: a prompt is too long; it names the rows.
  """
  prompts = task.prompts
  if not len(prompts):
    raise ValueError(f"{field}: {task.name} has no prompts.")
  length = measured(task, tokenizer, limit=limit, most=most)
  all_known = isinstance(prompts, list | tuple) or len(prompts) <= CHECKED
  checked = [prompts[i] for i in range(len(prompts) if all_known else min(CHECKED, len(prompts)))]
  lengths = [length(prompt) for prompt in checked]
  over = [i for i, n in enumerate(lengths) if n > limit]
  if over and (long == "error" or len(over) == len(checked)):
    listed = ", ".join(f"{checked[i].id} ({lengths[i]} tokens)" for i in over[:SHOWN])
    raise ValueError(
      f"{field}: {len(over)} of {len(checked)} prompts are longer than train.max_prompt_tokens="
      f"{limit}: row {listed}{' and others' * (len(over) > SHOWN)}; the longest has {max(lengths)} "
      f"tokens. " + ("None is left." if long == "skip" else f"{field}.long='skip' leaves them out.")
    )
  if over:
    logging.warning("%s: %d of %d prompts are too long.", field, len(over), len(checked))
  if all_known:
    kept = [prompt for prompt, n in zip(checked, lengths, strict=True) if n <= limit]
    return dataclasses.replace(task, prompts=Kept(kept, rows(prompts))) if over else task
  return dataclasses.replace(task, prompts=Fitting(prompts, length, limit, field))


def measured(task: Task, tokenizer: Tokenizer, *, limit: int, most: int) -> Length:
  """Returns prompt -> tokens of its longest row, or an upper bound that is within `limit`."""
  encoded = functools.cache(lambda text: len(tokenizer.encode(text)) if text else 0)

  def texts(prompt: Prompt, target: int, level: int) -> Iterator[tuple[str, int]]:
    view = task.render(prompt, target, level)
    for messages in (view.messages, view.train_messages):
      if messages is not None:
        yield tokenizer.render(messages), encoded(view.prefix)

  def exact(prompt: Prompt, target: int, level: int) -> int:
    return max(len(tokenizer.encode(t)) + n for t, n in texts(prompt, target, level))

  first = task.prompts[0]
  longest = max(variants(task, first, most), key=lambda variant: exact(first, *variant))

  def length(prompt: Prompt) -> int:
    bound = max(BYTES * len(text.encode()) + n for text, n in texts(prompt, *longest))
    return bound if bound <= limit else exact(prompt, *longest)

  return length


def variants(task: Task, prompt: Prompt, most: int) -> list[tuple[int, int]]:
  """One (target, level) for each rendering of a prompt."""
  if task.render is plain:
    return [(most, 0)]
  targets = {most, *(int("8" * n) for n in range(1, len(str(most))))}
  samples: dict[Any, tuple[int, int]] = {}
  for target, level in itertools.product(sorted(targets), range(LEVELS)):
    try:
      view = task.render(prompt, target, level)
    except (ValueError, LookupError):  # no more levels
      if level == 0:
        raise
      continue
    samples.setdefault(repr(view), (target, level))
  return list(samples.values())


class Fitting(Replacing):
  """A data set without prompts that are too long. It warns of every doubling of their number."""

  def __init__(self, prompts: Prompts, length: Length, limit: int, field: str):
    skipped: set[int] = set()

    def fits(prompt: Prompt) -> bool:
      if length(prompt) <= limit:
        return True
      if prompt.id not in skipped:
        skipped.add(prompt.id)
        if (count := len(skipped)).bit_count() == 1:  # 1, 2, 4, ...
          logging.warning(
            "%s: row %d is longer than train.max_prompt_tokens=%d; the next one takes its place "
            "(%d rows so far).",
            *(field, prompt.id, limit, count),
          )
      return False

    super().__init__(prompts, fits, f"{field}: no prompt has at most {limit} tokens.")


def counted_prefix(task: Task, tokenizer: Tokenizer, target: int, level: int) -> int:
  """Tokens of the forced prefix of a response, if its cap counts them."""
  view = task.render(task.prompts[0], target, level)
  return len(tokenizer.encode(view.prefix)) if view.prefix and view.prefix_counts else 0
