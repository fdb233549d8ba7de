"""experiments.evaluate: what it measures at a budget, what it writes, and whole commands."""

import json

import numpy as np

from experiments.evaluate import at_budget, write


def answers(right, lengths, cap):
  correct, lengths = np.array(right, bool), np.array(lengths)
  return {
    "correct": correct & (lengths < cap),
    "lengths": np.minimum(lengths, cap),
    "truncated": lengths >= cap,
    "valid": np.ones(correct.shape, bool),
    "difficulty": np.arange(len(correct)) % 2,
  }


def test_pass_at_k_and_spread_of_length():
  found = at_budget(answers([[1, 0], [0, 0], [1, 1], [1, 0]], [[4, 6]] * 4, 9), 9, [1, 2])
  assert found["pass@1"] == found["accuracy"] == 0.5
  assert found["pass@2"] == 0.75  # three of four prompts have a right answer
  low, high = found["pass@2_ci"]
  assert 0 < low < 0.75 < high < 1
  assert found["lengths"]["max"] == 6
  assert not found["lengths"]["hit_cap"]


def test_what_is_written(tmp_path):
  right, lengths = np.ones((8, 2)), 4 + np.arange(16).reshape(8, 2)
  found = {
    "model": "runs/laser",
    "step": 7,
    "task": {"fn": "arithmetic"},
    "samples": 2,
    "temperature": 1.0,
    "budgets": {str(cap): at_budget(answers(right, lengths, cap), cap, [2]) for cap in (8, 32)},
    "seed": 0,
    "wall_s": 1.0,
    "device": "CPU, 2 cores",
    "commit": "0123456789ab",
  }
  table = write(tmp_path / "out", found)
  assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == found
  rows = [[c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
  assert [row[:2] for row in rows] == [["8", "16"], ["32", "16"]]
  assert rows[0][4] == "75.0"  # 12 of 16 are at least 8 long
  assert rows[1][2].startswith("100.0 [")
  text = (tmp_path / "out" / "evaluation.md").read_text()
  assert "| 8 tokens | 1 | 8 |" in text
  assert (tmp_path / "out" / "evaluation.png").stat().st_size > 10_000
