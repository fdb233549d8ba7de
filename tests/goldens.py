"""Golden numbers against the shipped functions: `python -m tests.goldens FILE.json [...]`.

An entry of a golden file has tolerances and cases; a case has inputs, params and expected outputs.
An adapter renames, reshapes and pads, calls shipped functions, and returns a dict of outputs. It is
keyed "<file stem>/<entry>", so a file of the same name in another folder is checked as well.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

STEMS = ("rl_a", "rl_b", "rl_2026", "preference", "eval_decode_merge")
Adapter = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


def _adapters() -> dict[str, Adapter]:
  modules = [f"tests.golden_adapters.{stem}" for stem in STEMS]
  found = [importlib.import_module(m) for m in modules if importlib.util.find_spec(m)]
  return {key: adapter for module in found for key, adapter in module.ADAPTERS.items()}


ADAPTERS = _adapters()


class Result(NamedTuple):
  passed: int
  total: int
  worst: float  # largest absolute error of the outputs that passed
  faults: list[str]


def check(key: str, entry: Mapping[str, Any]) -> Result:
  """Runs every case of one entry; a case passes when all its outputs do."""
  faults, worst = [], 0.0
  for number, case in enumerate(entry["cases"]):
    try:
      got = ADAPTERS[key](case["inputs"], case.get("params", {}))
      for name, expected in case["expected"].items():
        worst = max(worst, compare(got[name], expected, entry["rtol"], entry["atol"]))
    except Exception as error:  # a missing adapter, output or a raised error fails the case
      faults.append(f"{case.get('name', number)}: {type(error).__name__}: {error}")
  total = len(entry["cases"])
  return Result(total - len(faults), total, worst, faults)


def compare(got: Any, expected: Any, rtol: float, atol: float) -> float:
  """The largest absolute error. Raises AssertionError where it exceeds atol + rtol |expected|."""
  if isinstance(expected, Mapping):
    assert got.keys() == expected.keys(), f"keys {sorted(got)} instead of {sorted(expected)}"
    pairs = [(got[name], expected[name]) for name in expected]
    return max((compare(g, e, rtol, atol) for g, e in pairs), default=0.0)
  if isinstance(expected, str) or expected is None:
    assert got == expected, f"{got!r} instead of {expected!r}"
    return 0.0
  if isinstance(expected, list) and not _is_array(expected):
    assert len(got) == len(expected), f"{len(got)} items instead of {len(expected)}"
    pairs = list(zip(got, expected, strict=True))
    return max((compare(g, e, rtol, atol) for g, e in pairs), default=0.0)
  got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
  assert got.shape == expected.shape, f"shape {got.shape} instead of {expected.shape}"
  same = (got == expected) | (np.isnan(got) & np.isnan(expected))
  with np.errstate(invalid="ignore"):
    error = np.where(same, 0.0, np.abs(got - expected))
    passed = same | (error <= atol + rtol * np.abs(expected))
  assert passed.all(), f"{got} instead of {expected}, off by {error.max()}"
  return float(error.max(initial=0.0))


def _is_array(items: list) -> bool:
  try:
    return np.asarray(items).dtype.kind in "biuf"
  except ValueError:  # ragged
    return False


def main(paths: list[str]) -> int:
  if not paths:
    print(__doc__)
    return 2
  jax.config.update("jax_enable_x64", True)
  passed = total = 0
  for path in map(pathlib.Path, paths):
    for name, entry in json.loads(path.read_text()).items():
      result = check(f"{path.stem}/{name}", entry)
      passed, total = passed + result.passed, total + result.total
      line = f"{result.passed}/{result.total}  worst {result.worst:.1e}  {path.stem}/{name}"
      print("\n    ".join([line, *result.faults]))
  print(f"{passed}/{total} passed")
  return int(passed < total)


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
