"""Which references a verifier cannot compare, not even with themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lcrl.tasks import extract as extractors
from lcrl.tasks.task import BadFormat, Prompt, Task

if TYPE_CHECKING:
  from lcrl.tasks.verify import Verifier

_IN_PROCESS = 256  # most references that this process checks; more go to a verifier's processes


class References(contextlib.ExitStack):
  """Checks references, each once. A context manager: it may start processes.

  Args:
    compare: (response, reference) -> score, as `Task.score`.
    threshold: least score of a correct answer.
    in_process: most references of one call that this process checks. It has no deadline, which
      references from a stranger need.
  """

  def __init__(
    self, compare: Callable[[str, Any], float], threshold: float, *, in_process: int | None = None
  ):
    super().__init__()
    self._task = Task("references", (), compare, threshold)
    self._in_process = _IN_PROCESS if in_process is None else in_process
    self._verifier: Verifier | None = None
    self._reasons: dict[str, str | None] = {}

  def why_not(self, references: Iterable[str]) -> dict[str, str]:
    """Reference -> why the verifier cannot compare it, only for those that it cannot.

    Numbers in digits equal themselves for every verifier. Others take milliseconds in `math`, so
    several processes share them if they are many.
    """
    asked = {r: None for r in references if extractors.to_number(r) is None}
    new = [reference for reference in asked if reference not in self._reasons]
    check = self._by_verifier if len(new) > self._in_process else self._here
    self._reasons.update(zip(new, check(new), strict=True))
    return {r: why for r in asked if (why := self._reasons[r]) is not None}

  def _by_verifier(self, references: list[str]) -> list[str | None]:
    from lcrl.tasks.verify import Verifier

    if self._verifier is None:
      self._verifier = self.enter_context(Verifier(self._task))
    items = [(reference, Prompt(0, (), reference)) for reference in references]
    verdicts = self._verifier.verify(items)
    return [None if v.correct else v.why or _UNEQUAL for v in verdicts]

  def _here(self, references: list[str]) -> list[str | None]:
    return [self._why_not(reference) for reference in references]

  def _why_not(self, reference: str) -> str | None:
    try:
      equal = self._task.score(reference, reference) >= self._task.threshold
    except (ValueError, BadFormat) as why:
      return str(why)
    return None if equal else _UNEQUAL


_UNEQUAL = "it is not equal to itself"
