"""What the benchmark says of a cache: nothing of an exact one, and more the less it holds."""

import jax
import numpy as np
import pytest

from experiments.benchmarks import cache_error
from experiments.benchmarks.cache_error import BARE, Texts, measure
from lcrl import policies

V, R, P, N = 24, 6, 7, 5


@pytest.fixture(scope="module")
def model():
  policy = policies.make(policies.tiny(V, layers=1, hidden_size=32, mlp_size=32))
  return policy, jax.jit(policy.init)(jax.random.key(0))


def make_texts():
  rng = np.random.default_rng(0)
  draw = lambda low, high, *shape: rng.integers(low, high, shape, np.int32)
  lengths = draw(1, P + 1, R)
  return Texts(draw(0, V, R, P), lengths, draw(0, V, R, N), draw(1, N + 1, R))


@pytest.mark.slow
def test_errors_of_caches(model):
  policy, params = model
  given = make_texts()
  names = ["float32", "bfloat16", "int8", "float8_e4m3fn", f"float8_e4m3fn{BARE}"]
  found = {line["cache"]: line for line in measure(policy, policy.unstack(params), given, names)}
  sizes = {name: line["bytes_a_token"] for name, line in found.items()}
  heads = 2 * policy.config.kv_heads  # a key and a value each, of 16 numbers
  assert [*sizes.values()] == [heads * 64, heads * 32, heads * 20, heads * 20, heads * 16]
  assert {line["tokens"] for line in found.values()} == {given.answer_lengths.sum()}
  exact = found["float32"]
  assert not any(exact[name] for name in ("kl_p99", "log_prob_moved", "argmax_changed"))
  errors = [found[name]["kl"] for name in names[:4]]
  assert errors == sorted(errors)
  assert errors[1] > 0

  # The reference is teacher forcing: the perplexity of the answers alone.
  log_probs, counts = [], np.arange(N) < given.answer_lengths[:, None]
  for r in range(R):
    row = np.concatenate([given.prompts[r, : given.lengths[r]], given.answers[r]])
    logits = jax.nn.log_softmax(policy.apply(params, row))[given.lengths[r] - 1 : -1]
    log_probs.append(np.asarray(logits)[np.arange(N), given.answers[r]])
  want = np.exp(-np.stack(log_probs)[counts].mean())
  assert exact["perplexity"] == pytest.approx(want, rel=1e-5)


def test_own_answers_are_the_most_likely_tokens(model):
  policy, params = model
  given = cache_error.own(policy, policy.unstack(params), make_texts(), (1,))
  assert given.answers.shape == (R, N)
  r = int(given.answer_lengths.argmax())
  row = np.concatenate([given.prompts[r, : given.lengths[r]], given.answers[r]])
  best = np.asarray(policy.apply(params, row)).argmax(-1)[given.lengths[r] - 1 : -1]
  many = given.answer_lengths[r]
  np.testing.assert_array_equal(given.answers[r, :many], best[:many])
