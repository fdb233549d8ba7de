"""Measures of an answers file, by name: functions of its rows.

`lcrl-evaluate --measures` and `lcrl-measures` name them and their arguments; `report`
reads and writes files, `rows` says what a row has.
"""

from lcrl.evaluation.answers.lengths import cap_saturation, castillo, yap_score
from lcrl.evaluation.answers.requested import lcfo, longbench_write, ruler
from lcrl.evaluation.answers.verdicts import best_of, maj_at_k, pass_at_k, pass_until

__all__ = [
  "best_of",
  "cap_saturation",
  "castillo",
  "lcfo",
  "longbench_write",
  "maj_at_k",
  "pass_at_k",
  "pass_until",
  "ruler",
  "yap_score",
]
