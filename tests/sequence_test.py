"""Rows cut along the sequence axis: values and gradients are those of one device."""

import dataclasses
import json
import re
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.mesh import batch_sharding, batch_shards, make_mesh, param_shardings, replicated
from lcrl.policies.attention import attention, segment_spans, sequence, triton, xla
from lcrl.policies.attention.devices import per_device
from lcrl.training.automatic import check_sequence
from lcrl.training.loop import train
from lcrl.training.packed import arranged
from lcrl.training.packing import Sizes, rounded
from lcrl.training.reward_model import run as reward_model
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from lcrl.training.scorer import make_scorer, value_and_grad
from tests.helpers import pair_runs
from tests.helpers.rl_runs import changed, final_state
from tests.helpers.scoring import (
  LOSSES,
  PARAMS,
  POLICY,
  make_batch,
  make_recipe,
  with_prompts,
)
from tests.helpers.slow import slow

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
    slow({"data": 2, "fsdp": 2, "sequence": 2}, {}, "surrogate", 1),
    slow({"fsdp": 2, "sequence": 4}, {"windows": (3, None)}, "surrogate", 2),
    ({"fsdp": 1, "sequence": 8}, {"windows": (5, 5), "unroll": True, "remat": "dots"}, "drpo", 1),
    slow({"fsdp": 2, "sequence": 2, "tensor": 2}, {}, "drpo", 2),
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


@pytest.mark.slow
def test_a_run_learns_what_it_learns_on_one_device(tmp_path):
  """It samples on all devices, trains on cut rows, and starts again from its checkpoint."""
  learned = []
  for name, axes in (("one", {"devices": 1}), ("cut", {"sequence": 2, "fsdp": 2, "devices": 4})):
    mesh = {"data": 1, "fsdp": 1} | axes
    config = changed(mesh=mesh, train__steps=1, train__prompts=4, checkpoint__every=1)
    train(config, tmp_path / name)
    learned.append(final_state(tmp_path / name, config).params)
    chosen = json.loads((tmp_path / name / "config.json").read_text())["chosen"]
    assert chosen["train.pack"] == {"one": None, "cut": 128}[name]
  jax.tree.map(partial(np.testing.assert_allclose, atol=2e-4), *learned)
  spec = learned[1]["layers"]["query"]["kernel"].sharding.spec
  assert ("fsdp", "sequence") in spec  # both share the parameters
  config["train"]["steps"] = 2
  train(config, tmp_path / "cut")


@pytest.mark.slow
def test_pairs_are_learned_from_as_on_one_device(tmp_path):
  """Adapters, a reference and answers of the policy's own, on cut rows."""
  rows = tmp_path / "rows.jsonl"
  words = [f"word {i}" for i in range(24)]
  pairs = [
    {"prompt": w, "chosen": w + " yes", "rejected": "no " * (1 + i % 8)}
    for i, w in enumerate(words, 1)
  ]
  rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
  learned = []
  for name, axes in (("one", {"devices": 1}), ("cut", {"sequence": 2, "fsdp": 2, "devices": 4})):
    mesh = {"data": 1, "fsdp": 1} | axes
    config = pair_runs.changed(str(rows), mesh=mesh, train__steps=1, checkpoint__every=1)
    train(config, tmp_path / name)
    learned.append(pair_runs.final_state(tmp_path / name, config).params)
  jax.tree.map(partial(np.testing.assert_allclose, atol=2e-4), *learned)


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"train__pack": 42}, r"train\.pack must be a multiple of 2 \* mesh\.sequence = 8, got 42; 48"),
    (
      {"policy__attention": "cudnn"},
      r"policy\.attention='cudnn' cannot .* mesh\.sequence=4: xla and",
    ),
    ({"policy__attention": "splash"}, r"policy\.attention='splash' cannot cut rows"),
    (
      {"train__prompts": 6},
      r"train\.prompts must be a multiple .* mesh\.sequence, .*; 4 or 8 would",
    ),
  ],
)
def test_an_axis_that_a_run_cannot_use_is_refused(fields, message):
  config = changed(mesh={"data": 1, "fsdp": 1, "sequence": 4, "devices": 4}, **fields)
  with pytest.raises(ValueError, match=message):
    build_learner(read(config))


def test_rows_that_are_not_packed_and_reward_models_are_not_cut():
  config = changed(mesh={"data": 1, "fsdp": 1, "sequence": 4, "devices": 4})
  config["train"]["pack"] = None
  with pytest.raises(ValueError, match=r"mesh\.sequence=4 cuts packed rows: train\.pack must be"):
    build_learner(read(config))
  mesh = SimpleNamespace(shape={"sequence": 3})
  with pytest.raises(ValueError, match=r"mesh\.sequence must divide 256, got 3"):
    check_sequence(mesh, 96)
  settings = SimpleNamespace(mesh=SimpleNamespace(sequence=2))
  with pytest.raises(ValueError, match=r"mesh\.sequence must be 1 for a reward model, got 2"):
    reward_model.build_learner(settings)


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
