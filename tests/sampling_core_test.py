"""Sampling against teacher forcing, and against itself in other layouts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.sampling.core import row_keys, sample

V, R, P, N, END = 24, 12, 7, 10, (1, 2)


@pytest.fixture(scope="module")
def model():
  """Two layers, grouped heads, a window shorter than prompt and response."""
  config = policies.tiny(V, hidden_size=32, head_dim=8, mlp_size=48, windows=(None, 4))
  policy = policies.make(config)
  return policy, policy.init(jax.random.key(0))


@pytest.fixture(scope="module")
def rows():
  rng = np.random.default_rng(0)
  lengths = rng.integers(1, P + 1, R).astype(np.int32)
  lengths[:2] = 1, P
  tokens = np.where(np.arange(P) < lengths[:, None], rng.integers(3, V, (R, P)), 0)
  caps = rng.integers(2, N + 1, R).astype(np.int32)
  caps[3] = 1
  keys = row_keys(jax.random.key(1), jnp.arange(R // 2), 2).reshape(-1)
  return jnp.array(tokens, jnp.int32), jnp.array(lengths), jnp.array(caps), keys


def run(model, rows, **options):
  policy, params = model
  options = {"max_tokens": N, "end_ids": END} | options
  return jax.jit(partial(sample, policy, **options))(params, *rows)


def teacher_forced(model, rows, out, temperature):
  """log softmax(policy.apply / temperature) of the response tokens, [R, N]."""
  policy, params = model
  tokens, lengths = (np.asarray(x) for x in rows[:2])
  full = np.zeros((len(tokens), P + N), np.int32)
  full[:, :P] = tokens
  where = lengths[:, None] + np.arange(N)
  np.put_along_axis(full, where, np.asarray(out.tokens), axis=1)
  logits = policy.apply(params, jnp.array(full)) / jnp.reshape(temperature, (-1, 1, 1))
  log_probs = np.asarray(jax.nn.log_softmax(logits))
  at = np.take_along_axis(log_probs, (where - 1)[..., None], axis=1)
  return np.take_along_axis(at, np.asarray(out.tokens)[..., None], axis=2)[..., 0]


@pytest.mark.parametrize("slots", [None, 5])
@pytest.mark.parametrize("temperature", [1.0, 0.7, "per row"])
def test_log_probs_equal_teacher_forcing(model, rows, slots, temperature):
  if temperature == "per row":
    temperature = jnp.linspace(0.5, 2.0, R)
  out = run(model, rows, slots=slots, temperature=temperature)
  want = teacher_forced(model, rows, out, temperature)
  np.testing.assert_allclose(out.log_probs, np.where(out.mask, want, 0.0), atol=1e-4)
  assert (np.asarray(out.log_probs)[np.asarray(out.mask)] < -0.01).any()


@pytest.mark.parametrize("slots", [None, 3])
def test_lengths_caps_and_ends(model, rows, slots):
  out = jax.tree.map(np.asarray, run(model, rows, slots=slots))
  caps = np.asarray(rows[2])
  np.testing.assert_array_equal(out.mask, np.arange(N) < out.lengths[:, None])
  assert (out.lengths >= 1).all()
  assert (out.lengths <= caps).all()
  assert out.lengths[3] == 1
  is_end = np.isin(out.tokens, END)
  last = np.take_along_axis(is_end, out.lengths[:, None] - 1, axis=1)[:, 0]
  np.testing.assert_array_equal(is_end.sum(-1), last)  # at most one, and it is the last
  np.testing.assert_array_equal(out.truncated, ~last)
  np.testing.assert_array_equal(out.lengths[out.truncated], caps[out.truncated])
  assert out.truncated.any()
  assert not out.truncated.all()
  assert not out.tokens[~out.mask].any()


@pytest.mark.parametrize("slots,refill", [(1, None), (3, 1), (5, 4), (12, None), (40, 3)])
def test_slots_change_nothing(model, rows, slots, refill):
  want, got = run(model, rows), run(model, rows, slots=slots, refill=refill)
  np.testing.assert_array_equal(got.tokens, want.tokens)
  np.testing.assert_array_equal(got.lengths, want.lengths)
  np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-5)


def test_order_and_neighbours_change_nothing(model, rows):
  want = np.asarray(run(model, rows).tokens)
  for pick in (np.random.default_rng(1).permutation(R), np.array([7]), np.arange(0, R, 3)):
    some = jax.tree.map(lambda x, pick=pick: x[pick], rows)
    np.testing.assert_array_equal(run(model, some).tokens, want[pick])
    np.testing.assert_array_equal(run(model, some, slots=2).tokens, want[pick])
  other = (*rows[:3], row_keys(jax.random.key(2), jnp.arange(R), 1)[:, 0])
  assert (np.asarray(run(model, other).tokens) != want).any(-1).sum() > R / 2


def test_padding_and_max_tokens_change_nothing(model, rows):
  want = run(model, rows)
  padded = (jnp.pad(rows[0], ((0, 0), (0, 3)), constant_values=9), *rows[1:])
  got = run(model, padded, max_tokens=N + 5)
  np.testing.assert_array_equal(got.tokens[:, :N], want.tokens)
  assert not got.mask[:, N:].any()


def test_one_prefill_a_group(model, rows):
  tokens, lengths, caps, keys = rows
  rows = (jnp.repeat(tokens[::3], 3, axis=0), jnp.repeat(lengths[::3], 3, axis=0), caps, keys)
  want, got = run(model, rows), run(model, rows, group=3)
  np.testing.assert_array_equal(got.tokens, want.tokens)


def test_temperature_zero_takes_the_argmax(model, rows):
  policy, params = model
  out = run(model, rows, temperature=0.0)
  tokens = np.asarray(rows[0])
  for r in range(4):
    row = list(tokens[r, : rows[1][r]])
    for n in range(int(out.lengths[r])):
      logits = policy.apply(params, jnp.array(row))[-1]
      assert int(out.tokens[r, n]) == int(jnp.argmax(logits))
      np.testing.assert_allclose(out.log_probs[r, n], jax.nn.log_softmax(logits).max(), atol=1e-4)
      row.append(int(out.tokens[r, n]))


def test_samples_follow_the_distribution(model):
  """First tokens of 4,000 rows with one prompt against softmax: chi-square, 23 degrees."""
  policy, params = model
  rows = 4000
  keys = row_keys(jax.random.key(3), jnp.arange(1), rows)[0]
  prompt = jnp.full((rows, 1), 5)
  out = run(model, (prompt, jnp.ones(rows, int), jnp.ones(rows, int), keys), max_tokens=1)
  probs = np.asarray(jax.nn.softmax(policy.apply(params, prompt[0])[-1]))
  counts = np.bincount(np.asarray(out.tokens[:, 0]), minlength=V)
  assert ((counts - rows * probs) ** 2 / (rows * probs)).sum() < 60  # 1 in 30,000 by chance


def test_vmap_over_seeds_keeps_a_scalar_predicate(model, rows):
  policy, params = model
  seeds = jax.vmap(lambda k: row_keys(k, jnp.arange(R), 1)[:, 0])(
    jax.random.split(jax.random.key(5), 3)
  )
  for slots in (None, 4):
    one = partial(sample, policy, max_tokens=N, end_ids=END, slots=slots)
    many = jax.vmap(one, in_axes=(None, None, None, None, 0))
    got = jax.jit(many)(params, *rows[:3], seeds)
    for i, keys in enumerate(seeds):
      np.testing.assert_array_equal(got.tokens[i], one(params, *rows[:3], keys).tokens)
    text = str(jax.make_jaxpr(many)(params, *rows[:3], seeds))
    assert "cond_jaxpr" in text
    assert f"bool[3,{R if slots is None else slots}] = while" not in text


def test_errors_name_the_value(model, rows):
  for options, text in (
    ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
    ({"slots": 0}, "slots must be at least 1"),
    ({"slots": 2, "group": 2}, "exclude a group"),
    ({"group": 5}, "group must divide the 12 rows, got 5"),
  ):
    with pytest.raises(ValueError, match=text):
      run(model, rows, **options)
