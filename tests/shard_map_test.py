"""Inside `jax.shard_map`, which checks what differs along which axis: as outside of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from lcrl import losses
from lcrl.losses.log_probs import FIELDS

ROWS, TIME, WIDTH, VOCAB = 4, 5, 8, 24


@functools.cache
def example():
  keys = jax.random.split(jax.random.key(0), 4)
  hidden = jax.random.normal(keys[0], (ROWS, TIME, WIDTH))
  head = jax.random.normal(keys[1], (WIDTH, VOCAB))
  targets = jax.random.randint(keys[2], (ROWS, TIME), 0, VOCAB)
  return hidden, head, targets, jax.random.bernoulli(keys[3], 0.7, (ROWS, TIME))


def mesh(kind=AxisType.Auto):
  return jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(kind, kind))


def pulled(score, hidden, head, targets, mask):
  """A loss of all scores, and its gradients."""

  def loss(hidden, head):
    scores = score(hidden, head, targets, mask)
    return sum(jnp.sum((1.0 + i) * x) for i, x in enumerate(jax.tree.leaves(scores)))

  return jax.value_and_grad(loss, (0, 1))(hidden, head)


def summed(score, *axes):
  """The loss of the batch of which a device has a share; gradients as its shares want them."""

  def run(*arrays):
    value, grads = pulled(score, *arrays)
    return jax.lax.psum(value, "data"), *grads

  return run


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
