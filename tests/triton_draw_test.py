"""The kernels that draw a token against dense logits, interpreted; and lowered for a GPU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.sampling import core, draw, triton_draw
from lcrl.sampling.controls import chain, plain
from lcrl.sampling.texts import automaton
from lcrl.sampling.thinking import stop_texts, thinking_budget
from tests import gpu
from tests.helpers.slow import slow


def dense(hidden, head, keys, temperature, softcap=None):
  logits = jnp.matmul(hidden, head.T, preferred_element_type=jnp.float32)
  if softcap is not None:
    logits = softcap * jnp.tanh(logits / softcap)
  logits /= jnp.where(temperature > 0, temperature, 1.0)[:, None]
  tokens = draw.draw(draw.tile(logits), keys, temperature <= 0)
  return tokens, draw.log_probs(logits, tokens)


@pytest.mark.parametrize(
  "rows, vocab, softcap", [(37, 1000, None), slow(3, 128, 4.0), slow(130, 2100, None)]
)
def test_draws_what_dense_logits_draw(rows, vocab, softcap):
  """Greedy rows, a tile of the vocabulary that is not full, rows that fill no block."""
  keys = jax.random.split(jax.random.key(0), 3)
  hidden = jax.random.normal(keys[0], (rows, 48), jnp.bfloat16)
  head = jax.random.normal(keys[1], (vocab, 48), jnp.bfloat16)
  temperature = jnp.where(jnp.arange(rows) % 3 == 0, 0.0, jnp.linspace(0.5, 2.0, rows))
  args = hidden, head, jax.random.split(keys[2], rows), temperature
  tokens, log_probs = triton_draw.draw(*args, softcap=softcap, interpret=True)
  wanted, expected = dense(*args, softcap)
  np.testing.assert_array_equal(tokens, wanted)
  np.testing.assert_allclose(log_probs, expected, atol=1e-5)
  assert len(set(tokens.tolist())) > 2 * rows // 3  # no row draws for another


def test_of_equal_logits_the_first_is_taken():
  head = jnp.ones((300, 16), jnp.bfloat16)
  args = head[:5], head, jax.random.split(jax.random.key(0), 5), jnp.zeros(5)
  tokens, log_probs = triton_draw.draw(*args, interpret=True)
  np.testing.assert_array_equal(tokens, 0)
  np.testing.assert_allclose(log_probs, -np.log(300), rtol=1e-6)


# Ends the thinking by its tokens 7 and 8, and leaves logits alone.
BUDGET = thinking_budget(
  automaton([b"ab"], [b"a" if i == 7 else b"b" for i in range(256)]), (7, 8), budget=2
)


@pytest.mark.parametrize("control", [None, BUDGET], ids=["plain", "a thinking budget"])
def test_the_sampler_draws_the_same_tokens(monkeypatch, control):
  """Where nothing shapes the policy's distribution; what does sees dense logits."""
  c = policies.tiny(256, dtype="bfloat16")
  policy = policies.make(c)
  rows = 12
  tokens = jax.random.randint(jax.random.key(1), (rows, 4), 0, 256)
  caps, keys = jnp.full(rows, 6), jax.random.split(jax.random.key(2), rows)
  given = jax.jit(policy.init)(jax.random.key(0)), tokens, caps - 2, caps, keys
  options = dict(max_tokens=6, end_ids=(0,), control=control)
  run = lambda: jax.jit(partial(core.sample, policy, **options))(*given)
  want = run()
  calls = []

  def interpreted(*args, **options):
    calls.append(args)
    return draw_(*args, **options, interpret=True)

  draw_ = triton_draw.draw
  monkeypatch.setattr(triton_draw, "draw", interpreted)
  plan = core.plan
  monkeypatch.setattr(core, "plan", lambda *args, **o: plan(*args, **o)._replace(fused=True))
  got = run()
  assert calls
  np.testing.assert_array_equal(got.tokens, want.tokens)
  np.testing.assert_array_equal(got.mask, want.mask)
  assert got.mask[:, :2].all()
  assert (control is None) == bool(got.mask.sum() == got.lengths.sum())
  np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-3)


def test_logits_do_not_exist():
  c = policies.tiny(4096, head_dim=32, dtype="bfloat16", decoding="triton")
  policy, rows = policies.make(c), 32
  params = jax.eval_shape(policy.init, jax.random.key(0))
  shapes = jax.eval_shape(
    lambda: (
      jnp.zeros((rows, 4), int),
      *(jnp.ones(rows, int),) * 2,
      jax.random.split(jax.random.key(0), rows),
    )
  )

  def lowered(**options):
    sample = partial(core.sample, policy, max_tokens=8, end_ids=(0,), **options)
    return gpu.lowered(sample, params, *shapes)

  logits = f"tensor<{rows}x4096xf32>"
  assert logits not in lowered()
  assert lowered().count("head_draw") >= 1
  assert logits in lowered(control=plain())
  texts = automaton([b"a"], [b"a"] * 4096)
  control = chain(thinking_budget(texts, (1,), budget=3), stop_texts(texts))
  assert logits not in lowered(control=control)


def test_what_it_cannot_draw_from():
  refusal = lambda **changes: triton_draw.refusal(
    policies.tiny(**{"vocab_size": 4096, "dtype": "bfloat16"} | changes)
  )
  assert refusal() is None
  assert refusal(vocab_size=100) == "vocab_size=100"
  assert refusal(hidden_size=36, heads=2, head_dim=18) == "hidden_size=36"
  assert refusal(dtype="float32") == "float32"
