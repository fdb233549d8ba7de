"""The attention kernels, interpreted, against the plain twin: values and gradients."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.mesh import make_mesh, replicated
from lcrl.policies.attention import attention, blocked, segment_spans, triton, xla
from lcrl.policies.attention.devices import block_width, per_device
from lcrl.policies.attention.spans import visible_keys
from lcrl.policies.attention.triton import Settings, Tile
from tests import gpu

LENGTH = 40  # no multiple of a tile
SEGMENTS = jnp.repeat(jnp.arange(3), jnp.array([5, 25, 10]))[None]
BRANCHES = jnp.repeat(jnp.array([0, 0, 1, 2, 1, 3]), jnp.array([5, 8, 10, 7, 4, 6]))[None]
SPANS = {
  "whole rows": None,
  "packed": segment_spans(SEGMENTS),
  "branches": segment_spans(SEGMENTS, BRANCHES),  # the last segment has no stem
}
SETTINGS = Settings(Tile(16, 8, 4, 2), Tile(8, 16, 4, 2), Tile(16, 8, 4, 2), interpret=True)


def _both_passes(attend, *more):
  q, k, v, g = (
    jax.random.normal(jax.random.key(i), (1, LENGTH, n, 8)) for i, n in enumerate((9, 3, 3, 9))
  )

  @jax.jit
  def run(*args):
    out, back = jax.vjp(attend, *args)
    return out, *back(g)

  return run(q, k, v, *more)


ROWS = pytest.mark.parametrize(
  "rows, window, softcap",
  [
    ("whole rows", None, None),
    ("packed", None, None),
    ("branches", None, 3.0),
    ("branches", 6, None),
  ],
)


@ROWS
@pytest.mark.parametrize("unmasked", [True, False])
def test_triton_equals_the_twin(rows, window, softcap, unmasked):
  options = {"spans": SPANS[rows], "window": window, "softcap": softcap, "scale": 0.5}
  settings = SETTINGS._replace(unmasked=unmasked)
  got = _both_passes(partial(triton.attend, settings=settings, **options))
  want = _both_passes(partial(attention, **options))
  for a, b in zip(got, want, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


@ROWS
def test_blocks_equal_the_twin(rows, window, softcap):
  spans = SPANS[rows]

  def run(q, k, v):
    visible = visible_keys(jnp.arange(LENGTH)[None], spans, window)
    return blocked.attend(q, k, v, visible, softcap, 0.5, width=8)

  got = _both_passes(run)
  want = _both_passes(partial(attention, spans=spans, window=window, softcap=softcap, scale=0.5))
  for a, b in zip(got, want, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("blocks", [False, True])
@ROWS
def test_a_sink_is_a_key_whose_value_is_zero(rows, window, softcap, blocks):
  """In the softmax beside keys that are seen; values and gradients, that of the sink included."""
  spans, scale = SPANS[rows], 0.5
  visible = visible_keys(jnp.arange(LENGTH)[None], spans, window)
  sinks = jnp.linspace(-2.0, 3.0, 9)

  def padded(q, k, v, sinks):
    """A first key that all see, whose product with a query is the sink."""
    logits = jnp.einsum("rtkgh,rskh->rkgts", q.reshape(1, LENGTH, 3, 3, 8), k) * scale
    logits = logits if softcap is None else softcap * jnp.tanh(logits / softcap)
    key = jnp.arange(LENGTH)[None, None]
    seen = (key <= visible.position[..., None]) & (key >= visible.first[..., None])
    if visible.stem is not None:
      seen |= (key >= visible.stem[..., None]) & (key < visible.fork[..., None])
    logits = jnp.where(seen[:, None, None], logits, -jnp.inf)
    first = jnp.broadcast_to(sinks.reshape(3, 3, 1, 1), (1, 3, 3, LENGTH, 1))
    probs = jax.nn.softmax(jnp.concatenate([first, logits], -1), -1)[..., 1:]
    return jnp.einsum("rkgts,rskh->rtkgh", probs, v).reshape(q.shape)

  def run(q, k, v, sinks):
    if blocks:
      return blocked.attend(q, k, v, visible, softcap, scale, width=8, sinks=sinks)
    return attention(q, k, v, spans=spans, window=window, softcap=softcap, scale=scale, sinks=sinks)

  got, want = (_both_passes(f, sinks) for f in (run, padded))
  assert np.abs(got[-1]).min() > 1e-3
  for a, b in zip(got, want, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("backend", ["cudnn", "triton", "splash"])
def test_only_plain_attention_has_sinks(backend):
  x = jnp.ones((1, 4, 2, 64), jnp.bfloat16)
  with pytest.raises(ValueError, match=f"back end '{backend}' does not support sinks"):
    attention(x, x, x, sinks=jnp.zeros(2), backend=backend)


def test_cudnn_gets_scale_and_window(monkeypatch):
  """Its kernel needs a GPU; XLA computes the same call here."""
  call = jax.nn.dot_product_attention
  plain = lambda *args, implementation, **options: call(*args, **options, implementation="xla")
  monkeypatch.setattr(jax.nn, "dot_product_attention", plain)
  shapes = [(2, 9, heads, 64) for heads in (4, 2, 2)]
  q, k, v = (jax.random.normal(jax.random.key(i), s, jnp.bfloat16) for i, s in enumerate(shapes))
  got, want = (
    attention(q, k, v, window=4, scale=0.3, backend=name).astype(jnp.float32)
    for name in ("cudnn", "xla")
  )
  np.testing.assert_allclose(got, want, atol=0.05)


def test_long_rows_go_in_blocks():
  length = block_width()[1] + 3  # no multiple of a block
  shapes = [(2, 1, length, heads, 4) for heads in (4, 2, 2)]
  q, k, v = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
  position = jnp.broadcast_to(jnp.arange(length), (2, 1, length))
  spans = segment_spans(position // 50)
  want = xla.dense(q, k, v, visible_keys(position, spans, None), None, 4**-0.5)
  np.testing.assert_allclose(attention(q, k, v, spans=spans), want, atol=1e-5)
  assert "while" in jax.jit(attention).lower(q, k, v).as_text()


@pytest.mark.parametrize(
  "segments, branches, want",
  [
    ([0, 1, 2], None, [(0, 0), (1, 1), (2, 2)]),
    ([0, 0, 0], None, [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]),
    ([0, 0, 0], [0, 1, 2], [(0, 0), (1, 0), (1, 1), (2, 0), (2, 2)]),
  ],
)
def test_blocks_are_computed_where_one_sees_the_other(segments, branches, want):
  rows = lambda blocks: blocks and jnp.repeat(jnp.array([blocks]), 8, axis=1)
  position = jnp.arange(24)[None]
  visible = visible_keys(position, segment_spans(rows(segments), rows(branches)), None)
  pairs = blocked.Pairs.of(jax.tree.map(lambda x: x.reshape(3, 1, 8), visible), 3)
  assert list(zip(*(x[: pairs.number].tolist() for x in pairs[:2]), strict=True)) == want


@pytest.mark.parametrize("window", [None, 4])
def test_branches_equal_rows_of_their_own(window):
  """Two sequences that begin with the same three tokens, as one row and as two."""
  policy = policies.make(policies.tiny(11, windows=None if window is None else (window, None)))
  params = policy.init(jax.random.key(0))
  tokens = jnp.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8, 9]])
  want = policy.apply(params, tokens)
  got = policy.apply(
    params,
    jnp.concatenate([tokens[0], tokens[1, 3:]]),
    jnp.array([0, 1, 2, 3, 4, 5, 3, 4, 5]),
    jnp.zeros(9, int),
    jnp.array([0, 0, 0, 1, 1, 1, 2, 2, 2]),
  )
  np.testing.assert_allclose(got[:6], want[0], atol=3e-5)
  np.testing.assert_allclose(got[6:], want[1, 3:], atol=3e-5)


def test_unrolled_layers_are_the_scanned_ones():
  config = policies.tiny(11, windows=(4, None), remat="dots")
  tokens = jnp.arange(16).reshape(2, 8) % 11
  params = policies.make(config).init(jax.random.key(0))

  def gradient(config):
    loss = lambda params: jnp.sum(policies.make(config).apply(params, tokens) ** 2)
    return jax.grad(loss)(params)

  got, want = gradient(dataclasses.replace(config, unroll=True)), gradient(config)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want)


@pytest.mark.parametrize("traced", [False, True])
def test_a_kernel_on_a_mesh_sees_its_own_rows_and_heads(traced):
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  whole = lambda x: jax.device_put(x, replicated(mesh))
  q, k, v = (jax.random.normal(jax.random.key(i), (4, 16, n, 8)) for i, n in enumerate((4, 2, 2)))
  spans = segment_spans(jnp.broadcast_to(jnp.arange(16)[None] // 6, (4, 16)))
  window = whole(jnp.int32(4)) if traced else 4
  shapes = []

  def kernel(q, k, v, **options):
    shapes.append((q.shape, k.shape))
    return xla.attend(q, k, v, **options)

  run = partial(per_device(kernel), index=None, window=window, softcap=None, scale=8**-0.5)
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    got = jax.jit(lambda q, k, v, spans: run(q, k, v, spans=spans))(*whole((q, k, v, spans)))
  np.testing.assert_allclose(got, attention(q, k, v, spans=spans, window=4), atol=1e-5)
  assert shapes == [((1, 16, 2, 8), (1, 16, 1, 8))]


@pytest.mark.parametrize("size, cut", [(64, False), (128, True)])
def test_triton_is_lowered_for_nvidia_without_one(size, cut):
  """With the tiles that are taken there; both passes, on whole rows and on half of the queries."""

  def gradient(q, k, v, ids, index):
    options = {"index": index, "window": None, "softcap": None, "scale": 0.1}
    run = lambda *x: triton.attend(*x, spans=segment_spans(ids, ids), **options)
    total = lambda *x: run(*x).astype(jnp.float32).sum()
    return jax.grad(total, (0, 1, 2))(q, k, v)  # all: newer JAX drops a kernel that nothing reads

  numbers = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32)
  array = lambda length, heads: jax.ShapeDtypeStruct((1, length, heads, size), jnp.bfloat16)
  queries, index = (512, numbers(512)) if cut else (1024, None)
  args = array(queries, 6), array(1024, 2), array(1024, 2), numbers(1, 1024), index
  text = gpu.lowered(gradient, *args)
  assert all(f"attention_{kernel}" in text for kernel in ("forward", "queries", "keys"))
