"""The stream of prompts: an endless, shuffled sequence that one integer addresses."""

from __future__ import annotations

import grain

from lcrl.tasks.task import Task


def prompts(task: Task, *, seed: int, shuffle: bool = True) -> grain.MapDataset:
  """`stream[position] -> Prompt` for any position, a fresh order in each pass over the data.

  The position is the only state: every process and every restart reads the same stream.

  >>> from lcrl.tasks import arithmetic
  >>> stream = prompts(arithmetic(), seed=0)
  >>> stream[5].messages == prompts(arithmetic(), seed=0)[5].messages
  True
  """
  if not len(task.prompts):
    raise ValueError(f"{task.name} has no prompts.")
  stream = grain.MapDataset.source(task.prompts).seed(seed)
  if shuffle:
    stream = stream.shuffle()
  return stream.repeat()
