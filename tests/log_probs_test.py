"""Chunked log-probs against the dense twin: values, gradients, sharding and memory."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from lcrl.losses import tiles, triton_tiles
from lcrl.losses.log_probs import FIELDS, score_tokens, score_tokens_sharded
from lcrl.types import TokenScores
from tests import gpu


def dense_scores(hidden, head, targets, mask, *, temperature=1.0, soft_cap=None, vocab_size=None):
  """The readable twin: all logits at once, gradients left to JAX. Wants finite hidden."""
  logits = (hidden @ head)[..., : vocab_size or head.shape[-1]]
  if soft_cap is not None:
    logits = soft_cap * jnp.tanh(logits / soft_cap)
  log_p = jax.nn.log_softmax(logits / temperature)
  at = lambda x: jnp.take_along_axis(x, targets[..., None], axis=-1)[..., 0]
  scores = TokenScores(
    at(log_p),
    -jnp.sum(jnp.exp(log_p) * log_p, axis=-1),
    jax.nn.logsumexp(2 * log_p, axis=-1),
    at(logits),
  )
  return jax.tree.map(lambda x: jnp.where(mask, x, 0.0), scores)


def make_mesh(data=1, fsdp=1, tensor=1):
  names = ("data", "fsdp", "tensor")
  return jax.make_mesh((data, fsdp, tensor), names, axis_types=(AxisType.Auto,) * 3)


def example(shape, d=5, v=23, dtype=jnp.float32, seed=0):
  rng = np.random.default_rng(seed)
  hidden = jnp.asarray(rng.normal(size=(*shape, d)), dtype)
  head = jnp.asarray(rng.normal(size=(d, v)), dtype)
  targets = jnp.asarray(rng.integers(v, size=shape), jnp.int32)
  return hidden, head, targets, jnp.asarray(rng.random(shape) < 0.7)


@functools.partial(jax.jit, static_argnums=0)
def pull_back(score, hidden, head, targets, mask):
  """Scores, and the gradients of a fixed random combination of all of them."""
  scores, vjp = jax.vjp(lambda h, w: score(h, w, targets, mask), hidden, head)
  leaves, tree = jax.tree.flatten(scores)
  keys = jax.random.split(jax.random.key(9), len(leaves))
  cotangent = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
  return scores, vjp(jax.tree.unflatten(tree, cotangent))


def assert_close(got, expected, tolerance):
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
  "shape, chunks, knobs",
  [
    ((), (8192, 8192), {}),
    ((7,), (1, 1), {"temperature": 0.6}),
    ((3, 7), (6, 9), {"soft_cap": 2.0, "temperature": 1.3}),
    ((2, 3, 5), (6, 8), {"vocab_size": 17}),
  ],
)
def test_equals_the_dense_twin_in_float64(shape, chunks, knobs):
  with jax.enable_x64(True):
    hidden, head, targets, mask = example(shape, dtype=jnp.float64)
    args = hidden, head, targets % knobs.get("vocab_size", 23), mask
    expected = pull_back(functools.partial(dense_scores, **knobs), *args)
    sizes = {"token_chunk": chunks[0], "vocab_chunk": chunks[1]}
    got = pull_back(functools.partial(score_tokens, needs=FIELDS, **sizes, **knobs), *args)
    assert {x.dtype for x in jax.tree.leaves(got)} == {jnp.dtype("float64")}
    assert_close(got, expected, 1e-11)


@pytest.mark.parametrize("needs", [(), ("entropy",), ("logits_at", "log_sum_sq")])
def test_some_fields_alone(needs):
  args = example((3, 7))
  drop = {name: None for name in FIELDS[1:] if name not in needs}
  dense = lambda *a: dataclasses.replace(dense_scores(*a), **drop)
  score = functools.partial(score_tokens, needs=needs, token_chunk=6, vocab_chunk=8)
  assert_close(pull_back(score, *args), pull_back(dense, *args), 1e-5)


def test_extreme_logits_stay_finite():
  hidden, head, targets, mask = example((4, 6))
  score = functools.partial(score_tokens, needs=FIELDS, vocab_chunk=4)
  for scale in (1e3, -1e3, 0.0):
    got = pull_back(score, scale * hidden, head, targets, jnp.ones_like(mask))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(got))
  uniform = got[0]
  np.testing.assert_allclose(uniform.entropy, np.log(23), rtol=1e-6)
  np.testing.assert_allclose(uniform.log_sum_sq, -np.log(23), rtol=1e-6)


def test_nothing_behind_the_mask_is_seen():
  hidden, head, targets, mask = example((3, 7))
  score = functools.partial(score_tokens, needs=FIELDS, token_chunk=6, vocab_chunk=8)
  clean = pull_back(score, hidden, head, targets, mask)
  hidden = jnp.where(mask[..., None], hidden, jnp.nan)
  dirty = pull_back(score, hidden, head, jnp.where(mask, targets, -1), mask)
  assert_close(dirty, clean, 0.0)
  scores, (dhidden, _) = dirty
  assert all((np.asarray(x)[~np.asarray(mask)] == 0).all() for x in jax.tree.leaves(scores))
  assert (np.asarray(dhidden)[~np.asarray(mask)] == 0).all()
  assert_close(
    score(hidden, head, targets, jnp.zeros_like(mask)), TokenScores(*jnp.zeros((4, 3, 7))), 0.0
  )


def test_vmap_over_hidden_and_head_inside_scan():
  """The testbed vmaps whole programs over seeds."""
  runs = [example((3, 7), seed=s) for s in range(3)]
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *runs)
  score = functools.partial(score_tokens, needs=FIELDS, token_chunk=6, vocab_chunk=8)

  @jax.jit
  def twice(args):
    one = lambda _, x: (None, jax.vmap(functools.partial(pull_back, score))(*x))
    return jax.lax.scan(one, None, jax.tree.map(lambda x: jnp.stack([x, x]), args))[1]

  expected = [pull_back(dense_scores, *run) for run in runs]
  got = twice(stacked)
  for i, run in enumerate(expected):
    assert_close(jax.tree.map(lambda x, i=i: x[1, i], got), run, 1e-5)


def test_bfloat16_products_float32_sums():
  hidden, head, targets, mask = example((4, 50), d=64, v=1000, dtype=jnp.bfloat16)
  head = head / 8
  args = (hidden, head, targets, mask)
  exact = (hidden.astype(jnp.float32), head.astype(jnp.float32), targets, mask)
  expected, (want_hidden, want_head) = pull_back(dense_scores, *exact)
  score = functools.partial(score_tokens, needs=FIELDS, token_chunk=40, vocab_chunk=128)
  got, (dhidden, dhead) = pull_back(score, *args)
  assert got.log_probs.dtype == jnp.float32
  assert_close(got, expected, 2e-5)  # bfloat16 log-probs would be wrong by 3e-2
  assert dhidden.dtype == dhead.dtype == jnp.bfloat16
  for a, b in (dhidden, want_hidden), (dhead, want_head):
    error = np.abs(np.asarray(a, np.float32) - b)
    assert error.max() < 0.01 * np.abs(b).max()


def test_head_gradient_does_not_drift_over_chunks():
  """512 chunks that each add 1/256 to 1: in bfloat16 the sum would stay 1."""
  hidden = jnp.full((512, 1), 1 / 256, jnp.bfloat16).at[0].set(1.0)
  score = lambda w: score_tokens(
    hidden, w, jnp.zeros(512, jnp.int32), token_chunk=1
  ).log_probs.sum()
  dhead = jax.grad(score)(jnp.zeros((1, 2), jnp.bfloat16))
  np.testing.assert_allclose(dhead[0], np.array([1.5, -1.5]), rtol=0.01)


@pytest.mark.parametrize(
  "shape, chunks, split",
  [((8, 2, 7), (6, 8), (2, 2, 2)), ((16,), (4, 8192), (4, 2, 1)), ((3, 5), (3, 2), (1, 1, 8))],
)
def test_sharded_by_hand_equals_one_device(shape, chunks, split):
  mesh = make_mesh(*split)
  hidden, head, targets, mask = example(shape, v=24)
  knobs = {"vocab_size": 19, "temperature": 0.8, "soft_cap": 3.0}
  args = (jnp.where(mask[..., None], hidden, jnp.nan), head, targets % 19, mask)
  expected = pull_back(functools.partial(dense_scores, **knobs), hidden, *args[1:])
  rows = P(("data", "fsdp"))
  args = jax.device_put(
    args, tuple(NamedSharding(mesh, s) for s in (rows, P(None, "tensor"), rows, rows))
  )
  score = functools.partial(
    score_tokens_sharded, mesh=mesh, needs=FIELDS, token_chunk=chunks[0], vocab_chunk=chunks[1]
  )
  got = pull_back(functools.partial(score, **knobs), *args)
  assert_close(got, expected, 2e-5)


def test_kept_exponentials_give_the_same_gradients():
  """One product with the head less, and the same results, on one device and on eight."""
  hidden, head, targets, mask = example((8, 2, 7), v=24)
  args = (jnp.where(mask[..., None], hidden, jnp.nan), head, targets % 19, mask)
  knobs = {"vocab_size": 19, "temperature": 0.8, "needs": ("logits_at",)}
  knobs |= {"token_chunk": 24, "vocab_chunk": 8}
  plain, kept = (functools.partial(score_tokens, keep=keep, **knobs) for keep in (False, True))
  expected = pull_back(plain, *args)
  assert_close(pull_back(kept, *args), expected, 2e-6)
  products = lambda f: str(jax.make_jaxpr(functools.partial(pull_back, f))(*args)).count("dot_gen")
  assert products(kept) == products(plain) - 1 == 3
  mesh, rows = make_mesh(2, 2, 2), P(("data", "fsdp"))
  args = jax.device_put(
    args, tuple(NamedSharding(mesh, s) for s in (rows, P(None, "tensor"), rows, rows))
  )
  split = functools.partial(score_tokens_sharded, mesh=mesh, keep=True, **knobs)
  assert_close(pull_back(split, *args), expected, 2e-5)


def test_sharded_rows_are_never_gathered():
  mesh = make_mesh(data=4, fsdp=2)
  rows = NamedSharding(mesh, P(("data", "fsdp")))
  args = example((8, 2, 64), d=16, v=256)
  expected = pull_back(dense_scores, *args)
  args = jax.device_put(args, (rows, NamedSharding(mesh, P()), rows, rows))
  score = functools.partial(score_tokens, needs=FIELDS, token_chunk=128, vocab_chunk=64)
  compiled = pull_back.lower(score, *args).compile()
  text = compiled.as_text()
  assert "all-gather" not in text
  assert "all-to-all" not in text
  assert "collective-permute" not in text
  assert_close(compiled(*args), expected, 1e-4)


def test_sums_over_a_tile_read_once():
  """What NVIDIA runs, of all fields and of entries that do not count."""
  how = tiles.Settings(FIELDS, 1.0, None, 64, 64, 100)
  z = 5 * jax.random.normal(jax.random.key(0), (2, 3, 100)).at[..., 90:].set(tiles._FLOOR)
  z = z.at[0, 0].set(tiles._FLOOR)
  logit = jnp.where(jnp.arange(100) == 7, z, 0)
  got, (want, _) = tiles._sum_once(how, z, logit), tiles._sum_twice(how, z, logit)
  assert_close(got, want, 1e-6)


@pytest.mark.parametrize("seen, first", [(0, 0), (3, 90)])
def test_kept_in_one_reading(seen, first):
  """The kernel, interpreted; columns that count elsewhere, and beyond the vocabulary."""
  how = tiles.Settings(("log_probs",), 0.7, None, 64, 64, 120, keep=True)
  logits = 5 * jax.random.normal(jax.random.key(0), (2, 3, 40))
  target = jnp.array([[95, 7, 91], [0, 119, 3]])
  column = jnp.arange(40)[None, None]
  token = first + column
  counts = (column >= seen) & (token < 120)
  z = jnp.where(counts, logits / 0.7, tiles._FLOOR)
  logit = jnp.where(counts & (token == target[..., None]), logits, 0)
  want, e = tiles._sum_twice(how, z, logit)
  exps = jnp.full((4, 2, 3, 40), 9.0, jnp.bfloat16)
  limits = {"temperature": 0.7, "vocab_size": 120, "floor": tiles._FLOOR}
  place = jnp.array([2, first, seen])
  *got, kept = triton_tiles.keep(logits, target, place, exps, **limits, interpret=True)
  assert_close(got, want[:3], 1e-6)
  assert_close(
    kept.astype(jnp.float32), exps.at[2].set(e.astype(exps.dtype)).astype(jnp.float32), 0
  )


def test_nvidia_keeps_in_one_reading():
  hidden, head, targets, mask = example((4, 64), d=32, v=1000, dtype=jnp.bfloat16)
  score = functools.partial(score_tokens, token_chunk=64, vocab_chunk=384)

  def grads(keep):
    loss = lambda h, w: score(h, w, targets, mask, keep=keep).log_probs.sum()
    return gpu.lowered(jax.grad(loss, (0, 1)), hidden, head)

  assert "keep_exps" in grads(True)
  assert "keep_exps" not in grads(False)


def sizes(jaxpr):
  """Elements of every value that a program computes, inner programs included."""
  for equation in jaxpr.eqns:
    yield from (v.aval.size for v in equation.outvars)
    for inner in jaxprs_in_params(equation.params):
      yield from sizes(inner)


def test_logits_of_all_tokens_never_exist():
  tokens, v = 512, 1024
  args = example((4, tokens // 4), d=8, v=v)
  score = functools.partial(score_tokens, needs=FIELDS, token_chunk=64, vocab_chunk=128)

  def largest(score):
    return max(sizes(jax.make_jaxpr(functools.partial(pull_back, score))(*args).jaxpr))

  assert largest(dense_scores) == tokens * v  # what the walk would find
  assert largest(score) == max(64 * 128, args[1].size)
  kept = functools.partial(score_tokens, token_chunk=64, vocab_chunk=128, keep=True)
  alone = jax.make_jaxpr(kept)(*args)  # kept for a gradient only
  assert max(sizes(alone.jaxpr)) == max(64 * 128, args[1].size)
  compiled = [pull_back.lower(f, *args).compile() for f in (score, dense_scores)]
  ours, dense = (c.memory_analysis().temp_size_in_bytes for c in compiled)
  assert ours < 5 * 64 * 128 * 4 + 5 * args[1].nbytes < dense / 5


@pytest.mark.parametrize(
  "change, message",
  [
    ({"needs": ("ref",)}, "needs.*ref"),
    ({"temperature": 0.0}, "temperature.*0.0"),
    ({"soft_cap": -1.0}, "soft_cap.*-1.0"),
    ({"token_chunk": 0}, "token_chunk.*0"),
    ({"keep": True, "soft_cap": 3.0}, "keep.*soft_cap=3.0"),
    ({"keep": True, "needs": ("entropy",)}, "keep.*entropy"),
    ({"vocab_chunk": -2}, "vocab_chunk.*-2"),
    ({"vocab_size": 24}, "vocab_size.*24"),
    ({"mask": jnp.ones(4, bool)}, r"\(3,\).*\(4,\)"),
    ({"head": jnp.ones((4, 9))}, r"head.*\(4, 9\)"),
  ],
)
def test_bad_input(change, message):
  names = ("hidden", "head", "targets", "mask")
  args = dict(zip(names, example((3,)), strict=True)) | change
  with pytest.raises(ValueError, match=message):
    score_tokens(**args)


def test_what_does_not_divide_is_refused():
  mesh = make_mesh(data=4, tensor=2)
  with pytest.raises(ValueError, match="23"):
    score_tokens_sharded(*example((4, 2)), mesh=mesh)
  with pytest.raises(ValueError, match="hidden"):
    score_tokens_sharded(*example((3, 2), v=24), mesh=mesh)


def test_windows_cover_an_axis_once():
  for size in range(1, 40):
    for chunk in range(1, 45):
      width, (starts, seen) = tiles.windows(size, chunk)
      assert width <= chunk
      fresh = [i for s, k in zip(starts, seen, strict=True) for i in range(s + k, s + width)]
      assert fresh == list(range(size)), (size, chunk)
