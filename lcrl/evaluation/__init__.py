"""Accuracy and length: measures with intervals, summaries, plots and reports.

The numbers are NumPy in float64 on the host. `plots`, `training_plots` and `report` need matplotlib
and are imported by name. So are measures that no run computes: `answers` (of an answers file, by
name), `length_controlled`, `judgements` and `wildbench` (of a judge's files), `verbosity` (lengths
of text), `voting` (several answers to a prompt) and `laws` (accuracy by steps of reasoning, model
size and tokens); and `test_time`, recipes that spend more tokens on an answer.
"""

from lcrl.evaluation.intervals import (
  Estimate,
  accuracy_estimate,
  difference,
  mean_estimate,
  seed_estimate,
)
from lcrl.evaluation.measures import measure, pass_at_k
from lcrl.evaluation.pareto import accuracy_efficiency_score, hypervolume, on_front
from lcrl.evaluation.summaries import (
  POINT,
  check_point,
  commit,
  device,
  pool,
  read_json,
  read_summary,
  summary,
  write_json,
)

__all__ = [
  "POINT",
  "Estimate",
  "accuracy_efficiency_score",
  "accuracy_estimate",
  "check_point",
  "commit",
  "device",
  "difference",
  "hypervolume",
  "mean_estimate",
  "measure",
  "on_front",
  "pass_at_k",
  "pool",
  "read_json",
  "read_summary",
  "seed_estimate",
  "summary",
  "write_json",
]
