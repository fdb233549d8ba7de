"""The time of a step."""

from __future__ import annotations

import time
from collections.abc import Mapping

from lcrl import compiler


class Clock:
  """Metrics `time/step` and `time/compile`, in seconds since the clock was made."""

  def __init__(self):
    self._begun, self._compiled = time.perf_counter(), compiler.seconds()

  def __call__(self) -> dict[str, float]:
    return {
      "time/step": time.perf_counter() - self._begun,
      "time/compile": compiler.seconds() - self._compiled,
    }


def told(numbers: Mapping[str, float]) -> str:
  """The time of a step for the console.

  >>> told({"time/step": 2.2, "time/compile": 0.0}), told({"time/step": 17.4, "time/compile": 15.2})
  ('2.20 s', '17.40 s, of which 15 s compiling')
  """
  text, compiling = f"{numbers['time/step']:.2f} s", numbers["time/compile"]
  return text if compiling < 1 else f"{text}, of which {compiling:.0f} s compiling"
