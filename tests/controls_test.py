"""Controls alone, and inside the sampler."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.sampling import controls, mirostat, speculative, steering
from lcrl.sampling.core import row_keys, sample

V, R, N = 16, 6, 12
LOGITS = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.25, 0.05]))
START = (jnp.array([[3, 4, 0]]), jnp.array([2]))  # one prompt of two tokens


def kept(logits):
  return np.flatnonzero(np.isfinite(logits)).tolist()


def test_filters_by_hand():
  assert kept(controls.keep_top_k(LOGITS, k=2)) == [1, 3]
  assert kept(controls.keep_top_k(LOGITS, k=9)) == [0, 1, 2, 3, 4]
  # From the smallest on: 0.05, 0.15, 0.35 go while at most 1 - p; 0.6 does not.
  assert kept(controls.keep_top_p(LOGITS, p=0.64)) == [1, 3]
  assert kept(controls.keep_top_p(LOGITS, p=0.66)) == [1, 2, 3]
  assert kept(controls.keep_top_p(LOGITS, p=1e-6)) == [1]
  assert kept(controls.keep_top_p(LOGITS, p=1.0)) == [0, 1, 2, 3, 4]
  assert kept(controls.keep_min_p(LOGITS, p=0.45)) == [1, 2, 3]  # at least 0.18
  assert kept(controls.keep_min_p(LOGITS, p=1.0)) == [1]
  assert kept(mirostat.keep_below_surprise(LOGITS, jnp.array(2.1))) == [1, 3]  # 2.1 bits: 0.233
  assert kept(mirostat.keep_below_surprise(LOGITS, jnp.array(-1.0))) == [1]
  assert kept(mirostat.keep_ranks(LOGITS, jnp.array(3))) == [1, 2, 3]


def test_filters_work_per_row():
  both = jnp.stack([LOGITS, LOGITS[::-1]])
  for keep in (
    partial(controls.keep_top_k, k=2),
    partial(controls.keep_top_p, p=0.7),
    partial(controls.keep_min_p, p=0.3),
    lambda x: mirostat.keep_below_surprise(x, jnp.full(x.shape[:-1], 2.1)),
    lambda x: mirostat.keep_ranks(x, jnp.full(x.shape[:-1], 2)),
  ):
    np.testing.assert_array_equal(keep(both), jnp.stack([keep(row) for row in both]))


def test_chain_shapes_from_left_to_right():
  # p = 0.5 keeps 0.4 and 0.25; after top-2 these are 0.615 and 0.385, and the first is enough.
  chain = controls.chain(controls.top_k(2), controls.top_p(0.5))
  other = controls.chain(controls.top_p(0.5), controls.top_k(2))
  for control, want in ((chain, [1]), (other, [1, 3])):
    assert kept(control.shape(control.init(*START), LOGITS[None])[0]) == want


def test_mirostat_holds_the_surprise():
  """Over 2,000 tokens of one distribution; plain sampling has 4.3 bits a token."""
  logits = -1.2 * jnp.log(jnp.arange(1.0, 201.0))[None]
  for control in (mirostat.mirostat_v1(3.0, eta=0.1), mirostat.mirostat_v2(3.0)):

    def token(mu, key, control=control):
      sampled = jax.random.categorical(key, control.shape(mu, logits))
      return control.take(mu, logits, sampled)[0], mirostat.surprise(logits, sampled)[0]

    keys = jax.random.split(jax.random.key(0), 2000)
    _, bits = jax.jit(partial(jax.lax.scan, token))(control.init(*START)[:1], keys)
    assert float(bits[200:].mean()) == pytest.approx(3.0, abs=0.1)


def test_mirostat_k_near_a_zipf_exponent_of_one():
  # e -> 0: k = 2^mu / ln n = 8 / 9.21 = 0.87. The plain formula divides 0 by 0.
  k = mirostat.mirostat_k(jnp.array([1.0, 1.0 + 1e-6, 0.999]), jnp.full(3, 3.0), vocab_size=10_000)
  assert k.tolist() == [1, 1, 1]


def test_thinking_controls_stop_with_the_thinking():
  for make, thinking in (
    (steering.end_of_thinking_bias, LOGITS[2] + np.log(2)),
    (steering.end_of_thinking_scale, LOGITS[2] * 2),
  ):
    control = make(2, scale=2.0)
    state = control.init(*START)
    for sampled, want in ((1, thinking), (2, thinking), (1, LOGITS[2])):
      shaped = control.shape(state, LOGITS[None])[0]
      np.testing.assert_allclose(shaped, LOGITS.at[2].set(want), rtol=1e-6)
      state, *_ = control.take(state, LOGITS[None], jnp.array([sampled]))


def test_ramp_and_repeats_follow_the_response():
  control = controls.chain(
    steering.eos_ramp(0, ramp_end=2, max_bias=4.0, hold=True, hard_length=2),
    steering.repeat_penalty(5, penalty=1.0),
    steering.token_bias({1: 0.5}),
  )
  state, change = control.init(*START), []
  for sampled in (1, 1, 2, 3):
    change.append((control.shape(state, LOGITS[None]) - LOGITS[None])[0].tolist())
    state, *_ = control.take(state, LOGITS[None], jnp.array([sampled]))
  np.testing.assert_allclose(
    change,  # padding (token 0) does not count as seen
    [[0, 0.5, 0, -1, -1], [2, -0.5, 0, -1, -1], [4, -0.5, 0, -1, -1], [100, -0.5, -1, -1, -1]],
    atol=1e-4,
  )


@pytest.fixture(scope="module")
def model():
  policy = policies.make(policies.tiny(V, hidden_size=32, layers=1, head_dim=8, mlp_size=32))
  return policy, jax.jit(policy.init)(jax.random.key(0))


def run(model, control, slots=None, end_ids=(1,)):
  """Responses to the one-token prompts 2, 3, ..."""
  policy, params = model
  keys = row_keys(jax.random.key(1), jnp.arange(R), 1)[:, 0]
  rows = jnp.arange(R)[:, None] + 2, jnp.ones(R, jnp.int32), jnp.full(R, N), keys
  options = {"max_tokens": N, "end_ids": end_ids, "control": control, "slots": slots}
  return jax.jit(partial(sample, policy, **options))(params, *rows)


def test_filters_do_not_change_log_probs(model):
  """The reported log-probs are those of the unfiltered distribution."""
  policy, params = model
  out = run(model, controls.top_k(1), end_ids=(V,))
  prompts = jnp.arange(R)[:, None] + 2
  rows = jnp.concatenate([prompts, out.tokens], axis=1)
  log_probs = jax.nn.log_softmax(jax.jit(policy.apply)(params, rows))[:, :-1]
  np.testing.assert_array_equal(out.tokens, log_probs.argmax(-1))  # k = 1 is greedy
  np.testing.assert_allclose(out.log_probs, log_probs.max(-1), atol=1e-4)
  assert float(out.log_probs.max()) < -0.01  # the filtered ones are 0


def test_states_stay_with_their_rows(model):
  control = controls.chain(
    mirostat.mirostat_v2(2.0),
    steering.repeat_penalty(V, penalty=3.0),
    steering.budget_forcing(3, max_thinking_tokens=6, wait_tokens=(4, 5), num_ignore=1),
  )
  want, got = run(model, control), run(model, control, slots=2)
  np.testing.assert_array_equal(got.tokens, want.tokens)
  np.testing.assert_array_equal(got.mask, want.mask)
  assert not np.array_equal(want.tokens, run(model, None).tokens)


def test_budget_forcing_in_the_sampler(model):
  control = controls.chain(  # thinking would never end, and then ends at once
    steering.token_bias({3: -100.0}),
    steering.budget_forcing(3, max_thinking_tokens=5, final_tokens=(7, 8)),
  )
  out = run(model, control, end_ids=(V,))
  assert (np.asarray(out.tokens)[:, 5:8] == [3, 7, 8]).all()
  forced = np.isin(np.arange(N), (5, 6, 7))
  np.testing.assert_array_equal(out.mask, np.broadcast_to(~forced, (R, N)))
  assert not np.asarray(out.log_probs)[:, forced].any()
  assert (np.asarray(out.log_probs)[:, ~forced] < 0).all()
  control = controls.chain(
    steering.token_bias({3: 100.0}),
    steering.budget_forcing(3, max_thinking_tokens=3, wait_tokens=(4, 5), num_ignore=9),
  )
  out = run(model, control)  # forced tokens count: four are more than three, and the end is forced
  assert (np.asarray(out.tokens)[:, :5] == [4, 5, 4, 5, 3]).all()
  assert not np.asarray(out.mask)[:, :5].any()


def test_a_penalty_spares_what_ends_a_response(model):
  always = steering.token_bias({1: 100.0})  # 1 is the likeliest, as long as it is no repetition
  control = controls.chain(always, steering.repeat_penalty(V, penalty=1e4))
  policy, params = model
  keys = row_keys(jax.random.key(1), jnp.arange(2), 1)[:, 0]
  rows = jnp.array([[2, 1, 3], [2, 4, 3]]), jnp.array([3, 3]), jnp.full(2, N), keys
  out = sample(policy, params, *rows, max_tokens=N, end_ids=(1,), control=control)
  assert out.lengths.tolist() == [1, 1]  # though a 1 stands in the prompt
  out = sample(policy, params, *rows, max_tokens=N, end_ids=(V,), control=control)
  assert np.asarray(out.tokens[:, 0]).tolist()[1] == 1 != out.tokens[0, 0]


def test_bad_knobs_are_named():
  for make, text in (
    (lambda: controls.keep_top_k(LOGITS, k=0), "k must be at least 1, got 0"),
    (lambda: controls.keep_top_p(LOGITS, p=0.0), r"p must be in \(0, 1\], got 0.0"),
    (lambda: controls.keep_min_p(LOGITS, p=1.5), r"p must be in \[0, 1\], got 1.5"),
    (lambda: steering.end_of_thinking_bias(1, scale=0.0), "scale must be above 0, got 0.0"),
    (lambda: steering.budget_forcing(1, max_thinking_tokens=0), "at least 1, got 0"),
    (
      lambda: steering.budget_forcing(1, max_thinking_tokens=4, num_ignore=2),
      "need wait_tokens",
    ),
  ):
    with pytest.raises(ValueError, match=text):
      make()


def test_best_acceptance_is_the_best_of_all_sets():
  target, draft = np.random.default_rng(0).dirichlet(np.ones(5), (2, 20)).astype(np.float32)
  sets = np.array(list(itertools.product([0, 1], repeat=5)))
  for n in (1, 3):
    want = 1 + (target @ sets.T - (draft @ sets.T) ** n).min(axis=-1)
    got = speculative.best_acceptance(target, draft, drafts=n)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert (speculative.recursive_acceptance(target, draft, drafts=n) <= got + 1e-5).all()
