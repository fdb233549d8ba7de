"""The golden numbers pass, and the checker fails what is wrong."""

import copy
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests import goldens

FOLDER = pathlib.Path(__file__).parent / "golden"
ENTRIES = {
  f"{path.stem}/{name}": entry
  for path in sorted(FOLDER.glob("*.json"))
  for name, entry in json.loads(path.read_text()).items()
}


@pytest.mark.parametrize("key", [key for key in ENTRIES if key in goldens.ADAPTERS])
def test_golden(key):
  with jax.enable_x64(True):
    result = goldens.check(key, ENTRIES[key])
  assert result.passed == result.total, "\n".join(result.faults)


@pytest.mark.parametrize("stem", ["rl_a", "rl_b", "rl_2026"])
def test_every_key_has_an_adapter(stem):
  assert {k for k in ENTRIES if k.startswith(stem)} <= goldens.ADAPTERS.keys()


@pytest.mark.parametrize("change", [1e-3, np.nan])
def test_a_wrong_number_is_found(change):
  entry = copy.deepcopy(ENTRIES["rl_a/laser"])
  entry["cases"][0]["expected"]["reward"][0] += change
  result = goldens.check("rl_a/laser", entry)
  assert (result.passed, result.total) == (len(entry["cases"]) - 1, len(entry["cases"]))
  assert entry["cases"][0]["name"] in result.faults[0]


def test_outputs_must_match_in_shape_name_and_nesting():
  def bad(got, expected):
    with pytest.raises((AssertionError, ValueError)):
      goldens.compare(got, expected, 1e-6, 1e-9)

  bad([1.0], [1.0, 1.0])
  bad([[1.0]], [1.0])
  bad({"low": 1}, {"low": 1, "high": 2})
  bad(0.0, None)
  bad([[1, 2], [3]], [[1, 2], [4]])
  assert goldens.compare([[1, 2], [3]], [[1, 2], [3]], 0, 0) == 0
  assert goldens.compare({"a": [np.nan, 2.0]}, {"a": [float("nan"), 2.5]}, 0.2, 0) == 0.5


def test_command_reads_files_elsewhere_and_counts_unknown_keys_as_failed(tmp_path):
  path = tmp_path / "rl_a.json"
  entries = {"laser": ENTRIES["rl_a/laser"], "no_such_method": ENTRIES["rl_a/laser"]}
  path.write_text(json.dumps(entries))
  command = [sys.executable, "-m", "tests.goldens", str(path)]
  run = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parents[1])
  total = len(ENTRIES["rl_a/laser"]["cases"])
  assert run.returncode == 1
  assert f"{total}/{total}  worst" in run.stdout
  assert f"{total}/{2 * total} passed" in run.stdout
