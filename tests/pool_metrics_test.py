"""The use of the pool of pages reaches the metrics of a step, and a dry one is warned of."""

import dataclasses
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.mesh import make_mesh, to_global
from lcrl.sampling import core, jobs
from lcrl.sampling.engine import page_gib
from lcrl.training import loop
from tests.helpers.rl_runs import changed
from tests.helpers.sampling import END, B, G, V, engine_of, make_budget, make_rows

PAGE = 4  # tokens
SMALL = policies.tiny(V, hidden_size=16, layers=1, head_dim=8, mlp_size=16)


@pytest.fixture(autouse=True)
def short_pages(monkeypatch):
  monkeypatch.setitem(jobs.plan.__kwdefaults__, "page", PAGE)


@pytest.mark.slow
def test_a_stream_ends_with_the_use_of_its_pools():
  """Over the shards of a mesh: restarts of their rows together, and the fullest of their pools."""
  policy, mesh = policies.make(SMALL), make_mesh(fsdp=2, devices=jax.devices()[:2])
  params = jax.jit(policy.init)(jax.random.key(0))
  rows, budget, pages = make_rows(), make_budget(24), 13
  engine = dataclasses.replace(engine_of(policy, slots=8, mesh=mesh), pages=pages)
  *early, last = engine.stream(params, *to_global(mesh, (rows, budget)), jax.random.key(1))
  assert {piece.pool for piece in early} == {None}

  @jax.jit
  def alone(first):
    """The counters of a shard's rows without a mesh."""
    part = first + np.arange(B // 2)
    flat = lambda x: jnp.asarray(x)[part].reshape(-1, *x.shape[2:])
    asked = rows.tokens, rows.lengths, budget.cap
    keys = core.row_keys(jax.random.key(1), part, G).reshape(-1)
    options = {"max_tokens": 24, "end_ids": END, "slots": 8, "pages": pages, "group": G}
    job = jobs.plan(policy, params, *map(flat, asked), keys, **options)
    return core.advance(job, core.start(job), B // 2 * G).pages

  parts = [alone(first) for first in (0, B // 2)]
  starts, peaks = ([int(x) for x in each] for each in zip(*(p[-2:] for p in parts), strict=True))
  np.testing.assert_allclose(last.pool.restarts, sum(starts) / (B * G) - 1, rtol=1e-6)
  np.testing.assert_allclose(last.pool.peak, max(peaks) / pages, rtol=1e-6)
  assert sum(starts) > B * G
  assert max(peaks) > min(peaks)


@pytest.mark.slow
def test_rows_that_start_again_are_counted_and_warned_of(tmp_path, caplog, one_device):
  """In every step, and once. A step that starts ahead keeps its numbers in the training state. The
  report of this run also names the stop text that ended no answer."""
  config = changed(train__steps=3, train__steps_ahead=1, sampling__slots=8, eval=None)
  config["loss"] = {"fn": "clipped_surrogate", "correction": {"fn": "truncated", "high": 2.0}}
  c = {k: v for k, v in config["policy"].items() if k != "fn"}
  config["sampling"]["cache_gib"] = 8.5 * page_gib(policies.make(policies.tiny(**c)), None, None)
  config["sampling"]["stop_texts"] = ["+=#+=#+="]
  with caplog.at_level(logging.WARNING):
    loop.train(config, tmp_path)
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  steps = [line for line in lines if "loss" in line]
  assert len(steps) == 3
  for numbers in steps:
    assert numbers["pool/restarts"] > 0.1
    assert 7 / 8 <= numbers["pool/peak"] <= 1  # a row alone may take 7 of its 8 pages
  said = [r.getMessage() for r in caplog.records if "sampling.cache_gib" in r.getMessage()]
  assert len(said) == 1
  report = (tmp_path / "report.md").read_text()
  assert "## Ends of answers" in report
  assert "No answer ended at the stop text '+=#+=#+='" in report
