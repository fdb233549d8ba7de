"""The benchmarks run: tiny work on one CPU device, all in one process."""

import dataclasses
import importlib
import json

import jax
import pytest
from absl import flags

from experiments.benchmarks import shapes

COMMON = {"shape": "laptop", "prompts": 2, "group": 2, "asked": 8, "limit": 8, "dtype": "float32"}


@pytest.fixture
def bench(monkeypatch, capsys):
  """Runs a benchmark with these flags, defaults elsewhere; gives its last line of JSON."""
  small = dataclasses.replace(
    shapes.LAPTOP, vocab_size=64, hidden_size=16, layers=1, heads=2, kv_heads=1, head_dim=8
  )
  monkeypatch.setattr(shapes, "LAPTOP", dataclasses.replace(small, mlp_size=16))
  monkeypatch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])

  def run(name, *others, **given):
    before = set(flags.FLAGS)
    for part in (name, *others):
      importlib.import_module(f"experiments.benchmarks.{part}").define()
    try:
      flags.FLAGS(["benchmark", *(f"--{flag}={value}" for flag, value in given.items())])
      importlib.import_module(f"experiments.benchmarks.{name}").main([])
    finally:
      for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
    return json.loads(capsys.readouterr().out.splitlines()[-1])

  return run


def test_a_step_has_parts(bench):
  """Every response is written to its limit, and the parts of a step add up."""
  how = {"update": "none/xla/1/0/scan", "workers": 1, "repeats": 1}
  own = bench("step", "shapes", "peers", **COMMON, **how)["own"]
  assert own["response_tokens"] == 2 * 2 * 8
  parts = ("sampling_s", "verify_s", "shape_s", "update_s")
  assert min(own[part] for part in parts) > 0
  assert sum(own[part] for part in parts) == pytest.approx(own["step_s"], rel=1e-3)


def test_sampling_is_measured_by_variant(bench):
  """A variant that cannot run here is an error in its place."""
  variants = bench("sampling", **COMMON, variants="xla,none", repeats=1)["variants"]
  found = variants["xla"]
  assert found["tokens_per_s"] == pytest.approx(2 * 2 * 8 / found["seconds"])
  assert "none" in variants["none"]["error"]


def test_slots_and_batches_sample_the_same_work(bench):
  heavy = {"heavy": True, "slots": 2, "variants": "xla", "repeats": 1}
  found = bench("sampling", **COMMON, **heavy)["variants"]["xla"]
  work = {
    name: found[name]["seconds"] * found[name]["tokens_per_s"] for name in ("slots", "batches")
  }
  assert work["slots"] == pytest.approx(work["batches"])
  assert 1 <= found["mean_length"] < COMMON["limit"]


def test_log_probs_are_measured(bench):
  sizes = {"tokens": 16, "hidden": 8, "vocab": 32, "tiles": "8x16", "dtype": "float32"}
  found = bench("log_probs", **sizes, repeats=1)
  assert found["dense_over_tiled"] == pytest.approx(
    found["dense"]["median_ms"] / found["tiled 8x16"]["median_ms"]
  )
