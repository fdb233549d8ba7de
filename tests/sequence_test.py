"""Rows cut along the sequence axis: values and gradients are those of one device."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.mesh import batch_sharding, batch_shards, make_mesh, param_shardings, replicated
from lcrl.policies.attention import attention, segment_spans, sequence, triton, xla
from lcrl.policies.attention.devices import per_device
from lcrl.training.packed import arranged
from lcrl.training.packing import Sizes, rounded
from lcrl.training.scorer import make_scorer, value_and_grad
from tests.helpers.scoring import (
  LOSSES,
  PARAMS,
  POLICY,
  make_batch,
  make_recipe,
  with_prompts,
)

WIDTH = 32
TILES = triton.Settings(
  triton.Tile(8, 8, 4, 2), triton.Tile(8, 8, 4, 2), triton.Tile(8, 8, 4, 2), interpret=True
)
CLOSE = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def scored_on(mesh, policy, loss, pieces=1):
  """The arguments and the result of a loss and its gradient, on packed rows of a mesh."""
  batch = with_prompts(make_batch(make_recipe(loss)))
  cut = {"width": WIDTH, "shards": batch_shards(mesh), "pieces": pieces}
  packed, _, sizes = arranged(batch, share=True, **cut)
  score = make_scorer(policy, mesh=mesh, pack=WIDTH)
  score = partial(score, sizes=rounded(Sizes(*sizes.tolist())))
  run = partial(value_and_grad, loss, loss.init(), score, micro_batches=pieces)
  params = jax.device_put(PARAMS, param_shardings(mesh, policy.axes, PARAMS))
  return jax.jit(run), params, jax.device_put(packed, batch_sharding(mesh))


@pytest.mark.parametrize(
  "axes, changes, name, pieces",
  [
    ({"data": 2, "fsdp": 2, "sequence": 2}, {}, "surrogate", 1),
    ({"fsdp": 2, "sequence": 4}, {"windows": (3, None)}, "surrogate", 2),
    ({"fsdp": 1, "sequence": 8}, {"windows": (5, 5), "unroll": True, "remat": "dots"}, "drpo", 1),
    ({"fsdp": 2, "sequence": 2, "tensor": 2}, {}, "drpo", 2),
  ],
)
def test_gradients_equal_those_of_one_device(axes, changes, name, pieces):
  policy = policies.make(dataclasses.replace(POLICY.config, **changes))
  loss = LOSSES[name]()
  batch = with_prompts(make_batch(make_recipe(loss)))
  want = value_and_grad(loss, loss.init(), make_scorer(policy), PARAMS, batch, micro_batches=1)
  run, *args = scored_on(make_mesh(**axes), policy, loss, pieces)
  got = run(*args)
  jax.tree.map(CLOSE, (got[0], got[3]), (want[0], want[3]))


def test_a_device_computes_its_own_tokens_only():
  """Products of the MLP, forward and back, are of an eighth of the three rows."""
  run, *args = scored_on(make_mesh(fsdp=1, sequence=8), POLICY, LOSSES["surrogate"]())
  text = run.lower(*args).compile().as_text()
  products = re.findall(
    r"= f32\[(\d+),16\][^=]* dot\(.*closed_call/Block/(gate|down)/dot_gen", text
  )
  assert {int(rows) for rows, _ in products} == {3 * WIDTH // 8, 16}  # 16: gradients of matrices


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_rows_are_dealt_and_gathered(parts):
  mesh = make_mesh(data=-1, fsdp=1, sequence=parts)
  rows = jnp.arange(16 * 16).reshape(16, 16)  # several rows a batch shard
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    deal = jax.jit(lambda x: sequence.deal(x, sequence.shards()))
    dealt = deal(jax.device_put(rows, replicated(mesh)))
  assert dealt.shape == (16 * parts, 16 // parts)
  spec = sequence.CUT

  def local(x):
    whole = sequence.gather(x, parts)
    assert x.shape[1] == 16 // parts
    return whole[:, sequence.positions(x.shape[1], parts)], sequence.share(whole, parts)

  run = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
  again, shares = run(dealt)
  np.testing.assert_array_equal(again, dealt)
  by_shard = np.asarray(shares).reshape(8 // parts, parts, 2 * parts, -1).swapaxes(1, 2)
  np.testing.assert_array_equal(by_shard.reshape(16, 16), rows)


def test_causal_work_is_the_same_on_every_device():
  """Of 16 chunks, each device sees 17 of the chunks before or at its own."""
  places = np.array(sequence.order(8)).reshape(8, 2)
  assert sorted(places.reshape(-1)) == list(range(16))
  assert ((places + 1).sum(1) == 17).all()


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("kernel", ["triton", "xla", "blocked"])
def test_kernels_of_a_cut_row_equal_the_whole(kernel, window, monkeypatch):
  """Branches of a shared stem that cross the chunks; chunks are no multiple of a block."""
  if kernel == "blocked":
    monkeypatch.setattr(xla, "block_width", lambda: (8, 8))
  attend = partial(triton.attend, settings=TILES) if kernel == "triton" else xla.attend
  mesh, length = make_mesh(data=2, fsdp=1, sequence=2, tensor=2), 48
  arrays = [
    jax.random.normal(jax.random.key(i), (2, length, n, 8)) for i, n in enumerate((4, 2, 2, 4))
  ]
  position = jnp.broadcast_to(jnp.arange(length), (2, length))
  spans = segment_spans(position // 40, jnp.maximum(position % 40 // 13 - 1, 0))
  options = {"window": window, "softcap": None, "scale": 0.3}

  @jax.jit
  def both_passes(q, k, v, g):
    dealt = lambda x: sequence.deal(x, 2)
    run = lambda q, k, v: per_device(attend)(
      *map(dealt, (q, k, v)), index=None, spans=spans, parts=2, **options
    )
    out, back = jax.vjp(run, q, k, v)
    return out, *back(dealt(g))

  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    out, *grads = both_passes(*jax.device_put(arrays, replicated(mesh)))
  q, k, v, g = arrays
  want, back = jax.vjp(lambda *x: attention(*x, spans=spans, **options), q, k, v)
  order = np.argsort(np.concatenate(np.arange(length).reshape(4, -1)[sequence.order(2)]))
  out = out.reshape(2, length, *out.shape[2:])[:, order]  # a row a batch shard
  for a, b in zip((out, *grads), (want, *back(g)), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)
