"""Other people's training loops with the functions of lcrl take the same steps as lcrl."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tests.helpers import reader
from tests.helpers.reader import METHODS, OPTIMIZER, STEPS, VOCAB, WIDTH, log_probs_of

SPREAD = ("exact_length", "cispo")  # whose functions count over devices with `axis_name`


class Reader(nnx.Module):
  def __init__(self, params):
    rngs = nnx.Rngs(0)
    self.embed = nnx.Embed(VOCAB, WIDTH, rngs=rngs)
    self.mix = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
    self.head = nnx.Linear(WIDTH, VOCAB, use_bias=False, rngs=rngs)
    for variable, leaf in zip(self.variables(), params.values(), strict=True):
      variable.set_value(leaf)

  def variables(self):
    return self.embed.embedding, self.mix.kernel, self.mix.bias, self.head.kernel

  def __call__(self, tokens):
    return self.head(jnp.tanh(self.mix(reader.mean_so_far(self.embed(tokens)))))


@pytest.mark.parametrize("name", METHODS)
def test_a_flax_model(name):
  model = Reader(reader.init())
  optimizer = nnx.Optimizer(model, OPTIMIZER, wrt=nnx.Param)

  @nnx.jit
  def step(model, optimizer, r):
    loss = lambda model: METHODS[name].loss(log_probs_of(model(r.tokens), r.tokens), r)
    optimizer.update(model, nnx.grad(loss)(model))

  found = []
  for number in range(STEPS):
    step(model, optimizer, reader.rollouts(number))
    leaves = (variable.get_value() for variable in model.variables())
    found.append(dict(zip(reader.init(), leaves, strict=True)))
  reader.same_steps(name, found)


def train(gradient, params, place=lambda r: r):
  """Parameters after each step of a plain loop."""

  @jax.jit
  def step(params, opt_state, r):
    changes, opt_state = OPTIMIZER.update(gradient(params, r), opt_state, params)
    return optax.apply_updates(params, changes), opt_state

  found, opt_state = [], OPTIMIZER.init(params)
  for number in range(STEPS):
    params, opt_state = step(params, opt_state, place(reader.rollouts(number)))
    found.append(params)
  return found


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("name", SPREAD)
def test_under_shard_map(name, check_vma):
  def loss(params, r):
    logits = reader.hidden(params, r.tokens) @ params["head"]
    return METHODS[name].loss(log_probs_of(logits, r.tokens), r, axis_name="data")

  def gradient(params, r):
    grads = jax.grad(loss)(params, r)
    # What does not differ along "data" has had its gradient summed already.
    return grads if check_vma else jax.lax.psum(grads, "data")

  run = jax.shard_map(
    gradient,
    mesh=jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,)),
    in_specs=(P(), P("data")),
    out_specs=P(),
    check_vma=check_vma,
  )
  reader.same_steps(name, train(run, reader.init()))


@pytest.mark.parametrize("scored", ["log_softmax", "score_tokens"])
@pytest.mark.parametrize("name", METHODS)
def test_with_explicit_sharding(name, scored):
  mesh = jax.make_mesh((4, 2), ("data", "tensor"), axis_types=(AxisType.Explicit,) * 2)
  place = functools.partial(jax.tree.map, lambda x: jax.device_put(x, P("data")))
  embed = lambda table, ids: table.at[ids].get(out_sharding=jax.typeof(ids).sharding)

  def loss(params, r):
    hidden = reader.hidden(params, r.tokens, embed)
    if scored == "score_tokens":
      log_probs = reader.scored(hidden, params["head"], r).log_probs
    else:
      head = jax.sharding.reshard(params["head"], P())
      log_probs = log_probs_of(hidden @ head, r.tokens)
    return METHODS[name].loss(log_probs, r)

  with jax.set_mesh(mesh):
    params = reader.init() | {"head": jax.device_put(reader.init()["head"], P(None, "tensor"))}
    found = train(jax.grad(loss), params, place)
    assert found[-1]["head"].sharding == NamedSharding(mesh, P(None, "tensor"))
  reader.same_steps(name, found)
