"""The benchmarks run: tiny work on one CPU device, all in one process."""

import importlib
import json
import os
import pathlib
import types

import jax
import numpy as np
import pytest
from absl import flags

from experiments.benchmarks import attention, lengths_report, long_rows, peers, shapes, step, update
from lcrl import policies
from lcrl.training.analysis.roofline import Chip, all_weights
from tests.helpers.devices import limit_devices

COMMON = {"shape": "laptop", "prompts": 2, "group": 2, "asked": 8, "limit": 8, "dtype": "float32"}


@pytest.fixture
def peer(monkeypatch):
  """A peer that takes 100 seconds for what it is asked; gives the jobs it got."""
  jobs = []

  def measure(library, job, *, timeout):
    jobs.append(job)
    return {"peer": library, "seconds": 100.0, "median_ms": 1e5}

  monkeypatch.setattr(peers, "in_a_process", measure)
  return jobs


def test_a_step_has_parts(bench):
  """Every response is written to its limit, and the parts of a step add up."""
  how = {"update": "none/xla/1/0/scan", "workers": 1, "repeats": 1}
  own = bench("step", **COMMON, **how)[-1]["own"]
  assert own["response_tokens"] == 2 * 2 * 8
  parts = ("sampling_s", "verify_s", "shape_s", "update_s")
  assert min(own[part] for part in (*parts[1:], "sampled_s")) > 0
  assert sum(own[part] for part in parts) == pytest.approx(own["step_s"], rel=1e-3)


@pytest.mark.slow
def test_a_step_is_measured_in_two_processes(bench, monkeypatch):
  """Each has one device; only the first one prints."""
  one_each = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
  monkeypatch.setenv("XLA_FLAGS", one_each)
  how = {"update": "none/xla/1/0/scan", "workers": 2, "repeats": 1, "processes": 2}
  own, result = bench("step", **COMMON, **how)
  assert result["own"] == own
  assert (own["processes"], own["devices"], own["response_tokens"]) == (2, 2, 2 * 2 * 8)
  assert own["step_s"] > own["update_s"] > 0
  with pytest.raises(ValueError, match="--peer measures in one process"):
    bench("step", **COMMON, **how, peer="tunix")


def test_sampling_is_measured_by_variant(bench):
  """A variant that cannot run here is an error in its place."""
  variants = bench("sampling", **COMMON, variants="xla,none", repeats=1)[-1]["variants"]
  found = variants["xla"]
  assert found["tokens_per_s"] == pytest.approx(2 * 2 * 8 / found["seconds"])
  assert "none" in variants["none"]["error"]


def test_slots_and_batches_sample_the_same_work(bench):
  heavy = {"heavy": True, "slots": 2, "variants": "xla", "repeats": 1}
  found = bench("sampling", **COMMON, **heavy)[-1]["variants"]["xla"]
  work = {
    name: found[name]["seconds"] * found[name]["tokens_per_s"] for name in ("slots", "batches")
  }
  assert work["slots"] == pytest.approx(work["batches"])
  assert 1 <= found["mean_length"] < COMMON["limit"]


def test_log_probs_are_measured(bench, peer):
  sizes = {"tokens": 16, "hidden": 8, "vocab": 32, "tiles": "8x16", "dtype": "float32"}
  found = bench("log_probs", **sizes, repeats=1, peer="transformers")[-1]
  own = found["tiled 8x16"]["median_ms"]
  assert found["dense_over_tiled"]["median_ms"] == pytest.approx(found["dense"]["median_ms"] / own)
  assert found["times_less"]["median_ms"] == pytest.approx(1e5 / own)
  assert (peer[0].part, peer[0].tokens, peer[0].hidden, peer[0].vocab) == ("log_probs", 16, 8, 32)


def test_an_update_is_measured_against_a_peer(bench, peer):
  """On the same work; a run that is refused is an error in its place."""
  how = {"runs": "none/xla/1/0/scan", "repeats": 1, "peer": "tunix", "micro": 1, "heavy": True}
  beside, found = bench("update", **COMMON, **how)
  assert beside == found["peer"]
  assert found["times_less"]["seconds"] == pytest.approx(100 / found["seconds"])
  assert found["grad_norm"] > 0
  job = peer[0]
  assert (job.part, job.micro, job.shape, job.dtype) == ("update", 1, "laptop", "float32")
  assert job.work == shapes.Work(2, 2, 8, 8, heavy=True)
  assert "error" in bench("update", **COMMON, **how | {"runs": "none/nothing/1/0/scan"})[-1]


LONG = {"shape": "laptop", "dtype": "float32", "repeats": 1, "asked": 8, "lengths": 64}


@pytest.mark.slow
def test_the_update_of_a_long_row_is_measured(bench, monkeypatch):
  """The row of two responses is packed; a run that is refused is an error in its place."""
  [found] = bench("long_rows", **LONG, group=2, runs="attention/xla/unroll", here=True)
  assert (found["tokens"], found["grad_norm"] > 0) == (64, True)
  assert found["tokens_per_s"] == pytest.approx((8 + 28) * 2 / found["seconds"])
  [refused] = bench("long_rows", **LONG, runs="full/cudnn/scan", here=True)
  assert "does not support" in refused["error"]
  limit_devices(monkeypatch, 2)
  [cut] = bench("long_rows", **LONG, runs="full/xla/scan", here=True, sequence=2, fsdp=1)
  assert (cut["mesh"]["devices"], cut["grad_norm"] > 0) == (2, True)
  assert long_rows.table([found, refused]).count("| 64 |") == 2


def test_tiles_of_long_rows_are_timed(bench, monkeypatch):
  """Every kernel with every tile, with and without segments; here none can be compiled."""
  monkeypatch.setattr(attention, "TILES", ((64, 64, 4, 2),))
  monkeypatch.setitem(attention.triton.TUNED, 8, attention.triton.TUNED[64])
  _, *lines = bench("long_rows", **LONG, tune=True, segment=16.0, tiles="keys:32x16x4x2")
  assert attention.triton.TUNED[8].keys == (32, 16, 4, 2)
  assert len(lines) == 7 + 6
  assert all("error" in line for line in lines)


def test_segments_of_a_timed_row_follow_each_other():
  [ids] = np.asarray(attention.packed_ids(1, 1000, 50.0))
  assert set(np.diff(ids)) == {0, 1}
  assert 10 < ids[-1] < 40


def test_a_peer_samples_batch_by_batch(bench, peer):
  """One of the four batches is measured; all count. The library that batches continuously gets all
  rows with their lengths."""
  how = {"heavy": True, "slots": 1, "variants": "none", "repeats": 1, "mean": 3.0}
  work = COMMON | {"group": 1, "prompts": 4}
  found = bench("sampling", **work, **how, peer="tunix")[-1]["peer"]
  assert (peer[0].prompts, found["batches"], found["seconds"]) == (1, 4, 400.0)
  assert not peer[0].heavy
  found = bench("sampling", **work, **how, peer="transformers")[-1]["peer"]
  assert (peer[1].prompts, peer[1].slots, found["seconds"]) == (4, 1, 100.0)
  assert peer[1].work.heavy
  assert peer[1].work.mean == 3.0


def test_saves_are_measured(bench, tmp_path):
  """A save is durable only after its checksums, and the folder is gone afterwards."""
  *saves, found = bench("checkpoint", gb=0.002, saves=2, folder=tmp_path / "here")
  assert found["saves"] == saves
  assert found["gb"] == pytest.approx(0.002, rel=0.05)
  for row in saves:
    assert row["durable_s"] > row["save_s"] + row["checksums_s"] > row["checksums_s"] > 0
    assert row["blocked_s"] >= row["save_s"]
  assert not (tmp_path / "here").exists()
  with pytest.raises(ValueError, match=r"tests exists; the benchmark deletes"):
    bench("checkpoint", folder=pathlib.Path(__file__).parent)


def test_flags_wait_until_a_program_asks():
  """All benchmarks can be imported by one process; flags of the same name would clash."""
  before = set(flags.FLAGS)
  for path in pathlib.Path(shapes.__file__).parent.glob("*.py"):
    importlib.import_module(f"experiments.benchmarks.{path.stem}")
  assert set(flags.FLAGS) == before


def test_flops_of_an_update():
  # two sequences of 8: 6 a weight and token; scores and their use, both of 2 * 256 a causal pair
  # (8^2 / 2 of them), forward and twice back, in 4 layers
  c, work = shapes.config("laptop", dtype="float32"), shapes.Work(1, 2, 4, 4)
  weights = 4 * (256 * (256 + 64 + 64 + 256) + 3 * 256 * 1024) + 256 * 8192
  pairs = 3 * 2 * 2 * 256 * 4 * 8**2 / 2
  assert update.flops(c, work) == 2 * (6 * weights * 8 + pairs)
  assert update.flops(c, work, attention=2) == 2 * (6 * weights * 8 + 2 * pairs)
  # the first 4 tokens once: 12 of 16 tokens, and 2 * 8^2 - 4^2 of 2 * 8^2 pairs
  assert update.flops(c, work, shared=4) == 6 * weights * 12 + 2 * pairs * (128 - 16) / 128


def test_a_peer_that_fails_is_an_error():
  """It runs in a process of its own, which says what went wrong."""
  found = peers.in_a_process("nobody", peers.Job("step"), timeout=60)
  assert found["peer"] == "nobody"
  assert "Unknown peer 'nobody'" in found["error"]
  assert peers.ratios(found, {"seconds": 1.0}, ("seconds",)) == {}
  assert "0.01 seconds" in peers.in_a_process("tunix", peers.Job("step"), timeout=0.01)["error"]


@pytest.mark.slow
def test_a_step_of_some_length_is_measured(bench):
  """The control, not the limit, ends rows; what was sampled trains."""
  sizes = COMMON | {"prompts": 4, "slots": 4, "limit": 16, "limits": 16, "means": 4, "mean": 4}
  point, common = bench("lengths", **sizes, update="none/xla/1/16/scan", repeats=1)
  assert 0 < point["mean_sampled"] < point["longest"] < 16
  assert point["step_s"] == point["seconds"] + point["update_s"] > point["update_s"] > 0
  assert (common["limit_of_means"], common["mean_of_limits"]) == (16, 4)


def test_lengths_are_drawn_and_in_tables(tmp_path):
  # 1 s + 2 s a token; the second point is above: least squares through (1, 3), (2, 5.9), (3, 7)
  # is 1.3 + 2 x, from which the second is 0.6 / 5.3 away
  common = {"device": "toy", "shape": "laptop", "prompts": 4, "group": 2}
  common |= {"limit_of_means": 8, "mean_of_limits": 1}
  times = [(1, 8, 3.0), (2, 8, 5.9), (3, 8, 7.0), (1, 16, 3.3)]
  points = [
    {"mean": mean, "limit": limit, "mean_sampled": mean, "seconds": s, "tokens_per_s": 8 * mean / s}
    for mean, limit, s in times
  ]
  lines = [*points, {"mean": 3, "limit": 16, "error": "out of memory"}, common]
  found = lengths_report.read("\n".join(map(json.dumps, lines)))
  line = lengths_report.fit(found.by_mean, "seconds")
  np.testing.assert_allclose(line, (1.3, 2.0, 0.6 / 5.3))
  assert lengths_report.spread(found.by_limit, "seconds") == pytest.approx(0.1)
  said = lengths_report.tables(found)
  assert "| 2.0 | 5.9 | 3 | +11.3 % |" in said
  assert "flat within 10.0 %" in said
  lengths_report.draw(tmp_path / "a.png", found)
  assert (tmp_path / "a.png").stat().st_size > 10_000


def test_an_update_counts_the_experts_that_a_token_meets():
  """A layer more of 8 experts, of which 2 are chosen, adds 6 times its active weights a token."""
  sizes = {"hidden_size": 16, "mlp_size": 8, "experts": 8, "experts_per_token": 2}
  flops = lambda layers: update.flops(
    policies.tiny(32, layers=layers, heads=2, kv_heads=1, head_dim=4, **sizes),
    shapes.Work(1, 1, 2, 3),
    attention=0,
  )
  weights = 16 * (2 * (2 + 1) * 4 + 2 * 3 * 8 + 8)
  assert flops(3) - flops(2) == 6 * weights * 5


def test_the_floor_and_the_share_of_several_devices(monkeypatch):
  """Prompts of 4 tokens, four responses of 3: 4 (1 + 2 + 3) and 4 * 4 * 3 keys are read, or half of
  the latter where the two of a prompt share them."""
  chip, c = Chip(1, 1.0, 1.0, 1.0), shapes.config("laptop", dtype="float32")
  monkeypatch.setitem(shapes.CHIPS, jax.devices()[0].device_kind, chip)
  work, weights, key = shapes.Work(2, 2, 4, 3), 2 * all_weights(c), 2 * 2 * 32 * 4 * 2
  floor = lambda **how: shapes.sampling_floor(c, work, shared=True, **how)
  assert floor(rows=4) == 3 * weights + 48 * key
  assert floor(rows=4, devices=8, tensor=2) == 3 * weights / 2 + 48 * key / 8
  monkeypatch.setattr(jax, "device_count", lambda: 4)
  times = {"sampled_s": 10.0, "update_s": 2.0}
  for samplers, steps in ((0, 3), (2, 6)):  # 2 slots on each pair of devices
    given = {"mesh": ["tensor=2"], "sampling_devices": samplers, "slots": 2}
    asked = types.SimpleNamespace(update="none/xla/1/0/scan", **given)
    monkeypatch.setattr(step, "FLAGS", asked)
    found = step.shares(c, work, times)
    want = steps * weights / 2 + 72 * key / (samplers or 4)
    assert found["of_floor"] == pytest.approx(want / 10)
    assert found["mfu"] == pytest.approx(update.flops(c, work) / (4 * 2.0))
