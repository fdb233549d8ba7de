"""Splash attention, interpreted, against the plain twin: values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.mesh import BATCH, batch_sharding, make_mesh
from lcrl.policies.attention import attention, segment_spans, splash, xla
from lcrl.policies.attention.devices import per_device

LENGTH = 150  # more than a block of 128, and no multiple
SEGMENTS = jnp.repeat(jnp.arange(4), jnp.array([5, 90, 45, 10]))[None]  # one across both blocks


@pytest.mark.parametrize("packed, window", [(True, None), (False, 20), (True, 20)])
def test_splash_equals_the_twin(packed, window, monkeypatch):
  monkeypatch.setattr(splash, "BLOCKS", (128,))
  keys = jax.random.split(jax.random.key(0), 4)
  q, k, v, g = (
    jax.random.normal(key, (1, LENGTH, n, 64)) for key, n in zip(keys, (9, 3, 3, 9), strict=True)
  )
  spans = segment_spans(SEGMENTS) if packed else None

  @partial(jax.jit, static_argnums=0)
  def both_passes(attend, q, k, v):
    out, back = jax.vjp(partial(attend, spans=spans, window=window), q, k, v)
    return out, *back(g)

  got = both_passes(
    partial(splash.attend, index=None, softcap=None, scale=0.2, interpret=True), q, k, v
  )
  for a, b in zip(got, both_passes(partial(attention, scale=0.2), q, k, v), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("tensor", [1, 2])
def test_a_kernel_inside_a_split_program_splits_what_is_left(tensor):
  """The sampler, which reads prompts with it, is split over data and fsdp as a whole."""
  mesh = make_mesh(data=2, fsdp=4 // tensor, tensor=tensor)
  q, k, v = (jax.random.normal(jax.random.key(i), (8, 16, n, 8)) for i, n in enumerate((4, 2, 2)))
  shapes = []

  def kernel(q, k, v, **options):
    shapes.append((q.shape, k.shape))
    return xla.attend(q, k, v, **options)

  run = partial(
    per_device(kernel), index=None, spans=None, window=None, softcap=None, scale=8**-0.5
  )
  names = set(mesh.axis_names) if tensor == 1 else {"data", "fsdp"}
  split = jax.shard_map(
    run, mesh=mesh, in_specs=BATCH, out_specs=BATCH, axis_names=names, check_vma=False
  )
  got = jax.jit(split)(*jax.device_put((q, k, v), batch_sharding(mesh)))
  np.testing.assert_allclose(got, attention(q, k, v), atol=1e-5)
  assert shapes == [((tensor, 16, 4 // tensor, 8), (tensor, 16, 2 // tensor, 8))]
