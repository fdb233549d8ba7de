"""The kernels of decoding against their plain twins, interpreted; and lowered for a GPU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.policies import cache as plain
from lcrl.policies import decoding, products, triton_decode, triton_products
from lcrl.policies.block import rotation

H, K, PLACES, ASKED = 32, 2, 70, 40


def attention_case(rows=8, prompts=2, group=3, cache_dtype=None, window=None):
  """Arguments of `attend`: own lengths from 0 to all but one place, one row that is not live."""
  c = policies.tiny(8, heads=K * group, kv_heads=K, head_dim=H, dtype="bfloat16")
  keys = iter(jax.random.split(jax.random.key(0), 9))
  normal = lambda *shape: jax.random.normal(next(keys), shape, jnp.bfloat16)
  at = jnp.asarray(np.linspace(0, PLACES - 1, rows), jnp.int32)
  live = jnp.arange(rows) != 3
  like = plain.init_cache(c, 1, 1, cache_dtype)[0]
  slot = lambda n, length: plain.pack(normal(n, K, length, H), normal(n, K, length, H), like)
  own = slot(rows, PLACES)
  prompt = slot(prompts, ASKED) if prompts else None
  seen = jnp.asarray(np.linspace(7, ASKED, prompts), jnp.int32) if prompts else None
  before = 0 if seen is None else jnp.repeat(seen, rows // prompts)
  turn = rotation(c, (before + at)[:, None])
  return c, normal(rows, K, group + 2, H), turn, own, at, live, prompt, seen, window


@pytest.mark.parametrize(
  "case,keys",
  [
    ({}, 16),
    ({"prompts": 8}, 128),  # nobody shares
    ({"prompts": None, "window": 9}, 32),
    ({"window": 20, "group": 1}, 64),
    ({"cache_dtype": "int8"}, 128),
  ],
)
def test_attention_equals_its_twin(case, keys):
  args = attention_case(**case)
  run = lambda f: jax.jit(f, static_argnums=(0, 8))(*args)
  tiles = triton_decode.Tiles(keys=keys)
  got, kept = run(partial(triton_decode.attend, tiles=tiles, interpret=True))
  want, wanted = run(plain.attend)
  live = np.asarray(args[5])
  wide = lambda x: np.asarray(x, np.float32)[live]
  np.testing.assert_allclose(wide(got), wide(want), atol=0.05 if "cache_dtype" in case else 0.02)
  for name, x in wanted.items():
    np.testing.assert_allclose(wide(kept[name]), wide(x), atol=1 if x.dtype == jnp.int8 else 1e-6)


def test_attention_reads_nothing_behind_a_row():
  """Garbage in dead places, in dead rows and behind prompts changes nothing."""
  c, qkv, turn, own, at, live, prompt, seen, window = attention_case()
  attend = jax.jit(partial(triton_decode.attend, interpret=True), static_argnums=(0, 8))
  want, _ = attend(c, qkv, turn, own, at, live, prompt, seen, window)
  dead = (jnp.arange(PLACES)[None] >= at[:, None]) | ~live[:, None]
  spoil = lambda x, where: jnp.where(where[:, None, :, None], jnp.nan, x)
  own = {name: spoil(x, dead) for name, x in own.items()}
  prompt = {name: spoil(x, jnp.arange(ASKED)[None] >= seen[:, None]) for name, x in prompt.items()}
  got, _ = attend(c, qkv, turn, own, at, live, prompt, seen, window)
  np.testing.assert_array_equal(np.asarray(got)[live], np.asarray(want)[live])


def product_case(rows=48, dtype="bfloat16", hidden=128):
  keys = iter(jax.random.split(jax.random.key(1), 6))
  normal = lambda *shape: (jax.random.normal(next(keys), shape) * shape[0] ** -0.5).astype(dtype)
  scale = 1 + jax.random.normal(next(keys), (hidden,)) / 4
  x = normal(rows, hidden) * 30
  return scale, x, normal(hidden, 2, 4, 32), normal(hidden, 2, 192), normal(192, hidden)


@pytest.mark.parametrize("rows,tiles", [(48, (64, 64)), (64, (32, 32))])
def test_products_equal_their_twins(rows, tiles):
  """A norm's rounding differs: they scale before they divide."""
  scale, x, qkv, gate_up, down = product_case(rows)
  options = {"tiles": triton_products.Tiles(*tiles), "interpret": True}
  wide = lambda y: np.asarray(y, np.float32)
  pairs = [
    (f(1e-5, scale, x, w, **options), g(1e-5, scale, x, w))
    for f, g, w in (
      (triton_products.read, products.read, qkv),
      (triton_products.gate, products.gate, gate_up),
    )
  ]
  y = pairs[1][1]
  pairs.append((triton_products.add(x, y, down, **options), products.add(x, y, down)))
  for got, want in pairs:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    np.testing.assert_allclose(wide(got), wide(want), atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
  "case", [{"dtype": "float32"}, {"rows": 6}, {"hidden": 96}, {"hidden": 1088}]
)
def test_products_leave_other_shapes_to_xla(case):
  """A kernel that ran here would fail: there is no GPU."""
  scale, x, qkv, gate_up, down = product_case(**case)
  y = triton_products.gate(1e-5, scale, x, gate_up)
  np.testing.assert_array_equal(y, products.gate(1e-5, scale, x, gate_up))
  np.testing.assert_array_equal(
    triton_products.read(1e-5, scale, x, qkv), products.read(1e-5, scale, x, qkv)
  )
  np.testing.assert_array_equal(triton_products.add(x, y, down), products.add(x, y, down))


@pytest.mark.parametrize("cache_dtype", [None, "int8"])
def test_a_token_is_five_kernels_a_layer(cache_dtype):
  """Lowered for a GPU, which none needs to be there for."""
  c = policies.tiny(64, hidden_size=128, head_dim=32, dtype="bfloat16", decoding="fused")
  policy = policies.make(c)
  shapes = partial(jax.eval_shape, policy.init)(jax.random.key(0))
  copy = jax.eval_shape(policy.unstack, shapes)
  cache = jax.eval_shape(partial(policy.init_cache, 32, 64, cache_dtype))
  row = jax.ShapeDtypeStruct((32,), jnp.int32)
  lowered = policy.decode.trace(copy, row, row, cache).lower(lowering_platforms=("cuda",))
  text = lowered.as_text()
  assert text.count('kernel_name = "decode_product"') + text.count("decode_product") >= 4
  assert decoding.PRODUCTS["fused"] is triton_products.TRITON
