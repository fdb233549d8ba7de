"""Where in a response the answer stands: text -> the answer, or None if there is none.

Each is public and a task names the one it means, so that nobody has to guess what was scored.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lcrl.tasks.task import BadFormat

__all__ = ["after_hashes", "answer_tag", "boxed", "last_number", "whole"]

_NUMBER = re.compile(r"(?<![\w.])-?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)")


def whole(text: str) -> str | None:
  """All of it.

  >>> whole(" 12 ")
  '12'
  """
  return text.strip() or None


def after_hashes(text: str) -> str | None:
  """The rest of the line after the last ####, as GSM8K writes its answers.

  >>> after_hashes("6 * 7 = 42\\n#### 42\\n")
  '42'
  """
  _, hashes, after = text.rpartition("####")
  return after.split("\n")[0].strip() or None if hashes else None


def answer_tag(text: str) -> str | None:
  """Inside the last <answer> ... </answer>.

  >>> answer_tag("<think>6 * 7</think><answer> 42 </answer>")
  '42'
  """
  before, closing, _ = text.rpartition("</answer>")
  _, opening, answer = before.rpartition("<answer>")
  return answer.strip() or None if closing and opening else None


def last_number(text: str) -> str | None:
  """The last decimal number; a minus counts unless something stands before it, as in 7-3.

  >>> last_number("12 - 7 + 1,000 = 1,005.")
  '1,005'
  >>> last_number("It is -4.")
  '-4'
  """
  found = _NUMBER.findall(text)
  return found[-1] if found else None


def boxed(text: str) -> str | None:
  r"""Inside the last \boxed{...}, braces matched.

  >>> boxed(r"so \boxed{\frac{1}{2}}.")
  '\\frac{1}{2}'
  """
  start = text.rfind(r"\boxed{")
  if start < 0:
    return None
  depth, begin = 0, start + len(r"\boxed{")
  for end in range(begin, len(text)):
    depth += (text[end] == "{") - (text[end] == "}")
    if depth < 0:
      return text[begin:end].strip() or None
  return None


def score_extracted(
  response: str,
  reference: Any,
  *,
  extract: Callable[[str], str | None],
  score: Callable[[str, Any], float],
) -> float:
  """The score of what `extract` finds in the response; a bad format if that is nothing."""
  answer = extract(response)
  if answer is None:
    raise BadFormat("no answer found")
  return score(answer, reference)
