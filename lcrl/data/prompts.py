"""The stream of prompts: an endless, shuffled sequence that one integer addresses."""

from __future__ import annotations

import grain

from lcrl.tasks.task import Task


def prompts(task: Task, *, seed: int, shuffle: bool = True) -> grain.MapDataset:
  """`stream[position] -> Prompt` for any position, a fresh order in each pass over the data.

  The position is the only state: every process and every restart reads the same stream.

  >>> from types import SimpleNamespace
  >>> stream = prompts(SimpleNamespace(prompts=["a", "b", "c"]), seed=0)
  >>> sorted(stream[i] for i in range(3)), sorted(stream[i] for i in range(3, 6))
  (['a', 'b', 'c'], ['a', 'b', 'c'])
  """
  if not len(task.prompts):
    raise ValueError(f"{task.name} has no prompts.")
  stream = grain.MapDataset.source(task.prompts).seed(seed)
  if shuffle:
    stream = stream.shuffle()
  return stream.repeat()
