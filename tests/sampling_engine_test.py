"""From rows to rollouts: assembly, buckets, meshes, bad input."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.compiler import CUBLAS, GRAPHS
from lcrl.data import tokenizers
from lcrl.mesh import make_mesh, to_global
from lcrl.sampling import programs
from lcrl.sampling.controls import chain
from lcrl.sampling.engine import page_gib, pages_in
from lcrl.sampling.steering import budget_forcing, token_bias
from lcrl.training.build import rollout_worker
from lcrl.training.rl.settings import read
from lcrl.types import Outcome
from tests.helpers.rl_runs import CONFIG
from tests.helpers.sampling import END, LIMIT, PAD, B, G, V, engine_of, make_budget, make_rows


@pytest.fixture(scope="module")
def model():
  policy = policies.make(policies.tiny(V, hidden_size=32, layers=1, head_dim=8, mlp_size=32))
  return policy, jax.jit(policy.init)(jax.random.key(0))


def check(rows, rollouts):
  """Prompt, response, padding; masks, lengths and log-probs fit."""
  r = jax.tree.map(np.asarray, rollouts)
  for b in range(B):
    for g in range(G):
      start, end = rows.lengths[b, g], rows.lengths[b, g] + r.lengths[b, g]
      np.testing.assert_array_equal(r.tokens[b, g, :start], rows.tokens[b, g, :start])
      np.testing.assert_array_equal(np.flatnonzero(r.mask[b, g]), np.arange(start, end))
      assert (r.tokens[b, g, end:] == PAD).all()
      assert (r.tokens[b, g, end - 1] in END) != r.truncated[b, g]
  assert (r.sampler_log_probs[r.mask] < 0).all()
  assert not r.sampler_log_probs[~r.mask].any()


def test_rows_become_rollouts(model):
  policy, params = model
  rows, key = make_rows(), jax.random.key(1)
  caps = np.arange(B * G, dtype=np.int32).reshape(B, G) % 9 + 1
  out = engine_of(policy).generate(params, rows, make_budget(caps), key)
  assert out.tokens.shape == (B, G, 16 + 16)
  check(rows, out)
  assert (out.lengths <= caps).all()
  assert (out.lengths == 1).any()
  assert (np.asarray(out.outcome) == Outcome.WRONG).all()
  assert out.outcome.dtype == jnp.int8
  assert not out.correct.any()
  assert out.valid.all()
  np.testing.assert_array_equal(out.prompt_ids, rows.prompt_ids)
  np.testing.assert_array_equal(out.budget.cap, caps)
  groups = np.asarray(out.tokens)
  assert (groups[:, 0] != groups[:, 1]).any(-1).sum() > B / 2  # own randomness in a group

  # The same tokens with a queue, and for some of the prompts.
  budget, queue = make_budget(caps), engine_of(policy, slots=3)
  np.testing.assert_array_equal(queue.generate(params, rows, budget, key).tokens, out.tokens)
  half = jax.tree.map(lambda x: x[1::2], (rows, budget))
  half = engine_of(policy).generate(params, *half, key)
  np.testing.assert_array_equal(half.tokens[..., : out.tokens.shape[-1]], out.tokens[1::2])

  # A group of different prompts cannot share a prefill.
  roll = lambda x: np.stack([x[:, 0], np.roll(x[:, 1], 1, axis=0)], axis=1)
  mixed = dataclasses.replace(rows, tokens=roll(rows.tokens), lengths=roll(rows.lengths))
  got = engine_of(policy).generate(params, mixed, budget, key)
  check(mixed, got)
  np.testing.assert_array_equal(got.tokens, queue.generate(params, mixed, budget, key).tokens)


def test_trains_on_another_prompt(model):
  """It may be longer than the one sampled from; the responses stay."""
  policy, params = model
  rows, train, key = make_rows(), make_rows(18, seed=5), jax.random.key(1)
  other = dataclasses.replace(rows, train_tokens=train.tokens, train_lengths=train.lengths)
  plain = engine_of(policy).generate(params, rows, make_budget(), key)
  out = engine_of(policy).generate(params, other, make_budget(), key)
  assert out.tokens.shape[-1] == LIMIT + 16
  check(train, out)
  np.testing.assert_array_equal(
    np.asarray(out.tokens)[np.asarray(out.mask)], np.asarray(plain.tokens)[np.asarray(plain.mask)]
  )


def test_compiles_once_a_bucket(model):
  policy, params = model
  traces = []

  def decode(*args, **options):
    traces.append(args[1].shape)
    return policy.decode(*args, **options)

  engine = engine_of(dataclasses.replace(policy, decode=decode))
  shapes = set()
  for step, (longest, cap) in enumerate([(3, 5), (16, 16), (9, 2), (5, 17), (17, 24), (20, 20)]):
    rows = make_rows(longest, seed=step)
    out = engine.generate(params, rows, make_budget(cap), jax.random.key(step))
    shapes.add(out.tokens.shape[-1])
    if len(shapes) == 1:
      first = len(traces)
  assert shapes == {16 + 16, 16 + 24, 20 + 24}
  assert len(traces) == 3 * first


def test_equal_engines_share_their_programs():
  """As of two runs in one process; an engine that differs has its own."""
  config = policies.tiny(V, hidden_size=16)
  policy = policies.make(config)
  assert policies.make(dataclasses.replace(config)) is policy
  windows = [policies.make(policies.tiny(V, windows=some((4, None)))) for some in (list, tuple)]
  assert windows[0] is windows[1]
  params, rows = policy.init(jax.random.key(0)), make_rows()
  run = programs.compiled(programs.generate, ())
  control = token_bias({3: 1.0})

  def programs_of(**options):
    before = run._cache_size()
    engine_of(policies.make(config), **options).generate(
      params, rows, make_budget(), jax.random.key(0)
    )
    return run._cache_size() - before

  for options in ({}, {"temperature": 0.5}, {"control": control}):
    assert [programs_of(**options) for _ in range(2)] == [1, 0]
  again = token_bias({3: 1.0})
  assert engine_of(policy, control=control) != engine_of(policy, control=again)
  assert engine_of(policy) != "an engine"


@pytest.mark.parametrize("axes", [{"data": 4, "fsdp": 2}, {"data": 2, "fsdp": 2, "tensor": 2}])
@pytest.mark.parametrize("slots", [None, 2])
def test_eight_devices_equal_one(model, axes, slots):
  policy, params = model
  rows, key = make_rows(), jax.random.key(1)
  caps = np.arange(B * G, dtype=np.int32).reshape(B, G) % 9 + 1  # shards end at different times
  want = engine_of(policy).generate(params, rows, make_budget(caps), key)
  mesh = make_mesh(**axes)
  engine = engine_of(policy, mesh=mesh, slots=slots)
  got = engine.generate(params, to_global(mesh, rows), to_global(mesh, make_budget(caps)), key)
  np.testing.assert_array_equal(got.tokens, want.tokens)
  np.testing.assert_array_equal(got.mask, want.mask)
  np.testing.assert_allclose(got.sampler_log_probs, want.sampler_log_probs, atol=1e-5)
  assert got.tokens.sharding.is_equivalent_to(to_global(mesh, rows).tokens.sharding, 3)


def test_the_engine_starts_the_longest_first_in_a_pool_of_its_size(model):
  policy, params = model
  gib = 9 * page_gib(policy, None, None) * 1.001
  engine = engine_of(policy, slots=2, cache_gib=gib)
  rows, budget = make_rows(), make_budget(8)
  expected = np.arange(B, dtype=np.float32)

  def first(rows):
    """The prompts of the rows that are finished first."""
    piece = next(engine.stream(params, rows, budget, jax.random.key(1)))
    return np.flatnonzero(np.asarray(piece.done).any(axis=1)).tolist()

  assert first(rows) == [0]
  assert first(dataclasses.replace(rows, expected=expected)) == [B - 1]
  # 2 slots of 16 + 16 tokens need a page each: as many as that, although 9 would fit.
  bucket, key = programs.Bucket(16, 16, True), jax.random.key(1)
  pool = lambda engine: programs.start_stream(engine, params, rows, budget, key, bucket).cache
  assert engine.pages == 9
  assert len(pool(engine)[0]["k"]) == 2
  assert len(pool(dataclasses.replace(engine, pages=1))[0]["k"]) == 1
  assert pages_in(policy, gib, None, make_mesh(data=4, fsdp=1, tensor=2)) == 18, "half the heads"


def test_dtype_of_the_copy_and_control(model):
  """The second token is forced: it is in the row and not in the mask."""
  policy, params = model
  control = chain(token_bias({3: -100.0}), budget_forcing(3, max_thinking_tokens=1))
  engine = engine_of(policy, dtype="bfloat16", control=control)
  assert engine.policy.init_cache(1, 2)[0]["k"].dtype == jnp.bfloat16
  rows = make_rows()
  out = jax.tree.map(np.asarray, engine.generate(params, rows, make_budget(4), jax.random.key(1)))
  second = np.arange(out.tokens.shape[-1]) == rows.lengths[..., None] + 1
  long = out.lengths > 1
  assert (out.tokens[second & long[..., None]] == 3).all()
  assert not out.mask[second].any()
  np.testing.assert_array_equal(out.mask.sum(-1), out.lengths)
  assert 3 in out.lengths  # of a cap of 4
  assert out.sampler_log_probs.dtype == np.float32


def test_a_config_says_how_it_decodes(model):
  how = {"cache_dtype": "int8", "decoding": "triton"}
  settings = read(CONFIG | {"sampling": how})
  given = SimpleNamespace(settings=settings, policy=model[0], mesh=None, sampler_mesh=None)
  with rollout_worker(given, tokenizers.sums(), settings.built["task"], "task") as (_, worker):
    assert worker.engine.cache_dtype == "int8"
    assert worker.engine.policy.config.decoding == "triton"
    assert not worker.engine.compiler  # XLA's options are for NVIDIA alone
  for name, value in (("cache_dtype", "int7"), ("decoding", "cudnn")):
    with pytest.raises(ValueError, match=rf"sampling\.{name}='{value}' is not one of"):
      read(CONFIG | {"sampling": {name: value}})


def test_a_kernel_for_nvidia_comes_with_its_options(model, monkeypatch):
  """Options that are given win."""
  device = SimpleNamespace(device_kind="NVIDIA H100", compute_capability="9.0")
  monkeypatch.setattr(jax, "devices", lambda: [device])
  policy = policies.make(policies.tiny(V, head_dim=64))
  engine = partial(engine_of, policy, dtype="bfloat16")
  kernels = lambda engine: (engine.policy.config.decoding, engine.policy.config.attention)
  assert kernels(engine()) == ("triton", "cudnn")
  assert kernels(engine(decoding="xla")) == ("xla", "xla")
  narrow = policies.make(policies.tiny(V, head_dim=32))
  assert kernels(engine_of(narrow, dtype="bfloat16")) == ("triton", "xla")
  asked = policies.make(dataclasses.replace(policy.config, attention="triton"))
  assert kernels(engine_of(asked, dtype="bfloat16")) == ("triton", "triton")
  assert dict(engine().compiler) == CUBLAS | GRAPHS
  assert not engine(compiler={}).compiler
  assert not engine(decoding="xla").compiler
  for capability, cache_dtype, decoding in (
    ("8.0", None, "triton"),
    ("8.0", "float8_e4m3fn", "xla"),
    ("8.9", "float8_e4m3fn", "triton"),
    ("7.5", None, "xla"),
  ):
    device.compute_capability = capability
    assert kernels(engine(cache_dtype=cache_dtype))[0] == decoding


def test_pages_are_read_by_a_kernel_on_tpus_where_it_can():
  device = SimpleNamespace(device_kind="TPU v5", platform="tpu")
  mesh = lambda n=1: SimpleNamespace(devices=np.array([device] * n), shape={"tensor": n})
  policy = policies.make(policies.tiny(V, heads=4, kv_heads=2, head_dim=128, dtype="bfloat16"))
  chosen = lambda **how: engine_of(policy, **({"mesh": mesh(), "slots": 8} | how)).policy.config
  assert chosen().decoding == "pallas"
  for how, said in (
    ({"slots": None}, "slots=None"),
    ({"cache_dtype": "int8"}, "cache_dtype='int8'"),
    ({"mesh": mesh(2)}, r"mesh\.tensor=2"),
  ):
    assert chosen(**how).decoding == "xla"
    with pytest.raises(ValueError, match=f"decoding='pallas' cannot serve {said}"):
      chosen(**how, decoding="pallas")
  assert chosen(dtype="float32").decoding == "xla"


def test_a_kernel_takes_the_heads_of_a_tensor_axis_if_they_divide():
  device = SimpleNamespace(device_kind="NVIDIA H100", compute_capability="9.0")
  policy = policies.make(policies.tiny(V, heads=8, kv_heads=4, head_dim=64, dtype="bfloat16"))
  mesh = lambda n: SimpleNamespace(devices=np.array([device] * n), shape={"tensor": n})
  kernels = lambda engine: (engine.policy.config.decoding, engine.policy.config.attention)
  assert kernels(engine_of(policy, mesh=mesh(4))) == ("triton", "xla")
  assert dict(engine_of(policy, mesh=mesh(4)).compiler) == CUBLAS
  assert kernels(engine_of(policy, mesh=mesh(8))) == ("xla", "xla")
  with pytest.raises(
    ValueError, match=r"'triton' .*mesh\.tensor=8 must divide the 4 of the policy"
  ):
    engine_of(policy, mesh=mesh(8), decoding="triton")


def test_bad_input(model):
  policy, params = model
  engine = engine_of(policy, mesh=make_mesh(data=8))
  rows, key = make_rows(), jax.random.key(0)
  for cap in (0, -3, 25):
    with pytest.raises(ValueError, match=f"budget.cap must be from 1 to .*=24, got {cap}"):
      engine.generate(params, rows, make_budget(cap), key)
  with pytest.raises(ValueError, match="a prompt of 0 tokens"):
    engine.generate(params, dataclasses.replace(rows, lengths=rows.lengths * 0), make_budget(), key)
  few = jax.tree.map(lambda x: x[:6], (rows, make_budget()))
  with pytest.raises(ValueError, match="6 prompts cannot be split over 8"):
    engine.generate(params, *few, key)
  with pytest.raises(ValueError, match="end_ids is empty"):
    engine_of(policy, end_ids=())
  with pytest.raises(ValueError, match="temperature must be at least 0, got -1"):
    engine_of(policy, temperature=-1.0)
