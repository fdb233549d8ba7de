"""An equinox model with the functions of lcrl takes the same steps as lcrl."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from tests.helpers import reader
from tests.helpers.reader import METHODS, OPTIMIZER, STEPS, VOCAB, WIDTH, log_probs_of


class Reader(eqx.Module):
  embed: eqx.nn.Embedding
  mix: eqx.nn.Linear
  head: eqx.nn.Linear

  def __init__(self, params):
    key = jax.random.key(0)
    put = lambda module, **leaves: eqx.tree_at(
      lambda m: [getattr(m, name) for name in leaves], module, [*leaves.values()]
    )
    self.embed = put(eqx.nn.Embedding(VOCAB, WIDTH, key=key), weight=params["embed"])
    self.mix = put(
      eqx.nn.Linear(WIDTH, WIDTH, key=key), weight=params["mix"].T, bias=params["bias"]
    )
    head = eqx.nn.Linear(WIDTH, VOCAB, use_bias=False, key=key)
    self.head = put(head, weight=params["head"].T)

  def __call__(self, tokens):
    """[T] -> [T, V]."""
    x = reader.mean_so_far(jax.vmap(self.embed)(tokens))
    return jax.vmap(self.head)(jnp.tanh(jax.vmap(self.mix)(x)))

  @property
  def params(self):
    leaves = {"embed": self.embed.weight, "mix": self.mix.weight.T, "bias": self.mix.bias}
    return leaves | {"head": self.head.weight.T}


@pytest.mark.parametrize("name", METHODS)
def test_an_equinox_model(name):
  model = Reader(reader.init())
  state = OPTIMIZER.init(eqx.filter(model, eqx.is_array))

  @eqx.filter_jit
  def step(model, state, r):
    def loss(model):
      logits = jax.vmap(jax.vmap(model))(r.tokens)
      return METHODS[name].loss(log_probs_of(logits, r.tokens), r)

    changes, state = OPTIMIZER.update(eqx.filter_grad(loss)(model), state)
    return eqx.apply_updates(model, changes), state

  found = []
  for number in range(STEPS):
    model, state = step(model, state, reader.rollouts(number))
    found.append(model.params)
  reader.same_steps(name, found)
