"""Sampling against teacher forcing, and against itself in other layouts."""

import dataclasses
import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from lcrl import policies
from lcrl.policies import cache as cache_module
from lcrl.sampling import jobs
from lcrl.sampling.core import row_keys, sample
from tests.helpers.slow import slow

V, R, P, N, END = 24, 12, 7, 10, (1, 2)

# Grouped heads, a window shorter than prompt and response.
SIZES = {"layers": 1, "hidden_size": 32, "head_dim": 8, "mlp_size": 48, "windows": (4,)}
POLICY = policies.make(policies.tiny(V, **SIZES))


@pytest.fixture(scope="module")
def params():
  return jax.jit(POLICY.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def rows():
  """tokens, lengths, caps, keys; the first prompt has one token, the fourth row a cap of one."""
  rng = np.random.default_rng(0)
  lengths = rng.integers(1, P + 1, R).astype(np.int32)
  lengths[:2] = 1, P
  tokens = np.where(np.arange(P) < lengths[:, None], rng.integers(3, V, (R, P)), 0)
  caps = rng.integers(2, N + 1, R).astype(np.int32)
  caps[3] = 1
  return jnp.array(tokens, jnp.int32), jnp.array(lengths), jnp.array(caps), keys_of(1)


def keys_of(seed):
  return row_keys(jax.random.key(seed), jnp.arange(R // 2), 2).reshape(-1)


@cache
def sampler(max_tokens=N, **options):
  f = partial(sample, POLICY, max_tokens=max_tokens, end_ids=END, **options)
  return lambda params, rows, temperature: f(params, *rows, temperature=temperature)


@cache
def compiled(**options):
  return jax.jit(sampler(**options))


def run(params, rows, temperature=1.0, **options):
  options = {name: value for name, value in options.items() if value is not None}
  return compiled(**options)(params, rows, jnp.asarray(temperature))


@jax.jit
def teacher_forced(params, tokens, lengths, response, temperature):
  """log softmax(policy.apply / temperature) where the response stands, [R, N, V]."""
  where = lengths[:, None] + jnp.arange(N)[None]
  row = jnp.pad(tokens, ((0, 0), (0, N))).at[jnp.arange(R)[:, None], where].set(response)
  log_probs = jax.nn.log_softmax(POLICY.apply(params, row) / temperature.reshape(-1, 1, 1))
  return jnp.take_along_axis(log_probs, where[..., None] - 1, axis=1)


@pytest.mark.parametrize("slots", [None, 5])
@pytest.mark.parametrize("temperature", [1.0, np.linspace(0.5, 2.0, R)])
def test_log_probs_equal_teacher_forcing(params, rows, slots, temperature):
  out = run(params, rows, temperature, slots=slots)
  want = teacher_forced(params, *rows[:2], out.tokens, jnp.asarray(temperature))
  want = jnp.take_along_axis(want, out.tokens[..., None], axis=2)[..., 0]
  np.testing.assert_allclose(out.log_probs, jnp.where(out.mask, want, 0.0), atol=1e-4)
  assert float(jnp.where(out.mask, out.log_probs, -1.0).max()) < 0


def test_temperature_zero_takes_the_argmax(params, rows):
  out = run(params, rows, 0.0)
  want = teacher_forced(params, *rows[:2], out.tokens, jnp.ones(()))
  np.testing.assert_array_equal(out.tokens, jnp.where(out.mask, want.argmax(-1), 0))
  np.testing.assert_allclose(out.log_probs, jnp.where(out.mask, want.max(-1), 0.0), atol=1e-4)


@pytest.mark.parametrize("slots", [None, 5])
def test_lengths_caps_and_ends(params, rows, slots):
  out = jax.tree.map(np.asarray, run(params, rows, slots=slots))
  caps = np.asarray(rows[2])
  np.testing.assert_array_equal(out.mask, np.arange(N) < out.lengths[:, None])
  assert (out.lengths >= 1).all()
  assert (out.lengths <= caps).all()
  ends = np.isin(out.tokens, END)
  last = np.take_along_axis(ends, out.lengths[:, None] - 1, axis=1)[:, 0]
  np.testing.assert_array_equal(ends.sum(-1), last)  # at most one, and it is the last
  np.testing.assert_array_equal(out.truncated, ~last)
  np.testing.assert_array_equal(out.lengths[out.truncated], caps[out.truncated])
  assert 0 < out.truncated.sum() < R
  assert not out.tokens[~out.mask].any()


@pytest.mark.parametrize("slots,refill", [(5, None), (3, 1), (40, 3)])
def test_slots_change_nothing(params, rows, slots, refill):
  want = run(params, rows)
  got = run(params, rows, slots=slots, refill=refill)
  np.testing.assert_array_equal(got.tokens, want.tokens)
  np.testing.assert_array_equal(got.lengths, want.lengths)
  np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-5)


def test_order_neighbours_and_padding_change_nothing(params, rows):
  want = np.asarray(run(params, rows).tokens)
  shuffled = np.random.default_rng(1).permutation(R)
  for slots in (None, 5):
    got = run(params, jax.tree.map(lambda x: x[shuffled], rows), slots=slots)
    np.testing.assert_array_equal(got.tokens, want[shuffled])
  tokens, *others = jax.tree.map(lambda x: x[1::3], rows)
  tokens = jnp.pad(tokens, ((0, 0), (0, 3)), constant_values=9)
  got = run(params, (tokens, *others), max_tokens=N + 5)
  np.testing.assert_array_equal(got.tokens[:, :N], want[1::3])
  assert not got.mask[:, N:].any()


def test_keys_decide(params, rows):
  want, other = run(params, rows), run(params, (*rows[:3], keys_of(2)))
  assert (np.asarray(other.tokens) != want.tokens).any(-1).sum() > R / 2


@pytest.mark.parametrize("slots,refill", [(None, None), (5, None), (7, 6)])
def test_one_prefill_a_group(params, rows, slots, refill):
  tokens, lengths, caps, keys = rows
  rows = (jnp.repeat(tokens[::3], 3, axis=0), jnp.repeat(lengths[::3], 3, axis=0), caps, keys)
  want, got = run(params, rows), run(params, rows, group=3, slots=slots, refill=refill)
  np.testing.assert_array_equal(got.tokens, want.tokens)
  np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-5)


def test_a_growing_cache_equals_a_big_one(params, rows, monkeypatch):
  """Caches of 3, 5 and 10 places, rows with caps on both sides of each."""
  want = run(params, rows, growing=False)
  monkeypatch.setattr(jobs, "SHORTEST", 2)
  assert jobs.cache_lengths(N) == (3, 5, 10)
  got = jax.jit(sampler.__wrapped__())(params, rows, 1.0)
  np.testing.assert_array_equal(got.tokens, want.tokens)
  np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-5)


@pytest.mark.parametrize("cache_dtype", [None, slow("int8")])
def test_slots_read_as_far_as_their_rows_go(params, rows, monkeypatch, cache_dtype):
  """2, 8 or all 17 positions, by the longest row; it changes no token and copies no cache."""
  want = run(params, rows, slots=5, cache_dtype=cache_dtype)
  monkeypatch.setattr(cache_module, "SHORTEST", 2)
  read = []

  def decode(*given, read_length, **options):
    read.append(read_length)
    return POLICY.decode(*given, read_length=read_length, **options)

  policy = dataclasses.replace(POLICY, decode=decode)
  options = {"max_tokens": N, "end_ids": END, "slots": 5, "cache_dtype": cache_dtype}
  program = jax.jit(partial(sample, policy, **options)).lower(params, *rows).compile()
  assert set(read) == {2, 8, P + N}
  got = program(params, *rows)
  np.testing.assert_array_equal(got.tokens, want.tokens)
  np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-5)
  check_copies(program.as_text(), "f32" if cache_dtype is None else "s8")


@pytest.mark.parametrize(
  "slots,cache_dtype,most", [(None, "int8", 0.05), (5, "int8", 0.05), (5, "float8_e4m3fn", 0.15)]
)
def test_a_cache_of_a_byte_is_nearly_exact(params, rows, slots, cache_dtype, most):
  """The largest error of a log-prob is 1 / 127 of a key's size, in float8 1 / 16 of each number:
  not 0 and not a wrong token's."""
  out = run(params, rows, cache_dtype=cache_dtype, slots=slots)
  want = teacher_forced(params, *rows[:2], out.tokens, jnp.ones(()))
  want = jnp.take_along_axis(want, out.tokens[..., None], axis=2)[..., 0]
  error = np.abs(np.where(out.mask, out.log_probs - want, 0.0)).max()
  assert most / 5000 < error < most


def test_samples_follow_the_distribution(params):
  """First tokens of 4,000 rows with one prompt against softmax: chi-square, 23 degrees."""
  rows = 4000
  keys = row_keys(jax.random.key(3), jnp.arange(1), rows)[0]
  ones = jnp.ones(rows, jnp.int32)
  out = run(params, (5 * ones[:, None], ones, ones, keys), max_tokens=1, group=rows)
  probs = np.asarray(jax.nn.softmax(POLICY.apply(params, jnp.array([5]))[-1]))
  counts = np.bincount(np.asarray(out.tokens[:, 0]), minlength=V)
  assert ((counts - rows * probs) ** 2 / (rows * probs)).sum() < 60  # 1 in 30,000 by chance


def test_vmap_over_seeds_has_one_predicate_for_all(params, rows):
  """A predicate per seed would make the loop select between old and new caches every token."""
  seeds = jnp.stack([keys_of(seed) for seed in (1, 4, 5)])

  def many(keys, slots=None):
    one = lambda keys: sampler(slots=slots)(params, (*rows[:3], keys), 1.0)
    return jax.vmap(one)(keys)

  got = jax.jit(many)(seeds)
  for keys, tokens in zip(seeds, got.tokens, strict=True):
    np.testing.assert_array_equal(tokens, run(params, (*rows[:3], keys)).tokens)
  for slots, loops in ((None, 1), (5, 3)):
    found = predicates(jax.make_jaxpr(partial(many, slots=slots))(seeds).jaxpr)
    assert found == ["bool[]"] * loops


def predicates(jaxpr):
  """The types of the predicates of all while loops."""
  found = []
  for equation in jaxpr.eqns:
    if equation.primitive.name == "while":
      found.append(str(equation.params["cond_jaxpr"].out_avals[0]))
    for inner in jaxprs_in_params(equation.params):
      found += predicates(getattr(inner, "jaxpr", inner))
  return found


def test_the_loop_copies_no_cache(params, rows):
  """The pool is written in place: copies of it stand before the loop or nowhere."""
  check_copies(compiled(slots=5).lower(params, rows, jnp.ones(())).compile().as_text(), "f32")


def check_copies(text, dtype):
  inside = text[: text.index("\nENTRY ")]
  c = POLICY.config
  shape = re.escape(f"{dtype}[5,{c.kv_heads},{jobs.PAGE},{c.head_dim}]")  # a page for each slot
  assert re.search(shape, inside)
  copied = re.findall(rf"\n.*= {shape}\S* (?:copy|copy-start)\(.*", inside)
  assert not copied, copied


def test_errors_name_the_value(params, rows):
  for options, text in (
    ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
    ({"slots": 0}, "slots must be at least 1"),
    ({"refill": -1, "slots": 2}, "refill must be at least 1, got -1"),
    ({"slots": 2, "group": 3}, "slots must be at least the group of 3, got 2"),
    ({"group": 5}, "group must divide the 12 rows, got 5"),
  ):
    with pytest.raises(ValueError, match=text):
      run(params, rows, **options)
