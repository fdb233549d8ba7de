"""Inside `jax.shard_map`, which checks what differs along which axis: as outside of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from lcrl import advantages, losses
from lcrl.losses import preference as pref
from lcrl.losses.log_probs import FIELDS

ROWS, TIME, WIDTH, VOCAB = 4, 5, 8, 24


@functools.cache
def example():
  keys = jax.random.split(jax.random.key(0), 4)
  hidden = jax.random.normal(keys[0], (ROWS, TIME, WIDTH))
  head = jax.random.normal(keys[1], (WIDTH, VOCAB))
  targets = jax.random.randint(keys[2], (ROWS, TIME), 0, VOCAB)
  return hidden, head, targets, jax.random.bernoulli(keys[3], 0.7, (ROWS, TIME))


def mesh():
  return jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2)


def pulled(score, hidden, head, targets, mask):
  """A loss of all scores, and its gradients."""

  def loss(hidden, head):
    scores = score(hidden, head, targets, mask)
    return sum(jnp.sum((1.0 + i) * x) for i, x in enumerate(jax.tree.leaves(scores)))

  return jax.value_and_grad(loss, (0, 1))(hidden, head)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize(
  "options",
  [
    {"needs": FIELDS, "token_chunk": 8, "vocab_chunk": 7},
    {"keep": True, "vocab_chunk": 8},
  ],
  ids=["fields", "keep"],
)
@pytest.mark.parametrize("axis_name", [None, "tensor"])
def test_scores_of_a_share_of_the_tokens(axis_name, options, check_vma):
  want = pulled(functools.partial(losses.score_tokens, **options), *example())
  score = functools.partial(losses.score_tokens, **options, axis_name=axis_name)
  data, columns = P("data"), P(None, axis_name)

  def run(hidden, head, targets, mask):
    value, (dhidden, dhead) = pulled(score, hidden, head, targets, mask)
    # What is not said to differ along "data" has had its gradient summed already.
    dhead = dhead if check_vma else jax.lax.psum(dhead, "data")
    return jax.lax.psum(value, "data"), (dhidden, dhead)

  got = jax.jit(
    jax.shard_map(
      run,
      mesh=mesh(),
      in_specs=(data, columns, data, data),
      out_specs=(P(), (data, columns)),
      check_vma=check_vma,
    )
  )(*example())
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), got, want)


def test_hidden_states_that_differ_along_the_vocabulary_s_axis_are_refused():
  score = functools.partial(losses.score_tokens, axis_name="tensor")
  run = jax.shard_map(
    lambda *x: score(*x).log_probs,
    mesh=mesh(),
    in_specs=(P("tensor"), P(None, "tensor"), P("tensor")),
    out_specs=P("tensor"),
  )
  with pytest.raises(ValueError, match="axis_name='tensor'"):
    run(*example()[:3])


MASK = jnp.arange(6)[None] < jnp.array([6, 1, 0, 3, 2, 5, 4, 1])[:, None]
KEEP = jnp.array([1, 1, 1, 0, 1, 1, 1, 1]) > 0
VALUES = jax.random.normal(jax.random.key(1), (8, 6))
GROUPS = VALUES, jnp.arange(48).reshape(8, 6) % 5 > 0
NORMALISERS = {
  "token_mean": (losses.token_mean, MASK, KEEP),
  "sequence_mean": (losses.sequence_mean, MASK, KEEP),
  "rows": (functools.partial(losses.sequence_mean, count_empty=True), MASK, KEEP),
  "sequence_sum": (losses.sequence_sum, MASK, KEEP),
  "fixed_length": (functools.partial(losses.fixed_length, length=9), MASK, KEEP),
  "batch_mean_weights": (lambda mask, **k: losses.batch_mean_weights(mask, **k), MASK),
  "mean_one": (losses.policy.mean_one, jnp.exp(VALUES), MASK),
  "mean_one of rows": (
    functools.partial(losses.policy.mean_one, per_sequence=True),
    VALUES**2,
    MASK,
  ),
  "batch_scaled": (advantages.batch_scaled_advantage, *GROUPS),
  "whitened": (advantages.whitened, VALUES, jnp.arange(48).reshape(8, 6) % 7),
  "kto_baseline": (losses.kto_baseline, VALUES[:, 0] + 1, KEEP),
  "moments": (
    lambda x, keep, **k: pref.updated_moments(pref.Moments(1.0, 1.0), x, keep, **k),
    VALUES[:, 0],
    KEEP,
  ),
  "fractions": (losses.surrogate_fractions, VALUES, VALUES[::-1], VALUES[:, 0], MASK),
}


@pytest.mark.parametrize("name", NORMALISERS)
def test_normalisers_count_over_all_devices(name):
  f, *args = NORMALISERS[name]
  want = f(*args)
  out = jax.tree.map(lambda x: P("data") if jnp.ndim(x) else P(), want)
  spread = lambda **knobs: jax.jit(
    jax.shard_map(
      functools.partial(f, **knobs), mesh=mesh(), in_specs=(P("data"),) * len(args), out_specs=out
    )
  )(*args)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, spread(axis_name="data"), want)
