"""Progress of an evaluation: a bar on a terminal, otherwise lines with the time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

__all__ = ["Progress", "to_stderr"]


def to_stderr(text: str) -> None:
  """Prints a line to standard error at once."""
  print(text, file=sys.stderr, flush=True)


class Progress:
  """`progress(done)` after every part of the work.

  Args:
    title: what is being done.
    total: number of `unit`s.
    unit: of what.
    say: gets the lines instead of standard error, of whoever shows a bar already.
    every: seconds between two lines.
  """

  def __init__(
    self,
    title: str,
    total: int,
    unit: str = "prompts",
    *,
    say: Callable[[str], None] | None = None,
    every: float = 10.0,
  ):
    self._title, self._total, self._unit = title, total, unit
    self._say, self._every, self._alone = say or to_stderr, every, say is None
    self._start = self._told = time.monotonic()
    hidden = True if say else None  # None: where standard error is no terminal
    self._bar = tqdm(total=total, desc=title, unit=f" {unit}", dynamic_ncols=True, disable=hidden)

  def __call__(self, done: int) -> None:
    self._bar.update(done - self._bar.n)
    now = time.monotonic()
    due = now - self._told >= self._every or (self._alone and done >= self._total)
    if self._bar.disable and due:
      self._told = now
      passed = f"{done} of {self._total} {self._unit}, {now - self._start:.0f} s"
      self._say(f"{self._title}: {passed}")
    if done >= self._total:
      self._bar.close()
