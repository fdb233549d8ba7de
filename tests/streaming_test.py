"""Rollouts that the host sees while others are sampled: the same ones, and none is waited for."""

import dataclasses
import functools
import re
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.mesh import make_mesh, to_global
from lcrl.rollouts.grader import LocalPrompts
from lcrl.rollouts.worker import VERDICTS, RolloutWorker
from lcrl.sampling import jobs, programs
from lcrl.tasks.task import Prompt, Task
from lcrl.tasks.verify import Verdict
from lcrl.types import Outcome
from tests.helpers.sampling import END, LIMIT, B, G, V, engine_of, make_budget, make_rows
from tests.rollouts import AtOnce

ROWS, KEY = make_rows(), jax.random.key(1)
BUDGET = make_budget(np.arange(B * G, dtype=np.int32).reshape(B, G) + 1)
PROMPTS = [Prompt(b, (), None) for b in range(B)]


@functools.cache
def model():
  policy = policies.make(policies.tiny(V, hidden_size=32, layers=1, head_dim=8, mlp_size=32))
  return policy, jax.jit(policy.init)(jax.random.key(0))


@functools.cache
def engine(slots=None, **axes):
  """Compiles once, whatever the tests ask of it."""
  return engine_of(model()[0], slots=slots, mesh=make_mesh(**axes) if axes else None)


@pytest.fixture(autouse=True, scope="module")
def short():
  """Without slots caches have 8 places first, then 16."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jobs, "SHORTEST", 8)
    yield


def pieces_of(engine, rows=ROWS, budget=BUDGET):
  pieces = [piece[:2] for piece in engine.stream(model()[1], rows, budget, KEY)]
  return pieces, [int(done.sum()) for _, done in pieces]


def equal(got, want):
  jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("slots", [None, 5])
@pytest.mark.slow
def test_the_last_piece_is_what_one_program_gives(slots):
  """Bit for bit; and what a piece calls finished stays."""
  want = engine(slots).generate(model()[1], ROWS, BUDGET, KEY)
  pieces, counts = pieces_of(engine(slots))
  equal(pieces[-1][0], want)
  assert counts[-1] == B * G
  assert counts == sorted(counts)
  if slots is None:  # a cache is looked at before it grows
    done = pieces.pop(0)[1]
    np.testing.assert_array_equal(done, (want.lengths <= 8))
  else:
    assert len(set(counts)) > 3, "little could be seen on the way"
  for (_, done), cut in zip(pieces, (*programs.CUTS, 16), strict=True):  # of 16 rows
    assert done.sum() >= cut
  for rollouts, done in pieces:
    for name in ("tokens", "mask", "sampler_log_probs", "lengths", "truncated"):
      equal(getattr(rollouts, name)[done], getattr(want, name)[done])


@pytest.mark.parametrize(
  "slots, axes", [(None, {"data": 4, "fsdp": 2}), (2, {"data": 2, "fsdp": 2, "tensor": 2})]
)
@pytest.mark.slow
def test_every_shard_has_its_own_count(slots, axes):
  """And no piece compiles again because its carry lies elsewhere."""
  mesh = make_mesh(**axes)
  before = compilations()
  pieces, counts = pieces_of(engine(slots, **axes), to_global(mesh, ROWS), to_global(mesh, BUDGET))
  spans = 2 if slots is None else 1
  assert compilations() == [before[0] + 1, before[1] + spans, before[2] + 1]
  want = engine(5).generate(model()[1], ROWS, BUDGET, KEY)
  np.testing.assert_array_equal(pieces[-1][0].tokens, want.tokens)
  in_shards = [
    np.asarray(done).reshape(mesh.shape["data"] * mesh.shape["fsdp"], -1) for _, done in pieces
  ]
  assert any(done.any(axis=1).all() and not done.all() for done in in_shards)
  assert counts[-1] == B * G


def compilations():
  jitted = (
    programs.compiled(programs.start_stream, ()),
    programs.compiled(programs.advance_stream, ()),
    programs.read_stream,
  )
  return [program._cache_size() for program in jitted]


@pytest.mark.parametrize("slots", [None, 5])
def test_no_cache_is_copied_between_pieces(slots):
  bucket = programs.Bucket(16, 16, slots is None)
  given = model()[1], ROWS, BUDGET, KEY
  carry = programs.compiled(programs.start_stream, ())(engine(slots), *given, bucket)
  advance = programs.compiled(programs.advance_stream, ())
  run = advance.lower(engine(slots), *given, bucket, carry, jnp.int32(3)).compile()
  text = run.as_text()
  for leaf in jax.tree.leaves((carry.cache, carry.prompts and carry.prompts.layers)):
    shape = re.escape(f"f32[{','.join(map(str, leaf.shape))}]")
    assert re.search(shape, text)
    assert not re.findall(rf"\n.*= {shape}\S* (?:copy|copy-start)\(.*", text)
  run(*given, carry, jnp.int32(3))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(carry)), "not given to the next piece"


def test_all_pieces_are_dispatched_before_the_first_is_done():
  """Tokens take long here: who waited for a piece would find the early ones done."""
  policy, _ = model()

  def decode(params, tokens, *args, **options):
    start = jnp.broadcast_to(tokens[0].astype(jnp.float32), (256, 256))
    worked = jax.lax.fori_loop(0, 120, lambda _, x: jnp.tanh(x @ x), start)
    return policy.decode(params, tokens + (worked[0, 0] > 2), *args, **options)

  slow = engine_of(dataclasses.replace(policy, decode=decode), slots=16)
  for _ in range(2):  # the first compiles
    pieces = list(slow.stream(model()[1], ROWS, BUDGET, KEY))
    waited_for = [piece.done.is_ready() for piece in pieces]
    jax.block_until_ready(pieces)
  assert not waited_for[-2]


class Asked(AtOnce):
  """A verifier that gives every text a verdict of its own."""

  def __init__(self):
    self.items, self.first = [], threading.Event()

  def verify(self, items):
    self.items += items
    self.first.set()
    marks = [sum(map(ord, text)) + prompt.id for text, prompt in items]
    return [Verdict(float(mark), Outcome(mark % len(Outcome))) for mark in marks]


class Whole:
  """An engine whose rollouts come all at once."""

  def stream(self, *given):
    rollouts = engine(5).generate(*given)
    yield rollouts, rollouts.valid


def worker_of(engine, **axes):
  words = SimpleNamespace(end_ids=END, decode=lambda tokens: " ".join(map(str, tokens)))
  mesh = make_mesh(**axes) if axes else make_mesh(fsdp=1, devices=jax.devices()[:1])
  return RolloutWorker(Task("t", [], None, 900.0), words, engine, Asked(), mesh, LIMIT)


def test_verdicts_in_pieces_are_those_of_all_at_once():
  """Every text is verified once, on every shard, and its verdict stands where it was written."""
  axes = {"data": 4, "fsdp": 2}
  workers = worker_of(Whole()), worker_of(engine(None, **axes), **axes)
  given = model()[1], LocalPrompts(PROMPTS, ROWS, BUDGET), KEY
  (want, _), (got, grader) = (worker.start(*given).result() for worker in workers)
  for name in ("tokens", *VERDICTS):
    np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
  assert got.correct.any()
  assert not got.correct.all()
  once, pieces = (sorted((prompt.id, text) for text, prompt in p.verifier.items) for p in workers)
  assert pieces == once
  said = grader.responses(got)
  assert sorted((b, response.text) for b in range(B) for response in said[b]) == once


def test_what_has_ended_is_verified_before_the_rest_has():
  """The engine does not go on before the first verdicts."""

  class Waits(Whole):
    def stream(self, *given):
      for rollouts, done in super().stream(*given):
        yield rollouts, done & (np.arange(B)[:, None] < 2)
        assert worker.verifier.first.wait(20), "no text was verified"
        assert len(worker.verifier.items) == 2 * G
        yield rollouts, done

  worker = worker_of(Waits())
  worker.start(model()[1], LocalPrompts(PROMPTS, ROWS, BUDGET), KEY).result()
  assert len(worker.verifier.items) == B * G


def test_an_error_while_verifying_reaches_who_waits():
  worker = worker_of(Whole())
  worker.verifier.submit = lambda items: items[0].missing
  pending = worker.start(model()[1], LocalPrompts(PROMPTS, ROWS, BUDGET), KEY)
  with pytest.raises(AttributeError, match="missing"):
    pending.result()


def test_the_benchmark_finds_what_is_hidden(bench):
  work = {"shape": "laptop", "prompts": 2, "group": 2, "asked": 8, "limit": 8, "dtype": "float32"}
  how = {"slots": 2, "score_ms": 5, "workers": 1, "repeats": 1}
  [found] = bench("verify_overlap", **work, **how)
  assert sum(rows for _, rows in found["ended"]) == 4
  seconds = found["seconds"]
  assert found["verification_s"] == pytest.approx(seconds["in_turn"] - seconds["sampling"])
