"""Rollouts that the host sees while others are sampled: the same ones, and none is waited for."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.mesh import make_mesh, to_global
from lcrl.sampling import core, programs
from tests.sampling_engine_test import B, G, engine_of, make_budget, make_rows, model

__all__ = ["model"]  # a fixture

ROWS, KEY = make_rows(), jax.random.key(1)
BUDGET = make_budget(np.arange(B * G, dtype=np.int32).reshape(B, G) % 9 + 1)


def equal(got, want):
  jax.tree.map(np.testing.assert_array_equal, got, want)


def counts(pieces):
  return [int(done.sum()) for _, done in pieces]


@pytest.mark.parametrize("slots", [None, 5])
def test_the_last_piece_is_what_one_program_gives(model, slots):
  """Bit for bit; and what a piece calls finished stays."""
  policy, params = model
  engine = engine_of(policy, slots=slots)
  want = engine.generate(params, ROWS, BUDGET, KEY)
  pieces = list(engine.stream(params, ROWS, BUDGET, KEY))
  equal(pieces[-1][0], want)
  assert counts(pieces)[-1] == B * G
  assert counts(pieces) == sorted(counts(pieces))
  cuts = (*programs.CUTS, 16)  # of 16 rows
  assert all(found >= cut for found, cut in zip(counts(pieces), cuts, strict=True))
  assert len(set(counts(pieces))) > 4, "nothing could be seen on the way"
  for rollouts, done in pieces:
    for name in ("tokens", "mask", "sampler_log_probs", "lengths", "truncated"):
      equal(getattr(rollouts, name)[done], getattr(want, name)[done])


def test_a_growing_cache_is_looked_at_before_it_grows(model, monkeypatch):
  monkeypatch.setattr(core, "SHORTEST", 3)  # caches of 3, 6, 12 and 24
  policy, params = model
  engine, budget = engine_of(policy), make_budget(np.asarray(BUDGET.cap) * 2)
  pieces = list(engine.stream(params, ROWS, budget, KEY))
  want = engine.generate(params, ROWS, budget, KEY)
  np.testing.assert_array_equal(pieces[-1][0].tokens, want.tokens)
  for (_, done), span in zip(pieces, core.spans(24)[:-1], strict=False):
    np.testing.assert_array_equal(done, (want.lengths <= span))


@pytest.mark.parametrize("axes", [{"data": 4, "fsdp": 2}, {"data": 2, "fsdp": 2, "tensor": 2}])
@pytest.mark.parametrize("slots", [None, 2])
def test_every_shard_has_its_own_count(model, axes, slots):
  """And no piece compiles again because it lies elsewhere."""
  policy, params = model
  mesh = make_mesh(**axes)
  engine = engine_of(policy, mesh=mesh, slots=slots)
  rows, budget = to_global(mesh, ROWS), to_global(mesh, BUDGET)
  before = [sizes() for sizes in caches()]
  pieces = list(engine.stream(params, rows, budget, KEY))
  assert [sizes() for sizes in caches()] == [size + 1 for size in before]
  equal(pieces[-1][0], engine.generate(params, rows, budget, KEY))
  shards = 16 // (mesh.shape["data"] * mesh.shape["fsdp"])
  assert np.asarray(pieces[0][1]).reshape(-1, shards).any(axis=1).all()
  assert counts(pieces)[0] < B * G


def caches():
  """How often each program was compiled."""
  jitted = programs.compiled(programs.begin), programs.compiled(programs.proceed), programs.look
  return [program._cache_size for program in jitted]


@pytest.mark.parametrize("slots", [None, 5])
def test_no_cache_is_copied_between_pieces(model, slots):
  policy, params = model
  engine, bucket = engine_of(policy, slots=slots), programs.Bucket(16, 16, slots is None)
  rows = dataclasses.replace(ROWS, tokens=ROWS.tokens[..., :16])
  given = engine, engine.prepared(params), rows, BUDGET, KEY, bucket
  slots = programs.compiled(programs.begin)(*given)
  run = programs.compiled(programs.proceed).lower(*given, slots, jnp.int32(3)).compile()
  text = run.as_text()
  for leaf in jax.tree.leaves((slots.cache, slots.prompts.layers)):
    shape = re.escape(f"f32[{','.join(map(str, leaf.shape))}]")
    assert re.search(shape, text)
    assert not re.findall(rf"\n.*= {shape}\S* (?:copy|copy-start)\(.*", text)
  programs.compiled(programs.proceed)(*given, slots, jnp.int32(3))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(slots)), "not given to the next piece"


def test_all_pieces_are_dispatched_before_the_first_is_done(model):
  """Tokens take long here: who waited for a piece would find the early ones done."""
  policy, params = model

  def decode(params, tokens, *args, **options):
    start = jnp.broadcast_to(tokens[0].astype(jnp.float32), (256, 256))
    worked = jax.lax.fori_loop(0, 60, lambda _, x: jnp.tanh(x @ x), start)
    return policy.decode(params, tokens + (worked[0, 0] > 2), *args, **options)

  engine = engine_of(dataclasses.replace(policy, decode=decode))
  for _ in range(2):  # the first compiles
    pieces = list(engine.stream(params, ROWS, BUDGET, KEY))
    waited_for = [done.is_ready() for _, done in pieces]
    jax.block_until_ready(pieces)
  assert not waited_for[4]
